"""The rows of a store as points of a grid: which row lies where.

Along one sample dimension rows are numbered as they come. Along several they are numbered chunk by
chunk, so that neighbouring rows are in one chunk, of the input and of the output alike. Chunks that
have grown since are cut where they grew: the rows that were there keep their numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np


@dataclass(frozen=True)
class Grid:
    """Points along sample dimensions, in tiles: chunks, cut where the first dimension grew.

    Attributes
    ----------
    shape : tuple of int
        Lengths of the sample dimensions.
    chunk : tuple of int
        Lengths of a chunk along them.
    begins : tuple of int
        Lengths that the first dimension had before it grew.
    """

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    begins: tuple[int, ...] = ()

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def rows(self) -> int:
        """The number of points."""
        return math.prod(self.shape)

    @cached_property
    def _edges(self) -> list[np.ndarray]:
        """The bounds of tiles, by dimension."""
        cuts = (self.begins, *[()] * (self.ndim - 1))
        spans = zip(self.shape, self.chunk, cuts, strict=True)
        return [
            np.unique(np.concatenate([np.arange(0, size, chunk), np.array([*cut, size])]))
            for size, chunk, cut in spans
        ]

    @cached_property
    def starts(self) -> np.ndarray:
        """The first row of each tile, and the number of rows: int64 (tiles + 1,)."""
        sizes = reduce(np.multiply.outer, [np.diff(edges) for edges in self._edges])
        return np.concatenate([[0], np.cumsum(sizes.ravel(), dtype=np.int64)])

    def tile_of(self, row: np.ndarray | int) -> np.ndarray:
        """The number of the tile in which a row lies."""
        return np.searchsorted(self.starts, row, "right") - 1

    def span(self, tile: int) -> tuple[int, int]:
        """The rows of a tile: the first, and one past the last."""
        return int(self.starts[tile]), int(self.starts[tile + 1])

    def slab(self, tile: int) -> tuple[slice, ...]:
        """The place of a tile in an array."""
        counts = [len(edges) - 1 for edges in self._edges]
        at = np.unravel_index(tile, counts)
        return tuple(
            slice(int(edges[i]), int(edges[i + 1]))
            for edges, i in zip(self._edges, at, strict=True)
        )

    def pieces(self, start: int, stop: int) -> Iterator[tuple[tuple[slice, ...], int, int]]:
        """The places of rows [start, stop): slabs, and which of their rows these are.

        Along one dimension it is one slab, of just these rows; else whole tiles.
        """
        if start >= stop:
            return
        if self.ndim == 1:
            yield (slice(start, stop),), 0, stop - start
            return
        for tile in range(int(self.tile_of(start)), int(self.tile_of(stop - 1)) + 1):
            first, end = self.span(tile)
            yield self.slab(tile), max(start - first, 0), min(stop, end) - first

    def is_whole(self, start: int, stop: int) -> bool:
        """True if rows [start, stop) are whole tiles."""
        inside = 0 <= start < stop <= self.rows
        return inside and bool(np.isin([start, stop], self.starts).all())

    def windows(self, most: int) -> list[tuple[int, int]]:
        """Cut the rows into windows of whole tiles, ``[(start, stop), ...]``.

        Parameters
        ----------
        most
            Rows of a window; more only where one tile has more. Where the input grew, a window
            begins.

        >>> Grid((10,), (2,), begins=(5,)).windows(4)
        [(0, 4), (4, 5), (5, 8), (8, 10)]
        """
        found: list[tuple[int, int]] = []
        start, row = 0, math.prod(self.shape[1:])
        for end in (*(begin * row for begin in self.begins), self.rows):
            while start < end:
                one = int(self.starts[self.tile_of(start) + 1])
                fitting = int(self.starts[self.tile_of(start + most)]) if most > 0 else one
                stop = min(max(one, fitting), end)
                found.append((start, stop))
                start = stop
        return found

    def beside(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Rows that share chunks with rows [start, stop), which are whole tiles: spans of them."""
        if not self.begins:
            return []
        edges = self._edges[0][:-1]
        rest = len(self.starts[:-1]) // len(edges)
        found = set()
        for tile in range(int(self.tile_of(start)), int(self.tile_of(stop - 1)) + 1):
            at, other = divmod(tile, rest)
            same = np.flatnonzero(edges // self.chunk[0] == edges[at] // self.chunk[0])
            found |= {self.span(int(i) * rest + other) for i in same}
        return sorted(span for span in found if not start <= span[0] < stop)
