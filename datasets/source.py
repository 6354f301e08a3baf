"""The input: rows along the sample dimension of one Zarr variable or one DataArray."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
import zarr

from approxifer.datasets import fingerprint
from approxifer.datasets.codecs import Array, check_memory
from approxifer.datasets.opening import open_array, open_group, open_node
from approxifer.errors import InputError
from approxifer.text import one_line

#: Rows per fingerprinted block of a DataArray.
_BLOCK = 256
#: Chunks that are counted, by listing them.
MOST_COUNTED = 100_000


class Source:
    """The rows to be scored. Made by `open_source`.

    Attributes
    ----------
    variable : str
        The variable's name.
    sample_dim : str
        The dimension along which the rows lie.
    rows : int
        Its length.
    feature_shape : tuple of int
        The shape of one row: the other dimensions in their order.
    dtype : numpy.dtype
        Of the rows, after the decoding of scale and offset; in native byte order.
    chunk : int
        Rows per chunk of the input (per shard, if sharded); ``rows`` if it is not chunked.
    coords : dict of str to xarray.Variable
        The coordinates that lie along the sample dimension alone, lazy.
    """

    def __init__(
        self, data: xr.DataArray, *, variable: str, sample_dim: str, array: Array | None = None
    ) -> None:
        self.variable = variable
        self.sample_dim = sample_dim
        self._data = data.variable
        self._array = array
        self._axis = data.dims.index(sample_dim)
        self.rows: int = data.shape[self._axis]
        self.feature_shape: tuple[int, ...] = _without(data.shape, self._axis)
        self._row = math.prod(self.feature_shape)
        self.dtype: np.dtype = data.dtype.newbyteorder("=")
        self.chunk: int = min(_chunk(data, self._axis, array), self.rows)
        self.coords: dict[str, xr.Variable] = {
            str(name): coord.variable.to_base_variable()
            for name, coord in data.coords.items()
            if coord.dims == (sample_dim,)
        }

    def read(self, start: int, stop: int) -> np.ndarray:
        """Read rows; may be called from several threads.

        Returns
        -------
        numpy.ndarray (stop - start, *feature_shape)
            C-contiguous, the caller's own. Only the chunks that hold these rows are read.

        Raises
        ------
        ValueError
            Rows that are not there.
        """
        if not 0 <= start <= stop <= self.rows:
            raise ValueError(f"Cannot read rows {start} to {stop}: there are rows 0 to {self.rows}")
        check_memory(f"rows {start} to {stop}", (stop - start) * self._row, self.dtype)
        try:
            data = self._data.isel({self.sample_dim: slice(start, stop)}).data
            if hasattr(data, "dask"):  # here, and not on the cluster that is scoring
                data = data.compute(scheduler="threads")
            rows = np.moveaxis(np.asarray(data), self._axis, 0)
            if rows.shape != (stop - start, *self.feature_shape):
                raise ValueError(f"it has shape {rows.shape}")
            return np.array(rows, dtype=self.dtype, order="C")
        except Exception as error:  # a damaged or crafted chunk fails in any way it likes
            raise self._unreadable(f"rows {start} to {stop}", error) from error

    @property
    def unstored(self) -> str | None:
        """A remark on chunks that the store does not hold, if there are any: Zarr reads
        them as the fill value, whether they were never written or have been lost."""
        if self._array is None or (chunks := self._array.nchunks) > MOST_COUNTED:
            return None
        try:
            missing = chunks - self._array.nchunks_initialized
        except Exception as error:  # likewise
            raise self._unreadable("the list of chunks", error) from error
        if not missing:
            return None
        return (
            f"{missing:,} of the {chunks:,} chunks of {self.variable!r} are not stored: Zarr reads "
            f"them as the fill value, {self._array.fill_value}"
        )

    def fingerprint(self) -> str:
        """Tell this dataset from others: 64 hexadecimal digits, see `datasets.fingerprint`."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        if self._array is not None:
            try:
                return fingerprint.of_array(
                    self._array, sample_dim=self.sample_dim, variable=self.variable
                )
            except Exception as error:  # likewise
                raise self._unreadable("some rows", error) from error
        dims = tuple(str(dim) for dim in self._data.dims)
        return fingerprint.of_rows(
            self.read,
            shape=(self.rows, *self.feature_shape),
            dtype=self.dtype,
            dims=(self.sample_dim, *_without(dims, self._axis)),
            block=min(self.chunk, _BLOCK),
            variable=self.variable,
        )

    def _unreadable(self, what: str, error: Exception) -> InputError:
        return InputError(
            f"Cannot read {what} of {self.variable!r}: {one_line(error)}. A chunk of the input may "
            "be damaged, or its store out of reach."
        )

    def __repr__(self) -> str:
        return (
            f"<Source {self.variable}: {self.rows} rows of {self.feature_shape} {self.dtype} "
            f"along {self.sample_dim!r}, {self.chunk} rows per chunk>"
        )


