"""Descriptions of shares: what is read by them is what would be sent."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from approxifer.coding import CodeSpec, gather, order_rows
from approxifer.pipeline.share_rows import Description, describe, join, made, queries, take

ROWS = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)


def load(start: int, stop: int) -> np.ndarray:
    assert 0 <= start < stop <= len(ROWS)
    return ROWS[start:stop].copy()


def over_the_wire(rows: Description) -> Description:
    return Description.of(json.loads(json.dumps(rows.wire())))


@given(
    scheme=st.sampled_from(["uncoded", "replication", "systematic", "parm"]),
    k=st.integers(1, 8),
    stragglers=st.integers(0, 3),
    rows=st.integers(1, 60),
    start=st.integers(0, 140),
    chunk=st.integers(1, 70),
)
def test_the_rows_are_the_encoded_ones_bit_by_bit(
    scheme: str, k: int, stragglers: int, rows: int, start: int, chunk: int
) -> None:
    code = CodeSpec(scheme, k, stragglers).build()
    members = np.arange(start, start + rows)
    encoded = code.encode(gather(ROWS, members, k))
    described = describe(code, gather(np.arange(len(ROWS)), members, k))
    for share, one in enumerate(described):
        assert isinstance(one, Description)
        found, blank = made(over_the_wire(one), load, chunk)
        np.testing.assert_array_equal(found, encoded[share])
        assert (len(one), blank) == (len(encoded[share]), [])
        places = np.random.default_rng(rows).permutation(len(one))[:5]  # as those to check
        some = [take(one, [place]) for place in places]
        joined = join([*some, *queries([7])])
        assert isinstance(joined, Description)
        again, _ = made(over_the_wire(joined), load, chunk)
        np.testing.assert_array_equal(again, [*encoded[share][places], ROWS[7]])


def test_a_mixture_of_what_is_not_finite_is_blank() -> None:
    code = CodeSpec("systematic", 4, 1).build()
    spoilt = ROWS.copy()
    spoilt[[5, 9], 1] = [np.nan, np.inf]
    parity = describe(code, gather(np.arange(200), np.arange(16), 4))[4]
    assert isinstance(parity, Description)
    found, blank = made(parity, lambda start, stop: spoilt[start:stop], 10)
    assert blank == [1, 2]
    assert (found[blank] == 0).all()


@pytest.mark.parametrize(
    ("rows", "chunk", "reads"),
    [
        (range(30, 50), 10, [(30, 50)]),
        ([12, 3, 18, 14, 150], 20, [(3, 19), (150, 151)]),
        ([19, 21, 40, 62], 20, [(19, 20), (21, 22), (40, 41), (62, 63)]),
        ([4, 4, 4], 20, [(4, 5)]),
    ],
)
def test_a_chunk_is_read_once(rows: list[int], chunk: int, reads: list[tuple[int, int]]) -> None:
    asked: list[tuple[int, int]] = []

    def counted(start: int, stop: int) -> np.ndarray:
        asked.append((start, stop))
        return load(start, stop)

    several = join(queries(rows))
    assert isinstance(several, Description)
    found, _ = made(several, counted, chunk)
    assert asked == reads
    np.testing.assert_array_equal(found, ROWS[list(rows)])


def test_a_description_is_small_whatever_the_rows() -> None:
    code = CodeSpec("systematic", 8, 1).build()
    order = order_rows(8 * 10_000, 8, how="none", block=10_000)
    shares = describe(code, gather(np.arange(10**6), order, 8))
    assert max(len(json.dumps(one.wire())) for one in shares if isinstance(one, Description)) < 500
