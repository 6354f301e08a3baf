"""The output: predictions, and how each row of them was obtained.

The order of writes makes a crash harmless. The data of a window are on the disk before its status
is; rows that are written again are pending meanwhile. So whatever `OutputStore.status` calls done
is done, and a run begins again with what it calls pending.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import ArrayLike

from approxifer.checks import MOST, instance, row_numbers, whole_number
from approxifer.datasets.form import Forms, default_form
from approxifer.datasets.growth import Growth
from approxifer.datasets.layout import (
    APPENDED,
    FLAG_MEANINGS,
    FORMAT,
    FORMAT_SEVERAL,
    GROWING,
    MARK,
    UUID,
    coordinates_of,
    layout_of,
    not_reserved,
    our_group,
)
from approxifer.datasets.localdisk import (
    beside,
    building,
    check_parent,
    consolidate,
    local_path,
    make_parent,
    not_written,
    sync,
)
from approxifer.datasets.lock import Lock
from approxifer.datasets.source import Source
from approxifer.datasets.stored import StoredRows
from approxifer.errors import ConfigError, StoreError
from approxifer.jsonable import jsonable
from approxifer.text import one_line


class OutputStore(StoredRows):
    """An output store on the local disk. Made by `create` or `open`.

    Attributes
    ----------
    note : str or None
        Why the store is not locked by the system, where the file system has no locks.
    """

    def __init__(self, path: Path, lock: Lock | None) -> None:
        super().__init__(path, our_group(path, mode="r" if lock is None else "r+"))
        self._lock = lock
        self.note = lock.note if lock else None

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        source: Source,
        output_shape: tuple[int, ...],
        output_dtype: Any,
        chunk: int,
        attrs: Mapping[str, Any],
        forms: Forms | None = None,
    ) -> OutputStore:
        """Create a store with every row pending, and lock it. It appears whole or not at all.

        Parameters
        ----------
        path
            A local path; missing parents are created.
        source
            The input: gives the rows, the sample dimension and its coordinates.
        output_shape, output_dtype
            Of one row's prediction.
        chunk
            Rows per chunk, for every array.
        attrs
            JSON-able: what `check` compares on resume (``code``, ``layout``, ``model``, ``input``)
            and anything else.
        forms
            Of the predictions. None: of one, as it has it by itself.

        Raises
        ------
        StoreError
            There is something at the path already, it cannot be written to, or is in use.
        ConfigError
            A URL, a dtype that is no number, a reserved attribute, or one without a form in JSON;
            another argument that is not what it should be.
        """
        where = local_path(path)
        instance("source", source, Source, "what open_source returns")
        chunk = whole_number("chunk", chunk, least=1)
        forms = forms or Forms((default_form(source, output_shape, output_dtype),))
        layout = layout_of(source, forms, chunk=chunk)
        not_reserved(attrs)
        make_parent(where)
        with ExitStack() as undo:
            lock = _lock(where)
            undo.callback(lock.release)
            with building(where) as folder:
                layout.create(folder, coords=coordinates_of(source, forms), attrs=jsonable(attrs))
            store = cls(where, lock)
            undo.pop_all()
        return store

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, write: bool = True) -> OutputStore:
        """Open a store, and lock it unless it is only read.

        Parameters
        ----------
        path
            Where `create` made it.
        write
            False: take no lock and refuse to write; may be done while another process writes.

        Raises
        ------
        StoreError
            It is not one of ours (nothing is touched), it is damaged, or it is in use.
        """
        where = local_path(path)
        our_group(where)  # before the lock's file appears beside somebody else's store
        if not write:
            return cls(where, None)
        with ExitStack() as undo:
            lock = _lock(where)
            undo.callback(lock.release)
            store = cls(where, lock)
            undo.pop_all()
        return store

    @staticmethod
    def check_path(path: str | os.PathLike[str]) -> None:
        """Raise `StoreError` where `create` could not write; touch nothing."""
        check_parent(local_path(path))

    @staticmethod
    def exists(path: str | os.PathLike[str]) -> bool:
        """True if there is anything at the path; `open` checks that it is one of ours."""
        return os.path.lexists(local_path(path))

    def name_itself(self, uuid: str) -> None:
        """Give a uuid to a store that has none; it is on the disk when this returns.

        Raises
        ------
        ConfigError
            It is no text.
        """
        instance("uuid", uuid, str, "a text")
        self._writable()
        self._update({UUID: uuid})
        self.uuid = uuid

    def keep(self, attrs: Mapping[str, Any]) -> None:
        """Replace attributes that are not those which `check` compares; on the disk on return."""
        self._writable()
        not_reserved(attrs)
        if (plain := jsonable(attrs)) != {name: self._attrs.get(name) for name in attrs}:
            self._update(plain)

    def forget_writers(self) -> bool:
        """Let no row name a worker or a group any more: who they were is not known.

        Returns
        -------
        bool
            Whether there was a row that could.
        """
        self._writable()
        found = False
        for tile in range(len(self.grid.starts) - 1):
            start, stop = self.grid.span(tile)
            if not self._arrays.read("status", start, stop).any():
                continue
            found = True
            for name in ("worker", "group"):
                if (self._arrays.read(name, start, stop) != -1).any():
                    self._arrays.write(name, start, np.full(stop - start, -1, np.int32))
        return found

    def write_window(
        self,
        start: int,
        stop: int,
        *,
        prediction: ArrayLike,
        status: ArrayLike,
        group: ArrayLike = -1,
        worker: ArrayLike = -1,
        residual: ArrayLike = np.nan,
    ) -> None:
        """Commit rows: when it returns they are on the disk, their status last.

        Rows that were committed before are set to pending first; so are those that share a chunk
        with them, until the end.

        Parameters
        ----------
        start, stop
            Whole tiles of `grid`: chunks, or the parts of one that were appended one after another.
        prediction : (stop - start, ...)
            Several outputs are packed, as `packing` has them.
        status : (stop - start,)
            Values 0 to 4, see ``FLAG_MEANINGS``. A single value stands for all rows, here and in
            the following.
        group, worker : (stop - start,) of int
        residual : (stop - start,) of float

        Raises
        ------
        ConfigError
            Rows that are not whole chunks; a wrong shape, dtype or value.
        StoreError
            The store was released, or opened for reading.
        """
        self._writable()
        self._whole_chunks(start, stop)
        rows = stop - start
        flags = self._arrays.fit("status", status, rows)
        if flags.max() >= len(FLAG_MEANINGS):
            raise ConfigError(f"status holds {flags.max()}; allowed are 0 to 4, {FLAG_MEANINGS}.")
        data = {
            "prediction": self._arrays.fit("prediction", prediction, rows),
            "group": self._arrays.fit("group", group, rows),
            "worker": self._arrays.fit("worker", worker, rows),
            "residual": self._arrays.fit("residual", residual, rows),
        }
        beside = [(a, self._arrays.read("status", a, b)) for a, b in self.grid.beside(start, stop)]
        for first, before in (*beside, (start, self._arrays.read("status", start, stop))):
            if before.any():
                self._arrays.write("status", first, np.zeros(len(before), np.uint8))
        for name, values in data.items():
            self._arrays.write(name, start, values)
        for first, before in (*beside, (start, flags)):
            if before.any():
                self._arrays.write("status", first, before)

    def set_pending(self, rows: ArrayLike) -> None:
        """Take rows back before they are made good: pending, on the disk, when it returns.

        Parameters
        ----------
        rows
            Indices of rows, any order.

        Raises
        ------
        ConfigError
            Rows that are not there.
        """
        self._writable()
        touched = np.unique(row_numbers("rows", rows))
        if touched.size and not 0 <= touched[0] <= touched[-1] < self.rows:
            raise ConfigError(
                f"Rows {touched[0]} to {touched[-1]} of {self.rows}: not all are there."
            )
        for tile in np.unique(self.grid.tile_of(touched)):
            start, stop = self.grid.span(int(tile))
            flags = self._arrays.read("status", start, stop)
            flags[touched[(touched >= start) & (touched < stop)] - start] = 0
            self._arrays.write("status", start, flags)

    def close(
        self,
        *,
        counts: Mapping[str, int],
        workers: Sequence[str],
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the final attributes, in one replacement of the group's metadata, and release.

        Parameters
        ----------
        counts
            Rows per status.
        workers
            Names, into which ``worker`` indexes.
        extra
            Further attributes, JSON-able.

        Raises
        ------
        ConfigError
            One of these is not what it should be.
        """
        self._writable()
        instance("counts", counts, Mapping, "rows per status")
        instance("workers", workers, (list, tuple), "a list of names")
        not_reserved(extra or {})
        final = jsonable({**(extra or {}), "counts": counts, "workers": workers})
        self._update(final)
        self.release()

    def release(self) -> None:
        """Give up the lock; the store stays as it is and can still be read."""
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> OutputStore:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def grow(self, growth: Growth, attrs: Mapping[str, Any]) -> None:
        """Lengthen the first sample dimension; the new rows are pending.

        Until the last step the store is what it was; after a crash at any, the next call does all
        of them again.

        Parameters
        ----------
        growth
            As `growth.planned` has it.
        attrs
            What `check` compares from now on: ``input`` and ``rows``.

        Raises
        ------
        OutputError
            The disk is full, or gone.
        ConfigError
            It is no growth.
        """
        self._writable()
        instance("growth", growth, Growth, "what growth() returns")
        instance("attrs", attrs, Mapping, "attributes by name")
        before = self.grid.shape[0]
        self._update({GROWING: before})
        try:
            self._arrays.resize(growth.length)
            growth.write_coordinates(self.path)
            consolidate(self.path)
            sync(self.path, ["zarr.json"])
        except OSError as error:
            raise not_written(self.path, error) from error
        layout = FORMAT if self.packing.alone else FORMAT_SEVERAL
        appended = {APPENDED: [*self.grid.begins, before], MARK: layout}
        self._update(jsonable(attrs) | appended, drop=(GROWING, "counts"))
        super().__init__(self.path, our_group(self.path, mode="r+"))

    def _update(self, attrs: Mapping[str, Any], drop: Sequence[str] = ()) -> None:
        """Write attributes, in one replacement of the group's metadata."""
        self._arrays.check_there("status")
        try:
            # Opened with its consolidated metadata, the group writes them back with the attributes.
            group = zarr.open_group(str(self.path), mode="r+", use_consolidated=True)
            for name in drop:
                group.metadata.attributes.pop(name, None)
            self._attrs = dict(group.update_attributes(dict(attrs)).attrs)
            sync(self.path, ["zarr.json"])
        except OSError as error:
            raise not_written(self.path, error) from error
        except Exception as error:  # a damaged or crafted store fails in any way it likes
            raise StoreError(
                f"The attributes of the output store {self.path} cannot be written: "
                f"{one_line(error)}. Its zarr.json is damaged: restore it from a copy, or delete "
                "the store and score again."
            ) from error

    def _writable(self) -> None:
        if self._lock is None or not self._lock.held:
            raise StoreError(
                f"The output store {self.path} was opened for reading, or has been released. "
                "Open it again with OutputStore.open to write to it."
            )

    def _whole_chunks(self, start: int, stop: int) -> None:
        start = whole_number("start", start, least=-MOST)
        stop = whole_number("stop", stop, least=-MOST)
        if not self.grid.is_whole(start, stop):
            raise ConfigError(
                f"Cannot write rows {start} to {stop}: only whole chunks of {self.chunk} of the "
                f"{self.rows} rows are written at once."
            )


def _lock(path: Path) -> Lock:
    return Lock(beside(path, ".lock"), what=f"The output store {path}")
