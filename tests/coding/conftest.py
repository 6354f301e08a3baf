"""The oracle: Berrut's interpolant by scipy, and the nodes as in the paper."""

from collections.abc import Callable, Iterator
from itertools import combinations
from math import cos, pi

import numpy as np
import pytest
from scipy.interpolate import FloaterHormannInterpolator

from approxifer.coding import CodeSpec

Nodes = tuple[list[float], list[float]]


def _nodes(spec: CodeSpec) -> Nodes:
    k, n = spec.k, spec.n
    queries = [cos((2 * j + 1) * pi / (2 * k)) for j in range(k)]
    if spec.scheme == "berrut":
        return queries, [cos(i * pi / n) for i in range(n)]
    points = [cos((2 * i + 1) * pi / (2 * n)) for i in range(n)]
    if k == 1:
        return points[:1], points
    parity = [round(m * (n - 1) / (n - k + 1)) for m in range(1, n - k + 1)]
    queries = [point for i, point in enumerate(points) if i not in parity]
    return queries, queries + [points[i] for i in parity]


def _oracle(nodes: list[float], values: np.ndarray, at: list[float]) -> np.ndarray:
    order = np.argsort(nodes)
    interpolant = FloaterHormannInterpolator(np.array(nodes)[order], values[order], d=0)
    return interpolant(np.array(at))


@pytest.fixture
def nodes() -> Callable[[CodeSpec], Nodes]:
    """Query nodes and share nodes of a berrut or systematic code."""
    return _nodes


@pytest.fixture
def oracle() -> Callable[[list[float], np.ndarray, list[float]], np.ndarray]:
    """Berrut's interpolant through values at nodes, evaluated elsewhere, by scipy."""
    return _oracle


@pytest.fixture
def subsets() -> Callable[[int], Iterator[set[int]]]:
    """All sets of shares 0 to n - 1."""
    return lambda n: (set(s) for size in range(n + 1) for s in combinations(range(n), size))
