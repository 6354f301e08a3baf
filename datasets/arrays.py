"""The arrays of an output store: read, and written so that they stay written."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import ArrayLike

from approxifer.datasets.codecs import Array, check_array, check_memory
from approxifer.datasets.form import PREDICTION
from approxifer.datasets.input.coords import nameable
from approxifer.datasets.layout import DTYPES, OUTPUT, VARIABLES
from approxifer.datasets.localdisk import not_written, sync
from approxifer.errors import ApproxiferError, OutputError, StoreError
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
    rows, chunk : int
        Length of the sample dimension, and rows per chunk (per shard, if sharded).
    sample_dim : str
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
            prediction = self._arrays[PREDICTION]
            dims = getattr(prediction.metadata, "dimension_names", None) or ("sample",)
            self.rows = prediction.shape[0]
            self.chunk = stored_chunks(prediction)[0]
            self.sample_dim = str(dims[0])
            self.output_shape = prediction.shape[1:]
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
        for name, array in self._arrays.items():
            check_array(array, str(self._path))
            known = array.dtype == DTYPES[name] if name in DTYPES else array.dtype.kind in "fiubc"
            one = array.ndim == 1 or name == PREDICTION
            fits = array.shape[:1] == (self.rows,) and stored_chunks(array)[:1] == (self.chunk,)
            if not (known and one and fits and self.chunk and all(array.shape[1:])):
                raise StoreError(
                    f"its array {name!r} is {array.dtype} of shape {array.shape} in chunks of "
                    f"{array.chunks}, beside predictions for {self.rows} rows in chunks of "
                    f"{self.chunk}."
                )
        if not np.can_cast(self.output_dtype, self._arrays[PREDICTION].dtype, "safe"):
            raise StoreError(f"its predictions are no {self.output_dtype}.")
        check_memory("status", self.rows, np.dtype(np.uint8))

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
        ValueError
            A wrong shape; a dtype or value that the array cannot hold.
        """
        array = self._arrays[name]
        dtype = self.output_dtype if name == PREDICTION else array.dtype
        given = np.asarray(values)
        shape = (rows, *array.shape[1:])
        if given.shape != shape and (given.ndim or name == PREDICTION):
            raise ValueError(f"{name} has shape {given.shape}; {shape} is needed.")
        if name != PREDICTION and dtype.kind in "iu":
            limits = np.iinfo(dtype)
            if given.dtype.kind not in "iu" or given.min() < limits.min or given.max() > limits.max:
                raise ValueError(f"{name} must be integers from {limits.min} to {limits.max}.")
        elif not np.can_cast(given.dtype, dtype, "same_kind"):
            raise ValueError(f"{name} has dtype {given.dtype}; {dtype} is needed.")
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
            found = np.asarray(self._arrays[name][start:stop])
            return found.astype(self.output_dtype, copy=False) if name == PREDICTION else found
        except Exception as error:  # a damaged or crafted chunk fails in any way it likes
            raise StoreError(
                f"Rows {start} to {stop} of {name!r} in the output store {self._path} cannot be "
                f"read: {error}. A chunk is damaged or was cut short. Restore it from a copy; or "
                "delete the file of these rows in the folder 'status', and run the same command "
                "to score them again."
            ) from error

    def write(self, name: str, start: int, values: np.ndarray) -> None:
        """Write whole chunks of one array; when it returns, they are on the disk.

        Raises
        ------
        OutputError
            The disk is full, or gone, or the store has been deleted.
        """
        self.check_there(name)
        stop = start + len(values)
        try:
            array = self._arrays[name]
            array[start:stop] = values.astype(array.dtype, copy=False)
            sync(self._path / self._names[name], chunk_names(array, start, stop))
        except OSError as error:
            self.check_there(name)
            raise not_written(self._path, error) from error
        self.check_there(name)  # else zarr has made new folders for these chunks alone

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


def stored_chunks(array: Array) -> tuple[int, ...]:
    """The lengths of what is one file: a shard, or a chunk."""
    return array.shards or array.chunks


def chunk_names(array: Array, start: int, stop: int) -> Iterator[str]:
    """The files that hold these rows of an array, within its directory."""
    length, *others = stored_chunks(array)
    first, last = start // length, (stop - 1) // length
    counts = [math.ceil(n / size) for n, size in zip(array.shape[1:], others, strict=True)]
    for at in product(range(first, last + 1), *map(range, counts)):
        yield ".".join(["c", *map(str, at)])


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino
