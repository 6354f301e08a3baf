"""A window: the rows held on the front end at one time, and what became of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from approxifer.pipeline.byzantine.spot_checks import Check
from approxifer.pipeline.records import Status

#: A window: its index, its first row, one past its last row.
Span = tuple[int, int, int]


@dataclass
class Repair:
    """Rows of a window to be run plainly, and the workers that failed them."""

    rows: np.ndarray
    status: Status
    avoid: frozenset[str]
    alone: bool = False  #: not with others: the model raises on one of them


@dataclass(eq=False)
class Window:
    """Rows [start, stop) of the input and their outputs so far.

    Attributes
    ----------
    queries : (W, *feature) or None
        The rows as the model takes them; None where workers read them.
    order : int64 (n,)
        The rows that are coded, codeword by codeword; those with NaN or Inf are run plainly.
    prediction, status, group, worker, residual : (W, ...)
        As they will be written; of several outputs ``prediction`` is packed.
    """

    index: int
    start: int
    queries: np.ndarray | None
    order: np.ndarray
    prediction: np.ndarray
    status: np.ndarray = field(init=False)
    group: np.ndarray = field(init=False)
    worker: np.ndarray = field(init=False)
    residual: np.ndarray = field(init=False)
    #: Where decodes may be in doubt, the class that the model gives: of rows that were repaired.
    classes: np.ndarray = field(init=False)
    coded_left: int = 0  #: coded groups not yet finished
    checks: int = 0  #: checks of its rows under way
    #: Checks that came out well, and the member that made each.
    confirmed: list[tuple[Check, int]] = field(default_factory=list)
    repairs: list[Repair] = field(default_factory=list)
    closing: bool = False  #: being written
    avoid: frozenset[str] = frozenset()  #: workers that failed rows which may have to be repaired

    def __post_init__(self) -> None:
        rows = len(self.prediction)
        self.status = np.full(rows, Status.PENDING, np.uint8)
        self.group = np.full(rows, -1, np.int32)
        self.worker = np.full(rows, -1, np.int32)
        self.residual = np.full(rows, np.nan, np.float32)
        self.classes = np.zeros(rows, np.int64)

    @classmethod
    def reopened(
        cls, index: int, start: int, queries: np.ndarray | None, before: Mapping[str, np.ndarray]
    ) -> Window:
        """A window that is in the store but for some rows, to run these and write it again.

        Parameters
        ----------
        before
            What the store holds, by variable.
        """
        window = cls(index, start, queries, np.arange(0), before["prediction"].copy())
        for name in ("status", "group", "worker", "residual"):
            setattr(window, name, before[name].copy())
        window.take_back(window.status == Status.PENDING)
        return window

    @property
    def stop(self) -> int:
        """One past its last row."""
        return self.start + len(self.prediction)

    @property
    def scored(self) -> bool:
        """True if each row has its final status."""
        return bool((self.status != Status.PENDING).all())

    @property
    def whole(self) -> bool:
        """True if each row has its final status, and no check is under way."""
        return self.checks == 0 and self.scored

    def put(
        self, rows: np.ndarray, prediction: np.ndarray, *, status: Status, worker: int = -1
    ) -> None:
        """Set the output of some rows, for good; a block's padding is left out."""
        self.prediction[rows] = prediction[: len(rows)]
        self.status[rows] = status
        self.worker[rows] = worker

    def take_back(self, rows: np.ndarray) -> None:
        """Rows that a convicted worker touched are pending again, and run by another one.

        Parameters
        ----------
        rows : bool (W,)
        """
        self.status[rows] = Status.PENDING
        self.ask_repair(np.flatnonzero(rows), Status.REPAIRED, frozenset())

    def ask_repair(self, rows: np.ndarray, status: Status, avoid: frozenset[str]) -> None:
        """Have rows run plainly, to end with ``status``."""
        if len(rows):
            self.repairs.append(Repair(rows, status, avoid))

    def bisect(self, rows: np.ndarray, status: Status) -> None:
        """Have each half of some rows run for itself: the model raises on one of them."""
        for half in np.array_split(rows, 2):
            self.repairs.append(Repair(half, status, frozenset(), alone=True))

    def due_repairs(self, block: int) -> Iterator[Repair]:
        """Full blocks of rows to repair, and what is left once no coded group can add to it."""
        yield from (repair for repair in self.repairs if repair.alone)
        self.repairs = [repair for repair in self.repairs if not repair.alone]
        for status in {repair.status for repair in self.repairs}:
            same = [repair for repair in self.repairs if repair.status is status]
            rows = np.concatenate([repair.rows for repair in same])
            avoid = frozenset().union(*(repair.avoid for repair in same))
            cut = len(rows) if self.coded_left == 0 else len(rows) // block * block
            self.repairs = [r for r in self.repairs if r.status is not status]
            self.ask_repair(rows[cut:], status, avoid)
            for first in range(0, cut, block):
                yield Repair(rows[first : min(first + block, cut)], status, avoid)
