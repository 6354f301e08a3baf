"""Encode and decode against scipy's Floater-Hormann interpolant with d = 0, which is Berrut's."""

from itertools import combinations

import numpy as np
import pytest

from approxifer.coding import CodeSpec

CODES = [
    pytest.param(CodeSpec(scheme, k, s), id=f"{scheme}-{k}-{s}")
    for scheme in ("berrut", "systematic")
    for k, s in [(2, 1), (2, 4), (3, 2), (8, 1), (8, 3), (12, 2), (20, 5)]
]


def straggler_sets(spec, rng, count=10):
    for _ in range(count):
        lost = rng.choice(spec.n, rng.integers(spec.stragglers + 1), replace=False)
        yield sorted(set(range(spec.n)) - set(lost.tolist()))


@pytest.mark.parametrize("spec", CODES)
def test_double_precision(spec, nodes, oracle):
    rng = np.random.default_rng(spec.k)
    code = spec.build()
    queries, shares = nodes(spec)
    blocks = rng.normal(size=(spec.k, 4, 3, 2))
    np.testing.assert_allclose(
        code.encode(blocks), oracle(queries, blocks, shares), rtol=1e-10, atol=1e-10
    )
    outputs = rng.normal(size=(spec.n, 4, 5))
    for present in straggler_sets(spec, rng):
        decoded = code.decode({i: outputs[i] for i in present})
        expected = oracle([shares[i] for i in present], outputs[present], queries)
        np.testing.assert_allclose(decoded.blocks, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("spec", CODES)
def test_single_precision(spec, nodes, oracle):
    rng = np.random.default_rng(spec.k)
    code = spec.build()
    queries, shares = nodes(spec)
    blocks = rng.normal(size=(spec.k, 4, 25)).astype(np.float32)
    expected = oracle(queries, blocks.astype(np.float64), shares)
    encoded = code.encode(blocks)
    assert encoded.dtype == np.float32
    assert np.abs(encoded - expected).max() <= 1e-5 * np.abs(expected).max()
    for present in straggler_sets(spec, rng):
        decoded = code.decode({i: encoded[i] for i in present}).blocks
        expected = oracle([shares[i] for i in present], encoded[present].astype(float), queries)
        assert decoded.dtype == np.float32
        assert np.abs(decoded - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("scheme", ["berrut", "systematic"])
@pytest.mark.parametrize("k", range(1, 13))
def test_every_straggler_set(scheme, k, nodes, oracle):
    rng = np.random.default_rng(k)
    for stragglers in range(4):
        spec = CodeSpec(scheme, k, stragglers)
        code = spec.build()
        queries, shares = nodes(spec)
        outputs = rng.normal(size=(spec.n, 2))
        for size in range(stragglers + 1):
            for lost in combinations(range(spec.n), size):
                present = [i for i in range(spec.n) if i not in lost]
                decoded = code.decode({i: outputs[i] for i in present})
                interpolated = np.flatnonzero(~decoded.exact)
                carried = {code.carries[i] for i in present}
                assert decoded.exact.tolist() == [j in carried for j in range(k)]
                if len(interpolated):
                    at = [queries[j] for j in interpolated]
                    expected = oracle([shares[i] for i in present], outputs[present], at)
                    np.testing.assert_allclose(
                        decoded.blocks[interpolated], expected, rtol=1e-10, atol=1e-10
                    )
                for j in np.flatnonzero(decoded.exact):
                    carrier = next(i for i in present if code.carries[i] == j)
                    np.testing.assert_array_equal(decoded.blocks[j], outputs[carrier])


@pytest.mark.parametrize("scheme", ["berrut", "systematic"])
@pytest.mark.parametrize(("k", "stragglers", "byzantine"), [(1, 1, 1), (4, 0, 2), (8, 1, 1)])
def test_every_eviction_set(scheme, k, stragglers, byzantine, nodes, oracle):
    """Up to E suspects left out, with all S stragglers lost or none."""
    rng = np.random.default_rng(k)
    spec = CodeSpec(scheme, k, stragglers, byzantine)
    code = spec.build()
    queries, shares = nodes(spec)
    outputs = rng.normal(size=(spec.n, 2))
    for size in range(byzantine + stragglers + 1):
        for gone in combinations(range(spec.n), size):
            present = [i for i in range(spec.n) if i not in gone]
            decoded = code.decode({i: outputs[i] for i in present})
            expected = oracle([shares[i] for i in present], outputs[present], queries)
            interpolated = ~decoded.exact
            np.testing.assert_allclose(
                decoded.blocks[interpolated], expected[interpolated], rtol=1e-10, atol=1e-10
            )
            for j in np.flatnonzero(decoded.exact):
                carrier = next(i for i in present if code.carries[i] == j)
                np.testing.assert_array_equal(decoded.blocks[j], outputs[carrier])


def test_berrut_uses_all_shares_and_more_are_better():
    """For unlike queries, that is; see `InterpolatingCode` for smooth ones."""
    code = CodeSpec("berrut", 8, 3).build()
    blocks = np.random.default_rng(0).normal(size=(8, 50))
    shares = code.encode(blocks)

    def error(present):
        decoded = code.decode({i: shares[i] for i in present})
        return np.square(decoded.blocks - blocks).mean()

    eight, nine, ten, eleven = (
        np.mean([error(present) for present in combinations(range(11), size)])
        for size in (8, 9, 10, 11)
    )
    assert eleven < 0.5 * ten < 0.5 * nine < 0.5 * eight
