"""Which share carries which block, which shares conflict, and what is enough."""

from itertools import combinations

import numpy as np
import pytest

from approxifer.coding import CodeSpec
from approxifer.errors import ConfigError, DecodeError


def subsets(n):
    return (set(s) for size in range(n + 1) for s in combinations(range(n), size))


def test_uncoded():
    code = CodeSpec("uncoded", 4, stragglers=2).build()
    assert code.carries == (0, 1, 2, 3)
    assert code.conflicts == ()
    assert [s for s in subsets(4) if code.decodable(s)] == [{0, 1, 2, 3}]


def test_replication_copy_c_of_block_j_is_share_c_k_plus_j():
    code = CodeSpec("replication", 3, stragglers=1).build()
    assert code.carries == (0, 1, 2, 0, 1, 2)
    assert set(code.conflicts) == {frozenset({0, 3}), frozenset({1, 4}), frozenset({2, 5})}
    for present in subsets(6):
        carried = {share % 3 for share in present}
        assert code.decodable(present) == (carried == {0, 1, 2})
        assert code.exact(present).tolist() == [j in carried for j in range(3)]


def test_a_single_copy_conflicts_with_nothing():
    assert CodeSpec("replication", 3, stragglers=0).build().conflicts == ()


@pytest.mark.parametrize("stragglers", [0, 1, 3])
def test_systematic(stragglers):
    code = CodeSpec("systematic", 4, stragglers).build()
    assert code.carries == (0, 1, 2, 3) + (None,) * stragglers
    assert code.conflicts == (frozenset(range(4 + stragglers)),)
    for present in subsets(code.n):
        assert code.decodable(present) == (len(present) >= 4)
        assert code.exact(present).tolist() == [j in present for j in range(4)]


@pytest.mark.parametrize("stragglers", [0, 1, 3])
def test_berrut_carries_nothing_unchanged(stragglers):
    code = CodeSpec("berrut", 4, stragglers).build()
    assert code.carries == (None,) * (4 + stragglers)
    assert code.conflicts == (frozenset(range(4 + stragglers)),)
    for present in subsets(code.n):
        assert code.decodable(present) == (len(present) >= 4)
        assert not code.exact(present).any()


@pytest.mark.parametrize("scheme", ["replication", "berrut", "systematic"])
@pytest.mark.parametrize("stragglers", [0, 1, 2, 4])
def test_one_query_per_codeword_is_repetition(scheme, stragglers):
    code = CodeSpec(scheme, 1, stragglers).build()
    assert code.carries == (0,) * (stragglers + 1)
    block = np.random.default_rng(0).normal(size=(1, 3, 2))
    shares = code.encode(block)
    assert not code.decodable([])
    for i in range(code.n):
        decoded = code.decode({i: shares[i]})
        assert decoded.exact.all()
        np.testing.assert_array_equal(decoded.blocks, block)


@pytest.mark.parametrize("scheme", ["berrut", "systematic"])
def test_with_byzantine_workers_more_are_asked_for_than_decoding_takes(scheme):
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


def test_replication_asks_for_a_majority_of_each_block():
    code = CodeSpec("replication", 2, stragglers=1, byzantine=1).build()
    assert code.carries == (0, 1) * 4
    assert set(code.conflicts) == {frozenset({0, 2, 4, 6}), frozenset({1, 3, 5, 7})}
    for present in subsets(8):
        fewest = min(sum(share % 2 == block for share in present) for block in (0, 1))
        assert code.decodable(present) == (fewest >= 3)
        outputs = {i: np.full((2, 3), i % 2) for i in present}
        if fewest >= 2:
            assert code.decode(outputs).blocks.tolist() == [[[0] * 3] * 2, [[1] * 3] * 2]
        else:
            with pytest.raises(DecodeError, match=r"2 of its shares|no share came back"):
                code.decode(outputs)


def test_uncoded_cannot_spare_a_share_whatever_byzantine_says():
    code = CodeSpec("uncoded", 3, byzantine=2).build()
    assert [s for s in subsets(3) if code.decodable(s)] == [{0, 1, 2}]
    with pytest.raises(DecodeError, match="one of its shares"):
        code.decode({0: np.ones(2), 1: np.ones(2)})


def test_any_collection_of_shares_will_do():
    code = CodeSpec("systematic", 3).build()
    for present in ([0, 1, 3], (3, 0, 1), {0, 1, 3}, {0: "a", 1: "b", 3: "c"}, np.array([0, 1, 3])):
        assert code.decodable(present)
        assert code.exact(present).tolist() == [True, True, False]


def test_a_share_counts_once():
    assert not CodeSpec("berrut", 3).build().decodable([1, 1, 1])


@pytest.mark.parametrize("share", [-1, 4])
def test_shares_that_do_not_exist(share):
    code = CodeSpec("systematic", 3).build()
    for question in (code.decodable, code.exact, lambda s: code.decode(dict.fromkeys(s))):
        with pytest.raises(ConfigError, match=rf"\[{share}\] do not exist.* 0 to 3"):
            question([0, share])
