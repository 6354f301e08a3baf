"""The furthest output of a share."""

from __future__ import annotations

import numpy as np
import pytest

from approxifer.pipeline.byzantine.outliers import COORDINATES, Outliers


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def shares(width: int, count: int = 20, seed: int = 0, rows: int = 64) -> list[np.ndarray]:
    """Correlated outputs, most of whose variance lies in a few directions."""
    mix = rng(99).normal(size=(width, width)) * 0.5 ** (np.arange(width) % 20)
    return [rng([seed, i]).normal(size=(rows, width)) @ mix + 7 for i in range(count)]


def test_distances_are_those_of_mahalanobis() -> None:
    outliers, some = Outliers(rng()), shares(6)
    for share in some:
        distances = outliers.distances(share)
    everything = np.concatenate(some)
    apart = some[-1] - everything.mean(axis=0)
    inverse = np.linalg.inv(np.cov(everything.T, bias=True))
    expected = np.einsum("bi,ij,bj->b", apart, inverse, apart)
    np.testing.assert_allclose(distances, expected, rtol=1e-9)


@pytest.mark.parametrize("width", [10, 1000, 3 * COORDINATES + 5])
def test_a_row_that_leaves_the_directions_of_all_others_is_the_furthest(width: int) -> None:
    outliers, found = Outliers(rng()), 0
    for i, share in enumerate(shares(width, count=40)):
        share[i] = share[i, rng(i).permutation(width)]  # no larger than the others
        found += int(np.argmax(outliers.distances(share)) == i)
    assert found >= 35


def test_what_cannot_be_measured_is_infinitely_far_and_not_learnt() -> None:
    outliers, (share,) = Outliers(rng()), shares(10, count=1)
    clean = Outliers(rng()).distances(share[3:])
    share[0], share[1, 2], share[2, 4] = np.nan, -np.inf, 1e200
    distances = outliers.distances(share)
    assert np.isposinf(distances[:3]).all()
    np.testing.assert_allclose(distances[3:], clean)


@pytest.mark.parametrize(
    "outputs",
    [
        np.zeros((5, 3)),
        np.full((4, 2), np.nan),
        np.arange(6).reshape(6, 1),
        np.arange(7),
        np.zeros((0, 3)),
        np.array([True, False]),
        np.array([[1 + 2j], [3 - 1j], [0]], np.complex64),
        np.full((3, 2), 65504, np.float16),
    ],
)
def test_outputs_of_any_kind_are_measured(outputs: np.ndarray) -> None:
    distances = Outliers(rng()).distances(outputs)
    assert distances.shape == (len(outputs),)
    assert not np.isnan(distances).any()


def test_both_parts_of_complex_numbers_count() -> None:
    outliers = Outliers(rng())
    values = rng().normal(size=(100, 1)) + 1j * rng(1).normal(size=(100, 1))
    values[7] += 50j
    assert np.argmax(outliers.distances(values)) == 7
