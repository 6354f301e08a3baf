"""Replication with Byzantine workers: the copies on which most agree."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from approxifer.coding import CodeSpec
from approxifer.coding.replication import AGREE, distance
from approxifer.errors import DecodeError


def outputs_of(code, rng, shape=(4, 5)):
    """Correct outputs: every copy of a block alike, bit by bit."""
    blocks = rng.normal(size=(code.k, *shape)).astype(np.float32)
    return blocks, {i: blocks[i % code.k].copy() for i in range(code.n)}


def test_replication_copy_c_of_block_j_is_share_c_k_plus_j(subsets):
    code = CodeSpec("replication", 3, stragglers=1).build()
    assert code.carries == (0, 1, 2, 0, 1, 2)
    assert set(code.conflicts) == {frozenset({0, 3}), frozenset({1, 4}), frozenset({2, 5})}
    for present in subsets(6):
        carried = {share % 3 for share in present}
        assert code.decodable(present) == (carried == {0, 1, 2})
        assert code.exact(present).tolist() == [j in carried for j in range(3)]


def test_a_single_copy_conflicts_with_nothing():
    assert CodeSpec("replication", 3, stragglers=0).build().conflicts == ()


def test_replication_asks_for_a_majority_of_each_block(subsets):
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


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(1, 4), st.integers(0, 2), st.integers(1, 3), st.booleans(), st.data())
def test_e_wrong_copies_per_block_are_outvoted_and_named(k, stragglers, byzantine, collude, data):
    code = CodeSpec("replication", k, stragglers, byzantine).build()
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    blocks, outputs = outputs_of(code, rng)
    faulty, lost = set(), set()
    for block in range(k):
        copies = data.draw(st.permutations(range(block, code.n, k)))
        faulty.update(copies[: data.draw(st.integers(0, byzantine))])
        lost.update(copies[code.n // k - data.draw(st.integers(0, stragglers)) :])
    for share in faulty:
        outputs[share] += 1 if collude else rng.normal()
    present = {i: output for i, output in outputs.items() if i not in lost}
    assert code.decodable(present)
    assert code.suspects(present) == faulty - lost
    cleared = {i: output for i, output in present.items() if i not in faulty}
    for some in (present, cleared):
        assert code.decode(some).blocks.tobytes() == blocks.tobytes()


def test_the_order_of_copies_does_not_matter():
    code = CodeSpec("replication", 1, 0, 1).build()
    right, wrong = np.ones((2, 3)), np.zeros((2, 3))
    for copies in set(permutations([right.tobytes(), right.tobytes(), wrong.tobytes()])):
        outputs = {i: np.frombuffer(copy).reshape(2, 3) for i, copy in enumerate(copies)}
        np.testing.assert_array_equal(code.decode(outputs).blocks[0], right)


def test_without_byzantine_workers_the_first_copy_is_taken_as_ever():
    code = CodeSpec("replication", 1, 2).build()
    outputs = {0: np.zeros(2), 1: np.ones(2), 2: np.ones(2)}
    np.testing.assert_array_equal(code.decode(outputs).blocks[0], 0)


def test_where_no_majority_agrees_all_copies_are_suspects_and_the_rest_does_not_decode():
    code = CodeSpec("replication", 2, 0, 1).build()
    _, outputs = outputs_of(code, np.random.default_rng(0))
    outputs[1] += 1
    outputs[3] += 2
    suspects = code.suspects(outputs)
    assert suspects == {1, 3, 5}
    with pytest.raises(DecodeError, match="2 of its shares"):
        code.decode({i: output for i, output in outputs.items() if i not in suspects})


def test_copies_of_several_kinds_of_machine_agree():
    code = CodeSpec("replication", 1, 0, 1).build()
    right = np.random.default_rng(0).normal(size=(4, 5))
    scale = np.sqrt(np.square(right).mean())
    outputs = {0: right + 10 * AGREE * scale, 1: right, 2: right + 0.5 * AGREE * scale}
    assert code.suspects(outputs) == {0}
    np.testing.assert_array_equal(code.decode(outputs).blocks[0], right)


def test_one_wrong_number_is_enough_to_disagree():
    code = CodeSpec("replication", 1, 0, 1).build()
    outputs = {i: np.ones((64, 100)) for i in range(3)}
    outputs[2][13, 7] += 1e-3
    assert code.suspects(outputs) == {2}


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200, 3e38])
def test_a_wrong_copy_with_strange_numbers_does_not_win_the_vote(value):
    code = CodeSpec("replication", 1, 0, 1).build()
    outputs = {i: np.ones((2, 3)) for i in range(3)}
    for faulty in range(3):
        wrong = outputs | {faulty: np.array([[1, value, 1], [1, 1, 1]])}
        assert code.suspects(wrong) == {faulty}
        np.testing.assert_array_equal(code.decode(wrong).blocks[0], 1)


def test_nan_on_which_all_agree_is_the_models_own():
    code = CodeSpec("replication", 1, 0, 1).build()
    output = np.array([[np.nan, 1], [-np.inf, 2]])
    assert not code.suspects(dict.fromkeys(range(3), output))
    np.testing.assert_array_equal(code.decode(dict.fromkeys(range(3), output)).blocks[0], output)


@pytest.mark.parametrize("dtype", ["U3", "int64", "bool", "complex64"])
def test_labels_agree_or_do_not(dtype):
    code = CodeSpec("replication", 2, 0, 1).build()
    blocks = np.array([[1, 0, 1], [0, 0, 1]]).astype(dtype)
    outputs = {i: blocks[i % 2] for i in range(6)} | {3: blocks[0]}
    assert code.suspects(outputs) == {3}
    np.testing.assert_array_equal(code.decode(outputs).blocks, blocks)


@pytest.mark.parametrize(
    ("found", "expected", "apart"),
    [
        ([1.0, 2], [1, 2], 0),
        ([1.0, 5], [3, 4], 2 / np.sqrt(12.5)),
        ([0.0, 0], [0, 0], 0),
        ([0.0, 1], [0, 0], np.inf),
        ([1.0, np.inf], [1, 1], np.inf),
        ([1.0, 1], [1, np.nan], np.inf),
        ([2.0, np.nan], [4, np.nan], 0.5),
        ([np.nan, 0], [np.nan, np.nan], np.inf),
        ([1e200, 2e200], [1e200, 1e200], 1),
        (["a", "b"], ["a", "b"], 0),
        (["a", "c"], ["a", "b"], np.inf),
    ],
)
def test_distance(found, expected, apart):
    kind = None if isinstance(found[0], str) else float
    assert distance(np.array(found, kind), np.array(expected, kind)) == pytest.approx(apart)


@pytest.mark.parametrize("byzantine", [1, 2])
def test_adaptive_copies_are_one_more_than_the_faulty_workers(byzantine):
    code = CodeSpec("replication-adaptive", 2, 3, byzantine).build()
    assert code.n == 2 * (byzantine + 1)
    blocks, outputs = outputs_of(code, np.random.default_rng(0))
    assert code.decodable(outputs)
    for missing in outputs:
        assert not code.decodable(outputs.keys() - {missing})
    assert not code.suspects(outputs)
    outputs[3] += 1
    assert code.suspects(outputs) == set(range(1, code.n, 2))
    right = {i: output for i, output in outputs.items() if i in (1, 2)}
    assert code.decode(right).blocks.tobytes() == blocks[[0, 1]].tobytes()


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


def test_any_numbers_are_compared_without_a_warning():
    code = CodeSpec("replication", 1, 1).build()
    outputs = {0: np.array([np.inf, np.inf, 1e200, 1]), 1: np.array([np.inf, 0, -1e200, 1])}
    np.testing.assert_array_equal(code.residual(outputs), [np.nan, np.inf, np.inf, 0])
