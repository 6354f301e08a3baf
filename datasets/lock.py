"""One writer to a store.

The lock is the kernel's (``flock`` on a file beside the store), so it ends with the process that
holds it, even one that was killed with SIGKILL; the file's text only serves the message.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
from pathlib import Path

from approxifer.errors import StoreError

logger = logging.getLogger(__name__)

_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


class Lock:
    """An exclusive lock on a file, held until `release` or the end of the process.

    Parameters
    ----------
    path
        The lock's file; created here, removed by `release`.
    what
        What is locked, for the message.

    Attributes
    ----------
    note : str or None
        Why nothing is locked, where the file system has no ``flock``.

    Raises
    ------
    StoreError
        Another process holds it, or the file cannot be created.
    """

    def __init__(self, path: Path, *, what: str) -> None:
        self.note: str | None = None
        self._path = path
        self._descriptor: int | None = None
        while self._descriptor is None:
            descriptor = self._open(what)
            try:
                self._flock(descriptor, what)
                same = _same_file(descriptor, path)
            except BaseException:
                os.close(descriptor)
                raise
            if same:
                self._descriptor = descriptor
            else:  # its last holder removed the file between our opening and our locking it
                os.close(descriptor)
        os.ftruncate(self._descriptor, 0)
        holder = {"pid": os.getpid(), "host": socket.gethostname()}
        os.write(self._descriptor, json.dumps(holder).encode())

    @property
    def held(self) -> bool:
        """Whether `release` has not been called."""
        return self._descriptor is not None

    def release(self) -> None:
        """Give the lock up and remove its file; a second call does nothing."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        self._path.unlink(missing_ok=True)  # while it is locked: nobody else's file goes
        os.close(descriptor)

    def _open(self, what: str) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StoreError(
                f"Cannot create the lock {self._path}: {error}. "
                f"Choose a directory that can be written to for {what}."
            ) from error

    def _flock(self, descriptor: int, what: str) -> None:
        try:
            import fcntl  # not on Windows

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            self._unlocked(what, "this system")
        except OSError as error:
            if error.errno in _HELD:
                raise StoreError(
                    f"{what} is in use by {_holder(descriptor)}. One process at a time may write "
                    "to a store: wait for it or stop it, or choose another output."
                ) from error
            if error.errno not in _UNSUPPORTED:
                raise
            self._unlocked(what, "its file system")

    def _unlocked(self, what: str, where: str) -> None:
        self.note = (
            f"{what} is not locked, because {where} has no flock: "
            "take care that no second process writes to it."
        )
        logger.warning(self.note)


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"pid {holder['pid']} on host {holder['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
