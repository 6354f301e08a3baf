"""The input: rows along the sample dimensions of one Zarr variable or one DataArray."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
import zarr

from approxifer.checks import instance, span, texts, told, whole_number
from approxifer.datasets import fingerprint
from approxifer.datasets.codecs import Array, check_array, check_memory
from approxifer.datasets.grid import Grid
from approxifer.datasets.input.coords import INSTRUCTIONS
from approxifer.datasets.input.lazy import DaskRows
from approxifer.datasets.input.members import Member, choose
from approxifer.datasets.input.opening import dimensions, open_array, open_node, stored_chunks
from approxifer.datasets.input.remote import reason
from approxifer.errors import ApproxiferError, ConfigError, InputError
from approxifer.quiet import quiet
from approxifer.text import did_you_mean

#: Rows per fingerprinted block of a DataArray.
_BLOCK = 256
#: Points per piece of a DataArray, along several sample dimensions.
_POINTS = 2**18
#: Chunks that are counted, by listing them.
MOST_COUNTED = 100_000


class Source:
    """The rows to be scored. Made by `open_source`.

    Attributes
    ----------
    variable : str
        The variable's name.
    sample_dims : tuple of str
        The dimensions along which the rows lie, in the input's order.
    grid : Grid
        Which row lies where along them.
    rows : int
        How many there are.
    feature_shape : tuple of int
        The shape of one row: the other dimensions in their order.
    feature_dims : tuple of str
        Their names.
    feature_chunks : tuple of int
        The lengths of the input's chunks along them.
    feature_shards : tuple of int or None
        Those of its shards, if it is sharded.
    attrs : dict
        The variable's attributes, without those by which its numbers are decoded.
    dtype : numpy.dtype
        Of the rows, after the decoding of scale and offset; in native byte order.
    chunk : int
        Rows per chunk of the input (per shard, if sharded); ``rows`` if it is not chunked.
    """

    def __init__(self, data: _Data, *, sample_dims: tuple[str, ...]) -> None:
        self.variable = data.name
        self.sample_dims = sample_dims
        self._from = data
        self._array = data.array
        self._axes = tuple(data.dims.index(dim) for dim in sample_dims)
        self._axis = self._axes[0]
        self._data = data.variable
        shape = self._data.shape
        shards, chunks = _stored_in(data)
        sizes = tuple(shape[axis] for axis in self._axes)
        stored = tuple((shards or chunks)[axis] for axis in self._axes)
        self.grid = Grid(sizes, stored if data.array is not None else _small(stored))
        self.rows: int = self.grid.rows
        self.feature_shape: tuple[int, ...] = _without(shape, self._axes)
        self.feature_dims: tuple[str, ...] = _without(data.dims, self._axes)
        self.feature_chunks: tuple[int, ...] = _without(chunks, self._axes)
        self.feature_shards = None if shards is None else _without(shards, self._axes)
        self.attrs = {k: v for k, v in self._data.attrs.items() if k not in INSTRUCTIONS}
        self._row = math.prod(self.feature_shape)
        self.dtype: np.dtype = self._data.dtype.newbyteorder("=")
        on_dask = self._data.chunks is not None
        self._lazy = DaskRows(self._data.data, self._axis) if on_dask else None
        self.chunk: int = math.prod(map(min, self.grid.chunk, sizes))

    @property
    def sample_dim(self) -> str:
        """The first sample dimension: the one along which an input grows."""
        return self.sample_dims[0]

    def follow(self, grid: Grid, *, appended: bool = False) -> None:
        """Number the rows as an output store does that was begun with this input.

        Parameters
        ----------
        grid
            The store's.
        appended
            Whether what the input has in addition is appended to it.

        Raises
        ------
        ConfigError
            It is no grid.
        """
        instance("grid", grid, Grid, "the grid of an output store")
        instance("appended", appended, bool, "True or False")
        begins = (*grid.begins, grid.shape[0]) if appended else grid.begins
        if self.grid.ndim > 1:
            self.grid = Grid(self.grid.shape, grid.chunk, begins)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Read rows; may be called from several threads.

        Returns
        -------
        numpy.ndarray (stop - start, *feature_shape)
            C-contiguous, the caller's own. Only the chunks that hold these rows are read.

        Raises
        ------
        ConfigError
            Rows that are not there.
        InputError
            They cannot be read.
        """
        start, stop = span(start, stop, self.rows)
        check_memory(f"rows {start} to {stop}", (stop - start) * self._row, self.dtype)
        try:
            rows = self._read(start, stop)
            if rows.shape != (stop - start, *self.feature_shape):
                raise ValueError(f"it has shape {rows.shape}")
            return np.array(rows, dtype=self.dtype, order="C")
        except Exception as error:  # a damaged or crafted chunk fails in any way it likes
            raise self._unreadable(f"rows {start} to {stop}", error) from error

    def _read(self, start: int, stop: int) -> np.ndarray:
        if self._lazy is not None and self.grid.ndim == 1:
            return self._lazy.read(start, stop)
        parts = []
        for slab, first, last in self.grid.pieces(start, stop):
            at = [slice(None)] * self._data.ndim
            for axis, part in zip(self._axes, slab, strict=True):
                at[axis] = part
            values = self._data[tuple(at)].data if self._lazy is None else self._lazy.slab(at)
            moved = np.moveaxis(np.asarray(values), self._axes, range(self.grid.ndim))
            parts.append(moved.reshape(-1, *self.feature_shape)[first:last])
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([np.empty((0, *self.feature_shape), self.dtype), *parts])

    @property
    def coords(self) -> dict[Any, xr.Variable]:
        """The coordinates that have no other dimensions than the rows', decoded."""
        return self.coordinates()[0]

    def coordinates(self, dims: Collection[str] = ()) -> tuple[dict[Any, xr.Variable], list[str]]:
        """The coordinates that have no other dimensions than the rows' and these of one row,
        decoded; and a sentence on each that is not as the input has it.

        Raises
        ------
        ConfigError
            A row has no such dimension.
        """
        sizes = dict(zip(self.feature_dims, self.feature_shape, strict=True))
        instance("dims", dims, (tuple, list, set, frozenset), "names of a row's dimensions")
        if strange := [dim for dim in dims if dim not in self.feature_dims]:
            raise ConfigError(
                f"a row has no dimension {told(strange[0])}; it has {_listed(self.feature_dims)}"
            )
        along = {dim: sizes[dim] for dim in dims}
        return self._from.coordinates(
            along | dict(zip(self.sample_dims, self.grid.shape, strict=True))
        )

    @property
    def notes(self) -> list[str]:
        """Remarks on the input, each a sentence with what to do."""
        return [*self._from.notes, *([self.unstored] if self.unstored else [])]

    @cached_property
    def unstored(self) -> str | None:
        """A remark on chunks that the store does not hold, if there are any: Zarr reads
        them as the fill value, whether they were never written or have been lost."""
        if self._array is None or (chunks := self._array.nchunks) > MOST_COUNTED:
            return None
        stored = stored_chunks(self._array)
        if stored is None or stored >= chunks:
            return None
        missing = chunks - stored
        return (
            f"{missing:,} of the {chunks:,} chunks of {self.variable!r} are not stored: Zarr reads "
            f"them as the fill value, {self._array.fill_value}. Where they are not meant to be "
            "blank, restore them before their rows are scored"
        )

    def reads_again(self, window: int) -> list[str]:
        """A remark on chunks that windows of so many rows read again and again, if they do.

        Raises
        ------
        ConfigError
            It is no number of rows.
        """
        window = whole_number("window", window, least=0)
        kept = self._lazy is not None and self._lazy.keeps
        if self.grid.ndim > 1 or kept or not 0 < window < self.rows or not self._is_chunked:
            return []
        length = min(self._array.chunks[self._axis], self.rows) if self._array else self.chunk
        starts = np.arange(0, self.rows, window)
        stops = np.minimum(starts + window, self.rows)
        reads = int(((stops - 1) // length - starts // length + 1).sum())
        rows_of_chunks = math.ceil(self.rows / length)
        if reads < 2 * rows_of_chunks:
            return []
        beside = (self._array.nchunks // rows_of_chunks) if self._array else 1
        return [
            f"windows have {window:,} rows and the input's chunks {length:,}: its "
            f"{rows_of_chunks * beside:,} chunks are read {reads * beside:,} times. Give window= a "
            f"multiple of {length:,} rows, with the memory= that it takes, or store the input in "
            "smaller chunks"
        ]

    @property
    def _is_chunked(self) -> bool:
        return self._array is not None or self._lazy is not None

    def fingerprint(self, length: int | None = None) -> str:
        """A mark of this dataset: 64 hexadecimal digits, see `datasets.fingerprint`.

        Parameters
        ----------
        length
            That of the first sample dimension before the input grew: the mark that it had then.

        Raises
        ------
        ConfigError
            It was never so long.
        InputError
            The rows cannot be read.
        """
        if length is None:
            return self._fingerprint
        return self._marked(whole_number("length", length, least=1, most=self.grid.shape[0]))

    @cached_property
    def _fingerprint(self) -> str:
        return self._marked(self.grid.shape[0])

    def _marked(self, length: int) -> str:
        several = self.grid.ndim > 1
        sizes = (length, *self.grid.shape[1:])
        if self._array is not None:
            shape = list(self._array.shape)
            shape[self._axis] = length
            dims = list(self.sample_dims) if several else self.sample_dim
            try:
                return fingerprint.of_array(
                    self._array, sample_dim=dims, variable=self.variable, shape=tuple(shape)
                )
            except Exception as error:  # likewise
                raise self._unreadable("some rows", error) from error
        rows = math.prod(sizes)
        return fingerprint.of_rows(
            self.read,
            shape=(rows, *self.feature_shape),
            dtype=self.dtype,
            dims=(*self.sample_dims, *self.feature_dims),
            block=min(self.chunk, rows, _BLOCK),
            variable=self.variable,
            sample_shape=sizes if several else (),
        )

    def _unreadable(self, what: str, error: Exception) -> InputError:
        if isinstance(error, InputError):
            return error
        return InputError(
            f"Cannot read {what} of {self.variable!r}: {reason(error, self._from.location)}. "
            "A chunk of the input may be damaged, or its store out of reach."
        )

    def __repr__(self) -> str:
        return (
            f"<Source {self.variable}: {self.rows} rows of {self.feature_shape} {self.dtype} "
            f"along {', '.join(self.sample_dims)}, {self.chunk} rows per chunk>"
        )


@dataclass(frozen=True)
class _Data:
    """One variable, wherever it comes from."""

    name: str
    variable: xr.Variable  #: its dimensions have names of ours, all different
    dims: tuple[str, ...]  #: their own
    #: Those that have no other dimensions than the given ones, of these lengths.
    coordinates: Callable[[Mapping[str, int]], tuple[dict[Any, xr.Variable], list[str]]]
    array: Array | None = None
    location: str = ""
    notes: tuple[str, ...] = ()


def open_source(
    data: str | os.PathLike[str] | xr.DataArray,
    variable: str | None = None,
    sample_dim: str | Sequence[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Source:
    """Open the input.

    Parameters
    ----------
    data
        A local path (also of a ``.zip`` file) or an fsspec URL of a Zarr store (v2 or v3, with or
        without consolidated metadata; a group, or a lone array), or an ``xarray.DataArray``.
    variable
        The variable to score, or the path to it below the group. None: the only one.
    sample_dim
        The dimension along which the rows lie; of two with that name the first. None: the first
        one. Several: each of their points is a row, in whatever order they are named.
    storage_options
        For a URL: what its fsspec file system takes (credentials, say), and ``read_timeout``, the
        seconds that one read may take (30).

    Raises
    ------
    InputNotFoundError
        Nothing at that path or URL.
    InputError
        It is not Zarr; the variable or dimension is not there, or must be named; no rows; it cannot
        be reached.
    ConfigError
        Storage options without a URL, or wrong ones.
    """
    if variable is not None:
        instance("variable", variable, str, "a name")
    if storage_options is not None:
        instance("storage_options", storage_options, Mapping, "a mapping of names to settings")
    if isinstance(data, xr.DataArray):
        if storage_options:
            raise ConfigError("storage_options= is for URLs: leave it out with a DataArray")
        found = _of_dataarray(data, variable)
    elif isinstance(data, str | os.PathLike):
        found = _of_store(os.fspath(data), variable, storage_options)
    else:
        raise InputError(
            f"data is a {type(data).__name__}. Give a path or URL of a Zarr store, or an "
            "xarray.DataArray (of a Dataset, one variable: dataset['image'])."
        )
    chosen = _dimensions(found, sample_dim)
    for dim in chosen:
        if found.dims.count(dim) > 1:
            axis = found.dims.index(dim)
            note = (
                f"the dimension {dim!r} occurs twice: rows are taken along the first, axis {axis}"
            )
            found = replace(found, notes=(*found.notes, note))
    return Source(found, sample_dims=chosen)


def _of_dataarray(data: xr.DataArray, variable: str | None) -> _Data:
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
    return _Data(name, plain, tuple(map(str, data.dims)), coordinates)


def _of_store(
    location: str, variable: str | None, storage_options: Mapping[str, Any] | None
) -> _Data:
    node = open_node(location, storage_options)
    try:
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
    except ApproxiferError:
        raise
    except Exception as error:  # a damaged or crafted store fails in any way it likes
        raise InputError(f"Cannot open {location!r}: {reason(error, location)}.") from error
    units = decoded.attrs.get("units")
    notes: tuple[str, ...] = ()
    if isinstance(units, str) and " since " in units:
        notes = (
            f"{member.name!r} holds times ({units}): its numbers are taken as they are stored",
        )
    return _Data(member.name, decoded, dims, member.coordinates, member.array, location, notes)


def _dimensions(data: _Data, sample_dim: str | Sequence[str] | None) -> tuple[str, ...]:
    """The sample dimensions' names, checked, in the input's order."""
    name, dims, shape = data.name, data.dims, data.variable.shape
    if not dims:
        raise InputError(f"The variable {name!r} is a single value; it has no rows to score.")
    given = dims[0] if sample_dim is None else sample_dim
    if isinstance(given, str):
        given = [given] if given in dims or "," not in given else given.split(",")
    named = texts("sample_dim", given, "the name of a dimension, or several")
    chosen = [one.strip() if one not in dims else one for one in named]
    for one in chosen:
        if one not in dims or chosen.count(one) > 1:
            raise InputError(
                f"The variable {name!r} has no dimension {one!r}{did_you_mean(one, dims) or '.'} "
                f"Its dimensions are {_listed(dims)}; give one of them as sample_dim= "
                "(--sample-dim), or several, each once."
            )
    if not chosen or not math.prod(shape):
        raise InputError(
            f"The variable {name!r} has dimensions {_listed(dims)} of shape {shape}: there is "
            "nothing to score. Give a variable with at least one row and no empty dimension."
        )
    return tuple(sorted(chosen, key=dims.index))


def _small(lengths: tuple[int, ...]) -> tuple[int, ...]:
    """Lengths of pieces of so many points as can be committed together, of what is not in chunks
    of a store: cut along the first of several dimensions."""
    found = list(lengths)
    for axis in range(len(found) if len(found) > 1 else 0):
        rest = math.prod(found[:axis] + found[axis + 1 :])
        found[axis] = max(1, min(found[axis], _POINTS // rest))
    return tuple(found)


def _stored_in(data: _Data) -> tuple[tuple[int, ...] | None, tuple[int, ...]]:
    """The lengths of its shards, if there are any, and of its chunks."""
    if data.array is not None:
        return data.array.shards, data.array.chunks
    if data.variable.chunks is not None:  # Dask
        return None, tuple(max(sizes) for sizes in data.variable.chunks)
    stored = data.variable.encoding.get("preferred_chunks", {})
    known = zip(data.dims, data.variable.shape, strict=True)
    lengths = ((stored.get(dim), size) for dim, size in known)
    return None, tuple(one if isinstance(one, int) else size for one, size in lengths)


def _without(items: tuple[Any, ...], axes: tuple[int, ...]) -> tuple[Any, ...]:
    return tuple(item for axis, item in enumerate(items) if axis not in axes)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
