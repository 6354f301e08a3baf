"""Confidence of a decode: infinite for exact rows, least where the codeword disagrees."""

import numpy as np
import pytest

from approxifer.coding import CodeSpec
from approxifer.coding.confidence import confidence


def outputs_of(code, classes, rng, noise=0.1):
    """Outputs of a model along codewords (B, n) of classes, as decoded rows would see them."""
    outputs = 5 * np.eye(4)[classes] + noise * rng.normal(size=(*classes.shape, 4))
    return {share: outputs[:, share].astype(np.float32) for share in range(code.n)}


def scored(code, outputs, lost=2):
    left = {share: output for share, output in outputs.items() if share != lost}
    decoded = code.decode(left)
    return confidence(code, left, decoded), decoded


def test_exact_rows_are_sure_and_a_codeword_of_one_class_is_surer_than_a_mixed_one():
    rng, code = np.random.default_rng(0), CodeSpec("systematic", 8, 1).build()
    classes = np.zeros((3, 9), int)
    classes[1, :] = rng.integers(4, size=9)
    classes[2, [1, 8]] = 1  # some of those near the lost one
    found, decoded = scored(code, outputs_of(code, classes, rng))
    assert np.isinf(found[decoded.exact]).all()
    (one, mixed, some) = found[2]
    assert one > some > 0
    assert one > mixed


def test_support_is_the_weight_of_the_shares_of_the_decoded_class():
    code = CodeSpec("systematic", 4, 1).build()
    rng = np.random.default_rng(0)
    outputs = outputs_of(code, rng.integers(4, size=(50, 5)), rng)
    found, decoded = scored(code, outputs)
    missing, weights = code.weights([0, 1, 3, 4])
    assert missing.tolist() == [2]
    for b in range(50):
        row = decoded.blocks[2, b].astype(float)
        samples = np.array([outputs[share][b] for share in (0, 1, 3, 4)], float)
        votes = [
            abs(w) for w, s in zip(weights[0], samples, strict=True) if s.argmax() == row.argmax()
        ]
        support = sum(votes) / np.abs(weights).sum()
        margin = np.sort(row)[-1] - np.sort(row)[-2]
        spread = np.sqrt(((samples - samples.mean(axis=0)) ** 2).mean())
        assert found[2, b] == pytest.approx(support**2 * margin / spread)


@pytest.mark.parametrize("spec", [CodeSpec("berrut", 4, 1), CodeSpec("systematic", 4, 2, 1)])
def test_every_interpolating_code_has_it_and_the_scale_does_not_matter(spec):
    code, rng = spec.build(), np.random.default_rng(0)
    outputs = outputs_of(code, rng.integers(4, size=(20, code.n)), rng)
    once, decoded = scored(code, outputs, lost=1)
    again, _ = scored(code, {share: 7 * output for share, output in outputs.items()}, lost=1)
    assert np.isfinite(once[~decoded.exact]).all()
    np.testing.assert_allclose(again, once, rtol=1e-3)


def test_without_a_lost_block_or_with_copies_all_is_sure():
    for scheme in ("systematic", "replication"):
        code = CodeSpec(scheme, 2, 1).build()
        outputs = outputs_of(code, np.zeros((3, code.n), int), np.random.default_rng(0))
        assert np.isinf(confidence(code, outputs, code.decode(outputs))).all()


def test_outputs_that_are_not_finite_are_never_sure():
    code, rng = CodeSpec("systematic", 4, 1).build(), np.random.default_rng(0)
    outputs = outputs_of(code, np.zeros((4, 5), int), rng)
    outputs[0][0, 1], outputs[0][1, 0], outputs[1][2] = np.nan, np.inf, -np.inf
    found, _ = scored(code, outputs)
    assert (found[2, :3] == 0).all()
    assert found[2, 3] > 0
