"""The variables of an input, opened: of a store, of a DataArray or of a Dataset; lazy, decoded.

Several that are scored together have the same dimensions, each of the same length.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
import xarray as xr
import zarr

from approxifer.datasets.codecs import Array, check_array
from approxifer.datasets.input.lazy import DaskRows
from approxifer.datasets.input.members import Member, choose
from approxifer.datasets.input.opening import dimensions, open_array, open_node
from approxifer.datasets.input.remote import reason
from approxifer.errors import ApproxiferError, ConfigError, InputError
from approxifer.quiet import quiet


@dataclass(frozen=True)
class Field:
    """One variable, wherever it comes from."""

    name: str
    variable: xr.Variable  #: its dimensions have names of ours, all different
    dims: tuple[str, ...]  #: their own
    #: Those that have no other dimensions than the given ones, of these lengths.
    coordinates: Callable[[Mapping[str, int]], tuple[dict[Any, xr.Variable], list[str]]]
    array: Array | None = None
    location: str = ""
    notes: tuple[str, ...] = ()
    lazy: DaskRows | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.variable.shape)

    @property
    def dtype(self) -> np.dtype:
        """Of the decoded numbers, in native byte order."""
        found: np.dtype = self.variable.dtype.newbyteorder("=")
        return found

    @property
    def shards(self) -> tuple[int, ...] | None:
        """Lengths of its shards, if it has any."""
        return None if self.array is None else self.array.shards

    @property
    def chunks(self) -> tuple[int, ...]:
        """Lengths of its chunks; its own where it is not chunked."""
        if self.array is not None:
            return tuple(self.array.chunks)
        if self.variable.chunks is not None:  # Dask
            return tuple(max(sizes) for sizes in self.variable.chunks)
        stored = self.variable.encoding.get("preferred_chunks", {})
        known = zip(self.dims, self.shape, strict=True)
        lengths = ((stored.get(dim), size) for dim, size in known)
        return tuple(one if isinstance(one, int) else size for one, size in lengths)

    @property
    def is_chunked(self) -> bool:
        """True where a part of it is read, or computed, for itself."""
        return self.array is not None or self.variable.chunks is not None

    def along(self, axis: int) -> Field:
        """The same, with the blocks of a Dask array kept along an axis."""
        if self.variable.chunks is None:
            return self
        return replace(self, lazy=DaskRows(self.variable.data, axis))

    def read(self, at: Sequence[slice]) -> np.ndarray:
        """A part of it, its axes in place."""
        if self.lazy is not None:
            return self.lazy.slab(at)
        return np.asarray(self.variable[tuple(at)].data)


def open_fields(
    data: Any,
    variable: str | None,
    variables: str | Sequence[str] | None,
    storage_options: Mapping[str, Any] | None,
    missing: Callable[[str], None] | None = None,
) -> tuple[tuple[Field, ...], bool]:
    """Open the variables of an input; see `source.open_source`.

    Returns
    -------
    fields : tuple of Field
        At least one.
    stacked : bool
        Whether they are rows of several variables, if only of one.
    """
    if variable is not None and variables is not None:
        raise ConfigError("variable= and variables= are both given: give one of the two")
    names = _names(variables)
    if isinstance(data, xr.DataArray | xr.Dataset) and storage_options:
        kind = type(data).__name__
        raise ConfigError(f"storage_options= is for URLs: leave it out with a {kind}")
    if isinstance(data, xr.DataArray):
        if names is not None:
            raise InputError(
                "variables= was given with a DataArray, which is one variable: give the Dataset "
                "that holds them, or leave it out."
            )
        return (_of_dataarray(data, variable),), False
    if isinstance(data, xr.Dataset):
        chosen = _of_dataset(data, variable, names)
        fields = tuple(_of_dataarray(data[name], None) for name in chosen)
        return _together(fields), names is not None or len(fields) > 1
    if isinstance(data, str | os.PathLike):
        fields = _of_store(os.fspath(data), names or [variable], storage_options, missing)
        return _together(fields), names is not None
    raise InputError(
        f"data is a {type(data).__name__}. Give a path or URL of a Zarr store, an "
        "xarray.DataArray, or an xarray.Dataset."
    )


def _names(variables: str | Sequence[str] | None) -> list[str] | None:
    if variables is None:
        return None
    given = variables.split(",") if isinstance(variables, str) else variables
    names = [name.strip() for name in given]
    if not names or not all(names) or len(set(names)) < len(names):
        raise ConfigError(
            f"variables={variables!r}: give the names of the variables, each once, in the order in "
            "which a row is to hold them"
        )
    return names


def _together(fields: tuple[Field, ...]) -> tuple[Field, ...]:
    """Fields that can be scored together, with a note on what is done to make them alike.

    Raises
    ------
    InputError
        They have other dimensions, or numbers of which there are none that hold all.
    """
    first = fields[0]
    for other in fields[1:]:
        if (other.dims, other.shape) != (first.dims, first.shape):
            raise InputError(
                f"{first.name!r} has the dimensions {_sizes(first)} and {other.name!r} "
                f"{_sizes(other)}: variables that are scored together have the same, in one order. "
                "Bring them onto one grid (xarray.broadcast, transpose, interp_like), or score "
                "each for itself."
            )
    kinds = [f"{one.name!r} is {one.dtype}" for one in fields]
    try:
        both = promoted(fields)
    except TypeError as error:
        raise InputError(
            f"{', '.join(kinds)}: no numbers hold all of them. Score each for itself."
        ) from error
    if all(one.dtype == both for one in fields):
        return fields
    note = f"the variables are read as {both}: {', '.join(kinds)}"
    return (replace(first, notes=(*first.notes, note)), *fields[1:])


def promoted(fields: Sequence[Field]) -> np.dtype:
    """The numbers that hold those of all fields, as numpy promotes them."""
    found: np.dtype = reduce(np.promote_types, [one.dtype for one in fields])
    return found


def _sizes(field: Field) -> str:
    along = zip(field.dims, field.shape, strict=True)
    return f"({', '.join(f'{dim}: {size}' for dim, size in along)})"


def _of_dataset(data: xr.Dataset, variable: str | None, names: list[str] | None) -> list[Any]:
    known = list(data.data_vars)
    wanted = names or ([variable] if variable is not None else known)
    if absent := [name for name in wanted if name not in known]:
        raise InputError(
            f"The Dataset holds no variable {absent[0]!r}. It holds "
            f"{', '.join(map(repr, known)) or 'none'}."
        )
    if not wanted:
        raise InputError("The Dataset holds no variable: there is nothing to score.")
    return list(wanted)


def _of_dataarray(data: xr.DataArray, variable: str | None) -> Field:
    name = str(data.name or variable or "data")
    if variable is not None and variable != name:
        raise InputError(
            f"variable={variable!r} was given with a DataArray named {name!r}. "
            "Leave variable out: a DataArray is one variable."
        )
    if strange := [dim for dim in data.dims if not isinstance(dim, str)]:
        raise InputError(
            f"The variable {name!r} has a dimension called {strange[0]!r}, which is no text. "
            "Rename it."
        )

    def coordinates(sizes: Mapping[str, int]) -> tuple[dict[Any, xr.Variable], list[str]]:
        along = {
            name: coord.variable.to_base_variable()
            for name, coord in data.coords.items()
            if set(coord.dims) <= set(sizes)
        }
        return along, []

    with quiet():  # xarray warns of a name that occurs twice
        plain = data.variable.to_base_variable()
        plain.dims = [f"axis_{axis}" for axis in range(data.ndim)]
    return Field(name, plain, tuple(map(str, data.dims)), coordinates)


def _of_store(
    location: str,
    names: Sequence[str | None],
    storage_options: Mapping[str, Any] | None,
    missing: Callable[[str], None] | None,
) -> tuple[Field, ...]:
    node = open_node(location, storage_options, missing)
    try:
        return tuple(_of_node(node, name, location) for name in names)
    except ApproxiferError:
        raise
    except Exception as error:  # a damaged or crafted store fails in any way it likes
        raise InputError(f"Cannot open {location!r}: {reason(error, location)}.") from error


def _of_node(node: zarr.Group | Array, variable: str | None, location: str) -> Field:
    if isinstance(node, zarr.Group):
        member = choose(node, variable, location)
    else:
        member = Member("data", node)  # not the path's last part: stores are moved
        if variable not in (None, "data", location.rstrip("/").rpartition("/")[2]):
            raise InputError(
                f"{location!r} is a lone array, and holds no variable {variable!r}: leave "
                "variable= (--variable) out."
            )
    check_array(member.array, location)
    decoded = open_array(member.array, member.name)
    dims = dimensions(member.array)
    units = decoded.attrs.get("units")
    notes: tuple[str, ...] = ()
    if isinstance(units, str) and " since " in units:
        notes = (
            f"{member.name!r} holds times ({units}): its numbers are taken as they are stored",
        )
    return Field(member.name, decoded, dims, member.coordinates, member.array, location, notes)
