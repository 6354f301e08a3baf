"""Spot checks, verdicts and what follows from them, on a store on the disk, without a cluster.

The workers answer when the test lets them; everything else is the run's own.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import xarray as xr

from approxifer.coding import Code, CodeSpec, gather
from approxifer.datasets import Journal, OutputStore, open_source
from approxifer.models import open_model
from approxifer.pipeline import records
from approxifer.pipeline.byzantine.membership import Membership
from approxifer.pipeline.client.collect import Collector, RowGroup, decode_group
from approxifer.pipeline.client.dispatch import GroupTransfer
from approxifer.pipeline.client.integrity import IntegrityMonitor
from approxifer.pipeline.client.single_shares import SingleResult
from approxifer.pipeline.client.window import Window
from approxifer.pipeline.client.windows import Windows
from approxifer.pipeline.protocol import Attempt, Complete
from approxifer.pipeline.records import AttemptOutcome, Status
from approxifer.pipeline.results import Results
from approxifer.pipeline.stream import BlockStream

ROWS, WINDOW = 24, 12


def model(rows: np.ndarray) -> np.ndarray:
    return 3 * rows


def corrupted(rows: np.ndarray) -> np.ndarray:
    return 3 * rows + 1


Run = Callable[[np.ndarray], np.ndarray]


class LateError(Exception):
    """The worker has not answered in time."""


class Scene:
    """A monitor, and workers 0, 1, ... ``w0``, ``w1``, ...; what is done is noted in order."""

    def __init__(self, folder: Path, workers: int = 5, *, code: Code | None = None, **setup: Any):
        self.folder = folder
        self.code = code or CodeSpec("uncoded", 2).build()
        self.queries = np.arange(1, ROWS + 1, dtype=np.float32)[:, None]
        self.done: list[Any] = []
        self.runs: dict[int, Run] = dict.fromkeys(range(workers), model)
        self.asked: list[tuple[int, list[float]]] = []  #: checker, rows
        self.again: dict[int, list[int]] = {}
        self.alone = False  #: whether the clock sends old queues
        self._setup = setup

    def open(self, session: str = "s1") -> None:
        """Begin a session on the store, which is made by the first."""
        path = self.folder / "out.zarr"
        if path.exists():
            self.store = OutputStore.open(path)
        else:
            source = open_source(xr.DataArray(self.queries, dims=("n", "f"), name="x"))
            self.store = OutputStore.create(
                path, source=source, output_shape=(1,), output_dtype="float32", chunk=WINDOW,
                attrs={},
            )  # fmt: skip
        past = Journal.read(path)
        self.journal = Journal(path)
        self.journal.append({"event": "session", "session": session})
        spans = [(n, s, s + WINDOW) for n, s in enumerate(range(0, ROWS, WINDOW))]
        names = itertools.count()
        setup = SimpleNamespace(
            **{
                "check": 2, "byzantine": 1, "referee": "client", "assurance": None,
                "repair": "exact", "session": session, "store": self.store, "threads": 1,
                "retry_failed": False, "journal": self.journal,
                "load": self._load, "handle": open_model(model_in_place()),
                "layout": SimpleNamespace(micro_batch=8),
                "results": Results(self.store.packing, self.store.packing),
            } | self._setup
        )  # fmt: skip
        self.members = Membership(session, past, on_new=self._name, quarantine="worker")
        self.context = SimpleNamespace(
            setup=setup, numbers=itertools.count(1000), spawn=self._spawn, compute=call, read=call,
            write=call, journal=self._event, index=self.members.index,
            queries=lambda rows: [self.queries[row : row + 1] for row in rows],
            connection=SimpleNamespace(
                ledger={"typical": 0.01}, call=self._call, worker_records=dict
            ),
        )  # fmt: skip
        self.tasks: set[asyncio.Task[Any]] = set()
        collector = Collector(
            BlockStream(), keep_decoded=False, index=self.members.index,
            blank=lambda rows: np.full((rows, 1), np.nan, np.float32),
        )  # fmt: skip
        self.books = Windows(self.context, self.code, self.members, collector, spans)  # type: ignore[arg-type]
        self.windows = self.books.open
        self.books.changed = lambda window: self._spawn(self._close(window))  # type: ignore[method-assign]
        self.books.fail = self._failed  # type: ignore[method-assign]
        self.books._taken_back = self._taken_back  # type: ignore[method-assign]
        self.monitor = IntegrityMonitor(
            self.context, self.code, SimpleNamespace(run=self._run), self.members, self.books,  # type: ignore[arg-type]
            rng=np.random.default_rng(0),
        )  # fmt: skip
        for number in self.runs:
            place = {"host": "h", "node": "", "device": "cpu", "hardware": "A"}
            self.members.joined(number, f"w{number}", **place)
        del names

    def turn_of(self, who: int) -> None:
        """From now on this worker checks all that it may."""
        turns = self.monitor._checking.turns  # type: ignore[union-attr]
        turns.order = lambda allowed: sorted(allowed, key=lambda one: one != who)  # type: ignore[method-assign]

    def close(self) -> None:
        self.journal.close()
        self.store.release()

    def _load(self, start: int, stop: int) -> np.ndarray:
        return self.queries[start:stop].copy()

    def _event(self, event: str, *, fsync: bool = False, **fields: Any) -> None:
        session = self.context.setup.session
        self.done.append((event, "fsync") if fsync else (event,))
        self.journal.append({"event": event, "session": session} | fields, fsync=fsync)

    def _name(self, index: int, member: Any) -> None:
        self._event("name", **{k: v for k, v in member.event().items() if k != "session"})

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.add(asyncio.get_running_loop().create_task(work))

    async def _call(self, what: str, **fields: Any) -> None:
        self.done.append((what, fields))

    async def _run(
        self, rows: np.ndarray, *, kind: str, only: int, model: int = 0, forbid: Any = ()
    ) -> SingleResult:
        await asyncio.sleep(0)
        self.asked.append((only, rows[:, 0].tolist()))
        try:
            output = self.runs[only](rows)
        except LateError:
            return SingleResult(None, False)
        except Exception:
            return SingleResult(None, True)
        malformed = None if output.shape == rows.shape else "another shape"
        stand_in = output if malformed is None else np.full_like(rows, np.nan)
        return SingleResult(records.ShareOutput(f"w{only}", stand_in, malformed, only), False)

    async def _close(self, window: Window) -> None:
        """As the engine does; rows of a window that were taken back stay pending."""
        if window.closing or window not in self.windows:
            return
        if not window.whole:
            if window.scored and window is self.windows[0]:
                self.monitor.flush(window)
        elif await self.books.write(window):
            self.done.append(("written", window.index))
        else:
            rows = np.flatnonzero(window.status == Status.PENDING)
            self.done.append(("taken back", window.index, rows.tolist()))

    def _failed(self, window: Window, rows: np.ndarray) -> None:
        self.done.append(("failed", np.flatnonzero(rows).tolist()))
        Windows.fail(self.books, window, rows)

    def _taken_back(self, index: int, statuses: np.ndarray) -> None:
        self.done.append(("pending", index))
        self.again.setdefault(index, []).extend(statuses.tolist())

    # ---- what a test does -----------------------------------------------------------------------

    def window(self, index: int = 0, rows: int = WINDOW) -> Window:
        start = index * WINDOW
        queries = self._load(start, start + rows)
        blank = np.full((rows, 1), np.nan, np.float32)
        made = Window(index, start, queries, np.arange(rows), blank)
        self.windows.append(made)
        return made

    async def back(
        self,
        window: Window,
        members: list[int],
        by: dict[int, int],
        *,
        number: int = 0,
        outputs: dict[int, np.ndarray] | None = None,
    ) -> None:
        """A group comes back: rows of the window, who ran each share, and with what result."""
        code = self.code
        order = np.asarray(members)
        shares = code.encode(gather(window.queries, order, code.k))
        group = GroupTransfer(number, shares, None, code.models)  # type: ignore[arg-type]
        returned = {}
        attempts = []
        for share, who in by.items():
            output = (outputs or {}).get(share)
            output = self.runs[who](shares[share]) if output is None else output
            returned[share] = records.ShareOutput(f"w{who}", output, None, who)
            attempts.append(Attempt(share, 0, f"w{who}", who, AttemptOutcome.USED))
        used = tuple((share, 0) for share in by)
        group.completion = Complete(number, False, used, tuple(attempts))
        batch = RowGroup(number, code, window, order, Status.EXACT, coded=True)
        decoded = decode_group(batch, returned, history=attempts)
        drawn = self.monitor.draw(batch, group, decoded)
        self.monitor.start(batch, group, drawn)
        assert decoded.decoded is not None
        for block in range(code.k):
            rows = order[block :: code.k]
            carrier = decoded.carrier(block)
            if carrier is None:
                window.put(rows, decoded.decoded.blocks[block], status=Status.DECODED)
            else:
                worker = self.members.index(returned[carrier].member)
                window.put(rows, returned[carrier].output, status=Status.EXACT, worker=worker)
            window.group[rows] = number
        names = {str(s): one.worker for s, one in returned.items()}
        indices = {str(s): self.members.index(one.member) for s, one in returned.items()}
        self._event("group", group=number, kind="coded", shares=names, members=indices)
        await self._close(window)

    async def all_back(self, window: Window, by: dict[int, int], **more: Any) -> None:
        """One group of all rows of a window."""
        await self.back(window, list(range(len(window.queries))), by, **more)

    async def rest(self) -> None:
        """Let everything that is under way come to its end."""
        while self.tasks:
            tasks, self.tasks = self.tasks, set()
            await asyncio.gather(*tasks)

    def kinds(self, *wanted: str) -> list[str]:
        return [one[0] for one in self.done if one[0] in wanted]

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in Journal.read(self.store.path) if event["event"] == kind]

    def convicted(self) -> list[str]:
        return [conviction.member.name for conviction in self.members.convictions]


async def call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def model_in_place() -> Any:
    import toy_models

    return toy_models.tripled


def run(play: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(play())
