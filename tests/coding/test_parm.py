"""Parity models' code, with a linear model, whose own parity model it is: then nothing is lost."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from approxifer.coding import CodeSpec
from approxifer.coding.parm import coefficients, tile
from approxifer.errors import ConfigError, DecodeError


def code(k, stragglers=1, **fields):
    return CodeSpec("parm", k, stragglers, **fields).build()


def project(shares):
    flat = shares.reshape(*shares.shape[:2], -1)
    return flat @ np.cos(np.arange(flat.shape[2] * 3.0)).reshape(-1, 3)


@given(
    k=st.integers(1, 12),
    stragglers=st.integers(1, 3),
    rows=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_any_k_outputs_of_a_linear_model_are_enough(k, stragglers, rows, seed, data):
    made = code(k, stragglers)
    assert (made.n, made.conflicts) == (k + stragglers, (frozenset(range(made.n)),))
    blocks = np.random.default_rng(seed).normal(size=(k, rows, 4))
    outputs = dict(enumerate(project(made.encode(blocks))))
    lost = data.draw(st.sets(st.integers(0, made.n - 1), max_size=stragglers))
    left = {share: output for share, output in outputs.items() if share not in lost}
    assert made.decodable(left)
    decoded = made.decode(left)
    np.testing.assert_allclose(decoded.blocks, project(blocks), rtol=0, atol=1e-9)
    assert decoded.exact.tolist() == [block not in lost for block in range(k)]
    for block in np.flatnonzero(decoded.exact):
        assert np.array_equal(decoded.blocks[block], outputs[block])
    residual = made.residual(left)
    assert np.isnan(residual).all() == (len(left) == k)
    if len(left) > k:
        np.testing.assert_allclose(residual, 0, atol=1e-9)


def test_fewer_than_k_are_not_enough():
    made = code(3, 2)
    outputs = dict(enumerate(np.zeros((5, 1, 2))))
    left = {0: outputs[0], 3: outputs[3]}
    assert not made.decodable(left)
    with pytest.raises(DecodeError, match=r"any 3 of its 5 shares"):
        made.decode(left)


def test_the_first_parity_is_the_published_sum():
    blocks = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    shares = code(4).encode(blocks)
    assert shares.dtype == np.float32
    np.testing.assert_allclose(shares[4], blocks.sum(axis=0), rtol=1e-6)
    assert np.array_equal(shares[:4], blocks)


def test_each_parity_share_has_a_model_of_its_own():
    assert code(3, 2).models == (0, 0, 0, 1, 2)
    assert CodeSpec("systematic", 3, 2).build().models == (0,) * 5


@pytest.mark.parametrize("k", [2, 3, 5, 8, 12])
def test_whichever_parities_are_left_what_is_lost_can_be_solved_for(k):
    """Errors of parity models are multiplied by 2 to 4, 50 and 500 for 1, 2 and 3 lost."""
    c = coefficients(k, 3)
    for lost, most in zip(range(1, min(3, k) + 1), (4, 50, 500), strict=False):
        for parities in combinations(range(3), lost):
            for blocks in combinations(range(k), lost):
                inverse = np.linalg.inv(c[np.ix_(parities, blocks)])
                assert abs(inverse).sum(axis=1).max() <= most + 1e-9


def test_a_wrong_parity_output_shows_in_the_residual():
    made = code(4)
    outputs = dict(enumerate(project(made.encode(np.ones((4, 2, 3))))))
    outputs[4] = outputs[4] + np.array([[0.0], [2.0]])
    np.testing.assert_allclose(made.residual(outputs), [0, 2], atol=1e-6)
    assert made.suspects(outputs) == frozenset()


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3), (3, 4, 6)])
@pytest.mark.parametrize("k", [2, 4])
def test_images_are_shrunk_and_tiled(k, shape):
    """Each constant image fills its tile."""
    blocks = np.arange(k, dtype=np.float32).reshape(k, 1, *[1] * len(shape))
    tiled = code(k, encoder="concatenation").encode(np.broadcast_to(blocks, (k, 2, *shape)))[k]
    assert tiled.shape == (2, *shape)
    plane = tiled[1] if len(shape) == 2 else tiled[1, ..., 0] if shape[2] == 3 else tiled[1, 0]
    quarters = {2: [[0, 0], [1, 1]], 4: [[0, 1], [2, 3]]}[k]
    assert np.array_equal(plane, np.kron(quarters, np.ones((2, 3))))


def test_shrinking_averages():
    block = np.arange(8.0).reshape(1, 1, 4, 2)
    tiled = tile(np.concatenate([block, block + 100]))
    assert tiled[0].tolist() == [[1, 2], [5, 6], [101, 102], [105, 106]]


@pytest.mark.parametrize("shape", [(5, 4), (3,), (6, 4, 7), (2, 2, 2, 2)])
def test_what_cannot_be_tiled_is_refused(shape):
    with pytest.raises(ConfigError, match=r"multiple of 2.*take encoder='addition'"):
        code(2, encoder="concatenation").encode(np.zeros((2, 1, *shape)))


def test_numbers_that_cannot_be_added_up_are_refused():
    with pytest.raises(ConfigError, match=r"blocks are int64.*floating point"):
        code(2).encode(np.zeros((2, 1, 3), np.int64))
    with pytest.raises(ConfigError, match=r"outputs are int64.*computed from others"):
        code(2).decode({0: np.zeros((1, 2), np.int64), 2: np.zeros((1, 2), np.int64)})
