"""The free check: shares that were not needed against what the others foretell."""

import numpy as np
import pytest

from approxifer.coding import CodeSpec


def smooth(spec, rows=6, seed=0):
    """Codewords whose queries vary smoothly: (k, rows, 3)."""
    phase = np.random.default_rng(seed).uniform(0, 6, size=(rows, 3))
    return np.sin(np.linspace(0, 1, spec.k)[:, None, None] + phase)


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


def test_replication_compares_copies():
    code = CodeSpec("replication", 2, 2).build()
    outputs = {i: np.full((3, 4), float(i % 2)) for i in range(6) if i != 1}
    np.testing.assert_array_equal(code.residual(outputs), 0)
    outputs[4] = outputs[4] + np.array([0.0, 3.0, 0.0])[:, None]  # copy 2 of block 0
    # Surplus: copies 1 and 2 of block 0 against copy 0; copy 2 of block 1 against copy 1.
    np.testing.assert_allclose(code.residual(outputs), [0, 3 / np.sqrt(3), 0], rtol=1e-6)


def test_replication_of_labels():
    code = CodeSpec("replication", 1, 1).build()
    labels = {0: np.array([250, 3], np.uint8), 1: np.array([2, 3], np.uint8)}
    np.testing.assert_array_equal(code.residual(labels), [248, 0])


def test_copies_at_one_query_per_codeword():
    code = CodeSpec("berrut", 1, 1).build()
    outputs = {0: np.zeros((2, 4)), 1: np.array([[0.0] * 4, [2.0] * 4])}
    np.testing.assert_array_equal(code.residual(outputs), [0, 2])


@pytest.mark.parametrize(
    ("scheme", "present"),
    [
        ("uncoded", range(4)),
        ("replication", [0, 1, 6, 7]),
        ("berrut", [0, 1, 2, 4]),
        ("systematic", [0, 1, 2, 3]),
        ("systematic", [0, 1, 2, 4]),
        ("systematic", [2]),
    ],
)
def test_nan_where_no_share_is_surplus(scheme, present):
    code = CodeSpec(scheme, 4, 1).build()
    found = code.residual({i: np.ones((3, 2)) for i in present})
    assert found.dtype == np.float32
    assert found.shape == (3,)
    assert np.isnan(found).all()


@pytest.mark.parametrize("scheme", ["replication", "berrut", "systematic"])
@pytest.mark.parametrize("lost", [[], [0]])
def test_a_lie_shows_in_its_codeword_and_nowhere_else(scheme, lost):
    spec = CodeSpec(scheme, 8, 2)
    code = spec.build()
    shares = code.encode(smooth(spec))
    honest = code.residual({i: shares[i] for i in range(code.n) if i not in lost})
    for liar in range(code.n):
        if liar in lost or (scheme == "replication" and liar % 8 in lost and len(lost) > 1):
            continue
        lies = shares.copy()
        lies[liar, 2] += 3
        found = code.residual({i: lies[i] for i in range(code.n) if i not in lost})
        np.testing.assert_array_equal(np.delete(found, 2), np.delete(honest, 2))
        assert found[2] > 3 * honest[2] + 0.1


def test_any_numbers_are_compared_without_a_warning():
    code = CodeSpec("replication", 1, 1).build()
    outputs = {0: np.array([np.inf, np.inf, 1e200, 1]), 1: np.array([np.inf, 0, -1e200, 1])}
    np.testing.assert_array_equal(code.residual(outputs), [np.nan, np.inf, np.inf, 0])
