"""The outcome of a simulated run against Byzantine workers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import comb, prod

from approxifer.pipeline.byzantine.spot_checks import random_rows


@dataclass(frozen=True)
class Wrong:
    """A share with wrong rows.

    Attributes
    ----------
    rows : int
        Its rows that are written, and out of which those to check are drawn.
    wrong : int
        Those of them that are further than the tolerance from what is right.
    finite : bool
        Whether all its outputs are. If not, though the input is, they are checked in any case.
    """

    rows: int
    wrong: int
    finite: bool

    def missed(self, check: int) -> float:
        """The probability that none of the wrong rows is among the random ones that are checked.
        The row of the furthest output, which is checked besides, may be wrong too."""
        if not self.finite:
            return 0.0
        drawn = random_rows(check, self.rows)
        return comb(self.rows - self.wrong, drawn) / comb(self.rows, drawn)


@dataclass(kw_only=True)
class Outcome:
    """The outcome of a run.

    Attributes
    ----------
    rows : int
        Of the recording.
    convicted : list of str
    corrupted : set of str
        Those that returned a wrong row at least once, be it in a check.
    shares : Counter
        Shares that each worker ran, checks not counted: of a convicted one until its conviction.
    wrong : dict of str to list of Wrong
        Those that it returned with wrong rows.
    evaluations : int
        Rows that workers ran, those of checks included.
    checks : int
        Rows that were run as checks.
    padded, checks_padded : int
        The same, with the rows that fill micro-batches up: proportional to workers' seconds.
    beyond : list of str
        Workers not convicted of whose rows more are wrong than the bound that is printed for them.
    wrong_rows : int
        Rows whose final output is further than the tolerance from the uncoded model's.
    """

    rows: int
    convicted: list[str] = field(default_factory=list)
    corrupted: set[str] = field(default_factory=set)
    shares: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, list[Wrong]] = field(default_factory=dict)
    evaluations: int = 0
    checks: int = 0
    padded: int = 0
    checks_padded: int = 0
    beyond: list[str] = field(default_factory=list)
    wrong_rows: int = 0

    @property
    def evaluations_per_query(self) -> float:
        """Evaluations for each row."""
        return self.evaluations / self.rows

    def chance(self, name: str, check: int) -> float:
        """The largest probability that a worker which returned these shares escapes: that of the
        random rows."""
        return prod(share.missed(check) for share in self.wrong.get(name, ()))

    def left(self, name: str) -> int:
        """The wrong rows in the shares that a worker returned."""
        return sum(share.wrong for share in self.wrong.get(name, ()))
