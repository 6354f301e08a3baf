"""Context that the parts of the engine share: settings, threads, tasks, the journal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

import numpy as np
from distributed import Client

from approxifer.coding import CodeSpec
from approxifer.datasets import Journal, OutputStore
from approxifer.models import ModelHandle
from approxifer.pipeline.byzantine.membership import Quarantine
from approxifer.pipeline.client.connection import Connection
from approxifer.pipeline.client.dispatch import GroupTransfer, blank
from approxifer.pipeline.planning.partition import Layout
from approxifer.pipeline.queries import Recipe
from approxifer.pipeline.reading import InputReader
from approxifer.pipeline.records import ShareOutput
from approxifer.pipeline.results import Results
from approxifer.pipeline.scheduler.policy import Policy
from approxifer.pipeline.share_rows import Description, ShareRows, queries


@dataclass(frozen=True)
class Setup:
    """The settings and objects of a run."""

    client: Client
    store: OutputStore
    journal: Journal
    load: Callable[[int, int], np.ndarray]  #: rows [start, stop) as the model takes them
    compared: Callable[[np.ndarray], np.ndarray]  #: what order "similar" looks at
    recipe: Recipe | None  #: by which workers read the rows; None: they are sent
    row: np.ndarray  #: (1, *feature), to warm the model up with
    results: Results
    handle: ModelHandle
    parity: tuple[ModelHandle, ...]  #: models of the parity shares, where the code has such
    threads: int
    spec: CodeSpec
    layout: Layout
    policy: Policy
    decoder: str
    repair: str
    agreement: float | None  #: of classes, where rows in doubt are repaired
    restart: bool
    retry_failed: bool  #: rows that failed in an earlier session are run again
    session: str
    most_in_flight: int  #: groups that memory allows
    in_flight: float  #: shares for each worker
    notes: list[str]  #: what a person should know
    past: Sequence[Mapping[str, Any]] = ()  #: the journal's events of earlier sessions
    quarantine: Quarantine | None = None
    forgive: Sequence[str] = ()
    byzantine: int = 0  #: E
    check: int = 0  #: rows of each share that are run again; 0: none
    assurance: float | None = None  #: the bound that each member is to reach
    referee: str = "client"


class Context:
    """One run's common ground. Everything but the threads' work happens on the client's loop.

    Attributes
    ----------
    setup : Setup
    connection : Connection
    reader : InputReader or None
        Reads what shares describe; None where they are sent.
    index : callable
        The index of a worker among the store's members, by its incarnation.
    tasks : asyncio.TaskGroup
        Set by the engine while it runs.
    numbers : iterator of int
        Numbers of groups that are not coded: behind all coded ones.
    """

    tasks: asyncio.TaskGroup

    def __init__(
        self, setup: Setup, *, coded_groups: int, index: Callable[[int], int] = lambda i: i
    ) -> None:
        self.setup = setup
        self.index = index
        self.reader = None if setup.recipe is None else InputReader(setup.recipe)
        self.connection = Connection(setup.client, setup.session.rpartition("-")[2])
        self.numbers = count(coded_groups)
        self._loaders = ThreadPoolExecutor(1, "approxifer-read")
        self._coders = ThreadPoolExecutor(2, "approxifer-code")
        self._writers = ThreadPoolExecutor(1, "approxifer-write")

    async def read(self, call: Callable[..., Any], *args: Any) -> Any:
        """Call what reads the input, in its thread."""
        return await asyncio.get_running_loop().run_in_executor(self._loaders, call, *args)

    async def compute(self, call: Callable[..., Any], *args: Any) -> Any:
        """Call what computes, in one of two threads."""
        return await asyncio.get_running_loop().run_in_executor(self._coders, call, *args)

    async def write(self, call: Callable[..., Any], *args: Any) -> Any:
        """Call what writes the output, in its thread: one after the other."""
        return await asyncio.get_running_loop().run_in_executor(self._writers, call, *args)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine beside the others; what it raises ends the run."""
        self.tasks.create_task(work)

    def journal(self, event: str, *, fsync: bool = False, **fields: Any) -> None:
        """Add an event; its time counts from the session's start."""
        seconds = round(time.monotonic() - self.connection.opened, 4)
        head = {"event": event, "session": self.setup.session, "time": seconds}
        self.setup.journal.append(head | fields, fsync=fsync)

    def journal_group(
        self, group: GroupTransfer, *, used: Mapping[int, ShareOutput], **fields: Any
    ) -> None:
        """Add a group that is complete, with the workers whose outputs are used: their names, and
        as members."""
        shares = sorted(used.items())
        self.journal(
            "group",
            group=group.number,
            shares={str(share): one.worker for share, one in shares},
            members={str(share): self.index(one.member) for share, one in shares},
            attempts=[asdict(attempt) for attempt in group.history],
            **fields,
        )

    def queries(self, rows: Sequence[int]) -> list[ShareRows]:
        """Rows of one window, one by one, as they are given to workers; to be called in a
        thread."""
        if self.setup.recipe is not None:
            return queries(rows)
        first = min(rows)
        loaded = self.setup.load(first, max(rows) + 1)
        return [loaded[row - first : row - first + 1].copy() for row in rows]

    def made(self, rows: Description) -> tuple[np.ndarray, list[int], bool]:
        """Read a share's rows on the client (`InputReader.made`); to be called in a thread."""
        assert self.reader is not None, "shares are described"
        return self.reader.made(rows)

    def blank(self, rows: int) -> np.ndarray:
        """Outputs not there, as they are stored."""
        packing = self.setup.store.packing
        return blank((rows, *packing.shape), packing.dtype)

    def close(self) -> None:
        """Wait for the threads: what is being written is written to its end."""
        for pool in (self._loaders, self._coders, self._writers):
            pool.shutdown(wait=True, cancel_futures=True)
