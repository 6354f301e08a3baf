"""The journal beside an output store: one event per line, as JSON.

A line is one write, so a crash can tear only the last one. A torn last line is an event that did
not happen: `Journal.read` passes over it, and opening the journal for appending cuts it off. A file
that does not begin with an event is not ours, and is left as it is.

Credentials are struck out of every line, wherever they come from (such as a model's error).
"""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from approxifer.checks import instance
from approxifer.datasets.localdisk import beside, local_path, not_written, sync
from approxifer.datasets.ourfiles import not_ours, open_ours
from approxifer.errors import StoreError
from approxifer.jsonable import jsonable
from approxifer.text import redacted

SUFFIX = ".journal.jsonl"
_WHAT = "a journal"
#: How each event begins.
_BEGIN = b'{"event":'


def journal_path(path: str | os.PathLike[str]) -> Path:
    """Name the journal of a store: ``out.zarr`` or ``out.zarr/`` has ``out.zarr.journal.jsonl``.

    Links on the way are followed. A journal's own path stands for itself.
    """
    instance("path", path, (str, os.PathLike), "the path of an output store")
    given = Path(os.fspath(path))
    if given.name.endswith(SUFFIX):
        return local_path(given.parent) / given.name
    return beside(local_path(path), SUFFIX)


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
        The file cannot be opened for appending, is reached through a link, or is none of ours.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = journal_path(path)
        self._mutex = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = open_ours(
                self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, what=_WHAT
            )
        except OSError as error:
            raise StoreError(
                f"Cannot open the journal {self.path}: {error}. Choose an output in a directory "
                "that can be written to."
            ) from error
        self._closed = False
        try:
            self._cut_torn_tail()
            sync(self.path.parent, ())
        except BaseException:
            os.close(self._descriptor)
            raise

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
        ConfigError
            It is no mapping, or has no form in JSON.
        """
        instance("event", event, Mapping, "a mapping")
        line = json.dumps(_redacted(jsonable(event)), separators=(",", ":")).encode() + b"\n"
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
            A line other than the last one is torn; the file is reached through a link, or cannot
            be read. What the events hold is checked by `datasets.events`.
        """
        journal = journal_path(path)
        try:
            with open(open_ours(journal, os.O_RDONLY, what=_WHAT), "rb") as file:
                lines = file.read().split(b"\n")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"Cannot read the journal {journal}: {error}.") from error
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
            raise StoreError(f"The journal {self.path} is closed: open it again to append to it.")

    def _cut_torn_tail(self) -> None:
        with open(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            content = file.read()
        lines = content.split(b"\n")
        whole = _whole(lines)
        if not whole and not _torn(content):
            raise not_ours(self.path, _WHAT)
        if whole and "event" not in (_parse(whole[0]) or {}):
            raise not_ours(self.path, _WHAT)
        end = sum(len(line) + 1 for line in whole)
        if end < len(content):
            os.ftruncate(self._descriptor, end)


def _whole(lines: list[bytes]) -> list[bytes]:
    """Leave out what a crash tore at the end, and what follows the last line's end."""
    end = len(lines) - 1
    while end and _parse(lines[end - 1]) is None:
        end -= 1
    return lines[:end]


def _torn(content: bytes) -> bool:
    """True if this, in which no line is whole, is the beginning of a first event: as a write was
    cut, or followed by the zeros of a block that a power failure left unwritten."""
    begun = content.rstrip(b"\0\n")
    return begun.startswith(_BEGIN) or _BEGIN.startswith(begun)


def _redacted(value: Any) -> Any:
    """The same without credentials in its texts."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, dict):
        return {key: _redacted(item) for key, item in value.items()}
    return [_redacted(item) for item in value] if isinstance(value, list) else value


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None
