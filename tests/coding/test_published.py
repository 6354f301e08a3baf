"""The votes of ApproxIFER's error locator, against the authors' scripts."""

import numpy as np
import pytest

from approxifer.coding import CodeSpec
from approxifer.coding.published import published_votes
from approxifer.errors import ConfigError


def one_by_one(outputs, nodes, k, e):
    """The votes of the authors' scripts: a loop over the coordinates, decreasing powers."""
    votes = np.zeros((outputs.shape[1], len(nodes)), int)
    for row in range(outputs.shape[1]):
        for y in outputs[:, row].reshape(len(nodes), -1).T:
            powers = np.vander(nodes, k + e)
            system = np.hstack([powers, -powers[:, :-1] * y[:, None]])
            solution = np.linalg.lstsq(system, y, rcond=1e-15)[0]
            q = np.polyval([*solution[k + e :], 1], nodes)
            votes[row, np.argsort(np.abs(q))[:e]] += 1
    return votes


@pytest.mark.parametrize("shape", [(3, 5), (3,), (2, 2, 3)])
def test_all_coordinates_at_once_vote_as_one_by_one(shape):
    code = CodeSpec("berrut", 3, 1, 2, grid="textbook").build()
    outputs = np.random.default_rng(0).normal(size=(code.n, *shape))
    votes = published_votes(outputs, code.nodes, 3, 2)
    np.testing.assert_array_equal(votes, one_by_one(outputs, np.array(code.nodes), 3, 2))
    assert (votes.sum(axis=1) == 2 * np.prod(shape[1:])).all()


def test_nonsense_is_refused():
    nodes = CodeSpec("berrut", 2, 0, 1).build().nodes
    with pytest.raises(ConfigError, match="6 shares' outputs need as many nodes, not 5"):
        published_votes(np.ones((6, 2)), nodes[:5], 2, 1)
    with pytest.raises(ConfigError, match="not finite; leave those shares out"):
        published_votes(np.full((6, 2), np.nan), nodes, 2, 1)
