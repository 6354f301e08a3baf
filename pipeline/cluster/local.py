"""Start local worker processes quickly, and leave none behind.

Workers are forked from one server process that has imported what the model needs (torch), but has
run nothing yet (Python's *forkserver*). Ten workers are then ready to score in 3 s on two cores,
against 9 s when each one imports torch for itself. A plain fork of the client would be as quick,
but its threads make that unsafe. The server idles until this Python process ends.

Ctrl-C reaches every process of the terminal: the workers do not listen to it, so that the client
alone decides in which order things stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import spawn
from typing import Any

import dask
import psutil
from distributed import LocalCluster, Nanny, Security
from distributed.system import MEMORY_LIMIT
from distributed.utils import get_mp_context

from approxifer.errors import ClusterError
from approxifer.pipeline.cluster.dask_process import keep_lost_workers, silent, starting
from approxifer.pipeline.scheduler.starting import killed_for_memory, megabytes
from approxifer.together import SharedContext

Say = Callable[[str], None]

#: Imported by the server before it forks.
BASE_PRELOAD = (
    "distributed",
    "distributed.nanny",
    "distributed.worker",
    "approxifer.pipeline.cli.main",
    "approxifer.pipeline.reading",
)
#: Imported there too if they are here, that is, if the model needs them: torch takes 1 s, what
#: loads a .pt2 another one.
MODEL_PRELOAD = ("torch", "torch._export.serde.serialize", "approxifer.models")

#: Thread pools that numpy and torch would start at their import; forking with them is unsafe.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

#: For as long as any of our clusters lives: nannies read it at restarts.
_forking = SharedContext(
    lambda: dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})
)

_LOOK = "look at the workers' messages above, and at the options in the cluster file"
#: What Dask's nannies call the processes of their workers.
_WORKER = "Dask Worker process (from Nanny)"


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Workers do not import the user's script, as Python would have its child processes do.

    What it defines is sent by value. A script needs no ``if __name__ == "__main__":`` then, may
    come from stdin, and what it does at its beginning is not done again in each worker.
    """
    real = spawn.get_preparation_data

    def prepared(name: str) -> dict[str, Any]:
        data: dict[str, Any] = real(name)
        if name == _WORKER:
            data = {key: data[key] for key in data if not key.startswith("init_main")}
        return data

    spawn.get_preparation_data = prepared
    try:
        yield
    finally:
        spawn.get_preparation_data = real


#: For as long as any of our clusters lives: nannies start workers at any time.
_mainless = SharedContext(_without_main)

_START_SECONDS = 300.0
_CLOSE_SECONDS = 30.0


@contextlib.contextmanager
def local_cluster(
    *,
    n_workers: int,
    memory: int | None,
    options: Mapping[str, Any],
    say: Say | None = None,
) -> Iterator[LocalCluster]:
    """Start a scheduler in this process and ``n_workers`` single-thread worker processes.

    Parameters
    ----------
    n_workers : int
    memory : int or None
        Bytes per worker; None: an equal share of the machine.
    options : mapping
        Further keywords of LocalCluster and its workers.
    say : callable, optional
        Called every few seconds, from another thread, with how a slow start gets on.

    Raises
    ------
    ClusterError
        A worker did not start.
    """
    keywords: dict[str, Any] = {
        "dashboard_address": "127.0.0.1:0",
        "silence_logs": logging.ERROR,
        "memory_limit": memory or MEMORY_LIMIT // n_workers,
        "security": True,  # else whoever has an account here can run code as this user
        **options,
    }
    if keywords["security"] is True:
        keywords["security"] = Security.temporary()
        keywords.setdefault("protocol", "tls://")
    else:
        del keywords["security"]
    if "interface" not in options:
        keywords.setdefault("host", "127.0.0.1")
    with contextlib.ExitStack() as stack:
        stack.enter_context(keep_lost_workers)
        if "silence_logs" not in options:
            stack.enter_context(silent)
        try:
            stack.enter_context(_mainless)
            with starting:
                if sys.platform == "linux":
                    stack.enter_context(_forking)
                    _start_server()
                # Empty at first: there is then something to close when Ctrl-C comes meanwhile.
                cluster = LocalCluster(
                    n_workers=0, threads_per_worker=1, processes=True, **keywords
                )
            stack.callback(_close, cluster)
            # Names that tell a person more than the plain 0, 1, ...
            names = [f"worker-{number}" for number in range(n_workers)]
            cluster.worker_spec = dict.fromkeys(names, cluster.new_spec)
            cluster.sync(_start_workers, cluster, n_workers, say)
        except ClusterError:
            raise
        except Exception as error:
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            raise ClusterError(
                f"the local cluster did not start: {cause or type(cause).__name__}: {_LOOK}"
            ) from error
        yield cluster


async def _start_workers(cluster: LocalCluster, n_workers: int, say: Say | None) -> None:
    async def ready() -> None:
        await cluster

    def joined() -> int:
        return len(cluster.scheduler.workers) if cluster.scheduler else 0

    began = time.monotonic()
    task = asyncio.ensure_future(ready())
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=3)
            elapsed = time.monotonic() - began
            if task.done():
                break
            check_memory(cluster)
            if elapsed > _START_SECONDS:
                raise ClusterError(
                    f"only {joined()} of {n_workers} local workers came up within {elapsed:.0f} s:"
                    f" {_LOOK}"
                )
            if say is not None:
                say(f"starting local workers: {joined()} of {n_workers} after {elapsed:.0f} s")
    finally:
        task.cancel()  # where it is given up: it would hold up the closing
    if task.exception() is not None or joined() < n_workers:
        check_memory(cluster)
    task.result()
    if joined() < n_workers:
        raise ClusterError(f"only {joined()} of {n_workers} local workers came up: {_LOOK}")


def check_memory(cluster: LocalCluster) -> None:
    """Refuse a memory limit by which a worker was killed before it had anything to do.

    Raises
    ------
    ClusterError
    """
    for name, nanny in cluster.workers.items():
        if isinstance(nanny, Nanny) and killed_for_memory(nanny.get_logs()):
            limit = megabytes(nanny.memory_manager.memory_limit or 0)
            raise ClusterError(
                f"the local cluster did not start: {name} was killed by its memory limit of"
                f" {limit} before it had anything to do; give each worker more (memory: in the"
                " cluster file), or start fewer of them (workers:)"
            )


def _close(cluster: LocalCluster) -> None:
    """Stop the workers, whatever state they are in."""
    nannies = [nanny for nanny in cluster.workers.values() if isinstance(nanny, Nanny)]
    pids = {nanny.pid for nanny in nannies} - {None}
    processes = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            processes.append(psutil.Process(pid))
    try:
        cluster.close(timeout=_CLOSE_SECONDS)
    except TimeoutError:
        logging.getLogger(__name__).warning("the local cluster did not close in time; killing it")
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()  # psutil checks that the pid is still that process


def _start_server() -> None:
    """Start the process from which workers are forked, deaf to Ctrl-C and single-threaded.

    It is started once; a later cluster whose model needs more imports that in its workers.
    """
    from multiprocessing import forkserver, resource_tracker

    wanted = [*BASE_PRELOAD, *(name for name in MODEL_PRELOAD if name in sys.modules)]
    get_mp_context().set_forkserver_preload(wanted)
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)
    resource_tracker.ensure_running()  # before the mask: it clears SIGINT from it
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()  # a no-op when it runs
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
