"""Layout of an output store on the disk.

One Zarr v3 group that plain ``xarray.open_zarr`` opens without a warning from the moment it is
there: its metadata are consolidated, all arrays share the sample dimension and its chunk length,
and every chunk carries a CRC-32C by which rot on the disk is seen.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import Crc32cCodec

from approxifer.checks import instance
from approxifer.datasets.form import (
    BESIDE,
    DEFAULT_CODEC,
    PREDICTION,
    Form,
    Forms,
    compressors,
)
from approxifer.datasets.grid import Grid
from approxifer.datasets.input.coords import Coordinates, coarsened, storable
from approxifer.datasets.localdisk import consolidate
from approxifer.datasets.source import Source
from approxifer.errors import ConfigError, StoreError
from approxifer.jsonable import jsonable
from approxifer.quiet import quiet

#: The values 0, 1, ... of ``status``, in words (CF ``flag_meanings``).
FLAG_MEANINGS = ("pending", "exact", "decoded", "repaired", "failed")

#: The attribute by which a store is known as ours, and the layout's version as its value.
MARK = "approxifer_store"
FORMAT = 2
#: The layout of stores of several outputs.
FORMAT_SEVERAL = 3
#: Stores of the first layout have a prediction called so, in one chunk but for the rows.
READ = (1, 2, 3)

#: The attribute that holds the form of the predictions; stores of the first layout have none.
OUTPUT = "output"
#: Lengths that the first sample dimension had before the input grew, and rows were appended.
APPENDED = "appended"
#: The length that it has while the arrays are lengthened.
GROWING = "growing"

VARIABLES = (PREDICTION, *BESIDE)
#: Of all but the predictions.
DTYPES = {"status": np.uint8, "group": np.int32, "worker": np.int32, "residual": np.float32}

#: The attribute by which a store differs from all others, also from one that had its name before.
UUID = "approxifer_uuid"

#: Attributes that the store or xarray sets.
RESERVED = (
    MARK, UUID, OUTPUT, APPENDED, GROWING, "Conventions", "coordinates", "coordinates_left_out",
    "coordinate_notes", "counts", "workers",
)  # fmt: skip

_ATTRIBUTES: dict[str, dict[str, Any]] = {
    "prediction": {
        "long_name": "output of the model",
        "ancillary_variables": "status group worker residual",
    },
    "status": {
        "long_name": "how the row was obtained",
        "standard_name": "status_flag",
        "flag_values": list(range(len(FLAG_MEANINGS))),
        "flag_meanings": " ".join(FLAG_MEANINGS),
    },
    "group": {"long_name": "group of codewords in which the row travelled; -1: none"},
    "worker": {
        "long_name": "worker that computed the row",
        "comment": "index into the attribute 'workers' of the store; "
        "-1 where several contributed, or none",
    },
    "residual": {
        "long_name": "residual of the row's decode; NaN where there was none",
        "units": "1",
    },
}


@dataclass(frozen=True)
class Layout:
    """The arrays of a new output store.

    Attributes
    ----------
    grid : Grid
        Of the rows, for every array.
    row_dims : tuple of str
        Its dimensions' names.
    forms : Forms
        Of the predictions.
    """

    grid: Grid
    row_dims: tuple[str, ...]
    forms: Forms

    def __post_init__(self) -> None:
        if min(self.grid.chunk) < 1:
            raise ConfigError(f"chunk is {self.grid.chunk}; give at least 1 row per chunk.")

    def create(self, folder: Path, *, coords: Coordinates, attrs: Mapping[str, Any]) -> None:
        """Fill an empty directory with the store: every row pending.

        Parameters
        ----------
        folder
            An existing, empty directory.
        coords
            Coordinates along the sample dimensions and those of the predictions.
        attrs
            Attributes of the group, JSON-able.
        """
        about = {"coordinates_left_out": coords.left_out, "coordinate_notes": coords.notes}
        dataset = xr.Dataset(
            dict(coords.kept),
            attrs={
                "Conventions": "CF-1.11",
                MARK: format_of(self.forms),
                UUID: uuid.uuid4().hex,
                OUTPUT: self.forms.described(),
                **{name: value for name, value in about.items() if value},
                **attrs,
            },
        )
        # What is marked as a coordinate is listed in an attribute, in which a space parts two.
        marked = dataset.set_coords([name for name in coords.kept if " " not in name])
        # Chunks of the predictions, too: xarray refuses to name those of arrays that differ.
        along = dict(zip(self.row_dims, self.grid.chunk, strict=True))
        along |= {dim: length for dim, (length, _) in self.forms.dims.items()}
        encoding = {
            name: {"chunks": tuple(min(along[str(dim)], size) for dim, size in one.sizes.items())}
            for name, one in coords.kept.items()
            if one.dims
        }
        marked.to_zarr(str(folder), mode="w", zarr_format=3, consolidated=False, encoding=encoding)
        group = zarr.open_group(str(folder), mode="r+", use_consolidated=False)
        for form in self.forms.each:
            self._predictions(group, form, coords)
        fills = {"status": 0, "group": -1, "worker": -1, "residual": np.nan}
        for name, dtype in DTYPES.items():
            self._array(group, name, dtype=dtype, fill_value=fills[name])
        consolidate(folder)

    def _predictions(self, group: zarr.Group, form: Form, coords: Coordinates) -> None:
        dtype = form.stored_dtype
        grid = {"grid_mapping": form.grid_mapping} if form.grid_mapping in coords.kept else {}
        self._array(
            group,
            form.variable,
            rows=self.grid.ndim - len(form.joined),
            shape=form.lengths,
            chunks=form.chunks,
            shards=form.shards,
            dtype=dtype,
            fill_value=np.nan if dtype.kind in "fc" else dtype.type(0),
            codec=form.codec,
            dims=form.dims,
            attributes={**_ATTRIBUTES[PREDICTION], **grid, **jsonable(form.attrs)},
        )

    def _array(
        self,
        group: zarr.Group,
        name: str,
        *,
        rows: int | None = None,
        codec: Mapping[str, Any] = DEFAULT_CODEC,
        shape: tuple[int, ...] = (),
        chunks: tuple[int, ...] = (),
        shards: tuple[int, ...] | None = None,
        dims: tuple[str, ...] = (),
        attributes: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        """Create an array of rows: ``shape`` and what follows are those of one row, after so many
        dimensions of the rows' grid; all unless tiles are joined."""
        chunk = self.grid.chunk[:rows]
        with quiet():
            group.create_array(
                name,
                shape=(*self.grid.shape[:rows], *shape),
                chunks=(*chunk, *chunks),
                shards=None if shards is None else (*chunk, *shards),
                compressors=[*compressors(codec), Crc32cCodec()],
                chunk_key_encoding={"name": "default", "separator": "."},  # one flat directory
                dimension_names=[*self.row_dims[:rows], *dims],
                attributes=dict(_ATTRIBUTES[name] if attributes is None else attributes),
                **settings,
            )


