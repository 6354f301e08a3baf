"""Which of a group's shares look wrong: none, or up to E; and as published: always E.

Sources: Soleymani et al., "ApproxIFER", AAAI 2022, arXiv 2109.09868 (`published_locator`); Rosner,
"Percentage points for a generalized ESD many-outlier procedure", Technometrics 25(2), 1983
(`stand_out`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from approxifer.coding.foretelling import Evidence, Weights
from approxifer.coding.protocol import Array, Location, Reals
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


def published_votes(
    outputs: Array, nodes: Sequence[float], k: int, byzantine: int
) -> NDArray[np.int64]:
    """Count, per codeword, in how many outputs each share looks wrong, as ApproxIFER does.

    For each output coordinate, two polynomials P and Q of degree below K + E with Q(0) = 1 are
    fitted, by least squares, to P(b_i) = y_i Q(b_i) over the shares that came back. Q locates
    errors: it vanishes where y_i does not lie on P / Q. The E shares with the smallest |Q(b_i)| get
    a vote. In monomials, and the solution of least norm, as published (arXiv 2109.09868, and the
    authors' scripts). Theory promises nothing for a share at node 0, where Q is 1 whatever it says:
    the authors' grid has one where N is even.

    Parameters
    ----------
    outputs : array (M, B, *out)
        Finite real numbers.
    nodes : M numbers
        Where those shares lie: the b_i.
    k, byzantine : int
        K and E.

    Returns
    -------
    int array (B, M)

    Raises
    ------
    ConfigError
        If an output is not finite, or there are not as many nodes as outputs.
    """
    at = np.asarray(nodes, np.float64)
    if at.shape != outputs.shape[:1]:
        raise ConfigError(f"{len(outputs)} shares' outputs need as many nodes, not {len(at)}")
    values = outputs.reshape(*outputs.shape[:2], -1).transpose(1, 2, 0).astype(np.float64)
    if not np.isfinite(values).all():
        raise ConfigError(
            "some outputs are not finite; leave those shares out, their fault is known"
        )
    terms = k + byzantine
    powers = np.vander(at, terms, increasing=True)
    y = values[..., None]
    of_p = np.broadcast_to(powers, (*values.shape, terms))
    system = np.concatenate([of_p, -y * powers[:, 1:]], axis=-1)
    solution = np.linalg.pinv(system) @ y
    q = 1 + (powers[:, 1:] @ solution[..., terms:, :])[..., 0]
    smallest = np.argsort(np.abs(q), axis=-1, kind="stable")[..., :byzantine]
    votes: NDArray[np.int64] = (smallest[..., None] == np.arange(len(at))).sum(axis=(1, 2))
    return votes


def published_locator(
    outputs: Array, nodes: Sequence[float], k: int, byzantine: int
) -> NDArray[np.intp]:
    """Name, per codeword, the E shares with the most `published_votes`: E, even if none is wrong.

    Returns
    -------
    int array (B, E)
        Positions in `outputs`, the most voted for first; of equal ones the lower.
    """
    votes = published_votes(outputs, nodes, k, byzantine)
    return np.argsort(-votes, axis=1, kind="stable")[:, :byzantine]
