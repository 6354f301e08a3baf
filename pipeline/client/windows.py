"""The windows of a run: read ahead, open, written once they are whole, taken back."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from approxifer.coding import Code, order_rows
from approxifer.coding import groups as cut_groups
from approxifer.datasets import Journal
from approxifer.pipeline.byzantine.membership import Membership
from approxifer.pipeline.byzantine.taint import sweep, tainted_groups, touched
from approxifer.pipeline.client.collect import Collector
from approxifer.pipeline.client.context import Context
from approxifer.pipeline.client.window import Span, Window
from approxifer.pipeline.records import Block, Status

#: Windows held at one time: one computed, the next one read.
OPEN_WINDOWS = 2


class Windows:
    """The windows of one run.

    Attributes
    ----------
    open : list of Window
        The oldest first.
    pending : list of Span
        Those that no earlier session has committed whole.
    done : int
        Those that are written.
    resumed : int
        Rows that earlier sessions had committed.
    """

    def __init__(
        self,
        context: Context,
        code: Code,
        members: Membership,
        collector: Collector,
        spans: Sequence[Span],
    ) -> None:
        self.spans = spans
        self.open: list[Window] = []
        self.done = 0
        self._context, self._code = context, code
        self._members, self._collector = members, collector
        self._changed: asyncio.Queue[Window] = asyncio.Queue()
        self._slots = asyncio.Semaphore(OPEN_WINDOWS)
        self._left = 0
        self._all_written = asyncio.Event()
        self._written: set[int] = set()  #: by this session
        self._again: set[int] = set()  #: written ones with rows that were taken back
        store = context.setup.store
        if members.convictions:  # the session that convicted may have been stopped before it
            sweep(store, spans, members)
        if context.setup.retry_failed:
            failed = np.flatnonzero(store.status() == Status.FAILED)
            if failed.size:
                store.set_pending(failed)
        self.look_again()
        self.resumed = int((store.status() != Status.PENDING).sum())

    def look_again(self) -> None:
        """Find the windows that are not whole in the store."""
        status = self._context.setup.store.status()
        self.pending = [s for s in self.spans if (status[s[1] : s[2]] == Status.PENDING).any()]
        self._again.clear()  # these are among them

    # ---- in -------------------------------------------------------------------------------------

    def load(self, spans: Sequence[Span]) -> asyncio.Queue[Window]:
        """Read windows, one ahead of those that are open."""
        self._left = len(spans)
        self._all_written.clear()
        loaded: asyncio.Queue[Window] = asyncio.Queue()
        self._context.spawn(self._load(spans, loaded))
        return loaded

    async def _load(self, spans: Sequence[Span], loaded: asyncio.Queue[Window]) -> None:
        for span in spans:
            await self._slots.acquire()
            loaded.put_nowait(await self.read(span))

    async def read(self, span: Span) -> Window:
        """Read one window."""
        window: Window = await self._context.read(load_window, self._context, self._code, span)
        return window

    def changed(self, window: Window) -> None:
        """Rows of an open window, or checks of them, have come to their end: have it looked at."""
        self._changed.put_nowait(window)

    async def next_changed(self) -> Window:
        """The next open window to look at."""
        while True:
            window = await self._changed.get()
            if window in self.open:  # else it was written meanwhile
                return window

    # ---- out ------------------------------------------------------------------------------------

    async def write(self, window: Window) -> bool:
        """Write a window that is whole; whether that was done.

        If a convicted worker touched some of its rows, these are pending again instead.
        """
        window.closing = True
        tainted: np.ndarray | None = await self._context.write(self._write, window)
        if tainted is not None:
            self._collector.take_back(window.status[tainted])
            window.take_back(tainted)
            window.closing = False
            return False
        self._collector.committed(window)
        self._written.add(window.index)
        self.open.remove(window)
        window.confirmed.clear()
        self.done += 1
        self._left -= 1
        self._slots.release()
        if self._left == 0:
            self._all_written.set()
        if self.open:  # it may be the oldest now
            self.changed(self.open[0])
        return True

    def _write(self, window: Window) -> np.ndarray | None:
        """Write the journal's groups and the data first, the status last; or find tainted rows."""
        setup = self._context.setup
        tainted = tainted_rows(window, self._members, setup.store.path)
        if tainted is None:
            setup.journal.sync()
            setup.store.write_window(
                window.start,
                window.stop,
                prediction=window.prediction,
                status=window.status,
                group=window.group,
                worker=window.worker,
                residual=window.residual,
            )
            rows = [window.start, window.stop]
            self._context.journal("window", window=window.index, rows=rows)
        return tainted

    async def all_written(self) -> None:
        """Wait until all windows that were asked for are written."""
        if self._left:
            await self._all_written.wait()

    # ---- taken back -----------------------------------------------------------------------------

    def fail(self, window: Window, rows: np.ndarray) -> None:
        """Rows of an open window that were there have failed after all: bool (W,)."""
        self._collector.fail(window, rows)

    async def sweep(self) -> None:
        """Set all written rows that a convicted worker touched to pending; those of open windows
        are taken back when these are about to be written."""
        store = self._context.setup.store
        found = await self._context.write(sweep, store, self.spans, self._members)
        for index, statuses in found.items():
            self._taken_back(index, statuses)
        for window in self.open:
            self.changed(window)

    async def set_pending(self, rows: Sequence[int] | np.ndarray) -> None:
        """Set rows of one written window, by their numbers in the input, to pending."""
        store = self._context.setup.store
        index, start, stop = next(s for s in self.spans if s[1] <= rows[0] < s[2])

        def write() -> np.ndarray:
            status = store.read_window(start, stop, names=("status",))["status"]
            before: np.ndarray = status[np.asarray(rows) - start]
            store.set_pending(np.asarray(rows))
            return before

        self._taken_back(index, await self._context.write(write))

    def _taken_back(self, index: int, statuses: np.ndarray) -> None:
        """Rows of a written window that had these statuses are pending again."""
        self._again.add(index)
        if index in self._written:
            self._collector.take_back(statuses)
        else:
            self.resumed -= len(statuses)

    def take_again(self) -> list[Span]:
        """The written windows in which rows were taken back since the last call."""
        spans = [span for span in self.spans if span[0] in self._again]
        self.done -= len(spans)
        self._again.clear()
        return spans

    # ---- for progress ---------------------------------------------------------------------------

    @property
    def whole(self) -> int:
        """The windows that are written, by this or earlier sessions."""
        return len(self.spans) - len(self.pending) + self.done

    def unchecked(self) -> dict[str, int]:
        """Rows of open windows by their status, where these wait for checks."""
        if not self._context.setup.check:
            return {}
        found: Counter[str] = Counter()
        for window in list(self.open):
            for value, rows in zip(*np.unique(window.status, return_counts=True), strict=True):
                found[Status(value).name.lower()] += int(rows)
        return dict(found)

    def read_back(self, start: int, stop: int) -> Block:
        """Committed rows, from the store."""
        store = self._context.setup.store
        return Block(
            rows=np.arange(start, stop),
            predictions=store.packing.named(store.read_prediction(start, stop)),
            status=store.status()[start:stop],
        )


