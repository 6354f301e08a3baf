"""Outputs foretold from inputs: a ridge regression, learnt during a run from its own outputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from approxifer.benchmarks.signals_story import Material, stages, who_lies
from approxifer.coding.protocol import Reals

#: Weight of the penalty, for each row. From 0.03 to 0.3 agreement hardly moves.
PENALTY = 0.1
#: Rows by whose errors the estimate's own are known.
TRIED = 500
#: Smallest variance of errors in any direction, over the mean of all: rounding.
LEAST = 1e-14


@dataclass(frozen=True, eq=False)
class Foretold:
    """What the liar's shares are foretold to be, from the others' outputs.

    Attributes
    ----------
    at : (groups, shares)
        Index of the liar's m shares.
    center : array (m, B, C)
    stage : int (m,)
    when : int (m,)
        The group after which each is held against it.
    scales : array (stages, C)
        Standard deviations of the error.
    whites : array (stages, C, C)
        What makes the error white.
    """

    at: tuple[np.ndarray, np.ndarray]
    center: Reals
    stage: np.ndarray
    when: np.ndarray
    scales: Reals
    whites: Reals

    def deviations(self, outputs: np.ndarray, *, white: bool) -> Reals:
        """How far the liar's outputs (m, B, C) are off, in standard deviations: (m, B)."""
        with np.errstate(all="ignore"):
            off = outputs.astype(np.float64) - self.center
            if white:
                off = np.einsum("mbc,mcd->mbd", off, self.whites[self.stage])
            else:
                off /= self.scales[self.stage][:, None]
            far: Reals = np.linalg.norm(off, axis=2)
        return np.where(np.isfinite(far), far, np.inf)


@lru_cache(maxsize=512)
def foretold(of: Material, seed: int, kind: str) -> Foretold:
    """Learn from the workers that do not lie; their outputs are the same whatever the lie is.

    (Of the others, an estimate would be learnt from the liar's rows too. As they are right, what
    is checked of them finds nothing.)
    """
    known = of.features[kind]
    owners, liar = of.owners(seed), who_lies(seed)
    theirs = owners == liar
    groups, shares = np.nonzero(theirs)
    numbers, plain = of.rows, of.recording.plain.reshape(len(of.recording.plain), -1)
    center = np.zeros(of.outputs[groups, shares].shape)
    stage, when = np.zeros(len(groups), int), groups.copy()
    scales, whites = [], []
    for learnt, start, stop in stages(len(owners), owners.shape[1] * of.block, len(owners)):
        others = numbers[:learnt][~theirs[:learnt]].ravel()
        own = numbers[:learnt][theirs[:learnt]].ravel()
        products = _products(of, kind, learnt) - known[own].T @ known[own]
        fit = _Ridge.learn(known, plain, others, products)
        errors = fit.errors(others[:: -(-len(others) // TRIED)])
        covariance = errors.T @ errors / len(errors)
        variances, directions = np.linalg.eigh(covariance)
        scales.append(np.sqrt(np.diag(covariance)))
        whites.append(directions / np.sqrt(np.maximum(variances, LEAST * variances.mean())))
        now = (groups >= start) & (groups < stop)
        center[now] = fit(numbers[groups[now], shares[now]])
        stage[now], when[now] = len(scales) - 1, np.maximum(when[now], learnt - 1)
    return Foretold((groups, shares), center, stage, when, np.stack(scales), np.stack(whites))


@dataclass(frozen=True, eq=False)
class _Ridge:
    """A ridge regression of outputs (n, C) on features (n, d)."""

    known: np.ndarray
    plain: np.ndarray
    mean: Reals
    weights: Reals
    factor: tuple[Reals, bool]

    @classmethod
    def learn(
        cls, known: np.ndarray, plain: np.ndarray, rows: np.ndarray, products: np.ndarray
    ) -> _Ridge:
        """Fit to rows of which the products of the features (d, d) are known."""
        matrix = products.astype(np.float64)
        matrix[np.diag_indices(len(matrix))] += PENALTY * len(rows)
        factor = cho_factor(matrix)
        mean = plain[rows].mean(axis=0, dtype=np.float64)
        weights = cho_solve(factor, known[rows].T @ (plain[rows] - mean))
        return cls(known, plain, mean, weights, factor)

    def __call__(self, rows: np.ndarray) -> Reals:
        found: Reals = self.known[rows] @ self.weights + self.mean
        return found

    def errors(self, rows: np.ndarray) -> Reals:
        """Leave-one-out errors of rows that it was fitted to."""
        known = self.known[rows].astype(np.float64)
        leverage = np.einsum("ij,ji->i", known, cho_solve(self.factor, known.T))
        found: Reals = (self.plain[rows] - self(rows)) / (1 - leverage)[:, None]
        return found


@lru_cache(maxsize=16)
def _products(of: Material, kind: str, learnt: int) -> np.ndarray:
    """Of the features of all rows of the first groups."""
    known = of.features[kind][of.rows[:learnt].ravel()]
    products: np.ndarray = known.T @ known
    return products
