"""The tolerance between two runs of one row."""

from __future__ import annotations

import numpy as np
import pytest
from honest_runs import differs
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from approxifer.pipeline.byzantine.tolerance import Tolerance

# ---- a difference --------------------------------------------------------------------------------


def test_a_row_differs_by_more_than_the_tolerance_in_one_place() -> None:
    expected = np.ones((3, 4))
    off = np.zeros((3, 4))
    off[0, 2], off[1, 1] = 0.9e-3, 1.1e-3
    assert differs(expected + off, expected) == [False, True, False]
    assert differs(expected + off, expected, times=2.0) == [False, False, False]
    assert differs(expected - 2 * off, expected) == [True, True, False]


def test_it_is_relative_to_the_value_or_to_its_usual_size() -> None:
    assert differs([[100.09]], [[100.0]]) == [False]
    assert differs([[100.11]], [[100.0]]) == [True]
    assert differs([[9.0, 0.0009]], [[9.0, 0.0]]) == [False]
    assert differs([[9.0, 0.0011]], [[9.0, 0.0]]) == [True]
    assert differs([[9.0, 0.0011]], [[9.0, 0.0]], usual=[1.0, 2.0]) == [False]


def test_the_usual_size_is_limited_by_the_rows() -> None:
    """A small row among large ones; a row that is zero."""
    assert differs([[1e-3, 0.9e-6]], [[1e-3, 0.0]], usual=1e6) == [False]
    assert differs([[1e-3, 1.1e-6]], [[1e-3, 0.0]], usual=1e6) == [True]
    assert differs([[0.0, 1e-30]], [[0.0, 0.0]], usual=1e6) == [True]


def test_nobody_gains_by_a_huge_number() -> None:
    assert differs([[1e9, 1.0]], [[1.0, 1.0]]) == [True]
    assert differs([[1.0, 1.0]], [[1e9, 1.0]]) == [True]
    # Nor where nearly anything is allowed, nor for the other outputs of the row.
    for one, other in ((1e30, 1.0), (1.0, 1e30)):
        assert Tolerance(1.5, np.ones(1)).differs(np.array([[one]]), np.array([[other]])).all()
    assert differs([[1e-6, 1e30]], [[2e-6, 1e-6]]) == [True]
    huge = np.array([[1.5e308]])  # what is allowed is beyond all numbers, and so is the distance
    for number in (huge, huge * (1 + 1j)):
        assert Tolerance(1.5, np.ones(1)).differs(-number, number, noise=np.ones((1, 1))).all()


def test_each_output_has_its_own_usual_size() -> None:
    usual = [1.0, 1000.0]
    found = [[0.5, 0.5, 1000.0], [0.0, 0.5, 1000.0]]
    expected = [[0.0, 0.0, 1000.0]] * 2
    assert differs(found, expected, usual=[*usual, 1.0]) == [True, False]


@pytest.mark.parametrize("shape", [(), (3,), (2, 4)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "int32", "bool"])
def test_outputs_of_any_shape_and_number(shape: tuple[int, ...], dtype: str) -> None:
    made = Tolerance(0.0 if dtype in ("int32", "bool") else 1e-2, np.ones(shape))
    expected = np.ones((5, *shape), dtype)
    found = expected.copy()
    assert not made.differs(found, expected).any()
    found[3, ...] = 0
    assert made.differs(found, expected).tolist() == [False, False, False, True, False]
    assert made.worst(found, expected) == (1.0, made.relative)


def test_what_is_not_finite_equals_itself_only() -> None:
    inf, nan = np.inf, np.nan
    numbers = [inf, -inf, nan, 0.0, 1.0]
    for a in numbers:
        for b in numbers:
            same = a == b or (a != a and b != b)
            assert differs([[5.0, a]], [[5.0, b]]) == [not same], (a, b)
            assert differs([[a]], [[b]]) == [not same], (a, b)
    assert differs([[1e300]], [[inf]]) == [True]
    made = Tolerance(1e-3, np.ones(2))
    assert made.worst(np.array([[nan, 2.0]]), np.array([[1.0, 2.0]]))[0] == inf
    assert made.worst(np.array([[nan, 2.5]]), np.array([[nan, 2.0]]))[0] == 0.5


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_numbers_are_compared_in_both_parts(dtype: str) -> None:
    expected = np.array([[3 + 4j, 1j]] * 3, dtype)
    found = expected.copy()
    found[1, 0] += 4.5e-3j  # of 5
    found[2, 0] += 5.5e-3j
    assert differs(found, expected) == [False, False, True]
    assert differs(expected.conj(), expected) == [True] * 3
    # A NaN in one part hides nothing in the other.
    expected[:, 0].real, found[:, 0].real = np.nan, np.nan
    assert differs(found, expected) == [False, True, True]
    assert differs(expected, expected) == [False] * 3


