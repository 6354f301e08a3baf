"""The journal beside an output store: one event per line, as JSON.

A line is one write, so a crash can tear only the last one. A torn last line is an event that did
not happen: `Journal.read` passes over it, and opening the journal for appending cuts it off.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from approxifer.datasets.jsonable import jsonable
from approxifer.datasets.localdisk import beside, local_path, not_written, sync
from approxifer.errors import StoreError

SUFFIX = ".journal.jsonl"


def journal_path(path: str | os.PathLike[str]) -> Path:
    """Name the journal of a store: ``out.zarr`` or ``out.zarr/`` has ``out.zarr.journal.jsonl``.

    A journal's own path is given back as it is.
    """
    store = local_path(path)
    return store if store.name.endswith(SUFFIX) else beside(store, SUFFIX)


class Journal:
    """The events of the runs that wrote one output store, open for appending.

    Only the process that holds the store's lock may open it; anybody may `read` it meanwhile.

    Parameters
    ----------
    path
        The store's path (or the journal's own). The journal is created if there is none.

    Attributes
    ----------
    path : Path
        The journal's file.

    Raises
    ------
    StoreError
        The file cannot be opened for appending.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = journal_path(path)
        self._mutex = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise StoreError(
                f"Cannot open the journal {self.path}: {error}. Choose an output in a directory "
                "that can be written to."
            ) from error
        self._cut_torn_tail()
        sync(self.path.parent, ())
        self._closed = False

    def append(self, event: Mapping[str, Any], *, fsync: bool = False) -> None:
        """Add one event; may be called from several threads.

        Parameters
        ----------
        event
            Anything with a form in JSON; numpy scalars and arrays, paths and enums are rewritten.
        fsync
            Return only when it, and all before it, are on the disk.

        Raises
        ------
        OutputError
            The disk is full; the events before this one are kept.
        """
        line = json.dumps(jsonable(event), separators=(",", ":")).encode() + b"\n"
        with self._mutex:
            self._check_open()
            try:
                written = os.write(self._descriptor, line)
                if written != len(line):
                    self._cut_torn_tail()
                    raise OSError(errno.ENOSPC, f"only {written} of {len(line)} bytes were taken")
            except OSError as error:
                raise not_written(self.path, error) from error
        if fsync:
            self.sync()

    def sync(self) -> None:
        """Return only when every event so far is on the disk.

        Raises
        ------
        OutputError
            The disk is full, or gone.
        """
        with self._mutex:
            self._check_open()
            descriptor = os.dup(self._descriptor)
        try:  # outside the mutex: others may append meanwhile
            os.fsync(descriptor)
        except OSError as error:
            raise not_written(self.path, error) from error
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Sync and close; a second call does nothing."""
        with self._mutex:
            if not self._closed:
                self._closed = True
                os.fsync(self._descriptor)
                os.close(self._descriptor)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @staticmethod
    def read(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
        """Read all events, in the order in which they were appended.

        Parameters
        ----------
        path
            The store's path (or the journal's own). No journal: no events.

        Raises
        ------
        StoreError
            A line other than the last one is torn.
        """
        journal = journal_path(path)
        try:
            lines = journal.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        events = []
        for number, line in enumerate(_whole(lines), start=1):
            event = _parse(line)
            if event is None:
                raise StoreError(
                    f"Line {number} of the journal {journal} is damaged: {line[:60]!r}. Each line "
                    "is one JSON object; only the last may be torn. Restore the file from a "
                    "copy, or delete the store and its journal and score again."
                )
            events.append(event)
        return events

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"The journal {self.path} is closed.")

    def _cut_torn_tail(self) -> None:
        lines = self.path.read_bytes().splitlines(keepends=True)
        if len(whole := _whole(lines)) < len(lines):
            os.ftruncate(self._descriptor, sum(map(len, whole)))


def _whole(lines: list[bytes]) -> list[bytes]:
    """Leave out what a crash tore at the end."""
    end = len(lines)
    while end and _parse(lines[end - 1]) is None:
        end -= 1
    return lines[:end]


def _parse(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None
