"""A real Slurm on this machine alone, for tests: simulated nodes, loopback, no systemd.

    python tests/hpc/slurm.py up DIR [--nodes 4] [--slots 4]
    python tests/hpc/slurm.py down DIR

``. DIR/env.sh`` then makes sbatch and the others use it. Debian's packages are installed where they
are missing and we are root. DIR is a short path of plain characters (there are sockets in it).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

#: A command of each package that is needed.
PACKAGES = {
    "munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client",
}  # fmt: skip

CONFIGURATION = """\
ClusterName=tests
SlurmctldHost={host}({address})
SlurmctldPort={port}
SlurmdPort={first_node_port}
# Nobody but this machine is to reach the daemons.
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
# A requeued job waits for cred_expire seconds.
AuthInfo=socket={dir}/munge.sock,cred_expire=10
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool-%n
SlurmctldPidFile={dir}/slurmctld.pid
SlurmdPidFile={dir}/slurmd-%n.pid
SlurmctldLogFile={dir}/slurmctld.log
SlurmdLogFile={dir}/slurmd-%n.log
# No cgroups, no accounting: plain processes.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=256
# The CPUs that are declared count, not those that there are.
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
ReturnToService=2
KillWait=5
SlurmctldTimeout=30
SlurmdTimeout=30
InactiveLimit=0
Waittime=0
{nodes}
PartitionName=main Nodes={names} Default=YES DefaultTime=30 MaxTime=INFINITE State=UP
"""


class NoSlurmError(Exception):
    """Slurm cannot be installed, or does not come up."""


class Slurm:
    """A cluster in a folder of its own.

    Parameters
    ----------
    folder : Path
    nodes, slots : int
        Simulated nodes, and CPUs that each declares.
    """

    def __init__(self, folder: Path, *, nodes: int = 4, slots: int = 4) -> None:
        if len(str(folder)) > 60 or not re.fullmatch(r"[\w./+-]+", str(folder)):
            raise NoSlurmError(f"{folder}: give a path of at most 60 plain characters")
        self.folder = folder
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.slots = slots
        self.conf = folder / "slurm.conf"

    @property
    def env(self) -> dict[str, str]:
        """The environment in which Slurm's commands use this cluster."""
        path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
        return os.environ | {"SLURM_CONF": str(self.conf), "PATH": path}

    def run(self, *command: str, check: bool = True) -> str:
        """Run one of Slurm's commands; its output."""
        done = subprocess.run(
            command, env=self.env, capture_output=True, text=True, timeout=60, check=False
        )
        if check and done.returncode != 0:
            raise NoSlurmError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def jobs(self, state: str = "") -> list[str]:
        """Ids of the jobs that wait or run, in one state if that is given."""
        asked = ["squeue", "--noheader", "--format=%i", *([f"--states={state}"] if state else ())]
        return self.run(*asked).split()

    # ---- up -----------------------------------------------------------------------------------

    def up(self) -> None:
        """Install what is missing, and start munged, slurmctld, and a slurmd for each node."""
        install(self.env)
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.folder / "state", ignore_errors=True)
        (self.folder / "state").mkdir()
        self._configure()
        key = self.folder / "munge.key"
        if not key.exists():
            key.touch(mode=0o600)
            key.write_bytes(os.urandom(128))
        d = self.folder
        self._start(
            "munged", "--force", f"--key-file={key}", f"--socket={d}/munge.sock",
            f"--pid-file={d}/munged.pid", f"--log-file={d}/munged.log",
            f"--seed-file={d}/munge.seed",
        )  # fmt: skip
        self._wait("munged", lambda: self.run("munge", "-n", "-S", f"{d}/munge.sock"))
        self._start("slurmctld", "-f", str(self.conf))
        for node in self.nodes:
            self.start_node(node)
        self._wait("all nodes idle", self._all_idle)

    def _configure(self) -> None:
        host = socket.gethostname().partition(".")[0]
        try:
            address = socket.gethostbyname(host)
        except OSError:
            raise NoSlurmError(f"put '127.0.0.1 {host}' into /etc/hosts") from None
        port = free_ports(address, 1 + len(self.nodes))
        lines = [
            f"NodeName={node} NodeHostname={host} NodeAddr={address} Port={port + 1 + number} "
            f"CPUs={self.slots} RealMemory={2048 * self.slots} State=UNKNOWN"
            for number, node in enumerate(self.nodes)
        ]
        self.conf.write_text(
            CONFIGURATION.format(
                host=host, address=address, port=port, first_node_port=port + 1, dir=self.folder,
                user=os.environ.get("USER") or psutil.Process().username(),
                nodes="\n".join(lines), names=",".join(self.nodes),
            )
        )  # fmt: skip
        (self.folder / "env.sh").write_text(f"export SLURM_CONF={self.conf}\n")

    def start_node(self, node: str) -> None:
        """Start a node's slurmd."""
        (self.folder / f"spool-{node}").mkdir(exist_ok=True)
        self._start("slurmd", "-f", str(self.conf), "-N", node)

    def _start(self, *command: str) -> None:
        """Start a daemon; it goes into the background by itself."""
        with open(self.folder / "start.log", "a") as log:
            done = subprocess.run(
                command, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False
            )
        if done.returncode != 0:
            raise NoSlurmError(f"{command[0]} did not start: {self._log()}")

    def _wait(self, what: str, there: Callable[[], object], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(NoSlurmError, FileNotFoundError):
                if there():
                    return
            if time.monotonic() > end:
                raise NoSlurmError(f"{what}: not within {seconds:g} s: {self._log()}")
            time.sleep(0.1)

    def _all_idle(self) -> bool:
        states = self.run("sinfo", "--noheader", "-N", "--partition=main", "--format=%t").split()
        return states == ["idle"] * len(self.nodes)

    def _log(self) -> str:
        logs = sorted(self.folder.glob("*.log"))
        return " | ".join(line for log in logs for line in log.read_text().splitlines()[-5:])

    # ---- down ---------------------------------------------------------------------------------

    def fail_node(self, node: str) -> None:
        """A node is gone from one moment to the next: its slurmd, its jobs, and what tends them."""
        doomed = [process for process in self._processes() if env_of(process, NODE) == node]
        keepers = [parent for process in doomed if (parent := tender(process)) is not None]
        self._stop_daemon(f"slurmd-{node}", signal.SIGKILL)
        end([*doomed, *keepers], signal.SIGKILL)

    def down(self) -> None:
        """Cancel all jobs and stop all daemons; also what is left of an earlier process's."""
        if self.conf.exists() and (self.folder / "slurmctld.pid").exists():
            with contextlib.suppress(NoSlurmError, subprocess.TimeoutExpired, FileNotFoundError):
                if jobs := self.jobs():
                    self.run("scancel", *jobs, check=False)
                    self._wait("no jobs", lambda: not self.jobs(), 15)
        for daemon in (*(f"slurmd-{node}" for node in self.nodes), "slurmctld", "munged"):
            self._stop_daemon(daemon, signal.SIGTERM)
        end(list(self._processes()), signal.SIGKILL)

    def _stop_daemon(self, name: str, how: signal.Signals) -> None:
        pid_file = self.folder / f"{name}.pid"
        with contextlib.suppress(OSError, ValueError, psutil.NoSuchProcess):
            process = psutil.Process(int(pid_file.read_text()))
            if process.name() == name.partition("-")[0]:
                end([process], how)
        pid_file.unlink(missing_ok=True)

    def _processes(self) -> Iterator[psutil.Process]:
        """What this cluster's jobs have started."""
        for process in psutil.process_iter():
            if env_of(process, "SLURM_CONF") == str(self.conf) and env_of(process, NODE):
                yield process


#: Names the node in a job's environment.
NODE = "SLURMD_NODENAME"


def env_of(process: psutil.Process, name: str) -> str:
    """A variable of a process's environment."""
    try:
        return process.environ().get(name, "")
    except (psutil.Error, OSError):
        return ""


def tender(process: psutil.Process) -> psutil.Process | None:
    """The slurmstepd right above a process."""
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = process.parent()
        if parent is not None and parent.name() == "slurmstepd":
            return parent
    return None


def end(processes: list[psutil.Process], how: signal.Signals) -> None:
    """Send a signal; kill what is still there after a while."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(how)
    limit = time.monotonic() + 10
    while any(map(runs, processes)) and time.monotonic() < limit:
        time.sleep(0.05)
    for process in filter(runs, processes):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def runs(process: psutil.Process) -> bool:
    """Whether it is there; one that nobody has buried (in a container without init) is not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def free_ports(address: str, count: int) -> int:
    """The first of so many free ports in a row, below those that are handed out."""
    for _ in range(100):
        first = random.randrange(20_000, 32_000)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.socket()).bind((address, port))
            return first
    raise NoSlurmError("no free ports")


