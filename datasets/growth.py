"""Appending rows: what has to fit before a store is lengthened, and its coordinates."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr
import zarr

from approxifer.datasets.input.coords import encoded_like, equal
from approxifer.datasets.input.opening import dimensions, raw_variable
from approxifer.datasets.localdisk import sync
from approxifer.errors import FingerprintError
from approxifer.quiet import quiet
from approxifer.text import one_line


@dataclass(frozen=True)
class Growth:
    """Rows to be appended.

    Attributes
    ----------
    before, length : int
        Of the first sample dimension, without and with them.
    dim : str
        Its name.
    coords : dict of str to xarray.Variable
        The coordinates along it, whole, as the store encodes them.
    """

    before: int
    length: int
    dim: str
    coords: Mapping[str, xr.Variable]

    def write_coordinates(self, path: Path) -> None:
        """Lengthen the coordinates of a store; on the disk when it returns."""
        for name, coord in self.coords.items():
            new = tuple(slice(self.before if dim == self.dim else 0, None) for dim in coord.dims)
            with quiet():
                array = zarr.open_array(str(path / name), mode="r+")
                array.resize(coord.shape)
                array[new] = coord.values[new]
            for folder, _, files in os.walk(path / name):
                sync(Path(folder), files)


def planned(
    path: Path,
    group: zarr.Group,
    coords: Mapping[Any, xr.Variable],
    *,
    growth: Growth,
    own: set[str],
) -> Growth:
    """A growth with its coordinates, encoded as the store has them.

    Parameters
    ----------
    path, group
        The store.
    coords
        The grown input's, decoded, along dimensions as the store calls them.
    growth
        Without coordinates.
    own
        Names of arrays that are no coordinates of the input.

    Raises
    ------
    FingerprintError
        A coordinate has changed, is gone, or cannot be encoded as it is stored.
    """
    found: dict[str, xr.Variable] = {}
    for name, array in sorted(group.arrays()):
        if name in own:
            continue
        try:
            with quiet():
                stored = raw_variable(array, dimensions(array)).load()
                grown = encoded_like(name, coords[name], stored)
                cut = {growth.dim: slice(growth.before)} if growth.dim in grown.dims else {}
                # What is stored may be longer: a growth that was broken off.
                same = grown.dims == stored.dims and equal(name, grown[cut], stored[cut])
        except Exception as error:  # of coordinates that can be anything
            why = "the input has none" if isinstance(error, KeyError) else one_line(error)
            raise FingerprintError(
                f"Rows cannot be appended to the output store {path}: its coordinate {name!r} "
                f"cannot be continued: {why}. Write to another path (--out)."
            ) from error
        if not same:
            raise FingerprintError(
                f"Rows cannot be appended to the output store {path}: the coordinate {name!r} of "
                "the input is another one than it was. Write to another path (--out)."
            )
        if growth.dim in grown.dims:
            found[name] = grown
    return Growth(growth.before, growth.length, growth.dim, found)