def layout_of(source: Source, forms: Forms, *, chunk: int) -> Layout:
    """The layout for this input's predictions: ``chunk`` rows in each, or, along several
    dimensions, the input's chunks, and tiles that are committed together.

    A sample dimension keeps the input's name, unless that is the name of one of our variables or
    output dimensions: then it is ``sample``.
    """
    grid = source.grid if source.grid.ndim > 1 else Grid((source.rows,), (chunk,))
    return Layout(grid, tuple(renamed(source, forms).values()), forms)


def format_of(forms: Forms) -> int:
    """The version of the layout of a store of such predictions."""
    return FORMAT if forms.alone else FORMAT_SEVERAL


def renamed(source: Source, forms: Forms) -> dict[str, str]:
    """The output's name of each dimension of the input's rows."""
    several = len(source.row_dims) > 1
    return {
        dim: dim if dim not in forms.taken else f"sample_{dim}" if several else "sample"
        for dim in source.row_dims
    }


def found_coordinates(source: Source, forms: Forms) -> tuple[dict[Any, xr.Variable], list[str]]:
    """The coordinates of the input that have no other dimensions than the predictions, decoded,
    along dimensions as the output calls them; and notes on them."""
    sizes, factors = {dim: size for dim, (_, size) in forms.dims.items()}, forms.factors
    row = source.sizes.items()
    shared = [dim for dim, size in row if sizes.get(dim) == ceil(size / factors.get(dim, 1))]
    coords, notes = source.coordinates(shared)
    coords, left_out = coarsened(coords, factors)
    names: Mapping[Any, Any] = renamed(source, forms)
    found: dict[Any, xr.Variable] = {}
    for name, one in coords.items():
        found[name] = one.copy(deep=False)
        found[name].dims = tuple(names.get(dim, dim) for dim in one.dims)
    return found, notes + left_out


def coordinates_of(source: Source, forms: Forms) -> Coordinates:
    """The coordinates of a store of such predictions: the input's, and those of the forms."""
    coords, notes = found_coordinates(source, forms)
    found = coords | forms.coords
    dims = {*renamed(source, forms).values(), *forms.dims}
    strangers = {name for name, one in found.items() if name in dims and one.dims != (name,)}
    return storable(found, taken={*forms.variables, *BESIDE, *strangers}, notes=notes)


def not_reserved(attrs: Mapping[str, Any]) -> None:
    """Raise `ConfigError` where attributes have names that the store or xarray sets."""
    instance("attrs", attrs, Mapping, "attributes by name")
    if clash := sorted(set(RESERVED).intersection(attrs)):
        raise ConfigError(f"The attributes {clash} are the store's own; use other names.")


def our_group(path: Path, *, mode: Literal["r", "r+"] = "r") -> zarr.Group:
    """Open the group of one of our stores, and touch nothing.

    Raises
    ------
    StoreError
        It is not one of ours, or has a layout that this version does not know.
    """
    try:
        group = zarr.open_group(str(path), mode=mode, use_consolidated=False)
        mark = group.attrs.get(MARK)
    except Exception:  # a damaged or crafted store fails in any way it likes
        mark = None
    if mark is None:
        what = "is not an approxifer output store" if os.path.lexists(path) else "is not there"
        raise StoreError(
            f"The output {path} {what}. Nothing was touched. Give the path of a store that "
            "approxifer wrote, or write to a path where there is nothing yet."
        )
    if mark not in READ:
        raise StoreError(
            f"The output store {path} has layout {mark!r}; this version reads 1 to {READ[-1]}. Go "
            "on with the version of approxifer that began it, or write to another path."
        )
    return group
