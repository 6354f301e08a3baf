"""The input: rows along the sample dimensions of one or several variables, or tiles of them."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import xarray as xr

from approxifer.checks import instance, span, texts, told, whole_number
from approxifer.datasets import fingerprint
from approxifer.datasets.codecs import check_memory
from approxifer.datasets.grid import Grid
from approxifer.datasets.input.chunks import KEPT_BYTES
from approxifer.datasets.input.coords import INSTRUCTIONS
from approxifer.datasets.input.elsewhere import opened_elsewhere
from approxifer.datasets.input.fields import Field, open_fields, promoted
from approxifer.datasets.input.opening import stored_chunks
from approxifer.datasets.input.remote import reason
from approxifer.datasets.input.rows import PlainRows, TiledRows
from approxifer.datasets.tiles.tiling import Tiling
from approxifer.errors import ConfigError, InputError
from approxifer.text import did_you_mean

#: Rows per fingerprinted block of a DataArray.
_BLOCK = 256
#: Points per piece of a DataArray, along several sample dimensions.
_POINTS = 2**18
#: Bytes of the tiles that are committed together.
_TILES_BYTES = 2**24
#: Chunks that are counted, by listing them.
MOST_COUNTED = 100_000
#: The dimension along which several variables are stacked.
STACKED = "variable"


class Source:
    """The rows to be scored. Made by `open_source`.

    Attributes
    ----------
    variables : tuple of str
        The variables' names.
    stacked : bool
        Whether a row holds them one after another, along its first dimension.
    sample_dims : tuple of str
        The dimensions along which the rows lie, in the input's order.
    tiling : Tiling or None
        The cut of each into tiles.
    row_dims : tuple of str
        The dimensions of `grid`: those along which the rows lie, and tiles are counted.
    grid : Grid
        Which row lies where along them.
    rows : int
        How many there are.
    feature_shape : tuple of int
        The shape of one row: the other dimensions in their order; a tile with its border.
    feature_dims : tuple of str
        Their names.
    sizes : dict of str to int
        The lengths of the input along them; of what is cut into tiles, the whole.
    feature_chunks : tuple of int
        The lengths of the input's chunks along them.
    feature_shards : tuple of int or None
        Those of its shards, if it is sharded.
    attrs : dict
        The variable's attributes, without those by which its numbers are decoded; of several those
        that all have.
    dtype : numpy.dtype
        Of the rows, after the decoding of scale and offset; in native byte order.
    chunk : int
        Rows per chunk of the input (per shard, if sharded); ``rows`` if it is not chunked.
    """

    def __init__(
        self,
        fields: Sequence[Field],
        *,
        sample_dims: tuple[str, ...],
        opened: Callable[[], dict[str, Any] | str],
        stacked: bool = False,
        tiling: Tiling | None = None,
    ) -> None:
        first = fields[0]
        self._opened = opened
        self.variables = tuple(field.name for field in fields)
        self.stacked = stacked
        self.sample_dims = sample_dims
        self.tiling = tiling
        self.row_dims = sample_dims + (() if tiling is None else tiling.names)
        self.dtype: np.dtype = promoted(fields)
        self._fields = tuple(fields)
        self._axes = axes = tuple(first.dims.index(dim) for dim in sample_dims)
        own = _without(first.dims, axes)
        self.sizes = dict(zip(own, _without(first.shape, axes), strict=True))
        lengths = _without(first.shape, axes)
        if tiling is not None:
            cut = dict(zip(tiling.dims, tiling.padded, strict=True))
            lengths = tuple(cut.get(*one) for one in zip(own, lengths, strict=True))
        name = STACKED
        while name in first.dims:
            name += "_"
        several = len(fields) if stacked else 0
        self.feature_dims: tuple[str, ...] = (name, *own) if stacked else own
        self.feature_shape: tuple[int, ...] = (several, *lengths) if stacked else lengths
        self.feature_chunks = (1,) * stacked + _without(first.chunks, axes)
        shards = first.shards
        self.feature_shards = None if shards is None else (1,) * stacked + _without(shards, axes)
        self.attrs = _shared([field.variable.attrs for field in fields])
        self.grid = self._gridded(first)
        self.rows: int = self.grid.rows
        self.chunk: int = math.prod(map(min, self.grid.chunk, self.grid.shape))
        if stacked:
            self.sizes = {name: several} | self.sizes
        most = KEPT_BYTES // len(fields)
        self._rows: list[PlainRows | TiledRows] = [
            PlainRows(one, axes) if tiling is None else TiledRows(one, axes, tiling, most=most)
            for one in fields
        ]

    def _gridded(self, field: Field) -> Grid:
        """The rows' places: in chunks of the input, or what can be committed together."""
        sizes = tuple(field.shape[axis] for axis in self._axes)
        stored = tuple((field.shards or field.chunks)[axis] for axis in self._axes)
        if self.tiling is None:
            return Grid(sizes, stored if field.array is not None else _small(stored, _POINTS))
        counts = self.tiling.counts
        row = math.prod(self.feature_shape) * self.dtype.itemsize
        most = max(1, _TILES_BYTES // max(1, row))
        if field.array is not None:
            most = max(1, most // math.prod(stored))
            chunk = stored + _small((1, *counts), most)[1:]
        else:
            chunk = _small((1, *stored, *counts), most)[1:]
        return Grid(sizes + counts, chunk)

    @cached_property
    def opened(self) -> dict[str, Any] | str:
        """Arguments with which `open_source` opens the same rows in another process, picklable;
        they may hold secrets. Or the reason for which none do."""
        return self._opened()

    @property
    def variable(self) -> str:
        """The variable's name, or those of several."""
        return ", ".join(self.variables)

    @property
    def sample_dim(self) -> str:
        """The first sample dimension: the one along which an input grows."""
        return self.row_dims[0]

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
        count = stop - start
        check_memory(f"rows {start} to {stop}", count * math.prod(self.feature_shape), self.dtype)
        found = np.empty((count, *self.feature_shape), self.dtype)
        by_field = found.reshape(count, len(self._fields), *self.feature_shape[self.stacked :])
        for number, (field, rows) in enumerate(zip(self._fields, self._rows, strict=True)):
            try:
                done = 0
                for part in rows.parts(self.grid, start, stop):
                    into = by_field[done : done + len(part), number]
                    if into.shape != part.shape:
                        raise ValueError(f"it has shape {part.shape}")
                    into[...] = part
                    done += len(part)
                if done < count:
                    raise ValueError(f"it has {done} rows")
            except Exception as error:  # a damaged or crafted chunk fails in any way it likes
                raise _unreadable(field, f"rows {start} to {stop}", error) from error
        return found

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
        instance("dims", dims, (tuple, list, set, frozenset), "names of a row's dimensions")
        if strange := [dim for dim in dims if dim not in list(self.sizes)]:
            raise ConfigError(
                f"a row has no dimension {told(strange[0])}; it has {_listed(self.feature_dims)}"
            )
        along = {dim: self.sizes[dim] for dim in dims}
        along |= dict(zip(self.sample_dims, self.grid.shape, strict=False))
        found: dict[Any, xr.Variable] = {}
        notes: list[str] = []
        for field in self._fields:
            coords, remarks = field.coordinates(along)
            found = coords | found
            notes += [one for one in remarks if one not in notes]
        if self.stacked and (name := self.feature_dims[0]) in dims:
            found[name] = xr.Variable((name,), np.array(self.variables, dtype=object))
        return found, notes

    @property
    def notes(self) -> list[str]:
        """Remarks on the input, each a sentence with what to do."""
        return [*(note for field in self._fields for note in field.notes), *self.unstored]

    @cached_property
    def unstored(self) -> list[str]:
        """A remark on chunks that the store does not hold, if there are any: Zarr reads
        them as the fill value, whether they were never written or have been lost."""
        found = []
        for field in self._fields:
            array = field.array
            if array is None or (chunks := array.nchunks) > MOST_COUNTED:
                continue
            stored = stored_chunks(array)
            if stored is not None and stored < chunks:
                found.append(
                    f"{chunks - stored:,} of the {chunks:,} chunks of {field.name!r} are not "
                    f"stored: Zarr reads them as the fill value, {array.fill_value}. Where they "
                    "are not meant to be blank, restore them before their rows are scored"
                )
        return found

    def reads_again(self, window: int) -> list[str]:
        """A remark on chunks that windows of so many rows read again and again, if they do.

        Raises
        ------
        ConfigError
            It is no number of rows.
        """
        window = whole_number("window", window, least=0)
        first, kept = self._fields[0], all(one.kept for one in self._rows)
        if self.tiling is not None and first.is_chunked and not kept:
            return [
                "the input's chunks below a line of tiles are too large to be kept until the next "
                f"line ({KEPT_BYTES / 1e6:.0f} MB are), and are read again: store the input in "
                "smaller chunks, or take larger tiles"
            ]
        if self.grid.ndim > 1 or kept or not 0 < window < self.rows or not first.is_chunked:
            return []
        array = first.array
        length = min(array.chunks[self._axes[0]], self.rows) if array else self.chunk
        starts = np.arange(0, self.rows, window)
        stops = np.minimum(starts + window, self.rows)
        reads = int(((stops - 1) // length - starts // length + 1).sum())
        rows_of_chunks = math.ceil(self.rows / length)
        if reads < 2 * rows_of_chunks:
            return []
        beside = (array.nchunks // rows_of_chunks if array else 1) * len(self._fields)
        return [
            f"windows have {window:,} rows and the input's chunks {length:,}: its "
            f"{rows_of_chunks * beside:,} chunks are read {reads * beside:,} times. Give window= a "
            f"multiple of {length:,} rows, with the memory= that it takes, or store the input in "
            "smaller chunks"
        ]

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
        if self._fields[0].array is None:
            return self._marked_rows(length)
        marks = [self._marked_array(field, length) for field in self._fields]
        return hashlib.sha256(json.dumps(marks).encode()).hexdigest() if self.stacked else marks[0]

    def _marked_array(self, field: Field, length: int) -> str:
        assert field.array is not None
        shape = list(field.shape)
        if self._axes:
            shape[self._axes[0]] = length
        plain = len(self.sample_dims) == 1
        dims = self.sample_dims[0] if plain else list(self.sample_dims)
        try:
            return fingerprint.of_array(
                field.array, sample_dim=dims, variable=field.name, shape=tuple(shape)
            )
        except Exception as error:  # likewise
            raise _unreadable(field, "some rows", error) from error

    def _marked_rows(self, length: int) -> str:
        sizes = (length, *self.grid.shape[1:])
        rows = math.prod(sizes)
        return fingerprint.of_rows(
            self.read,
            shape=(rows, *self.feature_shape),
            dtype=self.dtype,
            dims=(*self.row_dims, *self.feature_dims),
            block=min(self.chunk, rows, _BLOCK),
            variable=self.variable,
            sample_shape=sizes if self.grid.ndim > 1 else (),
        )

    def described(self) -> dict[str, Any]:
        """The parts that make up a row, as a store keeps them: variables, tiles; else nothing."""
        variables = {"variables": list(self.variables)} if self.stacked else {}
        tiles = {} if self.tiling is None else {"tiles": self.tiling.described()}
        return variables | tiles

    def __repr__(self) -> str:
        return (
            f"<Source {self.variable}: {self.rows} rows of {self.feature_shape} {self.dtype} "
            f"along {', '.join(self.row_dims)}, {self.chunk} rows per chunk>"
        )


def _unreadable(field: Field, what: str, error: Exception) -> InputError:
    if isinstance(error, InputError):
        return error
    return InputError(
        f"Cannot read {what} of {field.name!r}: {reason(error, field.location)}. "
        "A chunk of the input may be damaged, or its store out of reach."
    )


def _shared(several: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The attributes that all have, without those by which numbers are decoded."""
    first, *others = ({k: repr(v) for k, v in one.items()} for one in several)
    return {
        key: value
        for key, value in several[0].items()
        if key not in INSTRUCTIONS and all(one.get(key) == first[key] for one in others)
    }


def open_source(
    data: str | os.PathLike[str] | xr.DataArray | xr.Dataset,
    variable: str | None = None,
    sample_dim: str | Sequence[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    *,
    variables: str | Sequence[str] | None = None,
    tile: Mapping[str, int] | None = None,
    halo: int | Mapping[str, int] = 0,
    missing: Callable[[str], None] | None = None,
) -> Source:
    """Open the input. Another process that is given the same reads the same rows.

    Parameters
    ----------
    data
        A local path (also of a ``.zip`` file) or an fsspec URL of a Zarr store (v2 or v3, with or
        without consolidated metadata; a group, or a lone array), an ``xarray.DataArray``, or an
        ``xarray.Dataset``, all variables of which are scored together.
    variable
        The variable to score, or the path to it below the group. None: the only one.
    sample_dim
        The dimension along which the rows lie; of two with that name the first. None: the first
        one that is not tiled. Several: each of their points is a row, in whatever order they are
        named. None at all, ``()``, where a single image is cut into tiles.
    storage_options
        For a URL: what its fsspec file system takes (credentials, say), and ``read_timeout``, the
        seconds that one read may take (30).
    variables
        Several variables instead: a row holds them one after another, in this order, along a new
        first dimension.
    tile
        Lengths, by dimension, of the tiles into which each row is cut.
    halo
        Points that a tile has in addition on either side: of its neighbours, or reflected.
    missing
        Called with the key of each chunk that is read from a path or URL and not there.

    Raises
    ------
    InputNotFoundError
        Nothing at that path or URL.
    InputError
        It is not Zarr; the variable or dimension is not there, or must be named; no rows; it cannot
        be reached; the variables do not lie on one grid.
    ConfigError
        Storage options without a URL, or wrong ones; tiles that make no sense.
    """
    if variable is not None:
        instance("variable", variable, str, "a name")
    if storage_options is not None:
        instance("storage_options", storage_options, Mapping, "a mapping of names to settings")
    fields, stacked = open_fields(data, variable, variables, storage_options, missing)
    first = fields[0]
    if tile is None and halo:
        raise ConfigError(f"halo={halo!r} without tile=: it is the border of tiles")
    sizes = dict(zip(first.dims, first.shape, strict=True))
    tiling = None if tile is None else Tiling.of(tile, halo, sizes, of=repr(first.name))
    chosen = _dimensions(first, sample_dim, tiling)
    for dim in chosen:
        if first.dims.count(dim) > 1:
            axis = first.dims.index(dim)
            note = (
                f"the dimension {dim!r} occurs twice: rows are taken along the first, axis {axis}"
            )
            fields = (replace(first, notes=(*first.notes, note)), *fields[1:])
    opened = partial(
        opened_elsewhere,
        data,
        variable=variable,
        sample_dim=sample_dim,
        storage_options=storage_options,
        variables=variables,
        tile=tile,
        halo=halo,
    )
    return Source(fields, sample_dims=chosen, opened=opened, stacked=stacked, tiling=tiling)


def _dimensions(
    field: Field, sample_dim: str | Sequence[str] | None, tiling: Tiling | None
) -> tuple[str, ...]:
    """The sample dimensions' names, checked, in the input's order."""
    name, dims, shape = field.name, field.dims, field.shape
    if not dims:
        raise InputError(f"The variable {name!r} is a single value; it has no rows to score.")
    tiled = () if tiling is None else tiling.dims
    if any(dims.count(dim) > 1 for dim in tiled):
        raise ConfigError(f"tile= cuts a dimension that {name!r} has twice: rename one of the two")
    given: Sequence[str] | str = [dim for dim in dims if dim not in tiled][:1]
    if sample_dim is not None:
        given = sample_dim
    if isinstance(given, str):
        given = [given] if given in dims or "," not in given else given.split(",")
        given = [one for one in given if one or not tiled]
    named = texts("sample_dim", given, "the name of a dimension, or several")
    chosen = [one.strip() if one not in dims else one for one in named]
    for one in chosen:
        if one not in dims or chosen.count(one) > 1:
            raise InputError(
                f"The variable {name!r} has no dimension {one!r}{did_you_mean(one, dims) or '.'} "
                f"Its dimensions are {_listed(dims)}; give one of them as sample_dim= "
                "(--sample-dim), or several, each once."
            )
        if one in tiled:
            raise ConfigError(
                f"{one!r} is a sample dimension, along which each point is a row, and tile= cuts "
                "it: leave it out of one of the two"
            )
    if not (chosen or tiled) or not math.prod(shape):
        raise InputError(
            f"The variable {name!r} has dimensions {_listed(dims)} of shape {shape}: there is "
            "nothing to score. Give a variable with at least one row and no empty dimension."
        )
    return tuple(sorted(chosen, key=dims.index))


def _small(lengths: tuple[int, ...], most: int) -> tuple[int, ...]:
    """Lengths of pieces of at most so many points, cut along the first of several dimensions."""
    found = list(lengths)
    for axis in range(len(found) if len(found) > 1 else 0):
        rest = math.prod(found[:axis] + found[axis + 1 :])
        found[axis] = max(1, min(found[axis], most // rest))
    return tuple(found)


def _without(items: tuple[Any, ...], axes: tuple[int, ...]) -> tuple[Any, ...]:
    return tuple(item for axis, item in enumerate(items) if axis not in axes)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
