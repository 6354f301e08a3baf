"""Opening a cluster: the one that ``cluster.yaml`` describes (local, running already, or of batch
jobs), a client's, or a local one.

A worker runs one share at a time, so local workers get one Dask thread each and ``threads`` is the
number of threads that torch may use inside it.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from approxifer.errors import (
    ApproxiferError,
    ClusterError,
    ConfigError,
    InputError,
    TooFewWorkersError,
)
from approxifer.pipeline.cluster.batch_spec import tls_files
from approxifer.pipeline.cluster.spec import ClusterSpec, load_cluster

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

__all__ = ["ClusterSpec", "OpenCluster", "load_cluster", "open_cluster", "refuse_import_of_main"]

Say = Callable[[str], None]

#: Seconds that a lost worker of a local cluster has to come back.
BACK = 30.0


class OpenCluster:
    """A connected cluster; a context manager. ``close`` may be called twice.

    Whatever is raised within once the client was closed from outside becomes a `ClusterError`: a
    closed client fails in any of its parts, in many ways.

    Attributes
    ----------
    client : distributed.Client
        Synchronous.
    owned : bool
        Whether we started the cluster, hence may restart its workers.
    threads : int
        Threads that torch may use in each worker.
    """

    def __init__(
        self,
        client: Client,
        *,
        owned: bool,
        threads: int,
        cleanup: contextlib.ExitStack,
        lasting: int = 0,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.client = client
        self.owned = owned
        self.threads = threads
        self._cleanup = cleanup
        self._lasting = lasting
        self._check = check

    def count(self) -> int:
        """Workers that there are; on a local cluster of ours, one that is just being started again
        is waited for.

        Raises
        ------
        ClusterError
            It will end again.
        """
        end = time.monotonic() + BACK
        while (there := _count(self.client)) < self._lasting and time.monotonic() < end:
            self._check()
            time.sleep(0.1)
        return there

    def close(self) -> None:
        """Disconnect; stop what was started. A client that was given stays open."""
        self._cleanup.close()

    def __enter__(self) -> OpenCluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        closed = self.client.status not in ("running", "connecting")
        self.close()
        own = isinstance(error, ApproxiferError) and not isinstance(
            error, ClusterError | InputError
        )
        if (
            closed
            and isinstance(error, Exception)
            and not (own or isinstance(error, CancelledError))
        ):
            raise ClusterError(
                "the client was closed while the run was going on; what is written stays, and the "
                "same call with an open client goes on from there"
            ) from error


def open_cluster(
    spec: ClusterSpec | None,
    *,
    client: Client | None = None,
    needed: int,
    fewest: int | None = None,
    spares: int = 1,
    say: Say | None = None,
    check: Callable[[], None] | None = None,
    timeout: float = 10.0,
) -> OpenCluster:
    """Connect to a cluster with at least ``needed`` workers, or start one.

    Parameters
    ----------
    spec : ClusterSpec or None
        None: a local cluster (or the given client's).
    client : distributed.Client, optional
        Used as it is and never closed.
    needed : int
        Workers that the code needs: the shares that must not share a worker.
    fewest : int, optional
        Workers that will do where a batch system gives no more; None: ``needed``.
    spares : int
        Workers beyond those, where the number is ours to choose.
    say : callable, optional
        Called, from another thread, with how a slow start gets on.
    check : callable, optional
        Called while batch jobs are waited for; raises to break off.
    timeout : float
        Seconds to wait for a scheduler to answer and for its workers to join.

    Raises
    ------
    ConfigError, ClusterError, TooFewWorkersError
    """
    refuse_import_of_main()
    with contextlib.ExitStack() as stack:
        if client is not None:
            check_client(client)
            _check_enough(_count(client), needed, "the client's cluster has")
            stack.enter_context(_loop_held(client))
            threads = spec.threads if spec is not None else None
            return OpenCluster(
                client,
                owned=False,
                threads=threads or _threads(client),
                cleanup=stack.pop_all(),
            )
        spec, more = spec or ClusterSpec(), dict[str, Any]()
        if spec.kind == "address":
            client = _connect(spec, needed, timeout, stack)
            threads = spec.threads or _threads(client)
        else:
            n_workers = spec.workers or max(2, needed + spares)
            _check_enough(
                n_workers, needed, f"{spec.origin} asks for workers: {n_workers}, so it has"
            )
            if (batch := spec.batch) is None:
                refuse_in_daemon()
                from approxifer.pipeline.cluster.local import check_memory

                cluster = _start(spec, n_workers, say, stack)
                client = _join(cluster, stack)
                more = {"lasting": n_workers, "check": partial(check_memory, cluster)}
            else:
                from approxifer.pipeline.cluster.batch import batch_cluster

                jobs = batch_cluster(
                    batch, jobs=n_workers, needed=needed, fewest=fewest or needed, say=say,
                    check=check,
                )  # fmt: skip
                client = _join(stack.enter_context(jobs), stack)
            threads = spec.threads or 1
        return OpenCluster(
            client,
            owned=spec.kind != "address",
            threads=threads,
            cleanup=stack.pop_all(),
            **more,
        )


def refuse_import_of_main() -> None:
    """Refuse to work in a worker process that is importing the user's script as its main module.

    Raises
    ------
    ClusterError
        The script makes its call without ``if __name__ == "__main__":``.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ClusterError(
            "a local cluster starts Python processes that import your script; put the call under "
            "if __name__ == '__main__':"
        )


def refuse_in_daemon() -> None:
    """Refuse to start a local cluster in a process that may have no children.

    Raises
    ------
    ClusterError
        It is a Dask worker's, most likely: the call is made in a task.
    """
    if multiprocessing.current_process().daemon:
        raise ClusterError(
            "a local cluster cannot be started in this process, which may start no others (a Dask "
            "worker's, where the call is made in a task): make the call outside of any task, or "
            "give client="
        )


def check_client(client: Any) -> None:
    """Refuse what is no client, or one that would never answer the thread that calls this.

    Raises
    ------
    ConfigError
    """
    from distributed import Client

    if not isinstance(client, Client):
        raise ConfigError(
            f"client: {type(client).__name__} given; give a distributed.Client, or leave it out"
        )
    # client.asynchronous is true only in the thread of its loop, which this one may not be.
    if client.asynchronous or client._asynchronous:
        raise ConfigError(
            "client: it is asynchronous, or this is called on its own event loop, and the run "
            "would wait for itself; give one made with asynchronous=False, and call this from "
            "another thread, as await asyncio.to_thread(...) does"
        )
    if client.status != "running":
        raise ConfigError(f"client: its status is {client.status!r}; give one that is connected")


@contextlib.contextmanager
def _loop_held(client: Client) -> Iterator[None]:
    """Keep a client's event loop, which is the run's as well, although the client be closed."""
    from distributed.utils import LoopRunner

    runner = LoopRunner(loop=client.loop)
    runner.start()
    try:
        yield
    finally:
        runner.stop()


def workers_of(client: Client) -> dict[str, Any]:
    """The scheduler's records of each worker, by address.

    Not ``client.scheduler_info()``: the client renews what that returns in the background, without
    the workers, and between its two steps hands that out.
    """
    scheduler: Any = client.scheduler
    workers: dict[str, Any] = client.sync(scheduler.identity, n_workers=-1)["workers"]
    return workers


def scheduler_of(client: Client) -> str:
    """The mark of the scheduler that a client is connected to, whatever its address."""
    scheduler: Any = client.scheduler
    return str(client.sync(scheduler.identity, n_workers=0)["id"])


def _count(client: Client) -> int:
    return len(workers_of(client))


def _threads(client: Client) -> int:
    return min((int(worker["nthreads"]) for worker in workers_of(client).values()), default=1)


def _check_enough(there: int, needed: int, who: str) -> None:
    if there < needed:
        raise TooFewWorkersError(
            f"the code needs {needed} workers (the shares of one group must not share a "
            f"worker), but {who} {there}; ask for a smaller K, S or E, or for more workers"
        )


def _connect(spec: ClusterSpec, needed: int, timeout: float, stack: contextlib.ExitStack) -> Client:
    from distributed import Client

    address = spec.options.get("address") or _written(spec, timeout)
    files = spec.options.get("security")
    security = tls_files(files, spec.origin) if files is not None else None
    try:
        client = Client(address, timeout=timeout, set_as_default=False, security=security)
    except TypeError as error:  # no certificate for an address that begins with tls://
        raise ClusterError(
            f"{spec.origin}: {address} wants TLS: give security: with tls-ca-file, tls-client-cert "
            "and tls-client-key, or set them in Dask's configuration (distributed.comm.tls): "
            f"{error}"
        ) from error
    except (OSError, ValueError) as error:  # TimeoutError is an OSError
        raise ClusterError(
            f"{spec.origin}: no Dask scheduler answered at {address} within {timeout:g} s "
            f"({error}); check the address and that the scheduler runs"
        ) from error
    stack.callback(client.close)
    with contextlib.suppress(TimeoutError):  # they may still be joining
        client.wait_for_workers(spec.workers or needed, timeout=timeout)
    _check_enough(_count(client), needed, f"the cluster at {address} has")
    return client


def _written(spec: ClusterSpec, timeout: float) -> str:
    """The address in a scheduler file, which may appear a little later than the scheduler."""
    path = Path(spec.options["scheduler_file"])
    end = time.monotonic() + timeout
    while True:
        try:
            return str(json.loads(path.read_text(encoding="utf-8"))["address"])
        except (OSError, ValueError, KeyError) as error:
            if time.monotonic() > end:
                raise ClusterError(
                    f"{spec.origin}: no scheduler's address in {path} within {timeout:g} s "
                    f"({error!r}); start one with: dask scheduler --scheduler-file {path}"
                ) from error
            time.sleep(0.1)


def _start(
    spec: ClusterSpec,
    n_workers: int,
    say: Say | None,
    stack: contextlib.ExitStack,
) -> LocalCluster:
    from approxifer.pipeline.cluster.local import local_cluster

    return stack.enter_context(
        local_cluster(
            n_workers=n_workers,
            memory=spec.memory,
            options=spec.options,
            say=say,
        )
    )


def _join(cluster: Any, stack: contextlib.ExitStack) -> Client:
    from distributed import Client

    client = Client(cluster, set_as_default=False)
    stack.callback(client.close)
    return client
