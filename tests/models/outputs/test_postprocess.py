"""Results made of outputs: by name, or by a function of the user's."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import several_outputs
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from scipy import special

from approxifer.errors import ConfigError, ModelError, ModelNotFoundError
from approxifer.models import open_model
from approxifer.models.outputs.postprocess import argmax, open_postprocess, softmax, topk
from approxifer.packing import Packing

SCORES = stn.arrays(
    st.sampled_from(["f4", "f8", "i8", "u1"]), st.tuples(st.integers(1, 5), st.integers(3, 6)),
    elements=st.integers(0, 9),
)  # fmt: skip


@given(SCORES)
def test_the_largest_classes(scores: np.ndarray) -> None:
    found = topk(scores, 3)
    expected = np.argsort(-scores.astype(float), axis=1, kind="stable")[:, :3]
    np.testing.assert_array_equal(found["indices"], expected)
    np.testing.assert_array_equal(found["values"], np.take_along_axis(scores, expected, 1))
    assert found["values"].dtype == scores.dtype
    np.testing.assert_array_equal(argmax(scores), expected[:, 0])


def test_probabilities() -> None:
    scores = np.random.default_rng(0).normal(0, 300, (5, 4)).astype("f4")
    np.testing.assert_allclose(softmax(scores), special.softmax(scores.astype("f8"), 1), atol=1e-7)
    assert softmax(scores).dtype == np.float32
    assert softmax(scores.astype(int)).dtype == np.float64


def test_a_row_that_is_not_there_has_no_class() -> None:
    scores = np.array([[1.0, np.nan, 2.0], [1.0, np.inf, 2.0]])
    assert argmax(scores).tolist() == [-1, 1]
    assert topk(scores, 2)["indices"].tolist() == [[-1, -1], [1, 2]]
    assert np.isnan(topk(scores, 2)["values"][0]).all()
    assert np.isnan(softmax(scores)[0]).all()


@pytest.mark.parametrize("asked", ["argmax", "topk:2", "several_outputs:spread", lambda s: s * 2])
def test_a_worker_makes_the_same_of_them(asked: Any) -> None:
    """A handle with it is another one, and travels."""
    handle = open_model("toy_models:make_very_slow")
    postprocess = open_postprocess(asked)
    runs = pickle.loads(pickle.dumps(handle.with_postprocess(postprocess)))
    runner = runs.load()
    assert runner.fingerprint == runs.fingerprint != handle.fingerprint
    assert runs.stored_fingerprint == handle.stored_fingerprint
    rows = np.ones((4, 3), np.float32)
    raw = handle.load().run(rows)
    here, there = postprocess.load()(*raw), runner.run(rows)
    assert here[0] == there[0]
    np.testing.assert_array_equal(here[1], there[1])


def many(*shapes: tuple[int, ...], dtype: str = "f4") -> Packing:
    outputs = [np.ones((2, *shape), dtype) for shape in shapes]
    if len(outputs) == 1:
        return Packing.single(outputs[0])
    return Packing.of({str(i): one for i, one in enumerate(outputs)})


@pytest.mark.parametrize(
    ("asked", "outputs", "message"),
    [
        ("argmax", many((3,), (3,)), "one real number for each class, and this one"),
        ("argmax", many((3, 2)), "turns a row into"),
        ("softmax", many((3,), dtype="c8"), "a function of your own"),
        ("topk:5", many((3,)), "the model has 3 classes; give topk:3"),
    ],
)
def test_outputs_without_classes_are_refused(asked: str, outputs: Packing, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_postprocess(asked).check(outputs)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (several_outputs.shortened, r"shape \(1, 3\) for 2 rows"),
        (several_outputs.texts, "only numbers can be scored"),
        (lambda scores: scores[:, 7], "raised on 2 rows of outputs .*IndexError"),
        (lambda scores: exit(), "exit"),
        (lambda scores: None, "returned a NoneType"),
    ],
)
def test_functions_that_make_nothing_of_them(asked: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        open_postprocess(asked).load()(many((3,)), np.ones((2, 3), "f4"))


def test_a_function_that_is_not_there() -> None:
    with pytest.raises(ModelNotFoundError, match="Did you mean 'spread'"):
        open_postprocess("several_outputs:sprad")


def test_it_cannot_spoil_the_outputs() -> None:
    def overwrite(scores: np.ndarray) -> np.ndarray:
        scores *= 2
        return scores

    outputs = np.ones((2, 3), "f4")
    open_postprocess(overwrite).load()(many((3,)), outputs)
    assert (outputs == 1).all()
