"""The arrays of an output store: read, and written so that they stay written.

Several outputs are read and written together, packed (`approxifer.packing`), as ``prediction``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import ArrayLike

from approxifer.checks import array as as_array
from approxifer.datasets.codecs import Array, check_array, check_memory
from approxifer.datasets.form import BESIDE, PREDICTION
from approxifer.datasets.grid import Grid
from approxifer.datasets.input.coords import nameable
from approxifer.datasets.layout import APPENDED, DTYPES, GROWING, OUTPUT
from approxifer.datasets.localdisk import not_written, sync
from approxifer.datasets.tiles.rowarray import RowArray, stored_chunks
from approxifer.datasets.tiles.tiling import joins_of
from approxifer.errors import ApproxiferError, ConfigError, OutputError, StoreError
from approxifer.packing import Packing, Part
from approxifer.text import one_line


class Arrays:
    """The arrays of a store: the predictions, and four beside them.

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
    names : list of str
        Of the arrays in the group.
    packing : Packing
        Of the predictions, each by its name here and in the dtype of what the model returns; the
        stored dtype holds all of its numbers.

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
            alone = "variables" not in about
            found = [about] if alone else list(about["variables"])
            self._predictions = [one.get("variable", PREDICTION) for one in found]
            for variable in self._predictions:
                if (why := nameable(variable)) is not None:
                    raise StoreError(f"its attribute {OUTPUT!r} names {variable!r}: {why}")
            self.names = [*self._predictions, *BESIDE]
            if not found or len(set(self.names)) < len(self.names):
                raise StoreError(f"its attribute {OUTPUT!r} names {self._predictions}.")
            self._arrays = {name: self._open(group, name) for name in self.names}
            status = self._arrays["status"]
            self.growing = group.attrs.get(GROWING)
            self.grid = Grid(
                (_length(self.growing, status.shape[0]), *status.shape[1:]),
                stored_chunks(status),
                _begins(group.attrs.get(APPENDED)),
            )
            dims = getattr(status.metadata, "dimension_names", None) or ("sample",)
            self.row_dims = tuple(map(str, dims))
            self._joined, parts = {}, []
            for one, name in zip(found, self._predictions, strict=True):
                array = self._arrays[name]
                self._joined[name] = joins_of(one.get("joined"), array.shape, self.grid.ndim)
                dtype = np.dtype(one.get("model_dtype", array.dtype))
                parts.append(Part(name, self._rows(name).output_shape, dtype))
            self.packing = Packing(tuple(parts), alone)
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
            one = array.ndim == grid.ndim or name in self._predictions
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
        for name, joined in self._joined.items():
            for join in joined:
                tiles = grid.shape[join.along]
                if not (tiles - 1) * join.tile < join.length <= tiles * join.tile:
                    raise StoreError(
                        f"its array {name!r} joins {tiles} tiles of {join.tile} to {join.length}."
                    )
        for part in self.packing.parts:
            if not np.can_cast(part.dtype, self._arrays[part.name].dtype, "safe"):
                raise StoreError(f"its predictions are no {part.dtype}.")
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
        predicted = name == PREDICTION
        given = as_array(name, values, single=True)
        dtype = self.packing.dtype if predicted else self._arrays[name].dtype
        shape = (rows, *self.packing.shape) if predicted else (rows,)
        if given.shape != shape and (given.ndim or predicted):
            raise ConfigError(f"{name} has shape {given.shape}; {shape} is needed.")
        if not predicted and dtype.kind in "iu":
            limits = np.iinfo(dtype)
            if given.dtype.kind not in "iu" or given.min() < limits.min or given.max() > limits.max:
                raise ConfigError(f"{name} must be integers from {limits.min} to {limits.max}.")
        elif not np.can_cast(given.dtype, dtype, "same_kind"):
            raise ConfigError(f"{name} has dtype {given.dtype}; {dtype} is needed.")
        return np.broadcast_to(given.astype(dtype), shape)

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Read rows of one array, or the predictions.

        Raises
        ------
        StoreError
            A chunk is damaged, or the store has been deleted.
        """
        if name != PREDICTION:
            return self._read(name, start, stop)
        each = [self._read(part.name, start, stop) for part in self.packing.parts]
        dtypes = [part.dtype for part in self.packing.parts]
        return self.packing.pack(
            [one.astype(dtype, copy=False) for one, dtype in zip(each, dtypes, strict=True)]
        )

    def _read(self, name: str, start: int, stop: int) -> np.ndarray:
        self.check_there(name)
        try:
            return self._rows_of(name, start, stop)
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
        """Write whole tiles of one array, or of the predictions; when it returns, they are on the
        disk.

        Raises
        ------
        OutputError
            The disk is full, or gone, or the store has been deleted.
        """
        if name != PREDICTION:
            self._write(name, start, values)
            return
        for part, output in zip(self.packing.parts, self.packing.unpack(values), strict=True):
            self._write(part.name, start, output)

    def _write(self, name: str, start: int, values: np.ndarray) -> None:
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
            sync(self._path / name, files)
        except OSError as error:
            self.check_there(name)
            raise not_written(self._path, error) from error
        self.check_there(name)  # else zarr has made new folders for these chunks alone

    def resize(self, length: int) -> None:
        """Lengthen the first sample dimension; on the disk when it returns."""
        for name, array in self._arrays.items():
            self.check_there(name)
            array.resize((length, *array.shape[1:]))
            sync(self._path / name, ["zarr.json"])

    def check_there(self, name: str) -> None:
        """Refuse to go on with a store that was deleted: zarr would read its fill values, and
        write chunks into a folder without metadata.

        Raises
        ------
        OutputError
        """
        folder = self._path / name
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