def install(env: dict[str, str]) -> None:
    """Install Debian's packages where they are missing.

    Raises
    ------
    NoSlurmError
    """
    missing = [p for command, p in PACKAGES.items() if not shutil.which(command, path=env["PATH"])]
    if not missing:
        return
    wanted = " ".join(missing)
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise NoSlurmError(f"not installed: {wanted} (as root on Debian they would be)")
    # dpkg would start the daemons with a configuration that is not ours.
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        get = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
        for command in (get, ["apt-get", "update", "-qq"], get):
            done = subprocess.run(
                command, env=env | {"DEBIAN_FRONTEND": "noninteractive"}, capture_output=True,
                text=True, stdin=subprocess.DEVNULL, check=False, timeout=600,
            )  # fmt: skip
            if command is get and done.returncode == 0:
                return
        raise NoSlurmError(f"apt-get could not install {wanted}: {done.stderr.strip()[-300:]}")
    finally:
        if ours:
            policy.unlink()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("up", "down"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--slots", type=int, default=4, help="CPUs of each node")
    args = parser.parse_args()
    slurm = Slurm(args.folder.resolve(), nodes=args.nodes, slots=args.slots)
    try:
        getattr(slurm, args.what)()
    except NoSlurmError as error:
        sys.exit(f"slurm: {error}")
    if args.what == "up":
        print(f"up: {args.nodes} nodes of {args.slots} slots; . {slurm.folder}/env.sh")


if __name__ == "__main__":
    main()
