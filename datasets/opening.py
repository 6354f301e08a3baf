"""Finding a Zarr group or array at a path or URL, and seeing it as xarray does.

Two things differ from plain ``xarray.open_zarr``. A store without consolidated metadata opens
without a warning. And in Zarr v2, where every array has a fill value whether or not anything is
missing, a fill value of zero that nothing else speaks for is not taken as the mark of missing data:
xarray would turn each black pixel into NaN.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
import zarr
from xarray.backends import BackendArray
from xarray.core import indexing

from approxifer.datasets.codecs import Array, check_array
from approxifer.errors import InputError, InputNotFoundError
from approxifer.quiet import quiet
from approxifer.text import one_line

#: Attributes that say how numbers in the store stand for values.
DECODING = ("_FillValue", "missing_value", "scale_factor", "add_offset", "_Unsigned", "dtype")

_EXPECTED = (
    "a Zarr v2 or v3 store is expected: a directory or URL with zarr.json, .zgroup or .zarray in it"
)


def open_node(location: str) -> zarr.Group | Array:
    """Open what lies at a local path or fsspec URL, read-only.

    Raises
    ------
    InputNotFoundError
        Nothing is there.
    InputError
        Something else than Zarr is there, or it cannot be reached, or it is not to be read (see
        `datasets.codecs`).
    """
    remote = "://" in location
    try:
        with quiet():
            node = zarr.open(location, mode="r")
            for array in _arrays(node):
                check_array(array, location)
    except InputError:
        raise
    except FileNotFoundError as error:
        if not remote and os.path.exists(location):
            raise InputError(
                f"{location!r} is not Zarr; {_EXPECTED}. "
                "Convert other files first (python -m approxifer.datasets.convert, or "
                "xarray.open_dataset(...).to_zarr(...))."
            ) from error
        raise InputNotFoundError(
            f"Found no dataset at {location!r}; {_EXPECTED}. Check the spelling"
            + (" and the credentials." if remote else f" (looked in {os.getcwd()}).")
        ) from error
    except ImportError as error:
        raise InputError(
            f"Cannot open {location!r}: {error}. Install the fsspec package for this kind of URL."
        ) from error
    except Exception as error:  # a damaged or crafted store fails in any way it likes
        raise InputError(
            f"Cannot open {location!r} as Zarr: {one_line(error)}; {_EXPECTED}."
        ) from error
    return node


def _arrays(node: zarr.Group | Array) -> list[Array]:
    return [node] if isinstance(node, zarr.Array) else [array for _, array in node.arrays()]


def open_group(group: zarr.Group, location: str) -> xr.Dataset:
    """See a Zarr group as an xarray dataset: decoded, lazy, without Dask.

    Raises
    ------
    InputError
        xarray cannot open it.
    """
    try:
        with quiet():
            unmasked = {name: False for name, array in group.arrays() if _zero_fill_by_habit(array)}
            dataset: xr.Dataset = xr.open_zarr(
                group.store,
                group=group.path or None,
                consolidated=group.metadata.consolidated_metadata is not None,
                zarr_format=group.metadata.zarr_format,
                chunks=None,
                mask_and_scale=unmasked or True,
            )
    except Exception as error:  # likewise
        where = _nameless(group)
        remedy = (
            f"Give the path of the array itself: {location.rstrip('/')}/{where}"
            if where
            else "Open it with xarray.open_zarr to see why, and pass the xarray.DataArray"
        )
        raise InputError(
            f"xarray cannot open the Zarr group {location!r}: {one_line(error)}. {remedy}."
        ) from error
    return dataset


def open_array(array: Array, name: str) -> xr.Dataset:
    """See a lone Zarr array as a dataset of one variable, its dimensions named ``dim_0`` and so on
    where it does not name them itself.

    Raises
    ------
    InputError
        Its names or attributes are not as they must be.
    """
    try:
        attributes = dict(array.attrs)
        attributes.pop("_ARRAY_DIMENSIONS", None)
        named = _named(array) or [None] * array.ndim
        dims = [dim or f"dim_{axis}" for axis, dim in enumerate(named)]
        data = indexing.LazilyIndexedArray(_Bare(array))
        return xr.decode_cf(xr.Dataset({name: xr.Variable(dims, data, attributes)}))
    except Exception as error:  # likewise
        raise InputError(
            f"xarray cannot read the array {array.path or '/'!r}: {one_line(error)}. Look at its "
            "attributes and dimension names."
        ) from error


class _Bare(BackendArray):
    """A Zarr array for xarray's lazy indexing."""

    def __init__(self, array: Array) -> None:
        self.shape = array.shape
        self.dtype = array.dtype
        self._array = array

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self._get
        )

    def _get(self, key: tuple[Any, ...]) -> Any:
        return np.asarray(self._array[key])


def _zero_fill_by_habit(array: Array) -> bool:
    """True if a v2 array's fill value is the zero that is written when nobody asks for one."""
    return (
        array.metadata.zarr_format == 2
        and array.metadata.fill_value is not None
        and not array.metadata.fill_value
        and not any(name in array.attrs for name in DECODING)
    )


def _nameless(group: zarr.Group) -> str | None:
    with quiet():
        arrays = group.arrays()
        return next((name for name, array in arrays if array.ndim and not _named(array)), None)


def _named(array: Array) -> Sequence[str | None] | None:
    """The names that an array gives its dimensions, in either format."""
    names: Any = getattr(array.metadata, "dimension_names", None)
    return names or array.attrs.get("_ARRAY_DIMENSIONS")  # type: ignore[return-value]