def open_source(
    data: str | os.PathLike[str] | xr.DataArray,
    variable: str | None = None,
    sample_dim: str | None = None,
) -> Source:
    """Open the input.

    Parameters
    ----------
    data
        A local path or an fsspec URL of a Zarr store (v2 or v3, with or without consolidated
        metadata; a group that xarray opens, or a lone array), or an ``xarray.DataArray``.
    variable
        The variable to score. None: the only one.
    sample_dim
        The dimension along which the rows lie. None: the first one.

    Raises
    ------
    InputNotFoundError
        Nothing at that path or URL.
    InputError
        It is not Zarr; the variable or dimension is not there, or must be named; no rows.
    """
    array: Array | None = None
    if isinstance(data, xr.DataArray):
        chosen, name = data, str(data.name or variable or "data")
        if variable is not None and variable != name:
            raise InputError(
                f"variable={variable!r} was given with a DataArray named {name!r}. "
                "Leave variable out: a DataArray is one variable."
            )
    elif isinstance(data, str | os.PathLike):
        location = os.fspath(data)
        node = open_node(location)
        if isinstance(node, zarr.Group):
            dataset = open_group(node, location)
            name = _choose(dataset, variable, location)
            member = node[name]
            array = member if isinstance(member, zarr.Array) else None
        else:
            array, name = node, "data"  # not the path's last part: stores are moved
            dataset = open_array(array, name)
            _choose(dataset, variable, location)
        chosen = dataset[name]
    else:
        raise InputError(
            f"data is a {type(data).__name__}. Give a path or URL of a Zarr store, or an "
            "xarray.DataArray (of a Dataset, one variable: dataset['image'])."
        )
    return Source(
        chosen, variable=name, sample_dim=_dimension(chosen, name, sample_dim), array=array
    )


def _choose(dataset: xr.Dataset, variable: str | None, location: str) -> str:
    """The variable's name: as asked, or the only one that has rows."""
    candidates = sorted(str(name) for name, var in dataset.data_vars.items() if var.ndim)
    if variable is None:
        if len(candidates) == 1:
            return candidates[0]
        if not candidates:
            raise InputError(f"{location!r} holds no variable with a dimension to score along.")
        raise InputError(
            f"{location!r} holds {len(candidates)} variables: {_listed(candidates)}. "
            "Say which one to score with variable= (--variable)."
        )
    if variable not in dataset.variables:
        raise InputError(
            f"{location!r} holds no variable {variable!r}{_nearest(variable, candidates)}. "
            f"It holds {_listed(candidates) or 'none'}."
        )
    return variable


def _dimension(data: xr.DataArray, name: str, sample_dim: str | None) -> str:
    """The sample dimension's name, checked."""
    if strange := [dim for dim in data.dims if not isinstance(dim, str)]:
        raise InputError(
            f"The variable {name!r} has a dimension called {strange[0]!r}, which is no text. "
            "Rename it."
        )
    dims = [str(dim) for dim in data.dims]
    if not dims:
        raise InputError(f"The variable {name!r} is a single value; it has no rows to score.")
    chosen = dims[0] if sample_dim is None else sample_dim
    if chosen not in dims:
        raise InputError(
            f"The variable {name!r} has no dimension {chosen!r}{_nearest(chosen, dims)}. "
            f"Its dimensions are {_listed(dims)}; give one of them as sample_dim= (--sample-dim)."
        )
    if not data.size:
        raise InputError(
            f"The variable {name!r} has shape {dict(zip(dims, data.shape, strict=True))}: there is "
            "nothing to score. Give a variable with at least one row and no empty dimension."
        )
    return chosen


def _chunk(data: xr.DataArray, axis: int, array: Array | None) -> int:
    if array is not None:
        return int((array.shards or array.chunks)[axis])
    if data.chunks is not None:  # Dask
        return int(max(data.chunks[axis]))
    stored = data.encoding.get("preferred_chunks", {}).get(data.dims[axis])
    return int(stored) if isinstance(stored, int) else data.shape[axis]


def _without(items: tuple[Any, ...], axis: int) -> tuple[Any, ...]:
    return items[:axis] + items[axis + 1 :]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _nearest(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
