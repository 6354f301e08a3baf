"""Rows as points of a grid, numbered chunk by chunk."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from approxifer.datasets.grid import Grid


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """One to three dimensions in chunks of any length, grown up to twice."""
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=1, max_size=3)))
    chunk = tuple(draw(st.integers(1, 9)) for _ in shape)
    grown = draw(st.sets(st.integers(1, max(shape[0] - 1, 1)), max_size=2))
    return Grid(shape, chunk, tuple(sorted(one for one in grown if one < shape[0])))


def numbers(grid: Grid) -> np.ndarray:
    """The number of the row at each point."""
    found = np.full(grid.shape, -1)
    for tile in range(len(grid.starts) - 1):
        start, stop = grid.span(tile)
        slab = found[grid.slab(tile)]
        assert (slab == -1).all()
        slab[...] = np.arange(start, stop).reshape(slab.shape)
    return found


@given(grids())
def test_each_point_is_one_row(grid: Grid) -> None:
    found = numbers(grid)
    assert sorted(found.ravel()) == list(range(grid.rows))
    for tile in range(len(grid.starts) - 1):  # within one chunk
        for part, length in zip(grid.slab(tile), grid.chunk, strict=True):
            assert part.start // length == (part.stop - 1) // length


@given(grids())
def test_rows_keep_their_numbers_when_the_first_dimension_grows(grid: Grid) -> None:
    longer = Grid((grid.shape[0] + 5, *grid.shape[1:]), grid.chunk, (*grid.begins, grid.shape[0]))
    np.testing.assert_array_equal(numbers(longer)[: grid.shape[0]], numbers(grid))
    for most in (1, 4, 1000):
        before = grid.windows(most)
        assert longer.windows(most)[: len(before)] == before


@given(grids(), st.integers(0, 400), st.integers(0, 400))
def test_pieces_are_the_rows_in_their_order(grid: Grid, one: int, other: int) -> None:
    start, stop = sorted((one % (grid.rows + 1), other % (grid.rows + 1)))
    whole = numbers(grid)
    parts = [whole[slab].ravel()[a:b] for slab, a, b in grid.pieces(start, stop)]
    assert np.concatenate([[], *parts]).tolist() == list(range(start, stop))


@given(grids(), st.integers(1, 100))
def test_windows_are_whole_tiles_and_cover_every_row_once(grid: Grid, most: int) -> None:
    windows = grid.windows(most)
    assert [row for span in windows for row in range(*span)] == list(range(grid.rows))
    largest = int(np.diff(grid.starts).max())
    for start, stop in windows:
        assert grid.is_whole(start, stop)
        assert stop - start <= max(most, largest)


@given(st.integers(1, 500), st.integers(1, 20), st.integers(1, 20))
def test_along_one_dimension_windows_have_one_length(rows: int, chunk: int, chunks: int) -> None:
    window = chunk * chunks
    expected = [(a, min(a + window, rows)) for a in range(0, rows, window)]
    assert Grid((rows,), (chunk,)).windows(window) == expected


@given(grids())
def test_rows_beside_share_a_chunk(grid: Grid) -> None:
    found = numbers(grid)
    chunk_of = np.empty(grid.rows, object)
    for point in np.ndindex(grid.shape):
        along = zip(point, grid.chunk, strict=True)
        chunk_of[found[point]] = tuple(i // length for i, length in along)
    for start, stop in grid.windows(1):
        beside = {row for span in grid.beside(start, stop) for row in range(*span)}
        own = set(chunk_of[start:stop])
        expected = {row for row in range(grid.rows) if chunk_of[row] in own}
        assert beside == expected - set(range(start, stop))
