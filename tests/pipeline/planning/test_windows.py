"""The length of a window."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from approxifer.pipeline.planning.windows import window_rows

length = st.integers(1, 2000)


@given(length, length, length, length)
def test_a_window_is_whole_chunks(rows, input_chunk, output_chunk, want):
    window = window_rows(rows, input_chunk=input_chunk, output_chunk=output_chunk, want=want)
    assert window % output_chunk == 0
    assert window >= output_chunk
    assert window <= max(want, output_chunk) or rows <= want
    both = math.lcm(input_chunk, output_chunk)
    if both <= want < rows:
        assert window % both == 0 or window >= rows
    if rows <= want:
        assert window >= rows


@pytest.mark.parametrize(
    ("input_chunk", "output_chunk", "want", "expected"),
    [
        (64, 64, 1000, 960),
        (100, 64, 2000, 1600),  # both fit
        (100, 64, 1000, 960),  # 1600 rows would be too many
        (10_000, 64, 10, 64),  # not even one output chunk fits
        (64, 64, 100_000, 10_048),  # everything at once
    ],
)
def test_examples(input_chunk, output_chunk, want, expected):
    got = window_rows(10_000, input_chunk=input_chunk, output_chunk=output_chunk, want=want)
    assert got == expected


def test_a_length_of_nothing_is_refused():
    with pytest.raises(ValueError, match="want is 0"):
        window_rows(10, input_chunk=1, output_chunk=1, want=0)
