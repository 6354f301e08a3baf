"""Choice of the decoded rows that are scored again under ``repair="doubtful"``.

How sure a decode is comes from `approxifer.coding.confidence`; what that is worth is found out in
the run itself. Once a window's coded groups are in,

1. some of its decoded rows, drawn at random, are run again to learn from, until enough are known;
   and a few of the others to check;
2. when the former are back, the others are kept down to the confidence at which the disagreements
   to be expected of what is kept reach what is allowed, those below are run again;
3. when the latter are back, those that would have been kept measure what was promised. Then they
   too are learnt from, for the windows to come.

A run that goes on where an earlier one stopped begins anew to learn.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from math import ceil, inf
from typing import Any

import numpy as np

from approxifer.pipeline.records import Status

#: As many rows are learnt from as hold so many disagreements if the allowed part of them disagrees.
LEARN = 9
#: The part of the other decoded rows that is run again, in doubt or not, to check.
CHECK = 0.05


class Calibration:
    """Decoded rows whose exact prediction is known: how sure they were, and whether they agree."""

    def __init__(self) -> None:
        self._confidence = np.empty(0)
        self._wrong = np.empty(0, bool)

    def __len__(self) -> int:
        return len(self._wrong)

    def add(self, confidence: np.ndarray, wrong: np.ndarray) -> None:
        """Take in rows drawn at random.

        Parameters
        ----------
        confidence, wrong : (n,)
        """
        confidence = np.concatenate([self._confidence, confidence])
        order = np.argsort(-confidence, kind="stable")
        self._confidence = confidence[order]
        self._wrong = np.concatenate([self._wrong, wrong])[order]

    def threshold(self, allowed: float) -> tuple[float, float]:
        """Find from which confidence on rows may be kept.

        Of n rows drawn, c that are kept disagree. Then of a row to come it is to be expected that
        it is kept and disagrees with probability (c + 1) / (n + 1) at most (conformal risk control,
        Angelopoulos et al., arXiv 2208.02814, equation 4); c's own standard error is added, so that
        it mostly holds for this one run, too, not only on average over many.

        Parameters
        ----------
        allowed : float
            Kept rows that disagree, for each decoded row.

        Returns
        -------
        threshold : float
            Rows at least as sure may be kept; infinite: none.
        expected : float
            Kept rows that disagree, for each decoded row: at most `allowed`.
        """
        wrong = np.cumsum(self._wrong)
        expected = (wrong + 1 + np.sqrt(wrong)) / (len(self) + 1)
        last = np.append(self._confidence[1:] != self._confidence[:-1], len(self) > 0)  # of equals
        fit = np.flatnonzero(last & (expected <= allowed))
        if not len(fit):
            return inf, 0.0
        if fit[-1] == len(self) - 1:  # rows less sure than any seen are as good as the last
            return -inf, float(expected[-1])
        return float(self._confidence[fit[-1]]), float(expected[fit[-1]])


@dataclass
class DisagreementEstimate:
    """Expected disagreement of the rows that stay decoded, and what was measured.

    Attributes
    ----------
    allowed : float
        Of all rows.
    rows : int
        Of the windows decided on so far: those with decoded rows.
    kept : int
        Rows that stay decoded.
    learnt : int
        Rows run again to learn from.
    expected : float
        Rows kept that are expected to disagree, before any is looked at.
    checked, wrong : int
        Rows that would have been kept and were run again to check; those of them that disagreed.
    """

    allowed: float
    rows: int = 0
    kept: int = 0
    learnt: int = 0
    expected: float = 0.0
    checked: int = 0
    wrong: int = 0

    @property
    def stated(self) -> float:
        """The part of all rows expected to disagree."""
        return self.expected / self.rows if self.rows else 0.0

    def measured(self) -> tuple[float, float, float] | None:
        """The part of all rows that disagrees, from those checked, with its 95 % interval (Clopper
        and Pearson); None if none was checked."""
        from scipy.stats import beta

        n, wrong = self.checked, self.wrong
        if not n:
            return None
        low = beta.ppf(0.025, wrong, n - wrong + 1) if wrong else 0.0
        high = beta.ppf(0.975, wrong + 1, n - wrong) if wrong < n else 1.0
        part = self.kept / self.rows
        return part * wrong / n, part * float(low), part * float(high)

    def attrs(self) -> dict[str, Any]:
        """For the output store."""
        found = self.measured()
        return asdict(self) | {
            "expected": round(self.stated, 6),
            "measured": None if found is None else round(found[0], 6),
            "interval": None if found is None else [round(end, 6) for end in found[1:]],
        }

    def __str__(self) -> str:
        text = (
            f"doubt: of {self.rows:,} rows (windows with decoded rows) at most "
            f"{100 * self.allowed:.3g} % were to differ in class, {100 * self.stated:.2g} % were "
            f"expected to; {self.kept:,} stay decoded, {self.learnt:,} were run to learn from"
        )
        found = self.measured()
        if found is None:
            return f"{text}; none was checked"
        value, low, high = (f"{100 * part:.2g}" for part in found)
        return f"{text}; measured: {value} % ({low} to {high} %, {self.checked:,} rows checked)"


@dataclass
class _Waiting:
    """The decoded rows of one window, and how far they have come."""

    #: Row, class and confidence of each, group by group.
    groups: list[tuple[np.ndarray, ...]] = field(default_factory=list)
    use: np.ndarray | None = None  #: LEARNT, CHECKED or OTHER, of each; None: not drawn yet
    threshold: float | None = None  #: None: not decided yet

    def joined(self) -> tuple[np.ndarray, ...]:
        """Row, class and confidence of all."""
        if len(self.groups) > 1:
            self.groups = [tuple(map(np.concatenate, zip(*self.groups, strict=True)))]
        return self.groups[0]


_LEARNT, _CHECKED, _OTHER = range(3)


class SelectiveRepair:
    """Decides, for one run.

    Parameters
    ----------
    agreement : float
        The part of all rows whose class is to be the one that the model gives.
    rng : numpy.random.Generator

    Attributes
    ----------
    found : DisagreementEstimate
    """

    def __init__(self, agreement: float, rng: np.random.Generator) -> None:
        self.found = DisagreementEstimate(1.0 - agreement)
        self._rng = rng
        self._calibration = Calibration()
        self._windows: dict[int, _Waiting] = {}

    def wait(
        self, window: int, rows: np.ndarray, classes: np.ndarray, confidence: np.ndarray
    ) -> None:
        """Rows of a window that were decoded.

        Parameters
        ----------
        window : int
            Its index.
        rows, classes, confidence : (n,)
        """
        self._windows.setdefault(window, _Waiting()).groups.append((rows, classes, confidence))

    def look(
        self, window: int, status: np.ndarray, exact: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Decide what can be decided, once all coded groups of a window are in.

        Parameters
        ----------
        window : int
            Its index.
        status : (W,)
            Of its rows, as it is now; a row that is run again is REPAIRED when it is back.
        exact : (W,)
            The class that the model gives, of rows that are back.

        Returns
        -------
        keep, repair : rows
        """
        keep = repair = np.empty(0, np.int64)
        if (waiting := self._windows.get(window)) is None:
            return keep, repair
        rows, classes, confidence = waiting.joined()
        allowed = self.found.allowed * len(status)
        if waiting.use is None:
            waiting.use = self._draw(allowed / len(rows), len(rows))
            repair = rows[waiting.use != _OTHER]
        learn, check, other = (waiting.use == use for use in (_LEARNT, _CHECKED, _OTHER))
        now = status[rows]

        def wrong(some: np.ndarray) -> np.ndarray:
            """True if rows that are back were of another class."""
            differs: np.ndarray = exact[rows[some]] != classes[some]
            return differs

        def learn_from(some: np.ndarray) -> None:
            known = some & (now == Status.REPAIRED)
            self._calibration.add(confidence[known], wrong(known))

        if waiting.threshold is None and not (now[learn] == Status.PENDING).any():
            learn_from(learn)
            left = int(other.sum())
            waiting.threshold, risk = self._calibration.threshold(allowed / max(1, left))
            sure = confidence >= waiting.threshold
            keep = rows[other & sure]
            repair = np.concatenate([repair, rows[other & ~sure]])
            self.found.rows += len(status)
            self.found.learnt += int(learn.sum())
            self.found.kept += len(keep)
            self.found.expected += risk * left
        if waiting.threshold is not None and not (now[check] == Status.PENDING).any():
            sure = check & (confidence >= waiting.threshold) & (now == Status.REPAIRED)
            self.found.checked += int(sure.sum())
            self.found.wrong += int(wrong(sure).sum())
            learn_from(check)
            del self._windows[window]
        return keep, repair

    def _draw(self, allowed: float, count: int) -> np.ndarray:
        """Draw what each of so many rows is used for; `allowed` of them may disagree."""
        enough = ceil(LEARN / allowed) - len(self._calibration)
        use = np.full(count, _OTHER)
        use[self._rng.random(count) < CHECK] = _CHECKED
        use[self._rng.permutation(count)[: max(0, enough)]] = _LEARNT
        return use
