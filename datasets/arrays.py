"""The arrays of an output store: read, and written so that they stay written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import ArrayLike

from approxifer.checks import array as as_array
from approxifer.datasets.codecs import Array, check_array, check_memory
from approxifer.datasets.form import PREDICTION
from approxifer.datasets.grid import Grid
from approxifer.datasets.input.coords import nameable
from approxifer.datasets.layout import APPENDED, DTYPES, GROWING, OUTPUT, VARIABLES
from approxifer.datasets.localdisk import not_written, sync
from approxifer.datasets.tiles.rowarray import RowArray, stored_chunks
from approxifer.datasets.tiles.tiling import joins_of
from approxifer.errors import ApproxiferError, ConfigError, OutputError, StoreError
from approxifer.text import one_line


class Arrays:
    """The five arrays of a store.

    Parameters
    ----------
    path
        The store.
    group
        Its group.

    Attributes
    ----------
    grid : Grid
        Which row lies where.
    row_dims : tuple of str
        Its dimensions.
    output_shape : tuple of int
        Of one row's prediction.
    output_dtype : numpy.dtype
        Of what the model returns; the stored dtype holds all of its numbers.

    Raises
    ------
    StoreError
        One of them is missing, or not as it must be.
    """

    def __init__(self, path: Path, group: zarr.Group) -> None:
        self._path = path
        self._identity = _identity(path)
        about: Any = group.attrs.get(OUTPUT) or {}
        try:
            variable = about.get("variable", PREDICTION)
            self._names = {name: name for name in VARIABLES} | {PREDICTION: variable}
            if (why := nameable(variable)) is not None:
                raise StoreError(f"its attribute {OUTPUT!r} names {variable!r}: {why}")
            self._arrays = {name: self._open(group, self._names[name]) for name in VARIABLES}
            prediction, status = self._arrays[PREDICTION], self._arrays["status"]
            self.growing = group.attrs.get(GROWING)
            self.grid = Grid(
                (_length(self.growing, status.shape[0]), *status.shape[1:]),
                stored_chunks(status),
                _begins(group.attrs.get(APPENDED)),
            )
            dims = getattr(status.metadata, "dimension_names", None) or ("sample",)
            self.row_dims = tuple(map(str, dims))
            joined = joins_of(about.get("joined"), prediction.shape, self.grid.ndim)
            self._joined = {PREDICTION: joined}
            self.output_shape = RowArray(prediction, self.grid, joined).output_shape
            self.output_dtype = np.dtype(about.get("model_dtype", prediction.dtype))
            self._check()
        except (ApproxiferError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise self._strange(error) from error

    def _open(self, group: zarr.Group, name: str) -> Array:
        try:
            member = group.get(name)
        except Exception:  # likewise
            member = None
        if not isinstance(member, zarr.Array):
            raise StoreError(f"it lacks its array {name!r}.")
        return member

    def _check(self) -> None:
        """Refuse arrays that do not fit each other, or cannot be read."""
        grid = self.grid
        lasts = (0, *grid.begins, grid.shape[0])
        if not all(grid.shape) or not all(grid.chunk) or list(lasts) != sorted(set(lasts)):
            raise StoreError(f"it has rows {grid.shape} in chunks of {grid.chunk}.")
        for name, array in self._arrays.items():
            check_array(array, str(self._path))
            known = array.dtype == DTYPES[name] if name in DTYPES else array.dtype.kind in "fiubc"
            one = array.ndim == grid.ndim or name == PREDICTION
            rows = grid.ndim - len(self._joined.get(name, ()))
            there = array.shape[:rows]
            if self.growing is not None and rows and there[0] > grid.shape[0]:
                there = (grid.shape[0], *there[1:])
            fits = there == grid.shape[:rows] and stored_chunks(array)[:rows] == grid.chunk[:rows]
            if not (known and one and fits and all(array.shape)):
                raise StoreError(
                    f"its array {name!r} is {array.dtype} of shape {array.shape} in chunks of "
                    f"{array.chunks}, beside a status for rows {grid.shape} in chunks of "
                    f"{grid.chunk}."
                )
        for join in self._joined[PREDICTION]:
            tiles = grid.shape[join.along]
            if not (tiles - 1) * join.tile < join.length <= tiles * join.tile:
                raise StoreError(f"it joins {tiles} tiles of {join.tile} to {join.length}.")
        if not np.can_cast(self.output_dtype, self._arrays[PREDICTION].dtype, "safe"):
            raise StoreError(f"its predictions are no {self.output_dtype}.")
        check_memory("status", grid.rows, np.dtype(np.uint8))

    def _strange(self, error: Exception) -> StoreError:
        return StoreError(
            f"The output store {self._path} is not as approxifer writes it: {one_line(error)} "
            "Restore it from a copy; or delete it and score again."
        )

    def fit(self, name: str, values: ArrayLike, rows: int) -> np.ndarray:
        """Bring values into an array's dtype and into shape for so many rows.

        A single value stands for all rows, except in ``prediction``.

        Raises
        ------
        ConfigError
            A wrong shape; a dtype or value that the array cannot hold.
        """
        array = self._arrays[name]
        dtype = self.output_dtype if name == PREDICTION else array.dtype
        given = as_array(name, values, single=True)
        shape = (rows, *self._rows(name).output_shape)
        if given.shape != shape and (given.ndim or name == PREDICTION):
            raise ConfigError(f"{name} has shape {given.shape}; {shape} is needed.")
        if name != PREDICTION and dtype.kind in "iu":
            limits = np.iinfo(dtype)
            if given.dtype.kind not in "iu" or given.min() < limits.min or given.max() > limits.max:
                raise ConfigError(f"{name} must be integers from {limits.min} to {limits.max}.")
        elif not np.can_cast(given.dtype, dtype, "same_kind"):
            raise ConfigError(f"{name} has dtype {given.dtype}; {dtype} is needed.")
        return np.broadcast_to(given.astype(dtype), shape)

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Read rows of one array.

        Raises
        ------
        StoreError
            A chunk is damaged, or the store has been deleted.
        """
        self.check_there(name)
        try:
            found = self._rows_of(name, start, stop)
            return found.astype(self.output_dtype, copy=False) if name == PREDICTION else found
        except Exception as error:  # a damaged or crafted chunk fails in any way it likes
            raise StoreError(
                f"Rows {start} to {stop} of {name!r} in the output store {self._path} cannot be "
                f"read: {error}. A chunk is damaged or was cut short. Restore it from a copy; or "
                "delete the file of these rows in the folder 'status', and run the same command "
                "to score them again."
            ) from error

    def _rows(self, name: str) -> RowArray:
        return RowArray(self._arrays[name], self.grid, self._joined.get(name, ()))

    def _rows_of(self, name: str, start: int, stop: int) -> np.ndarray:
        grid, array = self.grid, self._rows(name)
        if name in DTYPES and grid.ndim > 1 and (start, stop) == (0, grid.rows):
            # At once, not tile by tile.
            values = np.asarray(array.array[tuple(map(slice, grid.shape))])
            return np.concatenate([values[slab].ravel() for slab, *_ in grid.pieces(start, stop)])
        parts = [array.read(slab)[first:last] for slab, first, last in grid.pieces(start, stop)]
        if len(parts) == 1:
            return parts[0]
        blank = np.empty((0, *array.output_shape), array.array.dtype)
        return np.concatenate([blank, *parts])

    def write(self, name: str, start: int, values: np.ndarray) -> None:
        """Write whole tiles of one array; when it returns, they are on the disk.

        Raises
        ------
        OutputError
            The disk is full, or gone, or the store has been deleted.
        """
        self.check_there(name)
        stop = start + len(values)
        try:
            array = self._rows(name)
            kept = values.astype(array.array.dtype, copy=False)
            files: list[str] = []
            done = 0
            for slab, first, last in self.grid.pieces(start, stop):
                files += array.write(slab, kept[done : done + last - first])
                done += last - first
            sync(self._path / self._names[name], files)
        except OSError as error:
            self.check_there(name)
            raise not_written(self._path, error) from error
        self.check_there(name)  # else zarr has made new folders for these chunks alone

    @property
    def names(self) -> list[str]:
        """The arrays' names in the group."""
        return list(self._names.values())

    def resize(self, length: int) -> None:
        """Lengthen the first sample dimension; on the disk when it returns."""
        for name, array in self._arrays.items():
            self.check_there(name)
            array.resize((length, *array.shape[1:]))
            sync(self._path / self._names[name], ["zarr.json"])

    def check_there(self, name: str) -> None:
        """Refuse to go on with a store that was deleted: zarr would read its fill values, and
        write chunks into a folder without metadata.

        Raises
        ------
        OutputError
        """
        folder = self._path / self._names[name]
        there = any((folder / file).exists() for file in ("zarr.json", ".zarray"))
        if not there or _identity(self._path) != self._identity:
            raise OutputError(
                f"The output store {self._path} was deleted or moved while it was in use. What was "
                "written is gone with it: put it back, or delete what is left of it and its "
                "journal, and give the same command again."
            )


def _length(growing: Any, stored: int) -> int:
    """The length of the first sample dimension: what it was, while the arrays are lengthened."""
    if growing is None:
        return stored
    if not isinstance(growing, int) or isinstance(growing, bool) or not 0 < growing <= stored:
        raise StoreError(f"its attribute {GROWING!r} is {growing!r}.")
    return growing


def _begins(appended: Any) -> tuple[int, ...]:
    """The lengths that the first sample dimension had before."""
    given = [] if appended is None else appended
    if not isinstance(given, list) or not all(type(one) is int for one in given):
        raise StoreError(f"its attribute {APPENDED!r} is {given!r}.")
    return tuple(given)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino
