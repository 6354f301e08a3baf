"""ApproxIFER's own error locator: right where its theory says so, and its known flaws."""

import numpy as np
import pytest

from approxifer.benchmarks.byzantine.published_locator import published_locator
from approxifer.coding import CodeSpec
from approxifer.coding.published import published_votes

SPECS = [CodeSpec("berrut", k, s, e) for k, s, e in [(4, 0, 1), (4, 1, 2), (5, 1, 1), (4, 0, 3)]]


def low_degree(rng, nodes, k, rows=4, coordinates=6):
    """Outputs (n, rows, coordinates) that are polynomials of degree below K in the node."""
    coefficients = rng.normal(size=(k, rows, coordinates))
    return np.einsum("nd,drc->nrc", np.vander(nodes, k), coefficients)


def rational(rng, nodes, k, rows=4, coordinates=6):
    """Outputs 1 / (z - pole) with poles off the line: P / Q with Q of degree 1."""
    poles = rng.uniform(1.5, 3, (rows, coordinates)) * rng.choice([-1, 1], (rows, coordinates))
    return 1 / (np.array(nodes)[:, None, None] - poles)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("honest", [low_degree, rational])
def test_one_wrong_share_is_found_wherever_it_is(spec, honest):
    code = spec.build()
    rng = np.random.default_rng(0)
    outputs = honest(rng, code.nodes, spec.k)
    for wrong in np.flatnonzero(np.abs(code.nodes) > 1e-9):
        returned = outputs.copy()
        returned[wrong] += rng.normal(size=outputs[wrong].shape)
        found = published_locator(returned, code.nodes, spec.k, spec.byzantine)
        assert found.shape == (4, spec.byzantine)
        assert (found == wrong).any(axis=1).all()


def test_a_wrong_share_at_node_zero_is_often_missed():
    """There Q is 1 by definition, and theory promises nothing."""
    code = CodeSpec("berrut", 4, 0, 1).build()
    rng = np.random.default_rng(0)
    outputs = low_degree(rng, code.nodes, 4, rows=200, coordinates=1)
    (zero,) = np.flatnonzero(np.abs(code.nodes) < 1e-9)
    outputs[zero] += rng.normal(size=outputs[zero].shape)
    assert (published_locator(outputs, code.nodes, 4, 1) == zero).mean() < 0.5


@pytest.mark.parametrize("spec", SPECS)
def test_as_many_wrong_shares_as_it_is_made_for(spec):
    code = spec.build()
    rng = np.random.default_rng(1)
    present = [i for i in range(code.n) if abs(code.nodes[i]) > 1e-9][: code.n - spec.stragglers]
    nodes = [code.nodes[i] for i in present]
    for _ in range(5):
        outputs = low_degree(rng, nodes, spec.k - (code.n - len(present) - spec.stragglers))
        wrong = rng.choice(len(present), spec.byzantine, replace=False)
        outputs[wrong] += rng.normal(size=outputs[wrong].shape)
        found = published_locator(outputs, nodes, spec.k, spec.byzantine)
        np.testing.assert_array_equal(np.sort(found), np.tile(np.sort(wrong), (4, 1)))


def test_it_evicts_even_where_nothing_is_wrong():
    spec = CodeSpec("berrut", 6, 0, 2)
    code = spec.build()
    outputs = np.sin(np.array(code.nodes)[:, None, None] + np.arange(30).reshape(1, 3, 10))
    found = published_locator(outputs, code.nodes, spec.k, spec.byzantine)
    assert found.shape == (3, 2)
    assert not code.suspects(dict(enumerate(outputs)))


def test_the_most_voted_come_first():
    code = CodeSpec("berrut", 4, 0, 2).build()
    outputs = low_degree(np.random.default_rng(0), code.nodes, 4)
    outputs[3, :, :] += 5
    outputs[6, :, :3] -= 5
    votes = published_votes(outputs, code.nodes, 4, 2)
    found = published_locator(outputs, code.nodes, 4, 2)
    assert (found[:, 0] == 3).all()
    rows = np.arange(len(votes))[:, None]
    assert (np.diff(votes[rows, found]) <= 0).all()
