"""Several outputs in one array: every bit comes back, whatever they are made of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from approxifer.packing import Packing

NUMBERS = ["f2", "f4", "f8", "c8", "c16", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?"]


@st.composite
def outputs(draw: st.DrawFn) -> dict[str, np.ndarray]:
    """Outputs of up to four dtypes, each number anything that these bits can be."""
    rows = draw(st.integers(1, 4))
    found = {}
    for i in range(draw(st.integers(1, 4))):
        dtype = np.dtype(draw(st.sampled_from(NUMBERS)))
        shape = (rows, *draw(stn.array_shapes(min_dims=0, max_dims=2, max_side=3)))
        if dtype.kind in "fc":  # of the many NaN the one that arithmetic makes
            bits = stn.from_dtype(dtype, allow_nan=False) | st.just(np.nan)
        else:
            bits = stn.from_dtype(dtype)
        found[f"part {i}"] = draw(stn.arrays(dtype, shape, elements=bits))
    return found


@given(outputs())
def test_every_bit_comes_back(given: dict[str, np.ndarray]) -> None:
    packing = Packing.of(given)
    packed = packing.pack(list(given.values()))
    assert packed.shape == (len(packed), *packing.shape)
    assert packed.dtype == packing.dtype
    for output, back in zip(given.values(), packing.unpack(packed), strict=True):
        assert back.dtype == output.dtype
        np.testing.assert_array_equal(back, output)
        if output.dtype.kind != "c":  # a real number among complex ones may lose a zero's sign
            assert (back == 0).tolist() == (output == 0).tolist()


@pytest.mark.parametrize(
    ("dtypes", "travels", "columns"),
    [
        (["f4", "f4"], "f4", 2),
        (["f4", "f8"], "f8", 2),
        (["f2", "i8"], "f2", 1 + 8),  # in digits of 8 bits
        (["f4", "i8"], "f4", 1 + 4),  # of 16
        (["f8", "i8", "?"], "f8", 1 + 2 + 1),  # of 32
        (["c8", "u1"], "c8", 2),
        (["i8", "i8"], "i8", 2),
        (["i8", "u1"], "u1", 8 + 1),  # as bytes
    ],
)
def test_no_more_travels_than_there_is(dtypes: list[str], travels: str, columns: int) -> None:
    packing = Packing.of({str(i): np.ones(3, one) for i, one in enumerate(dtypes)})
    assert (packing.dtype, packing.shape) == (np.dtype(travels), (columns,))


def test_whole_numbers_that_are_not_there_are_zero() -> None:
    packing = Packing.of({"a": np.ones((2, 2), "f4"), "b": np.ones(2, "i8")})
    scores, label = packing.unpack(np.full((2, *packing.shape), np.nan, packing.dtype))
    assert np.isnan(scores).all()
    assert label.tolist() == [0, 0]


def test_what_a_worker_makes_up_is_read_as_some_number() -> None:
    packing = Packing.of({"a": np.ones(1, "f4"), "b": np.ones(1, "i4")})
    for strange in (np.inf, -1.0, 3e38, 2.5):
        assert packing.unpack(np.full((1, *packing.shape), strange, "f4"))[1].dtype == np.int32


def test_one_output_stays_as_it_is() -> None:
    output = np.ones((3, 2, 2), "f2")
    packing = Packing.single(output)
    assert packing.pack([output]) is output
    assert packing.named(output) is output
    assert (packing.shape, packing.dtype) == ((2, 2), np.float16)
