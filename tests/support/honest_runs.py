"""Honest runs of one model that differ by rounding, and the tolerance measured for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from approxifer.models import Runner
from approxifer.pipeline.byzantine.noise import measure_tolerance, own_noise
from approxifer.pipeline.byzantine.tolerance import Tolerance

EPS = float(np.finfo(np.float32).eps)
FILL = 9.96921e36  # netCDF's, where it is not declared as such
Forward = Callable[[np.ndarray], np.ndarray]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def runner(forward: Forward, *, dtype: str = "float32", static_batch: int | None = None) -> Runner:
    return Runner("toy", "f", dtype, "cpu", 1, static_batch, forward)


def measured(forward: Forward, rows: np.ndarray, micro_batch: int = 64, **kind: Any) -> Tolerance:
    return measure_tolerance(runner(forward, **kind), rows, micro_batch, rng=rng())


def draw(rows: int, seed: int = 0, features: int = 200) -> np.ndarray:
    """Rows of about one number format's and one unit's size: (rows, features)."""
    return rng(seed).normal(size=(rows, features)).astype(np.float32)


def most(made: Tolerance) -> float:
    return float(np.max(made.relative))


def noises(run: Runner, rows: np.ndarray, sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The right outputs of rows, and their noise, as the client finds them, 16 at a time."""
    draws = rng(2)
    each = [own_noise(run, few, 64, sample, draws) for few in np.split(rows, len(rows) // 16)]
    right, noise = zip(*each, strict=True)
    return np.concatenate(right), np.concatenate(noise)


def differs(found: Any, expected: Any, *, usual: Any = 1.0, **options: Any) -> list[bool]:
    made = Tolerance(1e-3, np.asarray(usual, float))
    return made.differs(np.asarray(found), np.asarray(expected), **options).tolist()


class Net:
    """A float32 network, as the client runs it and as other honest machines might."""

    def __init__(self, *, classes: int = 10, features: int = 200, layers: int = 2) -> None:
        weights, width = rng(9), features
        self.layers = []
        for each in [64] * (layers - 1) + [classes]:
            gain = (2 / width) ** 0.5
            self.layers.append(weights.normal(0, gain, (width, each)).astype(np.float32))
            width = each

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        return self._run(rows, np.matmul)

    def wide(self, rows: np.ndarray) -> np.ndarray:
        """Rounded at the end only."""
        wide = partial(np.matmul, dtype=np.float64, casting="same_kind")
        return self._run(rows, wide).astype(np.float32)

    def permuted(self, rows: np.ndarray) -> np.ndarray:
        """Summed in another order, one term after the other."""

        def product(hidden: np.ndarray, layer: np.ndarray) -> np.ndarray:
            total = np.zeros((len(hidden), layer.shape[1]), np.float32)
            for term in rng(layer.shape[0]).permutation(layer.shape[0]):
                total += hidden[:, term, None] * layer[term]
            return total

        return self._run(rows, product)

    def nearest(self, rows: np.ndarray) -> np.ndarray:
        """One unit in the last place off."""
        return np.nextafter(self(rows), np.float32(np.inf))

    def _run(self, rows: np.ndarray, product: Callable[..., np.ndarray]) -> np.ndarray:
        with np.errstate(all="ignore"):
            hidden = product(rows, self.layers[0])
            for layer in self.layers[1:]:
                hidden = product(np.maximum(hidden, 0), layer)
        return hidden
