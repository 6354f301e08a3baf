"""The rows of one variable: points along its sample dimensions, or tiles of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from approxifer.datasets.grid import Grid
from approxifer.datasets.input.chunks import KEPT_BYTES, KeptChunks
from approxifer.datasets.input.fields import Field
from approxifer.datasets.tiles.tiling import Tiling


class PlainRows:
    """Rows that are points along sample dimensions.

    Parameters
    ----------
    field
    axes
        Its sample dimensions.
    """

    def __init__(self, field: Field, axes: tuple[int, ...]) -> None:
        self._field, self._axes = field.along(axes[0]), axes

    @property
    def kept(self) -> bool:
        """True where what is read once is at hand when it is read again soon."""
        return self._field.lazy is not None and self._field.lazy.keeps

    def parts(self, grid: Grid, start: int, stop: int) -> Iterator[np.ndarray]:
        """Rows [start, stop) in parts, one after another: (n, *feature)."""
        if self._field.lazy is not None and grid.ndim == 1:
            yield self._field.lazy.read(start, stop)
            return
        for slab, first, last in grid.pieces(start, stop):
            at = [slice(None)] * len(self._field.shape)
            for axis, part in zip(self._axes, slab, strict=True):
                at[axis] = part
            moved = np.moveaxis(self._field.read(at), self._axes, range(grid.ndim))
            yield moved.reshape(-1, *moved.shape[grid.ndim :])[first:last]


class TiledRows:
    """Rows that are tiles of a field, one at each point along the sample dimensions.

    Parameters
    ----------
    field
    axes
        Its sample dimensions, which may be none.
    tiling
    most
        Bytes of chunks that are kept.
    """

    def __init__(
        self, field: Field, axes: tuple[int, ...], tiling: Tiling, *, most: int = KEPT_BYTES
    ) -> None:
        self._field = field = field.along(0)
        self._axes, self._tiling = axes, tiling
        self._cut = tuple(field.dims.index(dim) for dim in tiling.dims)
        whole, chunks = field.shape, field.shards or field.chunks
        lengths = dict(enumerate(whole)) | dict(zip(self._cut, tiling.padded, strict=True))
        self._feature = tuple(n for axis, n in lengths.items() if axis not in axes)
        self._read = field.read
        self.kept = self._strip_bytes(whole, chunks) <= most
        if field.is_chunked and math.prod(chunks) * field.dtype.itemsize <= most:
            self._read = KeptChunks(field.read, whole, chunks, field.dtype, most=most).read

    def _strip_bytes(self, shape: Sequence[int], chunks: Sequence[int]) -> int:
        """Bytes of the chunks below one line of tiles, all of which the next line meets again."""
        lengths = list(shape)
        for axis in self._axes:
            lengths[axis] = min(chunks[axis], shape[axis])
        first, tile = self._cut[0], self._tiling.padded[0]
        lengths[first] = min(shape[first], tile + 2 * chunks[first])
        return math.prod(lengths) * self._field.dtype.itemsize

    def parts(self, grid: Grid, start: int, stop: int) -> Iterator[np.ndarray]:
        """Rows [start, stop), one after another: (1, *feature)."""
        for slab, first, last in grid.pieces(start, stop):
            lengths = [part.stop - part.start for part in slab]
            numbers = np.stack(np.unravel_index(np.arange(first, last), lengths), axis=1)
            yield from self._tiles(numbers + [part.start for part in slab])

    def _tiles(self, numbers: np.ndarray) -> Iterator[np.ndarray]:
        """Tiles by their places in the grid (n, ndim), cut out of the box that holds them all."""
        samples = len(self._axes)
        points = [
            {int(tile): self._tiling.points(dim, int(tile)) for tile in np.unique(column)}
            for dim, column in enumerate(numbers[:, samples:].T)
        ]
        at = [slice(0, size) for size in self._field.shape]
        for axis, column in zip(self._axes, numbers[:, :samples].T, strict=True):
            at[axis] = slice(int(column.min()), int(column.max()) + 1)
        for axis, tiles in zip(self._cut, points, strict=True):
            low = min(int(one.min()) for one in tiles.values())
            at[axis] = slice(low, max(int(one.max()) for one in tiles.values()) + 1)
        box = self._read(at)
        for place in numbers:
            one = list(map(slice, box.shape))
            for axis, point in zip(self._axes, place, strict=False):
                one[axis] = slice(int(point) - at[axis].start, int(point) - at[axis].start + 1)
            found = box[tuple(one)]
            for axis, tiles, tile in zip(self._cut, points, place[samples:], strict=True):
                found = _taken(found, tiles[int(tile)] - at[axis].start, axis)
            yield found.reshape(1, *self._feature)


def _taken(values: np.ndarray, points: np.ndarray, axis: int) -> np.ndarray:
    """Some points along an axis; a view where they follow each other."""
    if (np.diff(points) == 1).all():
        return values[(*[slice(None)] * axis, slice(int(points[0]), int(points[-1]) + 1))]
    return np.take(values, points, axis)