def test_integers_are_compared_exactly() -> None:
    made = Tolerance(0.0, np.full(2, 1e6))
    expected = np.array([[10**6, 3], [10**6, 3]])
    found = np.array([[10**6, 3], [10**6, 4]])
    assert made.differs(found, expected).tolist() == [False, True]
    found = np.array([[10**6 + 1, 3], [10**6, 3]])
    noise = np.ones(found.shape)
    assert made.differs(found, expected, times=2, noise=noise).tolist() == [True, False]
    expected = np.array([[2**60, 0], [2**60, 0]])
    found = np.array([[2**60, 0], [2**60 + 1, 0]])
    assert made.differs(found, expected).tolist() == [False, True]


def test_the_worst_is_measured_against_what_is_allowed_there() -> None:
    made = Tolerance(0.1, np.array([1.0, 100.0, 1.0]))
    found, expected = np.array([[0.5, 9.0, 100.0]]), np.array([[0.0, 0.0, 100.0]])
    assert made.worst(found, expected) == (0.5, pytest.approx(0.1))  # not 9, where 10 is allowed


def test_the_noise_of_the_very_row_widens_it() -> None:
    made = Tolerance(1e-3, np.ones(()), margin=4.0)
    expected = np.array([[1e-9], [1e-9], [1.0]])
    noise = np.array([[1e-7], [0.0], [0.0]])
    found = expected + np.array([[3.9e-7], [3.9e-7], [0.9e-3]])
    assert made.differs(found, expected).tolist() == [True, True, False]
    assert made.differs(found, expected, noise=noise).tolist() == [False, True, False]
    found = expected + 7.8e-7
    assert made.differs(found, expected, noise=noise).tolist() == [True, True, False]
    assert made.differs(found, expected, noise=noise, times=2).tolist() == [False, True, False]
    assert made.differs(-found, expected, noise=noise).tolist() == [True, True, True]


ANY = {
    dtype: hnp.arrays(
        dtype,
        hnp.array_shapes(min_dims=1, max_dims=3, max_side=5),
        elements=hnp.from_dtype(np.dtype(dtype), allow_subnormal=False),
    )
    for dtype in ("float16", "float32", "float64", "complex64", "complex128", "int64", "bool")
}


@given(
    outputs=st.one_of(*ANY.values()),
    relative=st.floats(0, 1.9),
    usual=st.floats(0, allow_infinity=True, allow_nan=False),
    noise=st.one_of(st.none(), st.floats(0, 1e3)),
)
def test_an_output_never_differs_from_itself(
    outputs: np.ndarray, relative: float, usual: float, noise: float | None
) -> None:
    made = Tolerance(relative, np.full(outputs.shape[1:], usual))
    own = None if noise is None else np.full(outputs.shape, noise)
    assert not made.differs(outputs, outputs.copy(), noise=own).any()


@given(
    outputs=st.one_of(*(ANY[name] for name in ANY if name[0] in "fc")),
    relative=st.floats(0, 1.9),
    usual=st.floats(0, allow_infinity=True, allow_nan=False),
)
def test_a_sign_flip_differs_in_each_row_that_is_not_zero(
    outputs: np.ndarray, relative: float, usual: float
) -> None:
    each = outputs.reshape(len(outputs), -1)
    size = np.where(np.isfinite(each), np.abs(each), 0).max(axis=1, initial=0)
    assume((size > 0).any())
    made = Tolerance(relative, np.full(outputs.shape[1:], usual))
    assert made.differs(-outputs, outputs)[size > 0].all()
