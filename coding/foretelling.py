"""How far each share's output is from what the other shares foretell.

Berrut's interpolant is a poor prophet: it runs through every output, wrong ones included, so that a
lie also spoils what is foretold of its neighbours. Here an output is foretold by the best linear
prediction from the others (kriging), the `covariance` of honest outputs being that of a model which
is roughly linear along a codeword. All rows and all their outputs are one witness, and all that
need be known of them are their `mean_products`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from approxifer.coding.interpolate import berrut_matrix
from approxifer.coding.protocol import Array, Reals

#: What is usual along a codeword, as variances: queries follow a smooth curve, of variance 1 and
#: alike over LENGTH (that of the line, [-1, 1]); each has a part of its own; and so has each
#: output, for no model is linear.
LENGTH = 2.0
OWN_PART = 1.0
ROUGHNESS = 0.3

#: Residuals below this fraction of the outputs' root mean square are rounding errors.
ROUNDING = 1e-6
TINY = 1e-150  # its square still is a number

CHUNK = 1 << 18  # outputs of a share converted to double precision at a time

Weights: TypeAlias = Callable[[tuple[int, ...]], Reals]
"""The `precision` of the outputs of some shares, given by number."""


def covariance(queries: tuple[float, ...], shares: tuple[float, ...]) -> Reals:
    """Foretell how the outputs of shares vary together.

    Shares are Berrut mixtures of the queries, W = `berrut_matrix`. A linear model keeps the
    mixture; what it is not linear in adds to each output alone::

        C = W (S + OWN_PART I) W' + ROUGHNESS I,    S_jl = exp(-((a_j - a_l) / LENGTH)^2 / 2)

    Parameters
    ----------
    queries, shares : the nodes a_j and b_i

    Returns
    -------
    array (n, n)
    """
    at = np.array(queries)
    mixture = berrut_matrix(np.array(shares), at)
    curve = np.exp(-np.square((at[:, None] - at) / LENGTH) / 2)
    of_queries = curve + OWN_PART * np.eye(len(at))
    found: Reals = mixture @ of_queries @ mixture.T + ROUGHNESS * np.eye(len(shares))
    return found


def precision(covariance: Reals) -> Reals:
    """Invert a covariance (m, m) of outputs whose mean, the same for all, is unknown.

    Of the result P, row i over P_ii is output i minus its best linear prediction from the others,
    and 1 / P_ii the variance of that. Rows sum to zero.
    """
    inverse = np.linalg.inv(covariance)
    sums = inverse.sum(axis=1)
    weights: Reals = inverse - np.outer(sums, sums) / sums.sum()
    return weights


@lru_cache(maxsize=1024)
def expected_precision(
    queries: tuple[float, ...], shares: tuple[float, ...], used: tuple[int, ...]
) -> Reals:
    """`precision` of the `covariance` of the shares in `used` alone; read-only and cached.

    Returns
    -------
    array (len(used), len(used))
    """
    weights = precision(covariance(queries, shares)[np.ix_(used, used)])
    weights.setflags(write=False)
    return weights


def mean_products(outputs: Mapping[int, Array]) -> Reals:
    """Mean, over rows and outputs, of the product of every two shares' outputs.

    Parameters
    ----------
    outputs : mapping of m shares to arrays (B, *out)
        Real numbers, at least one each.

    Returns
    -------
    array (m, m)
        In the mapping's order. Rows and columns of shares whose outputs are not finite (or too
        large to be squared) are not finite either.
    """
    flat = [np.ravel(output) for output in outputs.values()]
    products = np.zeros((len(flat), len(flat)))
    with np.errstate(all="ignore"):
        for start in range(0, flat[0].size, CHUNK):
            part = np.array([output[start : start + CHUNK] for output in flat], np.float64)
            products += part @ part.T
    products /= flat[0].size
    return products


def residuals(weights: Reals, products: Reals) -> Reals:
    """Mean squares of each share's output minus its prediction, over the variance of that.

    Parameters
    ----------
    weights : array (m, m)
        A `precision` of the shares' outputs.
    products : array (m, m)
        Their `mean_products`, finite.

    Returns
    -------
    array (m,)
        Positive: at least what rounding leaves.
    """
    squares = np.einsum("ij,jl,il->i", weights, products, weights) / np.diag(weights)
    sound: Reals = np.maximum(squares, _rounding(products))
    return sound


def studentised(weights: Reals, products: Reals) -> Reals:
    """Logarithm of each share's residual over that of the others among themselves.

    The externally studentised residual of regression, pooled over rows and outputs. It has no
    scale, and no share can hide by making the others' residuals large.

    Parameters
    ----------
    weights, products : arrays (m, m)
        As for `residuals`, m > 2.

    Returns
    -------
    array (m,)
    """
    squares = residuals(weights, products)
    # What is left of the squares of all when one is left out: m - 2 degrees of freedom.
    others = np.sum(weights * products) - squares
    rest = np.maximum(others / (len(weights) - 2), _rounding(products))
    result: Reals = np.log(squares / rest) / 2
    return result


def _rounding(products: Reals) -> float:
    """Return the mean square below which a residual is a rounding error."""
    return float(max(ROUNDING**2 * np.median(np.diag(products)), TINY**2))


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a group's outputs say about its shares.

    Attributes
    ----------
    shares : tuple of int
        Those whose outputs are finite.
    products : array (len(shares), len(shares))
        Their `mean_products`.
    broken : tuple of int
        Those whose outputs are not finite.
    rows : int
        Rows per block, B.
    """

    shares: tuple[int, ...]
    products: Reals
    broken: tuple[int, ...]
    rows: int

    @classmethod
    def of(cls, outputs: Mapping[int, Array]) -> "Evidence":
        """Look at outputs: a mapping of share to array (B, *out), all of one shape and dtype.

        Nothing is compared but floating point.
        """
        model = next(iter(outputs.values()))
        if model.dtype.kind != "f" or not model.size:
            return cls((), np.empty((0, 0)), (), len(model))
        products = mean_products(outputs)
        finite = np.isfinite(np.diag(products))
        shares = np.array(list(outputs))
        return cls(
            tuple(shares[finite].tolist()),
            products[np.ix_(finite, finite)],
            tuple(shares[~finite].tolist()),
            len(model),
        )

    def without(self, share: int) -> "Evidence":
        """Leave out one of the finite shares."""
        kept = [i for i, other in enumerate(self.shares) if other != share]
        shares = tuple(self.shares[i] for i in kept)
        return Evidence(shares, self.products[np.ix_(kept, kept)], self.broken, self.rows)

    def deviations(self, weights: Weights) -> dict[int, float]:
        """Half the logarithms of `residuals`; see `Code.deviations`."""
        return self._scored(weights, lambda *group: np.log(residuals(*group)) / 2)

    def studentised(self, weights: Weights) -> dict[int, float]:
        """As `deviations`, by `studentised` residuals."""
        return self._scored(weights, studentised)

    def _scored(self, weights: Weights, score: Callable[[Reals, Reals], Reals]) -> dict[int, float]:
        """Score the finite shares, if these are three or more; the broken ones get +inf."""
        scores = dict.fromkeys(self.broken, math.inf)
        if len(self.shares) > 2:
            found = score(weights(self.shares), self.products).tolist()
            scores.update(zip(self.shares, found, strict=True))
        return scores
