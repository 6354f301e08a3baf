"""The client's loop: windows in, coded groups out to the workers, decoded rows back and written.

It runs on the client's event loop and never blocks it: reading, ordering, encoding, decoding and
writing go to threads; the `courier` sends and fetches. What to do with a group is decided on the
scheduler (`plugin`, by `policy`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from math import ceil
from typing import Any

import numpy as np
from distributed import Client

from approxifer.coding import Code, CodeSpec, gather, order_rows
from approxifer.coding import groups as cut_groups
from approxifer.datasets import Journal, OutputStore
from approxifer.datasets.windows import windows
from approxifer.models import ModelHandle
from approxifer.pipeline.courier import Courier, GroupRun
from approxifer.pipeline.intake import Intake, Returned
from approxifer.pipeline.plan import Layout, conflicting, groups_in_flight
from approxifer.pipeline.policy import Policy
from approxifer.pipeline.records import Block, Status
from approxifer.pipeline.session import Session
from approxifer.pipeline.stream import BlockStream
from approxifer.pipeline.window import Window
from approxifer.pipeline.worker import ModelOnWorker

#: Rank of repairs above all fresh groups, so that the oldest windows close first.
REPAIRS_FIRST = 10**9
#: Windows held at one time: one computed, the next one read.
OPEN_WINDOWS = 2


@dataclass(frozen=True)
class Setup:
    """What a run works with and how."""

    client: Client
    store: OutputStore
    journal: Journal
    load: Callable[[int, int], np.ndarray]  #: rows [start, stop) as the model takes them
    row: np.ndarray  #: (1, *feature), to warm the model up with
    handle: ModelHandle
    threads: int
    spec: CodeSpec
    layout: Layout
    policy: Policy
    repair: str
    restart: bool
    session: str
    most_in_flight: int  #: groups that memory allows
    workers: Sequence[str] = ()  #: names that earlier sessions gave an index to


class Engine:
    """One run. `run` does it; the counters may be read from another thread meanwhile."""

    def __init__(self, setup: Setup, stream: BlockStream) -> None:
        self.setup = setup
        self.stream = stream
        self.session = Session(setup.client, setup.session.rpartition("-")[2])
        self.courier = Courier(
            self.session,
            fingerprint=setup.handle.fingerprint,
            micro_batch=setup.layout.micro_batch,
            output_shape=setup.store.output_shape,
            output_dtype=setup.store.output_dtype,
            spawn=self._spawn,
            finish=self._finish,
        )
        self.code = setup.spec.build()
        self.plain = CodeSpec(scheme="uncoded", k=1).build()
        self.intake = Intake(
            stream,
            keep_decoded=setup.repair == "none",
            blank=self._blank,
            workers=setup.workers,
            on_new_worker=self._new_worker,
        )
        self.windows_done = 0
        self.started: float | None = None
        self.finished: float | None = None
        self._in_flight = 0
        self._news = asyncio.Event()
        self._open_windows = asyncio.Semaphore(OPEN_WINDOWS)
        self._all_done = asyncio.Event()
        self._sequence = count()
        self._loaders = ThreadPoolExecutor(1, "approxifer-read")
        self._coders = ThreadPoolExecutor(2, "approxifer-code")
        self._writers = ThreadPoolExecutor(1, "approxifer-write")

        rows, window, status = setup.store.rows, setup.layout.window, setup.store.status()
        spans = [(i, *span) for i, span in enumerate(windows(rows, window))]
        self.windows = len(spans)
        #: The windows that no earlier session has committed.
        self.pending = [span for span in spans if (status[span[1] : span[2]] == 0).any()]
        self.resumed = rows - sum(stop - start for _, start, stop in self.pending)
        self.groups_per_window = ceil(window / (setup.layout.block * self.code.k))
        #: Repairs are numbered behind all coded groups.
        self._repair_numbers = count(self.windows * self.groups_per_window)

    async def run(self) -> None:
        """Score every pending window.

        Raises
        ------
        ClusterError
            The scheduler is gone, or too few workers get ready.
        """
        setup = self.setup
        registered = self.session.registered(
            codes={"coded": setup.spec, "plain": self.plain.spec},
            policy=setup.policy,
            model=ModelOnWorker(
                self.session.run,
                setup.handle,
                setup.threads,
                setup.row,
                setup.layout.micro_batch,
            ),
            seed=setup.layout.seed,
            restart=setup.restart,
        )
        try:
            async with registered, asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                try:
                    news = tasks.create_task(self.session.follow(self._hear))
                    needed = conflicting(setup.spec)
                    enough = max(1, needed - setup.spec.stragglers)
                    await self.session.enough_ready(needed, enough)
                    self.started = time.monotonic()
                    await self._score()
                    news.cancel()
                finally:
                    self.courier.release()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group
        finally:
            self.finished = time.monotonic()

    def close(self) -> None:
        """Wait for the threads: what is being written is written to its end."""
        for pool in (self._loaders, self._coders, self._writers):
            pool.shutdown(wait=True, cancel_futures=True)

    # ---- windows in, groups out -----------------------------------------------------------------

    async def _score(self) -> None:
        if not self.pending:
            return
        loaded: asyncio.Queue[Window] = asyncio.Queue()
        self._spawn(self._load_windows(loaded))
        for _ in self.pending:
            await self._feed(await loaded.get())
        await self._all_done.wait()

    async def _load_windows(self, loaded: asyncio.Queue[Window]) -> None:
        for span in self.pending:
            await self._open_windows.acquire()
            loaded.put_nowait(await self._in(self._loaders, self._load_window, *span))

    def _load_window(self, index: int, start: int, stop: int) -> Window:
        layout = self.setup.layout
        queries = self.setup.load(start, stop)
        coded = np.arange(len(queries))
        mixes = any(block is None for block in self.code.carries)
        if mixes and not np.isfinite(queries).all():  # one NaN would spoil its whole codeword
            coded = np.flatnonzero(np.isfinite(queries.reshape(len(queries), -1)).all(axis=1))
        rows = queries if len(coded) == len(queries) else queries[coded]
        order = order_rows(
            rows if layout.order == "similar" else len(rows),
            self.code.k,
            how=layout.order,
            block=layout.block,
            seed=layout.seed + index,
        )
        window = Window(
            index=index,
            start=start,
            queries=queries,
            order=coded[order],
            prediction=self._blank(len(queries)),
            coded_left=len(cut_groups(len(order), self.code.k, layout.block)),
        )
        plain = np.setdiff1d(np.arange(len(queries)), coded)
        window.ask_repair(plain, Status.EXACT, frozenset())
        return window

    async def _feed(self, window: Window) -> None:
        """Send a window's groups out, as many at a time as are to be in flight."""
        await self._repair(window)
        spans = cut_groups(len(window.order), self.code.k, self.setup.layout.block)
        for i, span in enumerate(spans):
            await self._room()
            members = window.order[span.start : span.stop]
            number = window.index * self.groups_per_window + i
            await self._open(window, number, self.code, members, Status.EXACT)

    async def _room(self) -> None:
        """Wait until one more group may be in flight: as many as keep the workers that are there
        busy, and as memory allows."""
        while self._in_flight >= min(
            self.setup.most_in_flight, groups_in_flight(self.code.n, self.session.ready)
        ):
            self._news.clear()
            await self._news.wait()
        self._in_flight += 1

    async def _repair(self, window: Window) -> None:
        """Run plainly what is due: decoded rows under ``repair="exact"``, rows with NaN, rows of
        groups that could not be decoded."""
        for repair in list(window.due_repairs(self.setup.layout.block)):
            number = next(self._repair_numbers)
            await self._open(
                window, number, self.plain, repair.rows, repair.status, avoid=repair.avoid
            )

    async def _open(
        self,
        window: Window,
        number: int,
        code: Code,
        members: np.ndarray,
        status: Status,
        avoid: frozenset[str] = frozenset(),
    ) -> None:
        def encode() -> np.ndarray:
            return code.encode(gather(window.queries, members, code.k))

        shares = await self._in(self._coders, encode)
        coded = code is self.code
        await self.courier.take(
            GroupRun(number, code, window, members, shares, status, coded),
            code="coded" if coded else "plain",
            priority=-next(self._sequence) + (0 if coded else REPAIRS_FIRST),
            avoid=avoid,
        )

    def _hear(self, event: dict[str, Any]) -> None:
        if event["op"] == "worker":
            fields = {"worker": event["worker"], "what": event["what"]}
            self._journal("worker", time=event["time"], **fields)
            self._news.set()
        else:
            self.courier.hear(event)

    # ---- outputs back, windows written ----------------------------------------------------------

    async def _finish(self, group: GroupRun, outputs: dict[int, np.ndarray]) -> None:
        """Decode a group, take its rows in, order its repairs, and write its window if that was
        the last of it."""
        window = group.window
        returned = await self._in(self._coders, _decode, group, outputs)
        self.intake.take(returned)
        if group.coded:
            window.coded_left -= 1
            self._in_flight -= 1
            self._news.set()
        self._journal(
            "group",
            group=group.number,
            window=window.index,
            kind="coded" if group.coded else "repair",
            shares={str(share): name for share, name in sorted(returned.names.items())},
            attempts=group.history,
        )
        await self.session.tell("report", done=[group.number])
        await self._repair(window)
        if window.whole and not window.closing:  # two groups may end in one turn
            window.closing = True
            await self._commit(window)

    async def _commit(self, window: Window) -> None:
        """Write a window: the journal's groups and the data first, its status last."""

        def write() -> None:
            self.setup.journal.sync()
            self.setup.store.write_window(
                window.start,
                window.stop,
                prediction=window.prediction,
                status=window.status,
                group=window.group,
                worker=window.worker,
                residual=window.residual,
            )
            self._journal("window", window=window.index, rows=[window.start, window.stop])

        await self._in(self._writers, write)
        self.stream.committed(window.index, window.start, window.stop)
        self.windows_done += 1
        self._open_windows.release()
        if self.windows_done == len(self.pending):
            self._all_done.set()

    def read_back(self, start: int, stop: int) -> Block:
        """Committed rows, from the store."""
        store = self.setup.store
        return Block(
            rows=np.arange(start, stop),
            predictions=store.read_prediction(start, stop),
            status=store.status()[start:stop],
        )

    # ---- small things ---------------------------------------------------------------------------

    def _blank(self, rows: int) -> np.ndarray:
        """Outputs not there: NaN, or 0 where the dtype has none."""
        store = self.setup.store
        nothing = np.nan if store.output_dtype.kind in "fc" else 0
        return np.full((rows, *store.output_shape), nothing, store.output_dtype)

    def _new_worker(self, index: int, name: str) -> None:
        self._journal("name", index=index, worker=name)

    def _journal(self, event: str, **fields: Any) -> None:
        seconds = round(time.monotonic() - self.session.opened, 4)
        self.setup.journal.append(
            {"event": event, "session": self.setup.session, "time": seconds} | fields
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.create_task(work)

    async def _in(self, pool: ThreadPoolExecutor, call: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, call, *args)


def _decode(group: GroupRun, outputs: dict[int, np.ndarray]) -> Returned:
    if not group.code.decodable(outputs.keys()):
        return Returned(group, outputs, None, None)
    decoded, residual = group.code.decode(outputs), group.code.residual(outputs)
    return Returned(group, outputs, decoded, residual)
