"""How rare a score is among those of history, of which a few may be lies. Pure.

A share is held against the shares of *other* workers, so that a liar's lies do not pass for usual.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from approxifer.coding.protocol import Reals

#: Part of the scores whose shape says how rare still higher ones are.
TAIL = 0.1
#: Smallest spread: differences of a hundredth are nothing.
LEAST = 0.01
#: The spread of all shares counts in that of each of them as so many groups.
PRIOR = 20


@dataclass(frozen=True, eq=False)
class Pool:
    """Scores of honest shares, most of them, and p-values of others.

    Attributes
    ----------
    scores : array (m,)
        Ascending.
    tail : int
        The highest so many, a tenth, make the tail; 0 where they would be fewer than four.
    begin, scale : float
        Where the tail begins, and how fast it falls.
    """

    scores: Reals
    tail: int
    begin: float
    scale: float

    @classmethod
    def of(cls, scores: Reals) -> Pool:
        """Make one of scores in ascending order."""
        tail = ceil(TAIL * len(scores))
        if tail < 4:
            return cls(scores, 0, 0.0, 1.0)
        begin, median = float(scores[-tail]), float(scores[-(tail // 2)])
        return cls(scores, tail, begin, max((median - begin) / log(2), LEAST))

    def chances(self, score: float) -> tuple[float, float]:
        """Return two p-values: by rank, and with the tail continued.

        The rank is exact as long as the score is exchangeable with those of the pool, and never
        below one over their number. Beyond their highest tenth the tail is taken to fall like an
        exponential. (Residuals are logarithms: they themselves then fall like a power, which is
        slow.) Its scale is that of the tenth's median, which a few lies do not move; being
        estimated, it leaves the tail of a Pareto distribution.
        """
        count = len(self.scores)
        above = count - int(self.scores.searchsorted(score))
        rank = (1 + above) / (1 + count)
        if above >= self.tail:
            return rank, rank
        shape = self.tail / 2
        beyond = 1 + (score - self.begin) / (shape * self.scale)
        return rank, self.tail / count * float(beyond**-shape)


class Pools:
    """For each worker the `Pool` of all others.

    Parameters
    ----------
    scores : array (groups, n)
        NaN where there is none.
    owners : array (groups, n) of str or None
    """

    def __init__(self, scores: Reals, owners: NDArray[Any]) -> None:
        known = np.isfinite(scores)
        order = np.argsort(scores[known])
        self._scores = scores[known][order]
        self._owners = owners[known][order]
        self._of_others: dict[str, Pool] = {}

    def against(self, worker: str) -> Pool:
        """Return what to hold a share of this worker against."""
        if worker not in self._of_others:
            self._of_others[worker] = Pool.of(self._scores[self._owners != worker])
        return self._of_others[worker]


def middle(values: Reals, axis: int = 0) -> Reals:
    """Median of what is not NaN; 0 where nothing is."""
    ordered = np.sort(values, axis=axis)  # NaN goes last
    count = np.isfinite(values).sum(axis=axis, keepdims=True)
    low, high = np.maximum((count - 1) // 2, 0), np.minimum(count // 2, np.maximum(count - 1, 0))
    found = np.take_along_axis(ordered, low, axis) + np.take_along_axis(ordered, high, axis)
    return np.where(count > 0, found / 2, 0.0).squeeze(axis)


def spread(excess: Reals) -> Reals:
    """Robust standard deviations over groups, each drawn towards that of all shares together.

    Parameters
    ----------
    excess : array (groups, n, m)
        About zero; NaN where nothing is known.

    Returns
    -------
    array (n, m)
    """
    distance = np.abs(excess)
    known = np.isfinite(distance).sum(axis=0)
    own, common = middle(distance), middle(distance.reshape(-1, distance.shape[-1]))
    mixed = (known * own**2 + PRIOR * common**2) / (known + PRIOR)
    found: Reals = np.maximum(1.4826 * np.sqrt(mixed), LEAST)
    return found
