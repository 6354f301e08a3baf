"""An array of an output store, by the rows of the store's grid.

Outputs of tiles lie side by side in their array, as in the field that was cut. The last tiles reach
beyond its edge. Zarr keeps chunks at the edge whole, so what lies beyond is kept too, where nobody
but the store itself reads it: a row is read back as it was written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import zarr

from approxifer.datasets.codecs import Array
from approxifer.datasets.grid import Grid
from approxifer.datasets.tiles.tiling import Joined

Slab = tuple[slice, ...]


class RowArray:
    """The rows of an array.

    Parameters
    ----------
    array
    grid
        Of the rows.
    joined
        The axes of a row's output along which the outputs of tiles are joined.

    Attributes
    ----------
    output_shape : tuple of int
        Of one row.
    """

    def __init__(self, array: Array, grid: Grid, joined: tuple[Joined, ...] = ()) -> None:
        self.array, self.grid, self._joined = array, grid, joined
        tiles = {one.axis: one.tile for one in joined}
        one = array.shape[grid.ndim - len(joined) :]
        self.output_shape = tuple(tiles.get(axis, size) for axis, size in enumerate(one))

    @cached_property
    def _whole(self) -> Array:
        """The array, as if it ended where the last tiles do."""
        if not self._joined:
            return self.array
        shape, rows = list(self.array.shape), self.grid.ndim - len(self._joined)
        for one in self._joined:
            shape[rows + one.axis] = self.grid.shape[one.along] * one.tile
        inner = self.array.async_array
        metadata: Any = inner.metadata
        return zarr.Array(type(inner)(metadata.update_shape(tuple(shape)), inner.store_path))

    def _place(self, slab: Slab) -> Slab:
        """The part of the array that holds the rows of a slab of the grid."""
        rows = self.grid.ndim - len(self._joined)
        at = [*slab[:rows], *(slice(0, size) for size in self.output_shape)]
        for one in self._joined:
            tiles = slab[one.along]
            at[rows + one.axis] = slice(tiles.start * one.tile, tiles.stop * one.tile)
        return tuple(at)

    def _order(self) -> list[int]:
        """The dimensions of the grid, and those of a row, in the order in which they lie in the
        array: tiles before what is within them."""
        along = {one.axis: one.along for one in self._joined}
        order = [axis for axis in range(self.grid.ndim) if axis not in along.values()]
        for axis in range(len(self.output_shape)):
            order += [along[axis]] if axis in along else []
            order.append(self.grid.ndim + axis)
        return order

    def read(self, slab: Slab) -> np.ndarray:
        """The rows of a slab of the grid: (n, *output_shape)."""
        values, order = np.asarray(self._whole[self._place(slab)]), self._order()
        lengths = [part.stop - part.start for part in slab] + list(self.output_shape)
        apart = values.reshape([lengths[axis] for axis in order])
        return apart.transpose(np.argsort(order)).reshape(-1, *self.output_shape)

    def write(self, slab: Slab, rows: np.ndarray) -> list[str]:
        """Write the rows of a slab of the grid; the files, within the array's directory."""
        place = self._place(slab)
        lengths = [part.stop - part.start for part in slab]
        apart = rows.reshape(*lengths, *self.output_shape).transpose(self._order())
        self._whole[place] = apart.reshape([part.stop - part.start for part in place])
        return list(_files(self._whole, place))


def stored_chunks(array: Array) -> tuple[int, ...]:
    """The lengths of what is one file: a shard, or a chunk."""
    return array.shards or array.chunks


def _files(array: Array, place: Slab) -> Iterator[str]:
    """The files that hold a part of an array."""
    spans = [
        range(part.start // length, math.ceil(part.stop / length))
        for part, length in zip(place, stored_chunks(array), strict=True)
    ]
    for at in product(*spans):
        yield ".".join(["c", *map(str, at)])
