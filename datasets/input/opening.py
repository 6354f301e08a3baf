"""Finding a Zarr group or array at a path or URL, and seeing its arrays as xarray does.

Each array is decoded for itself, so that one that xarray cannot open (dimensions without a name, a
sibling of another size, times that it does not know) leaves the others readable. In Zarr v2, where
every array has a fill value whether or not anything is missing, a fill value of zero that nothing
else speaks for is not taken as the mark of missing data: xarray would turn each black pixel into
NaN.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
import zarr
from xarray.backends import BackendArray
from xarray.backends.zarr import FillValueCoder
from xarray.conventions import decode_cf_variable
from xarray.core import indexing
from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.storage import LocalStore, ZipStore

from approxifer.datasets.codecs import Array
from approxifer.datasets.input.missing import NotingStore
from approxifer.datasets.input.remote import is_url, open_url, reason
from approxifer.datasets.localdisk import plain_path
from approxifer.errors import ApproxiferError, ConfigError, InputError, InputNotFoundError
from approxifer.quiet import quiet
from approxifer.text import one_line

#: Attributes by which numbers in the store stand for values.
DECODING = ("_FillValue", "missing_value", "scale_factor", "add_offset", "_Unsigned", "dtype")

_METADATA = ("zarr.json", ".zgroup", ".zarray")
_EXPECTED = (
    "a Zarr v2 or v3 store is expected: a directory, .zip file or URL with zarr.json, .zgroup or "
    ".zarray in it"
)


def open_node(
    location: str,
    storage_options: Mapping[str, Any] | None = None,
    missing: Callable[[str], None] | None = None,
) -> zarr.Group | Array:
    """Open what lies at a local path or fsspec URL, read-only.

    Parameters
    ----------
    location
    storage_options
        For a URL: see `datasets.remote`.
    missing
        Called with the key of each chunk that is read and not there.

    Raises
    ------
    InputNotFoundError
        Nothing is there.
    InputError
        Something else than Zarr is there, or it cannot be reached.
    ConfigError
        Options for a local path.
    """
    place = plain_path(location)
    remote = is_url(place)
    if storage_options and not remote:
        raise ConfigError(
            f"storage_options= is for URLs, and {location!r} is a local path: leave it out"
        )

    def noted(store: Store) -> Store:
        return store if missing is None else NotingStore(store, missing)

    try:
        with quiet():
            if remote:
                return zarr.open(noted(open_url(place, storage_options)), mode="r")
            if os.path.isfile(place) and zipfile.is_zipfile(place):
                packed = noted(ZipStore(place, mode="r"))
                return zarr.open(packed, path=_root(place), mode="r")
            return zarr.open(noted(LocalStore(place, read_only=True)), mode="r")
    except ApproxiferError:
        raise
    except FileNotFoundError as error:
        if not remote and os.path.exists(place):
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
        why = reason(error, place) if remote else one_line(error)
        raise InputError(f"Cannot open {location!r} as Zarr: {why}; {_EXPECTED}.") from error


def _root(path: str) -> str:
    """The folder of a zip file in which the store is: often the one that was packed."""
    with zipfile.ZipFile(path) as archive:
        named = [name.rpartition("/") for name in archive.namelist()]
    folders = [folder for folder, _, last in named if last in _METADATA]
    return min(folders, key=lambda folder: (folder.count("/") + bool(folder), folder), default="")


def dimensions(array: Array) -> tuple[str, ...]:
    """The names of an array's dimensions: ``dim_0`` and so on where it gives none.

    Raises
    ------
    InputError
        Its names are not as they must be.
    """
    named = _named(array) or [None] * array.ndim
    if len(named) != array.ndim or not all(name is None or isinstance(name, str) for name in named):
        raise InputError(
            f"The array {array.path or '/'!r} has {array.ndim} dimensions and names "
            f"{one_line(repr(named))}; it must name each with a text, or none."
        )
    return tuple(name or f"dim_{axis}" for axis, name in enumerate(named))


def raw_variable(array: Array, dims: Sequence[str]) -> xr.Variable:
    """See an array as an xarray variable: lazy, not decoded, without Dask.

    Parameters
    ----------
    dims
        Names of its dimensions, all different.
    """
    attributes: dict[str, Any] = {
        key: value for key, value in array.attrs.items() if key != "_ARRAY_DIMENSIONS"
    }
    fill: Any = array.metadata.fill_value
    if array.metadata.zarr_format == 2:
        if fill is not None and _named(array) and not _zero_fill_by_habit(array):
            attributes["_FillValue"] = fill
    elif isinstance(mark := attributes.get("_FillValue"), str | list) and array.dtype.kind in "fcS":
        attributes["_FillValue"] = FillValueCoder.decode(mark, array.dtype)
    return xr.Variable(dims, indexing.LazilyIndexedArray(_Lazy(array)), attributes)


def open_array(array: Array, name: str) -> xr.Variable:
    """See an array as an xarray variable: lazy, scale, offset and missing values decoded, without
    Dask. Its dimensions are called ``axis_0`` and so on: names can occur twice. Times are left as
    the numbers that they are.

    Raises
    ------
    InputError
        Its attributes are not as they must be.
    """
    try:
        with quiet():
            raw = raw_variable(array, [f"axis_{axis}" for axis in range(array.ndim)])
            return decode_cf_variable(
                name, raw, decode_times=False, decode_timedelta=False, stack_char_dim=False
            )
    except Exception as error:  # likewise
        raise InputError(
            f"xarray cannot read the array {array.path or '/'!r}: {one_line(error)}. Look at its "
            "attributes."
        ) from error


def stored_chunks(array: Array) -> int | None:
    """Count the chunks that a store holds; None where it cannot be listed.

    A server that lists no files shows none, not even the metadata that were read a moment ago.
    """

    async def listed() -> set[str]:
        return {name async for name in array.store.list_dir(array.path)}

    try:
        if not sync(listed()) & {"zarr.json", ".zarray"}:
            return None
        return int(array.nchunks_initialized)
    except Exception:  # forbidden, or not provided for
        return None


class _Lazy(BackendArray):
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


def _named(array: Array) -> Sequence[str | None] | None:
    """The names that an array gives its dimensions, in either format."""
    names: Any = getattr(array.metadata, "dimension_names", None)
    names = names or array.attrs.get("_ARRAY_DIMENSIONS")
    return list(names) if isinstance(names, list | tuple) else None
