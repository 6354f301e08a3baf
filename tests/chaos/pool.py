"""The workers that all runs share, one more that a run may ask for, and the clients in processes.

Processes are forked from the server that approxifer's own local clusters use, so that a worker or a
client is there in a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

import psutil
from distributed import Client, LocalCluster, Nanny, Scheduler, Worker

from approxifer.pipeline import faults
from approxifer.pipeline.cluster.local import local_cluster
from chaos.proxy import Network, free_port
from chaos.schedule import WORKERS

#: The name of the worker beside the pool.
EXTRA = "extra"
#: Seconds that mending may take.
MENDING = 40.0

_context = multiprocessing.get_context("forkserver")


def name_of(worker: int) -> str:
    """The Dask name of a worker of the pool."""
    return f"worker-{worker}"


class Pool:
    """`WORKERS` processes with nannies, single-threaded, on loopback; a context manager.

    Attributes
    ----------
    cluster : LocalCluster
    """

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.cluster: LocalCluster = self._stack.enter_context(
            local_cluster(
                n_workers=WORKERS, memory=2**31, options={"silence_logs": 60, "security": False}
            )
        )

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for worker in range(WORKERS):
            self.signal(worker, signal.SIGCONT)
        self._stack.close()

    @property
    def address(self) -> str:
        """The scheduler's."""
        address: str = self.cluster.scheduler_address
        return address

    def forget_the_gone(self) -> None:
        """Drop the empty records that Dask's scheduler keeps of workers and clients that left."""
        topics = self.cluster.scheduler._broker._topics

        async def forget() -> None:
            for name, topic in list(topics.items()):
                if not topic.events and not topic.subscribers:
                    del topics[name]

        self.cluster.sync(forget)

    def nanny(self, worker: int) -> Nanny:
        """The nanny of a worker."""
        return self.cluster.workers[name_of(worker)]

    def signal(self, worker: int, number: int) -> None:
        """Send a signal to a worker's process, if it has one just now."""
        pid = self.nanny(worker).pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def restart(self, worker: int) -> None:
        """Have the scheduler restart a worker; does not wait for it."""
        scheduler = self.cluster.scheduler

        async def ask() -> None:
            addresses = [a for a, ws in scheduler.workers.items() if ws.name == name_of(worker)]
            await scheduler.restart_workers(
                addresses,
                timeout=MENDING,
                wait_for_workers=False,
                on_error="return",
                stimulus_id=f"chaos-{time.monotonic()}",
            )

        self.cluster.sync(ask)

    def retire(self, address: str) -> None:
        """Have a worker hand over what it holds, and leave."""
        self.cluster.sync(
            self.cluster.scheduler.retire_workers,
            workers=[address],
            remove=True,
            close_workers=True,
        )

    def mend(self) -> None:
        """Wake every worker, take the faults away, and wait until all `WORKERS` answer.

        Raises
        ------
        TimeoutError
            They do not.
        """
        for worker in range(WORKERS):
            self.signal(worker, signal.SIGCONT)
        end = time.monotonic() + MENDING
        with Client(self.cluster, set_as_default=False) as client:
            if self.cluster.scheduler.worker_plugins.get(faults.PLUGIN) is not None:
                faults.remove(client)
            while missing := self._missing(client):
                if time.monotonic() > end:
                    raise TimeoutError(f"after {MENDING:g} s the pool is not whole: {missing}")
                time.sleep(0.05)

    def _missing(self, client: Client) -> str:
        """What the pool lacks; empty if nothing."""
        nannies = {self.nanny(worker).pid for worker in range(WORKERS)}
        try:
            found = client.run(os.getpid, on_error="return")
        except (OSError, KeyError) as error:  # one has just left
            return repr(error)
        return "" if set(found.values()) == nannies else f"{found}, and not {nannies}"


class ExtraWorker:
    """A worker process without a nanny, which others reach, and which reaches them, over a network
    that can be cut; a context manager. Does not wait for it to join."""

    def __init__(self, scheduler: str, name: str = EXTRA) -> None:
        self.network = Network()
        port = free_port()
        self.address = f"tcp://127.0.0.1:{self.network.link(port)}"
        over = f"tcp://127.0.0.1:{self.network.link(int(scheduler.rpartition(':')[2]))}"
        self.process = _context.Process(
            target=run_worker, args=(over, name, port, self.address), daemon=True
        )
        self.process.start()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    def __enter__(self) -> ExtraWorker:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.network.mend()
        self.process.kill()
        self.process.join()
        self.network.close()


def run_worker(scheduler: str, name: str, port: int, address: str) -> None:
    """A worker that others know under another address than it has."""

    async def run() -> None:
        worker = Worker(
            scheduler,
            name=name,
            nthreads=1,
            host="127.0.0.1",
            port=port,
            contact_address=address,
            silence_logs=logging.CRITICAL,
        )
        async with worker:
            await worker.finished()

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(run())


class SchedulerProcess:
    """A scheduler without workers, in a process of its own; a context manager."""

    def __init__(self) -> None:
        port = free_port()
        self.address = f"tcp://127.0.0.1:{port}"
        self.process = _context.Process(target=run_scheduler, args=(port,), daemon=True)
        self.process.start()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    def __enter__(self) -> SchedulerProcess:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        self.process.join()


def run_scheduler(port: int) -> None:
    """A scheduler at a port of the loopback."""

    async def run() -> None:
        async with Scheduler(host="127.0.0.1", port=port, dashboard=False) as scheduler:
            await scheduler.finished()

    asyncio.run(run())


class ClientProcess:
    """`approxifer.score` in a process of its own, which may be killed or interrupted."""

    def __init__(self, scheduler: str, arguments: Mapping[str, Any]) -> None:
        self._heard, say = _context.Pipe(duplex=False)
        self.process = _context.Process(
            target=run_client, args=(scheduler, dict(arguments), say), daemon=True
        )
        self.process.start()
        say.close()

    def signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, number)

    def result(self, seconds: float) -> tuple[str, str]:
        """How it ended: ("whole", ""), ("killed", ""), or the kind of error and what it says.

        Raises
        ------
        TimeoutError
            It has not.
        """
        self.process.join(seconds)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            raise TimeoutError(f"the client has not ended after {seconds:g} s")
        try:
            kind, said = self._heard.recv()
        except EOFError:
            return "killed", ""
        finally:
            self._heard.close()
        return kind, said


def run_client(scheduler: str, arguments: dict[str, Any], say: Connection) -> None:
    """Score, and tell how it ended."""
    from approxifer import score

    # The server that we are forked from is deaf to Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        with Client(scheduler, set_as_default=False) as client:
            score(client=client, progress=False, **arguments)
        say.send(("whole", ""))
    except BaseException as error:
        say.send((type(error).__name__, str(error)))


def processes_left(before: set[int]) -> list[str]:
    """Processes of ours that were not there before: their command lines. The server that processes
    are forked from, and the one that looks after its resources, live as long as we do."""
    left = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            line = " ".join(process.cmdline())
            server = process.ppid() == os.getpid() and (
                "forkserver" in line or "resource_tracker" in line
            )
            if process.pid not in before and not server and process.status() != "zombie":
                left.append(f"{process.pid} {line[:80]}")
    return left


def threads_left() -> list[str]:
    """Threads of runs and of networks."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith(("approxifer", "network"))]
