"""The published schemes without Byzantine workers give what they have always given."""

import hashlib
from itertools import combinations

import numpy as np
import pytest

from approxifer.coding import CodeSpec
from approxifer.coding.interpolation import COINCIDENT

#: Of `results` by the code of commit 7011e5a, which was before `Code.suspects`: by scheme, K and
#: S. Of values rounded to 6 decimals, since another processor's cosines and products differ in
#: their last bits; that those are the same on one machine is the other test.
DIGESTS = {
    ("berrut", 2, 1): "b1b32f1ef83d5afd",
    ("berrut", 2, 2): "9c83210b36cc6038",
    ("berrut", 4, 1): "c6bb22fc042ab691",
    ("berrut", 4, 2): "7f85eead890dd09f",
    ("berrut", 8, 1): "afaa3380f1a3c394",
    ("berrut", 8, 2): "5e9721b2ae4b015a",
    ("parm", 2, 1): "6720365b8e5daca6",
    ("parm", 2, 2): "16a428be8029d367",
    ("parm", 4, 1): "d41936997efc49ee",
    ("parm", 4, 2): "315d6709866a2f1e",
    ("parm", 8, 1): "07527ded0aa6c733",
    ("parm", 8, 2): "6954b0520b01e227",
}


def queries(k, dtype):
    """Some numbers that are exact in any floating point: (k, 2, 3)."""
    return (np.arange(k * 6) * 37 % 101 - 50).reshape(k, 2, 3).astype(dtype) / 16


def what_comes_back(code):
    """All sets of up to S missing shares."""
    for count in range(code.spec.stragglers + 1):
        for lost in combinations(range(code.n), count):
            yield [share for share in range(code.n) if share not in lost]


def results(code):
    """All shares, then what is decoded from them, whichever are missing."""
    shares = code.encode(queries(code.k, np.float64))
    some = (code.decode({i: shares[i] for i in kept}).blocks for kept in what_comes_back(code))
    return np.concatenate([shares, *some])


@pytest.mark.parametrize("which", DIGESTS, ids=str)
def test_the_digest_is_that_of_the_code_before(which):
    scheme, k, stragglers = which
    found = results(CodeSpec(scheme, k, stragglers).build())
    rounded = np.round(found, 6) + 0.0  # no negative zeros
    digest = hashlib.sha256(rounded.astype("<f8").tobytes()).hexdigest()
    assert digest[:16] == DIGESTS[which]


def basis(at, nodes):
    """Berrut's weights, as they were; nodes descend."""
    signs = (-1.0) ** np.arange(len(nodes))[::-1]
    distance = at[:, None] - nodes[None, :]
    hit = np.abs(distance) <= COINCIDENT
    terms = signs / np.where(hit, 1.0, distance)
    terms[hit.any(axis=1)] = hit[hit.any(axis=1)]
    return terms / terms.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("k", "stragglers"), [(2, 1), (4, 2), (8, 1), (8, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_bit_is_that_of_the_formula(k, stragglers, dtype):
    code = CodeSpec("berrut", k, stragglers).build()
    at = np.cos((2 * np.arange(k) + 1) * np.pi / (2 * k))
    nodes = np.cos(np.arange(code.n) * np.pi / code.n)
    blocks = queries(k, dtype)
    shares = code.encode(blocks)
    weights = basis(nodes, at)
    mixed = [i for i in range(code.n) if code.carries[i] is None]
    some = slice(mixed[0], mixed[-1] + 1)
    found = np.matmul(weights[some].astype(dtype), blocks.reshape(k, 6)).reshape(-1, 2, 3)
    for i in mixed:
        assert shares[i].tobytes() == found[i - some.start].tobytes()
    for kept in what_comes_back(code):
        decoded = code.decode({i: shares[i] for i in kept})
        missing = ~decoded.exact
        weights = basis(at[missing], nodes[kept]).astype(dtype)
        expected = np.matmul(weights, shares[kept].reshape(len(kept), 6))
        assert decoded.blocks[missing].tobytes() == expected.tobytes()
