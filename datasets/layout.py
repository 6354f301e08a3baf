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
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from approxifer.datasets.input.coords import Coordinates
from approxifer.datasets.localdisk import consolidate
from approxifer.datasets.source import Source
from approxifer.errors import ConfigError, StoreError
from approxifer.quiet import quiet

#: The values 0, 1, ... of ``status``, in words (CF ``flag_meanings``).
FLAG_MEANINGS = ("pending", "exact", "decoded", "repaired", "failed")

#: The attribute by which a store is known as ours, and the layout's version as its value.
MARK = "approxifer_store"
FORMAT = 1

VARIABLES = ("prediction", "status", "group", "worker", "residual")
#: Of all but the predictions.
DTYPES = {"status": np.uint8, "group": np.int32, "worker": np.int32, "residual": np.float32}

#: The attribute by which a store differs from all others, also from one that had its name before.
UUID = "approxifer_uuid"

#: Attributes that the store or xarray sets.
RESERVED = (
    MARK, UUID, "Conventions", "coordinates", "coordinates_left_out", "coordinate_notes", "counts",
    "workers",
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
    """The arrays of one output store.

    Attributes
    ----------
    rows : int
        Length of the sample dimension.
    chunk : int
        Rows per chunk, for every array.
    output_shape : tuple of int
        The shape of one row's prediction.
    output_dtype : numpy.dtype
    sample_dim : str
    """

    rows: int
    chunk: int
    output_shape: tuple[int, ...]
    output_dtype: np.dtype
    sample_dim: str

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise ConfigError(f"chunk is {self.chunk}; give at least 1 row per chunk.")
        if not all(size > 0 for size in self.output_shape):
            raise ConfigError(
                f"output_shape is {self.output_shape}; a prediction cannot have an empty dimension."
            )
        if self.output_dtype.kind not in "fiubc":
            raise ConfigError(
                f"output_dtype is {self.output_dtype}; predictions must be numbers: "
                "floats, integers, bool or complex."
            )

    def chunk_names(self, variable: str, start: int, stop: int) -> list[str]:
        """The files that hold these rows of a variable, within its directory."""
        tail = ".0" * len(self.output_shape) if variable == "prediction" else ""
        first, last = start // self.chunk, (stop - 1) // self.chunk
        return [f"c.{number}{tail}" for number in range(first, last + 1)]

    def create(self, folder: Path, *, coords: Coordinates, attrs: Mapping[str, Any]) -> None:
        """Fill an empty directory with the store: every row pending.

        Parameters
        ----------
        folder
            An existing, empty directory.
        coords
            Coordinates along the sample dimension.
        attrs
            Attributes of the group, JSON-able.
        """
        about = {"coordinates_left_out": coords.left_out, "coordinate_notes": coords.notes}
        dataset = xr.Dataset(
            {name: (self.sample_dim, one.values, one.attrs) for name, one in coords.kept.items()},
            attrs={
                "Conventions": "CF-1.11",
                MARK: FORMAT,
                UUID: uuid.uuid4().hex,
                **{name: value for name, value in about.items() if value},
                **attrs,
            },
        )
        # What is marked as a coordinate is listed in an attribute, in which a space parts two.
        marked = dataset.set_coords([name for name in coords.kept if " " not in name])
        encoding = {name: {"chunks": (min(self.chunk, self.rows),)} for name in coords.kept}
        marked.to_zarr(str(folder), mode="w", zarr_format=3, consolidated=False, encoding=encoding)
        group = zarr.open_group(str(folder), mode="r+", use_consolidated=False)
        self._array(group, "prediction", self.output_dtype, _missing(self.output_dtype))
        fills = {"status": 0, "group": -1, "worker": -1, "residual": np.nan}
        for name, dtype in DTYPES.items():
            self._array(group, name, dtype, fills[name])
        consolidate(folder)

    def _array(self, group: zarr.Group, name: str, dtype: Any, fill: Any) -> None:
        out = self.output_shape if name == "prediction" else ()
        with quiet():
            group.create_array(
                name,
                shape=(self.rows, *out),
                chunks=(self.chunk, *out),
                dtype=dtype,
                fill_value=fill,
                compressors=[ZstdCodec(level=1), Crc32cCodec()],
                chunk_key_encoding={"name": "default", "separator": "."},  # one flat directory
                dimension_names=[self.sample_dim, *_output_dims(out)],
                attributes=_ATTRIBUTES[name],
            )


def layout_of(
    source: Source, *, output_shape: tuple[int, ...], output_dtype: Any, chunk: int
) -> Layout:
    """The layout for this input's predictions.

    The sample dimension keeps the input's name, unless that is the name of one of our variables or
    output dimensions: then it is ``sample``.
    """
    taken = taken_names(output_shape)
    return Layout(
        rows=source.rows,
        chunk=chunk,
        output_shape=tuple(int(size) for size in output_shape),
        output_dtype=np.dtype(output_dtype),
        sample_dim="sample" if source.sample_dim in taken else source.sample_dim,
    )


def coordinates_of(source: Source, output_shape: tuple[int, ...]) -> Coordinates:
    """The input's coordinates as a store of such predictions keeps them."""
    return source.storable_coordinates(taken_names(output_shape))


def not_reserved(attrs: Mapping[str, Any]) -> None:
    """Raise `ConfigError` where attributes have names that the store or xarray sets."""
    if clash := sorted(set(attrs) & set(RESERVED)):
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
    if mark != FORMAT:
        raise StoreError(
            f"The output store {path} has layout {mark!r}; this version reads layout {FORMAT}. "
            "Go on with the version of approxifer that began it, or write to another path."
        )
    return group


def taken_names(output_shape: tuple[int, ...]) -> set[str]:
    """Names that a coordinate or the sample dimension cannot have in the store."""
    return {*VARIABLES, *_output_dims(output_shape)}


def _output_dims(output_shape: tuple[int, ...]) -> list[str]:
    return [f"output_{axis}" for axis in range(len(output_shape))]


def _missing(dtype: np.dtype) -> Any:
    return np.nan if dtype.kind in "fc" else dtype.type(0)
