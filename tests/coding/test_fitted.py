"""The fitted decoder: Berrut's weights until it has learnt, then those of the data."""

from itertools import combinations

import numpy as np
import pytest

from approxifer.coding import CodeSpec
from approxifer.coding.fitted import FittedDecoder
from approxifer.errors import ConfigError, DecodeError

SPECS = [CodeSpec("systematic", 8, 2), CodeSpec("berrut", 6, 1)]


def outputs(code, rng, codewords):
    """Of a model along smooth codewords: (n, B, 5), and the k blocks."""
    start, slope = rng.normal(size=(2, 1, codewords, 5))

    def model(at):
        return np.tanh(start + slope * at[:, None, None]) + 0.3 * at[:, None, None] ** 2

    return model(np.array(code.nodes)), model(np.array(code.queries))


@pytest.mark.parametrize("spec", SPECS)
def test_before_it_has_learnt_it_decodes_as_the_code_does(spec):
    code = spec.build()
    shares, _ = outputs(code, np.random.default_rng(0), 4)
    left = {share: shares[share] for share in range(1, code.n)}
    found, expected = FittedDecoder(code).decode(left), code.decode(left)
    assert np.array_equal(found.blocks, expected.blocks)
    assert np.array_equal(found.exact, expected.exact)


@pytest.mark.parametrize("spec", SPECS)
def test_it_is_nearer_to_other_codewords_whatever_was_lost(spec):
    rng, code = np.random.default_rng(1), spec.build()
    decoder = FittedDecoder(code)
    decoder.learn(*outputs(code, rng, 40))
    assert decoder.codewords == 40
    shares, blocks = outputs(code, rng, 200)
    for lost in combinations(range(code.n), spec.stragglers):
        left = {share: shares[share] for share in range(code.n) if share not in lost}
        found, berrut = decoder.decode(left), code.decode(left)
        assert np.array_equal(found.blocks[found.exact], blocks[found.exact])
        if not found.exact.all():
            assert (
                np.abs(found.blocks - blocks).mean() < 0.9 * np.abs(berrut.blocks - blocks).mean()
            )


def test_outputs_that_are_a_linear_map_are_recovered_exactly():
    rng, code = np.random.default_rng(2), CodeSpec("systematic", 4, 1).build()
    decoder = FittedDecoder(code)
    data = rng.normal(size=(4, 300, 3))
    parity = data.sum(axis=0, keepdims=True)  # as ParM's: no interpolation would find it
    decoder.learn(np.concatenate([data, parity]), data)
    left = {0: data[0], 1: data[1], 3: data[3], 4: parity[0]}
    assert np.allclose(decoder.decode(left).blocks[2], data[2], atol=0.02)
    assert np.allclose(decoder.weights(left), [[-1, -1, -1, 1]], atol=0.01)


def test_noise_teaches_nothing_but_zero():
    rng, code = np.random.default_rng(3), CodeSpec("systematic", 4, 1).build()
    decoder = FittedDecoder(code)
    decoder.learn(rng.normal(size=(5, 2000, 3)), rng.normal(size=(4, 2000, 3)))
    assert np.abs(decoder.weights([0, 1, 3, 4])).max() < 0.1


def test_outputs_that_are_all_zero_leave_the_weights_as_they_are():
    code = CodeSpec("systematic", 4, 1).build()
    decoder = FittedDecoder(code)
    decoder.learn(np.zeros((5, 7, 3)), np.zeros((4, 7, 3)))
    assert np.array_equal(decoder.weights([0, 1, 3, 4]), code.weights([0, 1, 3, 4])[1])


def test_other_shapes_and_too_few_shares_are_refused():
    code = CodeSpec("systematic", 4, 1).build()
    decoder = FittedDecoder(code)
    with pytest.raises(ConfigError, match="blocks of shape"):
        decoder.learn(np.zeros((4, 7, 3)), np.zeros((4, 7, 3)))
    with pytest.raises(DecodeError):
        decoder.decode({0: np.zeros((7, 3))})
