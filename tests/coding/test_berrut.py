"""Encoding and decoding, against scipy: Floater-Hormann with d = 0 is Berrut's."""

from itertools import combinations

import numpy as np
import pytest

from approxifer.coding import CodeSpec
from approxifer.errors import DecodeError

CODES = [
    pytest.param(CodeSpec(scheme, k, s), id=f"{scheme}-{k}-{s}")
    for scheme in ("berrut", "systematic")
    for k, s in [(2, 1), (2, 4), (3, 2), (8, 1), (8, 3), (12, 2), (20, 5)]
]


def straggler_sets(spec, rng, count=10):
    for _ in range(count):
        lost = rng.choice(spec.n, rng.integers(spec.stragglers + 1), replace=False)
        yield sorted(set(range(spec.n)) - set(lost.tolist()))


def check_all_sets(spec, nodes, oracle):
    """Decode without any up to S + E shares, and compare with the oracle."""
    rng, code = np.random.default_rng(spec.k), spec.build()
    queries, shares = nodes(spec)
    outputs = rng.normal(size=(spec.n, 2))
    for size in range(spec.stragglers + spec.byzantine + 1):
        for gone in combinations(range(spec.n), size):
            present = [i for i in range(spec.n) if i not in gone]
            decoded = code.decode({i: outputs[i] for i in present})
            carried = {code.carries[i] for i in present}
            assert decoded.exact.tolist() == [j in carried for j in range(spec.k)]
            mixed = np.flatnonzero(~decoded.exact)
            at = [queries[j] for j in mixed]
            expected = oracle([shares[i] for i in present], outputs[present], at)
            np.testing.assert_allclose(decoded.blocks[mixed], expected, rtol=1e-10, atol=1e-10)
            for j in np.flatnonzero(decoded.exact):
                carrier = next(i for i in present if code.carries[i] == j)
                np.testing.assert_array_equal(decoded.blocks[j], outputs[carrier])


@pytest.mark.parametrize("stragglers", [0, 1, 3])
def test_systematic(stragglers, subsets):
    code = CodeSpec("systematic", 4, stragglers).build()
    assert code.carries == (0, 1, 2, 3) + (None,) * stragglers
    assert code.conflicts == (frozenset(range(4 + stragglers)),)
    for present in subsets(code.n):
        assert code.decodable(present) == (len(present) >= 4)
        assert code.exact(present).tolist() == [j in present for j in range(4)]


@pytest.mark.parametrize("stragglers", [0, 1, 3])
def test_berrut_carries_nothing_unchanged(stragglers, subsets):
    code = CodeSpec("berrut", 4, stragglers).build()
    assert code.carries == (None,) * (4 + stragglers)
    assert code.conflicts == (frozenset(range(4 + stragglers)),)
    for present in subsets(code.n):
        assert code.decodable(present) == (len(present) >= 4)
        assert not code.exact(present).any()


@pytest.mark.parametrize("scheme", ["berrut", "systematic"])
def test_with_byzantine_workers_decodable_takes_more_than_decoding(scheme, subsets):
    code = CodeSpec(scheme, 2, stragglers=1, byzantine=1).build()
    assert code.conflicts == (frozenset(range(code.n)),)
    for present in subsets(code.n):
        assert code.decodable(present) == (len(present) >= code.n - 1)
        outputs = {i: np.ones((2, 3)) for i in present}
        if len(present) >= code.n - 2:
            np.testing.assert_allclose(code.decode(outputs).blocks, 1)
        else:
            with pytest.raises(DecodeError, match=rf"any {code.n - 2} of|no share came back"):
                code.decode(outputs)


@pytest.mark.parametrize("spec", CODES)
def test_encoding_in_double_precision(spec, nodes, oracle):
    queries, shares = nodes(spec)
    blocks = np.random.default_rng(spec.k).normal(size=(spec.k, 4, 3, 2))
    expected = oracle(queries, blocks, shares)
    np.testing.assert_allclose(spec.build().encode(blocks), expected, rtol=1e-10, atol=1e-10)


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
    for stragglers in range(4):
        check_all_sets(CodeSpec(scheme, k, stragglers), nodes, oracle)


@pytest.mark.parametrize("scheme", ["berrut", "systematic"])
@pytest.mark.parametrize(("k", "stragglers", "byzantine"), [(1, 1, 1), (4, 0, 2), (8, 1, 1)])
def test_every_eviction_set(scheme, k, stragglers, byzantine, nodes, oracle):
    """Up to E suspects left out, with all S stragglers lost or none."""
    check_all_sets(CodeSpec(scheme, k, stragglers, byzantine), nodes, oracle)


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


def test_systematic_parity_against_its_interpolation(nodes, oracle):
    spec = CodeSpec("systematic", 8, 2)
    code = spec.build()
    queries, shares = nodes(spec)
    outputs = np.random.default_rng(0).normal(size=(10, 5, 4))
    found = code.residual(dict(enumerate(outputs)))
    difference = outputs[8:] - oracle(queries, outputs[:8], shares[8:])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.sqrt(np.square(difference).mean(axis=(0, 2))), rtol=1e-6)


@pytest.mark.parametrize(
    ("spec", "lost"),
    [
        (CodeSpec("berrut", 6, 2), []),
        (CodeSpec("berrut", 6, 2), [3]),
        (CodeSpec("systematic", 6, 3), [1]),
    ],
)
def test_where_decoding_uses_all_each_share_against_the_others(spec, lost, nodes, oracle):
    _, shares = nodes(spec)
    outputs = np.random.default_rng(0).normal(size=(spec.n, 5, 4))
    present = [i for i in range(spec.n) if i not in lost]
    squares = []
    for i in present:
        others = [m for m in present if m != i]
        expected = oracle([shares[m] for m in others], outputs[others], [shares[i]])
        squares.append(np.square(outputs[i] - expected[0]).mean(axis=1))
    found = spec.build().residual({i: outputs[i] for i in present})
    np.testing.assert_allclose(found, np.sqrt(np.mean(squares, axis=0)), rtol=1e-6)


def test_copies_at_one_query_per_codeword():
    code = CodeSpec("berrut", 1, 1).build()
    outputs = {0: np.zeros((2, 4)), 1: np.array([[0.0] * 4, [2.0] * 4])}
    np.testing.assert_array_equal(code.residual(outputs), [0, 2])