def load_window(context: Context, code: Code, span: Span) -> Window:
    """Read a window and order its rows; one that is written in part, to run the rest of it."""
    setup, (index, start, stop) = context.setup, span
    layout, coded = setup.layout, np.arange(stop - start)
    queries = setup.load(start, stop) if setup.recipe is None else None
    before = setup.store.read_window(start, stop)
    if before["status"].any():  # written, but for rows that a convicted worker had touched
        return Window.reopened(index, start, queries, before)
    mixes = any(block is None for block in code.carries)
    # One NaN would spoil its whole codeword.
    if queries is not None and mixes and not np.isfinite(queries).all():
        coded = np.flatnonzero(np.isfinite(queries.reshape(len(queries), -1)).all(axis=1))
    rows: np.ndarray | int = len(coded)
    if layout.order == "similar":
        assert queries is not None, "such rows are not described"
        rows = setup.compared(queries if len(coded) == len(queries) else queries[coded])
    order = order_rows(
        rows,
        code.k,
        how=layout.order,
        block=layout.block,
        seed=layout.seed + index,
    )
    window = Window(
        index=index,
        start=start,
        queries=queries,
        order=coded[order],
        prediction=context.blank(stop - start),
        coded_left=len(cut_groups(len(order), code.k, layout.block)),
    )
    plain = np.setdiff1d(np.arange(stop - start), coded)
    window.ask_repair(plain, Status.EXACT, frozenset())
    return window


def tainted_rows(window: Window, members: Membership, store: Path) -> np.ndarray | None:
    """The rows of an open window that a convicted worker touched, if there are any: bool (W,)."""
    if not members.convictions:
        return None
    groups: frozenset[int] = frozenset()
    if (window.status == Status.DECODED).any():
        groups = tainted_groups(Journal.read(store), members)
    rows = touched(
        window.status, window.worker, window.group, convicted=members.tainted(), groups=groups
    )
    return rows if rows.any() else None
