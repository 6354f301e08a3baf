"""The arrays of an output store: read, and written so that they stay written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zarr
from numpy.typing import ArrayLike

from approxifer.datasets.codecs import Array, check_array, check_memory
from approxifer.datasets.layout import DTYPES, VARIABLES, Layout
from approxifer.datasets.localdisk import not_written, sync
from approxifer.errors import ApproxiferError, OutputError, StoreError


class Arrays:
    """The five arrays of a store.

    Parameters
    ----------
    path
        The store.
    group
        Its group.

    Raises
    ------
    StoreError
        One of them is missing.
    """

    def __init__(self, path: Path, group: zarr.Group) -> None:
        self._path = path
        self._identity = _identity(path)
        self._arrays: dict[str, Array] = {}
        for name in VARIABLES:
            try:
                member = group.get(name)
            except Exception:  # likewise
                member = None
            if not isinstance(member, zarr.Array):
                raise StoreError(
                    f"The output store {path} lacks its array {name!r}: it is damaged. "
                    "Delete it and score again."
                )
            self._arrays[name] = member
        prediction = self._arrays["prediction"]
        dims = getattr(prediction.metadata, "dimension_names", None) or ("sample",)
        try:
            self.layout = Layout(
                rows=prediction.shape[0],
                chunk=prediction.chunks[0],
                output_shape=prediction.shape[1:],
                output_dtype=prediction.dtype,
                sample_dim=str(dims[0]),
            )
            self._check()
        except (ApproxiferError, IndexError) as error:
            raise StoreError(
                f"The output store {path} is not as approxifer writes it: {error} Restore it from "
                "a copy; or delete it and score again."
            ) from error

    def _check(self) -> None:
        """Refuse arrays that do not fit each other, or cannot be read."""
        rows, chunk = self.layout.rows, self.layout.chunk
        for name, array in self._arrays.items():
            check_array(array, str(self._path))
            known = array.dtype == DTYPES[name] if name in DTYPES else True
            one = array.ndim == 1 or name == "prediction"
            if not (known and one and array.shape[:1] == (rows,) and array.chunks[:1] == (chunk,)):
                raise StoreError(
                    f"its array {name!r} is {array.dtype} of shape {array.shape} in chunks of "
                    f"{array.chunks}, beside predictions for {rows} rows in chunks of {chunk}."
                )
        check_memory("status", rows, np.dtype(np.uint8))

    def fit(self, name: str, values: ArrayLike, rows: int) -> np.ndarray:
        """Bring values into an array's dtype and into shape for so many rows.

        A single value stands for all rows, except in ``prediction``.

        Raises
        ------
        ValueError
            A wrong shape; a dtype or value that the array cannot hold.
        """
        array = self._arrays[name]
        given = np.asarray(values)
        shape = (rows, *array.shape[1:])
        if given.shape != shape and (given.ndim or name == "prediction"):
            raise ValueError(f"{name} has shape {given.shape}; {shape} is needed.")
        if name != "prediction" and array.dtype.kind in "iu":
            limits = np.iinfo(array.dtype)
            if given.dtype.kind not in "iu" or given.min() < limits.min or given.max() > limits.max:
                raise ValueError(f"{name} must be integers from {limits.min} to {limits.max}.")
        elif not np.can_cast(given.dtype, array.dtype, "same_kind"):
            raise ValueError(f"{name} has dtype {given.dtype}; {array.dtype} is needed.")
        return np.broadcast_to(given.astype(array.dtype), shape)

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Read rows of one array.

        Raises
        ------
        StoreError
            A chunk is damaged, or the store has been deleted.
        """
        self.check_there(name)
        try:
            return np.asarray(self._arrays[name][start:stop])
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
            self._arrays[name][start:stop] = values
            sync(self._path / name, self.layout.chunk_names(name, start, stop))
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
        there = any((self._path / name / file).exists() for file in ("zarr.json", ".zarray"))
        if not there or _identity(self._path) != self._identity:
            raise OutputError(
                f"The output store {self._path} was deleted or moved while it was in use. What was "
                "written is gone with it: put it back, or delete what is left of it and its "
                "journal, and give the same command again."
            )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino
