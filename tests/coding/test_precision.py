"""What is learnt of how honest shares foretell each other, from groups of which some hold lies."""

import numpy as np
import pytest

from approxifer.coding.foretelling import mean_products, studentised
from approxifer.coding.precision import DIRECTIONS, Precision, Whitening


def true_covariance(n, seed=0):
    """Shares that have a lot in common."""
    factors = np.random.default_rng(seed).normal(size=(n, 3))
    return factors @ factors.T + 0.3 * np.eye(n)


def draw(covariance, groups, numbers=40, seed=0):
    """Outputs (groups, n, numbers) of groups whose sizes differ a lot."""
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky(covariance)
    size = np.exp(rng.normal(size=(groups, 1, 1)))
    return size * (root @ rng.normal(size=(groups, len(covariance), numbers)))


def products_of(outputs):
    return np.stack([mean_products(dict(enumerate(one))) for one in outputs])


def shape(covariance):
    return covariance * len(covariance) / np.trace(covariance)


def off(found, truth):
    """How far two inverses are apart, up to scale: the eigenvalues of one in terms of the other."""
    values = np.linalg.eigvals(np.linalg.solve(shape(truth), shape(found))).real
    return np.abs(np.log(values / np.median(values))).max()


def test_a_covariance_is_learnt_up_to_its_scale():
    truth = true_covariance(8)
    learnt = Precision.learn(products_of(draw(truth, 300)))
    assert off(learnt.covariance, truth) < 0.1


def test_gross_lies_in_a_fifth_of_the_groups_count_no_more_than_other_groups():
    truth, rng = true_covariance(8), np.random.default_rng(1)
    outputs = draw(truth, 300)
    for group in range(0, 300, 5):
        outputs[group, rng.integers(8)] += 1e4 * rng.normal(size=40)
    products = products_of(outputs)
    learnt = Precision.learn(products)
    assert off(learnt.covariance, truth) < 0.6
    assert off(products.mean(axis=0), truth) > 1.0


@pytest.mark.parametrize("lost", [1, 2])
def test_missing_shares_are_put_in_as_expected(lost):
    truth, rng = true_covariance(8), np.random.default_rng(2)
    products = products_of(draw(truth, 300))
    for one in products:
        gone = rng.permutation(8)[:lost]
        one[gone] = one[:, gone] = np.nan
    learnt = Precision.learn(products).covariance
    assert (np.linalg.eigvalsh(learnt) > 0).all()
    assert off(learnt, truth) < 0.15


def test_it_goes_on_from_what_it_knew():
    products = products_of(draw(true_covariance(6), 200))
    before = Precision.learn(products[:180])
    after = Precision.learn(products, before)
    assert off(after.covariance, Precision.learn(products).covariance) < 0.02


def test_surprise_is_the_studentised_residual():
    outputs = draw(true_covariance(6), 4, seed=3)
    precision = Precision.learn(products_of(draw(true_covariance(6), 50)))
    found = precision.surprise(products_of(outputs))
    for one, row in zip(outputs, found, strict=True):
        for i in range(6):
            others = np.delete(np.arange(6), i)
            inverse = np.linalg.inv(precision.covariance[np.ix_(others, others)])
            weights = precision.covariance[i, others] @ inverse
            residual = one[i] - weights @ one[others]
            variance = precision.covariance[i, i] - weights @ precision.covariance[others, i]
            rest = np.einsum("ab,ac,bc->", inverse, one[others], one[others]) / 5
            expected = np.log(np.square(residual).sum() / variance / rest) / 2
            assert row[i] == pytest.approx(expected, rel=1e-6)
    # One group's own, with another convention for what is left of the degrees of freedom.
    alone = studentised(np.linalg.inv(precision.covariance), products_of(outputs)[0])
    np.testing.assert_allclose(alone - found[0], np.log(4 / 5) / 2, atol=1e-9)


def test_surprise_has_no_scale_and_knows_what_is_missing():
    products = products_of(draw(true_covariance(6), 30))
    precision = Precision.learn(products)
    np.testing.assert_allclose(
        precision.surprise(1e6 * products), precision.surprise(products), atol=1e-9
    )
    products[0, 2] = products[0, :, 2] = np.nan
    products[1, 2:] = products[1, :, 2:] = np.nan
    found = precision.surprise(products[:2])
    assert np.isnan(found[0]).tolist() == [i == 2 for i in range(6)]
    assert np.isnan(found[1]).all()


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_outputs_without_any_difference_surprise_nobody(value):
    products = products_of(np.full((20, 5, 8), value))
    found = Precision.learn(products).surprise(products)
    assert np.isfinite(found).all()
    assert np.ptp(found, axis=0).max() < 1e-9


@pytest.mark.parametrize("width", [1, 3, DIRECTIONS, DIRECTIONS + 9])
def test_whitening_makes_leading_directions_equally_large(width):
    rng = np.random.default_rng(4)
    axes = np.linalg.qr(rng.normal(size=(width, width)))[0]
    sizes = np.geomspace(10, 1, width)
    residuals = (rng.normal(size=(5, 400, width)) * sizes) @ axes.T
    weights = np.eye(5)
    whitening = Whitening.learn([(residuals, weights)] * 2)
    gains = np.diag(whitening.products({i: along[None] for i, along in enumerate(axes.T)}))
    made = gains[:DIRECTIONS] * np.square(sizes[:DIRECTIONS])
    assert made.max() / made.min() < 1.6
    alike = gains[DIRECTIONS:]
    assert alike.size == 0 or alike.max() / alike.min() < 1.6


@pytest.mark.parametrize("width", [4, DIRECTIONS + 9])
def test_whitened_products_are_products_of_whitened_outputs(width):
    rng = np.random.default_rng(5)
    outputs = rng.normal(size=(6, 7, width)) * np.arange(1, width + 1)
    whitening = Whitening.learn([(outputs, np.linalg.inv(true_covariance(6)))])
    along = outputs @ whitening.directions
    left = outputs - along @ whitening.directions.T
    parts = [np.sqrt(whitening.gains) * along, np.sqrt(whitening.gain) * left]
    flat = np.concatenate(parts, axis=2).reshape(6, -1)
    found = whitening.products(dict(enumerate(outputs.astype(np.float32))))
    np.testing.assert_allclose(found, flat @ flat.T / outputs[0].size, rtol=1e-4)


def test_a_direction_that_honest_outputs_never_take_is_made_loud_but_not_infinite():
    rng = np.random.default_rng(6)
    outputs = rng.normal(size=(5, 50, 3))
    outputs[..., 2] = outputs[..., 0]
    whitening = Whitening.learn([(outputs, np.eye(5))])
    assert np.isfinite(whitening.gains).all()
    assert whitening.gains.max() > 100 * np.median(whitening.gains)
