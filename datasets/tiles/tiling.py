"""Tiles: a field cut into rows of one shape, each with a border of its neighbours.

Beyond the field's edge a tile goes on with the field's reflection, as ``numpy.pad(mode="reflect")``
has it. Pure arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from approxifer.errors import ConfigError
from approxifer.text import did_you_mean


@dataclass(frozen=True)
class Joined:
    """An axis of a row's output along which the outputs of neighbouring tiles are joined.

    Attributes
    ----------
    axis : int
        Of one row's output.
    along : int
        The dimension of the rows' grid along which the tiles are counted.
    tile : int
        Length of one tile's output.
    length : int
        Of the field that is put together.
    factor : int
        By which the output is smaller than the input.
    """

    axis: int
    along: int
    tile: int
    length: int
    factor: int


@dataclass(frozen=True)
class Tiling:
    """A cut of a field into tiles.

    Attributes
    ----------
    dims : tuple of str
        The dimensions that are cut, in the field's order.
    sizes : tuple of int
        The field's lengths along them.
    lengths, halo : tuple of int
        Of a tile, and of its border on either side.
    """

    dims: tuple[str, ...]
    sizes: tuple[int, ...]
    lengths: tuple[int, ...]
    halo: tuple[int, ...]

    @classmethod
    def of(
        cls,
        tile: Mapping[str, int],
        halo: int | Mapping[str, int],
        sizes: Mapping[str, int],
        of: str,
    ) -> Tiling:
        """The tiling of a variable with these dimensions.

        Raises
        ------
        ConfigError
            A dimension that is not there, or a length that makes no sense.
        """
        borders = dict.fromkeys(tile, halo) if isinstance(halo, int) else dict(halo)
        for name, given in (("tile", tile), ("halo", borders)):
            if strange := [dim for dim in given if dim not in sizes]:
                raise ConfigError(
                    f"{name}= names the dimension {strange[0]!r}"
                    f"{did_you_mean(strange[0], list(sizes)) or '.'} {of} has "
                    f"{', '.join(map(repr, sizes))}"
                )
        if uncut := [dim for dim, border in borders.items() if border and dim not in tile]:
            raise ConfigError(
                f"halo= has a border along {uncut[0]!r}, which tile= does not cut: give a length "
                "of the tiles along it, or leave it out"
            )
        if not tile or min(tile.values()) < 1 or min(borders.values(), default=0) < 0:
            raise ConfigError(
                f"tile={dict(tile)!r}, halo={halo!r}: give lengths of at least 1 by dimension, "
                "tile={'y': 256, 'x': 256}, and a border of at least 0"
            )
        dims = tuple(dim for dim in sizes if dim in tile)
        return cls(
            dims,
            tuple(sizes[dim] for dim in dims),
            tuple(tile[dim] for dim in dims),
            tuple(borders.get(dim, 0) for dim in dims),
        )

    @property
    def counts(self) -> tuple[int, ...]:
        """Numbers of tiles along the dimensions."""
        return tuple(map(_ceil, self.sizes, self.lengths))

    @property
    def padded(self) -> tuple[int, ...]:
        """Lengths of a tile with its border: of what the model is given."""
        return tuple(t + 2 * h for t, h in zip(self.lengths, self.halo, strict=True))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the dimensions along which tiles are counted."""
        return tuple(f"tile_{dim}" for dim in self.dims)

    def __str__(self) -> str:
        cut = zip(self.dims, self.lengths, self.halo, strict=True)
        return ", ".join(f"{dim}: {t} and a border of {h}" for dim, t, h in cut)

    def described(self) -> dict[str, dict[str, int]]:
        """The tiling as a store keeps it, and compares it on resume."""
        cut = zip(self.dims, self.lengths, self.halo, strict=True)
        return {dim: {"tile": t, "halo": h} for dim, t, h in cut}

    def points(self, dim: int, tile: int) -> np.ndarray:
        """The points of the field that a tile has along a dimension: int (padded length,).

        >>> Tiling(("x",), (5,), (3,), (1,)).points(0, 1)
        array([2, 3, 4, 3, 2])
        """
        first = tile * self.lengths[dim] - self.halo[dim]
        turns = self.sizes[dim] - 1  # a reflection has the edge itself but once
        if not turns:
            return np.zeros(self.padded[dim], int)
        there_and_back = (np.arange(first, first + self.padded[dim]) + turns) % (2 * turns)
        return np.asarray(np.abs(there_and_back - turns))

    def joined(
        self, shape: Sequence[int], row: Sequence[str], rows: int
    ) -> tuple[tuple[Joined, ...], tuple[tuple[int, int], ...]]:
        """The way in which outputs of tiles are put together again.

        The tiled dimensions are looked for at the place that they have in the row, counted from
        its end, then from its beginning, then anywhere side by side.

        Parameters
        ----------
        shape
            Of one row's output, its border included.
        row
            The dimensions of a row.
        rows
            Sample dimensions, after which the tiles are counted.

        Returns
        -------
        joined : tuple of Joined
        inner : tuple of (int, int)
            Along each axis of the output the part that is not border.

        Raises
        ------
        ConfigError
            The output does not lie on the tile's grid.
        """
        at = [list(row).index(dim) for dim in self.dims]
        shifts = range(-at[0], len(shape) - at[-1])
        likely = sorted(shifts, key=lambda by: (by != len(shape) - len(row), by != 0))
        fitting = [(f, by) for by in likely if (f := self._factor([shape[a + by] for a in at]))]
        if not fitting:
            raise ConfigError(self._unlike(shape))
        factor, by = min(fitting, key=lambda one: one[0])
        inner = [(0, size) for size in shape]
        joined = []
        for number, axis in enumerate(at):
            border, tile = self.halo[number] // factor, self.lengths[number] // factor
            inner[axis + by] = (border, border + tile)
            length = _ceil(self.sizes[number], factor)
            joined.append(Joined(axis + by, rows + number, tile, length, factor))
        return tuple(joined), tuple(inner)

    def _factor(self, sizes: Sequence[int]) -> int:
        """The whole number by which an output of these lengths is smaller; 0 if it is none."""
        factor = self.padded[0] // sizes[0]
        smaller = all(
            size * factor == padded for size, padded in zip(sizes, self.padded, strict=True)
        )
        whole = factor and not any(length % factor for length in (*self.lengths, *self.halo))
        return factor if smaller and whole else 0

    def _unlike(self, shape: Sequence[int]) -> str:
        return (
            f"the model turns tiles of {self.padded} (tile= {self.lengths}, and a halo= of "
            f"{self.halo} on either side) into outputs of shape {tuple(shape)}, which cannot be "
            "put together again: along the tiled dimensions an output has the length of the tile "
            "with its border, or is smaller by a whole number that divides tile= and halo= too. "
            "Let the model keep the size of what it is given (convolutions with padding='same'), "
            "or give tile= and halo= that are multiples of its stride"
        )


def _ceil(size: int, length: int) -> int:
    return math.ceil(size / length)


def described_joins(joined: Sequence[Joined]) -> list[dict[str, int]]:
    """Joined axes as a store keeps them; their lengths are its arrays'."""
    return [{"axis": j.axis, "along": j.along, "tile": j.tile, "factor": j.factor} for j in joined]


def joins_of(described: Any, shape: Sequence[int], grid: int) -> tuple[Joined, ...]:
    """Joined axes out of a store, of an array of predictions of this shape; the last dimensions of
    the rows' grid, of so many, count their tiles.

    Raises
    ------
    ValueError, TypeError, IndexError, AttributeError
        They are not as they were written.
    """
    given = described or []
    rows = grid - len(given)
    found = []
    for number, one in enumerate(given):
        axis, along, tile, factor = (one.get(key) for key in ("axis", "along", "tile", "factor"))
        if (axis, along) != (max(axis, 0), rows + number) or min(rows, tile - 1, factor - 1) < 0:
            raise ValueError(f"its joined axes are {described!r}.")
        found.append(Joined(axis, along, tile, shape[rows + axis], factor))
    return tuple(found)
