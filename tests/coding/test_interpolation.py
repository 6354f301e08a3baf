"""The traps of the node grids: coincident nodes, signs, parity at the ends."""

from itertools import combinations

import numpy as np
import pytest

from approxifer.coding import CodeSpec
from approxifer.coding.interpolation import berrut_matrix, berrut_nodes, systematic_nodes


def carriers(k, n):
    """Shares i that are a block j: i / n = (2j+1) / 2k, in whole numbers."""
    return {i: j for j in range(k) for i in range(n) if (2 * j + 1) * n == 2 * k * i}


def gain(code, present):
    """The worst magnification of an error in the outputs: the largest row sum of the decoder."""
    unit = np.eye(code.n)
    blocks = code.decode({i: unit[i : i + 1] for i in present}).blocks
    return np.abs(blocks).sum(axis=2).max()


def worst_gain(code):
    needed = code.n - code.spec.stragglers
    return max(gain(code, present) for present in combinations(range(code.n), needed))


@pytest.mark.parametrize("k", range(2, 13))
def test_a_coincident_share_is_the_query(k):
    """Though their nodes differ in the last bits."""
    rng = np.random.default_rng(k)
    blocks = rng.normal(size=(k, 3, 4))
    for stragglers in range(k + 2):
        code = CodeSpec("berrut", k, stragglers).build()
        expected = carriers(k, code.n)
        assert {i: j for i, j in enumerate(code.carries) if j is not None} == expected
        shares = code.encode(blocks)
        present = set(range(code.n))
        exact = set(np.flatnonzero(code.exact(present)).tolist())
        assert exact == set(expected.values())
        decoded = code.decode({i: shares[i] for i in present})
        for i, j in expected.items():
            np.testing.assert_array_equal(shares[i], blocks[j])
            np.testing.assert_array_equal(decoded.blocks[j], blocks[j])
            assert not code.exact(present - {i})[j]
        assert np.isfinite(decoded.blocks).all()


def test_the_cosines_of_coincident_nodes_do_differ():
    """Otherwise the tolerance is tested by nothing."""
    queries, shares = berrut_nodes(11, 12)
    assert carriers(11, 12) == {6: 5}
    assert 0 < abs(queries[5] - shares[6]) < 1e-15


@pytest.mark.parametrize(("k", "stragglers"), [(64, 64), (66, 22), (341, 683), (1021, 3)])
def test_no_more_than_the_coincident_shares_however_crowded(k, stragglers):
    code = CodeSpec("berrut", k, stragglers).build()
    found = {i: j for i, j in enumerate(code.carries) if j is not None}
    assert found == carriers(k, code.n)


@pytest.mark.parametrize(
    ("scheme", "stragglers", "expected"),
    [
        ("berrut", 1, 4.47),
        ("berrut", 3, 8.71),
        ("systematic", 1, 4.25),
        ("systematic", 3, 8.45),
    ],
)
def test_noise_gain(scheme, stragglers, expected):
    """Signs alternate over the shares that came back."""
    code = CodeSpec(scheme, 8, stragglers).build()
    assert worst_gain(code) == pytest.approx(expected, abs=0.005)


def test_the_original_signs_would_magnify_noise():
    """The trap that `test_noise_gain` is about: 69.7 in place of 4.47."""
    queries, shares = berrut_nodes(8, 9)
    signs = (-1.0) ** np.arange(9)
    gains = []
    for lost in range(9):
        kept = np.arange(9) != lost
        weights = signs[kept] / (queries[:, None] - shares[kept])
        weights /= weights.sum(axis=1, keepdims=True)
        gains.append(np.abs(weights).sum(axis=1).max())
    assert max(gains) == pytest.approx(69.7, abs=0.05)


def test_a_node_at_distance_one_from_a_hit_divides_by_nothing():
    weights = berrut_matrix(np.array([0.5, -0.5]), np.array([0.5, -0.5]))
    np.testing.assert_array_equal(weights, np.eye(2))


def test_the_order_of_the_nodes_does_not_matter():
    rng = np.random.default_rng(0)
    nodes, at = np.sort(rng.uniform(-1, 1, 9)), rng.uniform(-1, 1, 5)
    shuffle = rng.permutation(9)
    np.testing.assert_array_equal(
        berrut_matrix(at, nodes)[:, shuffle].round(12), berrut_matrix(at, nodes[shuffle]).round(12)
    )


@pytest.mark.parametrize("k", range(2, 13))
@pytest.mark.parametrize("stragglers", range(6))
def test_parity_lies_inside_the_queries(k, stragglers):
    queries, shares = systematic_nodes(k, k + stragglers)
    points = np.cos((2 * np.arange(k + stragglers) + 1) * np.pi / (2 * (k + stragglers)))
    np.testing.assert_array_equal(np.sort(shares)[::-1], points)
    np.testing.assert_array_equal(shares[:k], queries)
    assert (np.diff(queries) < 0).all()
    parity = shares[k:]
    assert (np.abs(parity) < queries[0]).all()
    where = np.searchsorted(-points, -parity)
    gaps = np.diff([0, *where, k + stragglers - 1])
    assert gaps.max() - gaps.min() <= 1  # evenly spread
