"""Runs of `approxifer.benchmarks.signals`: who ran which share, what came back, what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from approxifer.benchmarks.faulty import LIES, STUCK, WORKERS
from approxifer.benchmarks.recorded import Recording
from approxifer.benchmarks.script import Fault
from approxifer.coding import Code, block_rows
from approxifer.pipeline.liar import Lie
from approxifer.pipeline.referee import Tolerance

#: Lies that are also told now and then, or about one row of a share.
SPARSE = ("noise, sigma 1", "rolled", "top 2 swapped", "zeros", "2-bit flip", "clustered flips")
FRACTIONS = (0.01, 0.05, 0.2)
ONE_ROW_FRACTIONS = (1.0, 0.05)
#: What honest outputs look like: told of one row as well, but it decides nothing.
UNSEEN = "rows shuffled"
#: Rows after which something is learnt for the first time; then after twice as many, and so on.
FIRST = 1024


@dataclass(frozen=True, eq=False)
class Material:
    """A recording as arrays: G groups of N shares of B rows, all of one size.

    Attributes
    ----------
    recording : Recording
    tolerance : Tolerance
        The referee's.
    outputs : array (G, N, B, C)
        What honest workers return.
    stuck : array (G, N, B, C), optional
        What one with a stuck weight returns.
    features : mapping of str to array (n, d)
        Features of the input rows, by kind.
    """

    recording: Recording
    tolerance: Tolerance
    outputs: np.ndarray
    stuck: np.ndarray | None = None
    features: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        recording: Recording,
        tolerance: Tolerance,
        *,
        stuck: Recording | None = None,
        features: Mapping[str, np.ndarray] | None = None,
    ) -> Material:
        """Put groups together: of a recording, and of the same rows by a worker that is stuck."""
        return cls(
            recording,
            tolerance,
            np.stack(recording.outputs),
            None if stuck is None else np.stack(stuck.outputs),
            features or {},
        )

    @property
    def code(self) -> Code:
        """Of all groups."""
        return self.recording.code

    @property
    def block(self) -> int:
        """Rows of a share, B."""
        return self.recording.block

    @cached_property
    def rows(self) -> np.ndarray:
        """The row that each data share has at each place: int (G, K, B)."""
        return np.stack([block_rows(one, self.code.k) for one in self.recording.members])

    def owners(self, seed: int) -> np.ndarray:
        """The worker of each share, the N of a group being different: int (G, N).

        Codes of one K, played with one seed, have the same workers for their first K shares.
        """
        rng = np.random.default_rng([seed, 0])
        mixed = rng.permuted(np.tile(np.arange(WORKERS), (len(self.outputs), 1)), axis=1)
        chosen: np.ndarray = mixed[:, : self.code.n]
        return chosen


@dataclass(frozen=True, eq=False)
class Story:
    """One run.

    Attributes
    ----------
    of : Material
    seed : int
    owners : int (G, N)
    liar : int, optional
        None: nobody lies.
    outputs : array (G, N, B, C)
        What came back.
    wrong : bool (G, N, B)
        Further from the honest output than the referee allows.
    """

    of: Material
    seed: int
    owners: np.ndarray
    liar: int | None
    outputs: np.ndarray
    wrong: np.ndarray

    @property
    def lied(self) -> bool:
        """Whether any row is wrong."""
        return bool(self.wrong.any())

    @cached_property
    def sound(self) -> np.ndarray:
        """The shares whose rows are all finite: bool (G, N). The others are checked at once,
        whatever else is looked at."""
        found: np.ndarray = np.isfinite(self.outputs).all(axis=(2, 3))
        return found


def who_lies(seed: int) -> int:
    """The liar, another in each run."""
    return seed % WORKERS


def clean(of: Material, seed: int) -> Story:
    """A run of honest workers."""
    nothing = np.zeros(of.outputs.shape[:3], bool)
    return Story(of, seed, of.owners(seed), None, of.outputs, nothing)


def tell(of: Material, fault: Fault, seed: int) -> Story:
    """A run in which one worker is at fault."""
    owners, liar = of.owners(seed), who_lies(seed)
    outputs, wrong = of.outputs.copy(), np.zeros(of.outputs.shape[:3], bool)
    at = np.nonzero(owners == liar)
    if isinstance(fault, np.ndarray):
        outputs[at] = fault[at]
    else:
        armed = fault.arm(np.random.default_rng([seed, 1]))
        for group, share in zip(*at, strict=True):
            outputs[group, share] = armed.lie(of.outputs[group, share])
    size = outputs.shape[2:]
    told, honest = outputs[at].reshape(-1, *size[1:]), of.outputs[at].reshape(-1, *size[1:])
    wrong[at] = of.tolerance.differs(told, honest).reshape(-1, size[0])
    return Story(of, seed, owners, liar, outputs, wrong)


# ---- what is told --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """A fault and how often it is told.

    Attributes
    ----------
    fault : str
        A name in `approxifer.benchmarks.faulty.FAULTS`.
    shares : float
        The fraction of the liar's shares.
    one_row : bool
        Whether only one row of these is wrong.
    """

    fault: str
    shares: float = 1.0
    one_row: bool = False

    @property
    def sparse(self) -> bool:
        """Whether it is one of those that decide which statistic is kept."""
        return self.fault in SPARSE and (self.shares < 1 or self.one_row)

    @property
    def says(self) -> str:
        """For people."""
        rows = "one row of " if self.one_row else ""
        where = "every share" if self.shares == 1 else f"{100 * self.shares:g} % of shares"
        return f"{self.fault}, {rows}{where}"

    def of(self, material: Material, lies: Mapping[str, Lie] = LIES) -> Fault:
        """What the worker does."""
        if self.fault == STUCK:
            assert material.stuck is not None
            return material.stuck
        rows = 1 / material.block if self.one_row else lies[self.fault].rows
        return replace(lies[self.fault], shares=self.shares, rows=rows)

    def seeds(self, material: Material, least: int) -> int:
        """Runs, so that even rare lies are told about once in each `least` of them; at most five
        times as many."""
        told = self.shares * len(material.outputs) * material.code.k / WORKERS
        return least * min(5, max(1, int(np.ceil(1 / told))))


def cells(faults: Sequence[str]) -> list[Cell]:
    """Each of these in every share, and the sparse ones."""
    return [
        *(Cell(fault) for fault in faults),
        *(Cell(fault, shares) for fault in SPARSE for shares in FRACTIONS),
        *(Cell(fault, shares, True) for fault in (*SPARSE, UNSEEN) for shares in ONE_ROW_FRACTIONS),
    ]


# ---- what is looked at ---------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Look:
    """The rows that a statistic has checked, beside those that are drawn from all rows of a share.

    Attributes
    ----------
    forced : bool (G, N, B)
        These very rows.
    more : int (G, N)
        So many, drawn from the others.
    when : int (G, N)
        The group after which that is done: the share's own, or a later one where nothing was known
        before.
    instead : bool
        Whether the former are instead of rows drawn, as many in every share.
    """

    forced: np.ndarray
    more: np.ndarray
    when: np.ndarray
    instead: bool = False

    @property
    def suspect(self) -> np.ndarray:
        """The shares that are checked more than others: bool (G, N)."""
        singled: np.ndarray = self.more > 0
        return singled if self.instead else singled | self.forced.any(axis=2)

    @classmethod
    def nothing(cls, story: Story) -> Look:
        """No statistic."""
        groups, n, block = story.wrong.shape
        own = np.repeat(np.arange(groups)[:, None], n, axis=1)
        return cls(np.zeros((groups, n, block), bool), np.zeros((groups, n), int), own)


def stages(groups: int, rows: int, end: int) -> Iterator[tuple[int, int, int]]:
    """When to learn, from how many groups, and which groups are then judged: up to ``end``.

    Parameters
    ----------
    groups : int
    rows : int
        In a group.
    end : int
    """
    start, learnt = 0, min(-(-FIRST // rows), groups)
    while start < end and learnt <= groups:
        stop = min(2 * learnt, groups)
        yield learnt, start, stop
        start, learnt = stop, 2 * learnt
