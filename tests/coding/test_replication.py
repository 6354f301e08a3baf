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
    """Honest outputs: every copy of a block alike, bit by bit."""
    blocks = rng.normal(size=(code.k, *shape)).astype(np.float32)
    return blocks, {i: blocks[i % code.k].copy() for i in range(code.n)}


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(1, 4), st.integers(0, 2), st.integers(1, 3), st.booleans(), st.data())
def test_e_liars_per_block_are_outvoted_and_named(k, stragglers, byzantine, collude, data):
    code = CodeSpec("replication", k, stragglers, byzantine).build()
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    blocks, outputs = outputs_of(code, rng)
    liars, lost = set(), set()
    for block in range(k):
        copies = data.draw(st.permutations(range(block, code.n, k)))
        liars.update(copies[: data.draw(st.integers(0, byzantine))])
        lost.update(copies[code.n // k - data.draw(st.integers(0, stragglers)) :])
    for share in liars:
        outputs[share] += 1 if collude else rng.normal()
    present = {i: output for i, output in outputs.items() if i not in lost}
    assert code.decodable(present)
    assert code.suspects(present) == liars - lost
    cleared = {i: output for i, output in present.items() if i not in liars}
    for some in (present, cleared):
        assert code.decode(some).blocks.tobytes() == blocks.tobytes()


def test_the_order_of_copies_earns_no_trust():
    code = CodeSpec("replication", 1, 0, 1).build()
    honest, lie = np.ones((2, 3)), np.zeros((2, 3))
    for said in set(permutations([honest.tobytes(), honest.tobytes(), lie.tobytes()])):
        outputs = {i: np.frombuffer(copy).reshape(2, 3) for i, copy in enumerate(said)}
        np.testing.assert_array_equal(code.decode(outputs).blocks[0], honest)


def test_with_nobody_byzantine_the_first_copy_is_taken_as_ever():
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
    honest = np.random.default_rng(0).normal(size=(4, 5))
    scale = np.sqrt(np.square(honest).mean())
    outputs = {0: honest + 10 * AGREE * scale, 1: honest, 2: honest + 0.5 * AGREE * scale}
    assert code.suspects(outputs) == {0}
    np.testing.assert_array_equal(code.decode(outputs).blocks[0], honest)


def test_one_wrong_number_is_enough_to_disagree():
    code = CodeSpec("replication", 1, 0, 1).build()
    outputs = {i: np.ones((64, 100)) for i in range(3)}
    outputs[2][13, 7] += 1e-3
    assert code.suspects(outputs) == {2}


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200, 3e38])
def test_a_liar_with_strange_numbers_does_not_win_the_vote(value):
    code = CodeSpec("replication", 1, 0, 1).build()
    outputs = {i: np.ones((2, 3)) for i in range(3)}
    for liar in range(3):
        lies = outputs | {liar: np.array([[1, value, 1], [1, 1, 1]])}
        assert code.suspects(lies) == {liar}
        np.testing.assert_array_equal(code.decode(lies).blocks[0], 1)


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
def test_adaptive_copies_are_one_more_than_the_liars(byzantine):
    code = CodeSpec("replication", 2, 3, byzantine, adaptive=True).build()
    assert code.n == 2 * (byzantine + 1)
    blocks, outputs = outputs_of(code, np.random.default_rng(0))
    assert code.decodable(outputs)
    for missing in outputs:
        assert not code.decodable(outputs.keys() - {missing})
    assert not code.suspects(outputs)
    outputs[3] += 1
    assert code.suspects(outputs) == set(range(1, code.n, 2))
    honest = {i: output for i, output in outputs.items() if i in (1, 2)}
    assert code.decode(honest).blocks.tobytes() == blocks[[0, 1]].tobytes()
