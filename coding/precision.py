"""How honest shares foretell each other, learnt from the outputs of many groups.

`approxifer.coding.foretelling` supposes how outputs vary together along a codeword; where there is
history, it can be seen: between shares (`Precision`), and between the outputs of a row
(`Whitening`). Both are learnt from groups of which some hold lies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from approxifer.coding.foretelling import ROUNDING, TINY, mean_products
from approxifer.coding.protocol import Array, Reals

ROUNDS = 10  # of the fixed-point iteration, from nothing
MORE = 2  # from what was learnt of nearly the same groups
RIDGE = 1e-6  # smallest variance of what the others do not foretell, over the outputs' own

DIRECTIONS = 16  # along which residuals are told apart; the others are taken to be alike
SAMPLE = 1 << 20  # numbers from which these directions are found, at most
WIDEST = 1 << 16  # outputs of a row: with more, none are told apart
FAINT = 1e-3  # smallest variance along a direction, over the mean of all


@dataclass(frozen=True, eq=False)
class Precision:
    """The covariance of honest outputs between the n shares of a group, up to its scale.

    Attributes
    ----------
    covariance : array (n, n)
    """

    covariance: Reals
    _weights: dict[bytes, Reals] = field(default_factory=dict, repr=False)

    @classmethod
    def learn(cls, products: Reals, before: "Precision | None" = None) -> "Precision":
        """Learn it from groups' `mean_products`, of which a minority may hold lies.

        Tyler's M-estimator ("A distribution-free M-estimator of multivariate scatter", Annals of
        Statistics 15(1), 1987), with groups for observations: each counts by its shape alone, not
        by its size, so that a group with a lie, however gross, weighs no more than any other. What
        is missing is put in as its expectation (as in the EM algorithm).

        Parameters
        ----------
        products : array (groups, n, n)
            NaN in the rows and columns of shares that are missing.
        before : Precision, optional
            What was learnt when there were a few groups fewer.
        """
        n = products.shape[-1]
        parts = [(some, products[np.ix_(at, some, some)]) for some, at in _alike(products)]
        found = np.eye(n) if before is None else before.covariance
        for _ in range(ROUNDS if before is None else MORE):
            total = np.zeros((n, n))
            for some, given in parts:
                total += _expected(found, some, given)
            found = n * total / np.trace(total) + RIDGE * np.eye(n) if total.any() else found
        return cls(found)

    def weights(self, some: NDArray[np.intp]) -> Reals:
        """Return the inverse (m, m) of the covariance of some shares."""
        key = some.tobytes()
        if key not in self._weights:
            inverse = np.linalg.inv(self.covariance[np.ix_(some, some)])
            self._weights[key] = np.asarray(inverse, np.float64)
        return self._weights[key]

    def surprise(self, products: Reals) -> Reals:
        """Logarithm of each share's residual over that of the others among themselves.

        The externally studentised residual of regression, pooled over rows and outputs; see
        `approxifer.coding.foretelling.studentised`.

        Parameters
        ----------
        products : array (groups, n, n)
            As for `learn`.

        Returns
        -------
        array (groups, n)
            NaN for shares that are missing, and where fewer than three came back.
        """
        found = np.full(products.shape[:2], np.nan)
        for some, at in _alike(products):
            weights, given = self.weights(some), products[np.ix_(at, some, some)]
            size = np.median(np.diagonal(given, axis1=1, axis2=2), axis=1)[:, None]
            least = np.maximum(ROUNDING**2 * size, TINY**2)
            foretold = weights @ given
            squares = (foretold * weights).sum(axis=2) / np.diag(weights)
            others = np.trace(foretold, axis1=1, axis2=2)[:, None] - squares
            rest = np.maximum(others / (len(some) - 1), least)
            found[np.ix_(at, some)] = np.log(np.maximum(squares, least) / rest) / 2
        return found


def _alike(products: Reals) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Put groups together of which the same shares came back, if three or more: those, and which
    groups."""
    present = np.isfinite(np.diagonal(products, axis1=1, axis2=2))
    found: dict[bytes, list[int]] = {}
    for group, shares in enumerate(present):
        found.setdefault(shares.tobytes(), []).append(group)
    parts = [(np.flatnonzero(present[at[0]]), np.array(at)) for at in found.values()]
    return [(some, at) for some, at in parts if len(some) > 2]


def _expected(covariance: Reals, some: NDArray[np.intp], products: Reals) -> Reals:
    """Sum groups (g, m, m), each divided by its scale, and completed to n shares."""
    inverse = np.linalg.inv(covariance[np.ix_(some, some)])
    scale = (inverse * products).sum(axis=(1, 2)) / len(some)
    sound = scale > 0
    complete = covariance[:, some] @ inverse  # predicts all n from the m; the m are themselves
    left = covariance - complete @ covariance[some]
    total = (products[sound] / scale[sound, None, None]).sum(axis=0)
    result: Reals = complete @ total @ complete.T + sound.sum() * left
    return result


@dataclass(frozen=True, eq=False)
class Whitening:
    """Makes honest residuals equally large in all directions of a row's C outputs.

    Noise, or classes that have changed places, then stand out by what honest residuals never do.

    Attributes
    ----------
    directions : array (C, r)
        Orthonormal: those along which residuals are told apart, at most `DIRECTIONS`.
    gains : array (r,)
        By what squares along these are multiplied.
    gain : float
        By what squares in the other directions are multiplied.
    """

    directions: Reals
    gains: Reals
    gain: float

    @classmethod
    def learn(cls, groups: Sequence[tuple[Array, Reals]]) -> "Whitening":
        """Learn it from groups believed to be honest.

        Each counts the same, whatever its size; of its rows a sample is looked at.

        Parameters
        ----------
        groups
            Outputs (m, B, C) of shares, and their `Precision.weights` (m, m).
        """
        width = groups[0][0].shape[2]
        most = max(1, SAMPLE // (width * sum(len(outputs) for outputs, _ in groups)))
        parts = [_residuals(outputs, weights, most) for outputs, weights in groups]
        power, directions = np.linalg.svd(np.concatenate(parts), full_matrices=False)[1:]
        variances = np.square(power)
        total = max(float(variances.sum()), TINY)
        leading = variances[:DIRECTIONS]
        least = FAINT * total / width
        others = width - len(leading)
        rest = max(float(variances[DIRECTIONS:].sum()) / others, least) if others else np.inf
        scale = total / width
        return cls(directions[:DIRECTIONS].T, scale / np.maximum(leading, least), scale / rest)

    def products(self, outputs: Mapping[int, Array]) -> Reals:
        """`mean_products` of outputs (B, *out), made white."""
        given = list(outputs.values())
        rows = len(given[0])
        along = np.stack([one.reshape(rows, -1) @ self.directions for one in given])
        flat = along.reshape(len(given), -1)
        weighted = (along * (self.gains - self.gain)).reshape(flat.shape)
        with np.errstate(all="ignore"):
            found: Reals = weighted @ flat.T / given[0].size
        return found + self.gain * mean_products(outputs) if self.gain else found


def _residuals(outputs: Array, weights: Reals, most: int) -> Reals:
    """Return residuals (some, C) of mean square 1, of at most so many rows of each share."""
    step = -(-outputs.shape[1] // most)
    some = outputs[:, ::step].astype(np.float64)
    found = np.tensordot(weights / np.sqrt(np.diag(weights))[:, None], some, 1)
    size = np.sqrt(np.mean(np.square(found)))
    result: Reals = found.reshape(-1, found.shape[2]) / max(size, TINY)
    return result
