"""Which of a group's shares look wrong: none, or up to E.

Source: Rosner, "Percentage points for a generalized ESD many-outlier procedure", Technometrics
25(2), 1983 (`stand_out`). The published locator is in `approxifer.coding.published`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from approxifer.coding.foretelling import Evidence, Weights
from approxifer.coding.protocol import Location, Reals
from approxifer.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Baseline:
    """What is usual for each share, from history believed to be clean.

    Parameters
    ----------
    center, spread : array (n,)
        Where each share's `Code.deviations` lie, and how they scatter. A share's score is
        (deviation - center) / spread.
    threshold : float
        A group with a score above it is thought to hold a liar.

    Raises
    ------
    ConfigError
        If these are not two arrays of one length, finite, with positive spreads.
    """

    center: Reals
    spread: Reals
    threshold: float

    def __post_init__(self) -> None:
        center, spread = (np.asarray(a, np.float64) for a in (self.center, self.spread))
        if center.ndim != 1 or center.shape != spread.shape:
            raise ConfigError(
                f"center has shape {center.shape}, spread {spread.shape}; give one number of each "
                "for each share"
            )
        if not (np.isfinite(center).all() and np.isfinite(spread).all() and (spread > 0).all()):
            raise ConfigError(
                "center must be finite and spread positive; a share without history has neither: "
                "locate without a baseline until all have one"
            )
        object.__setattr__(self, "center", center)
        object.__setattr__(self, "spread", spread)

    def scores(self, deviations: Mapping[int, float]) -> dict[int, float]:
        """Say how many spreads above its centre each share's deviation is."""
        return {
            share: float((deviation - self.center[share]) / self.spread[share])
            for share, deviation in deviations.items()
        }


def lone_threshold(rows: int) -> float:
    """Return the `studentised` residual above which a share stands out among those of its group.

    Honest shares stand out the more, the fewer the rows; and at the ends of very smooth codewords,
    where outputs are foretold worst. The threshold was set so that fewer than 1 % of clean groups
    have a suspect, on random tanh and ReLU networks along four kinds of codewords (K = 2 to 12,
    E = 1 to 3, 1 to 64 rows of 1 and 10 outputs). It keeps that for other networks, codewords and
    codes, but not for single rows of outputs that saturate: where a softmax jumps from 0 to 1
    within a codeword, an honest share is as odd as a lie.

    Parameters
    ----------
    rows : int
        Rows per block, B.
    """
    return 1.3 + 2.2 / math.sqrt(max(rows, 1))


def locate(
    group: Evidence, weights: Weights, *, byzantine: int, baseline: Baseline | None = None
) -> Location:
    """Name the shares of a group that look wrong.

    With a baseline: if any share's score is above the threshold, the share with the largest
    deviation is a suspect. (A liar makes its neighbours stand out too, and those that are usually
    quiet more than itself; but it is the one without which the others agree best.) The baseline is
    of whole groups: the shares that are then left, and all where there is no baseline, are held
    against each other; see `stand_out`. Shares that are not finite are the first suspects.

    Parameters
    ----------
    group : Evidence
    weights : function
        The `precision` of some shares' outputs.
    byzantine : int
        At most so many suspects: E.
    baseline : Baseline, optional

    Returns
    -------
    Location
        Scores are those of the first look, with all shares: by the baseline, or `studentised`.
    """
    suspects = list(group.broken[:byzantine])
    if baseline is None:
        scores = group.studentised(weights)
    else:
        deviations = group.deviations(weights)
        scores = baseline.scores(deviations)
        known = [share for share in group.shares if share in scores]
        quiet = all(scores[share] <= baseline.threshold for share in known)
        if quiet or len(suspects) == byzantine:
            return Location(frozenset(suspects), scores)
        suspects.append(max(known, key=deviations.__getitem__))
        group = group.without(suspects[-1])
    suspects += stand_out(group, weights, at_most=byzantine - len(suspects))
    return Location(frozenset(suspects), scores)


def stand_out(group: Evidence, weights: Weights, *, at_most: int) -> list[int]:
    """Name the shares that stand out among those of their group.

    The share with the highest `studentised` residual is left out, the others are judged anew, and
    so on: a second liar makes the first look good, so all are left out before one is cleared. Named
    are those left out up to the last that was above `lone_threshold` (Rosner 1983).
    """
    left_out: list[int] = []
    named = 0
    while len(left_out) < at_most and len(group.shares) > 2:
        scores = group.studentised(weights)
        worst = max(group.shares, key=scores.__getitem__)
        left_out.append(worst)
        if scores[worst] > lone_threshold(group.rows):
            named = len(left_out)
        group = group.without(worst)
    return left_out[:named]
