"""The row of a share whose output is furthest from those of the run so far.

A share of which few rows are wrong passes a check of random rows more often than not. One row that
is checked because it stands out, in place of one of several random ones, leaves a sixteenth of the
wrong rows that such shares leave otherwise (docs/spot-checks.md, *furthest outputs*).
"""

from __future__ import annotations

import math
from threading import Lock

import numpy as np

#: Coordinates that a covariance is learnt of; larger outputs are folded into as many.
COORDINATES = 64
#: Largest number whose square is added up.
LARGEST = 1e100
#: Least variance in any direction, over the mean of all: rounding.
LEAST = 1e-14


class Outliers:
    """The mean and the covariance of outputs, learnt from all that come; for any thread."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng  #: of the signs with which the coordinates of large outputs are added up
        self._lock = Lock()
        self._signs = np.zeros(0, np.int8)
        self._count = 0
        self._mean = np.zeros(0)
        self._scatter = np.zeros((0, 0))

    def distances(self, outputs: np.ndarray) -> np.ndarray:
        """Learn from outputs (B, *out), and measure how far each is from the mean of all, whitened
        (Mahalanobis): (B,), infinite for outputs that are not finite, or whose square is not.
        """
        with self._lock, np.errstate(all="ignore"):
            rows = self._folded(outputs)
            sound = np.abs(rows).max(axis=1, initial=0.0) < LARGEST  # of a NaN it is False
            self._learn(rows[sound])
            distances = np.full(len(rows), np.inf)
            if self._count:
                variances, directions = np.linalg.eigh(self._scatter / self._count)
                least = LEAST * variances.mean() or 1.0  # all outputs are alike
                along = (rows[sound] - self._mean) @ directions
                distances[sound] = np.sum(along**2 / np.maximum(variances, least), axis=1)
            return distances

    def _learn(self, rows: np.ndarray) -> None:
        """Merge the moments of more rows (Chan, Golub and LeVeque 1979)."""
        if not self._count:
            width = rows.shape[1]
            self._mean, self._scatter = np.zeros(width), np.zeros((width, width))
        if not len(rows):
            return
        mean, before = rows.mean(axis=0), self._count
        off, apart = rows - mean, mean - self._mean
        self._count += len(rows)
        self._scatter += off.T @ off + np.outer(apart, apart) * (before * len(rows) / self._count)
        self._mean += apart * (len(rows) / self._count)

    def _folded(self, outputs: np.ndarray) -> np.ndarray:
        """Outputs as at most `COORDINATES` numbers each, float64: sums with random signs of
        coordinates that far apart keep distances in the mean (Charikar et al. 2002, count
        sketch)."""
        flat = outputs.reshape(len(outputs), math.prod(outputs.shape[1:]))
        if flat.dtype.kind == "c":
            flat = np.concatenate([flat.real, flat.imag], axis=1)
        width = flat.shape[1]
        if width <= COORDINATES:
            return flat.astype(np.float64)
        if len(self._signs) != width:
            self._signs = self._rng.choice(np.array([-1, 1], np.int8), width)
        folded = np.zeros((len(flat), COORDINATES))
        for start in range(0, width, COORDINATES):
            part = slice(start, start + COORDINATES)
            signed = flat[:, part] * self._signs[part]
            folded[:, : signed.shape[1]] += signed
        return folded
