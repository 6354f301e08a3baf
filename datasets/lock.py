"""One writer to a store.

The lock is the kernel's (``flock`` on a file beside the store), so it ends with the process that
holds it, even one that was killed with SIGKILL; the file's text serves the message. Linux's NFS
passes ``flock`` on to the server, and gives it back when the holder's host is gone for good: with
NFS 4 after the lease, with NFS 3 once the host is up again.

A file system without ``flock`` has the file itself as the lock: it stays when its holder is killed,
and is taken over where the holder can be seen to be gone.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from approxifer.datasets.ourfiles import SMALL, not_ours, open_ours
from approxifer.errors import StoreError
from approxifer.text import one_line

logger = logging.getLogger(__name__)

_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
_WHAT = "a lock"


@dataclass(frozen=True)
class Holder:
    """The process that wrote a lock's file."""

    pid: int
    host: str
    since: float = 0.0  #: seconds since the epoch; 0.0: not kept

    @classmethod
    def me(cls) -> Holder:
        """This process."""
        return cls(os.getpid(), socket.gethostname(), time.time())

    @classmethod
    def of(cls, content: bytes) -> Holder | None:
        """Out of a lock's file; None: it holds something else."""
        try:
            kept: Any = json.loads(content)
            found = cls(kept["pid"], kept["host"], float(kept.get("since", 0.0)))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            return None
        fits = type(found.pid) is int and isinstance(found.host, str)
        return found if fits else None

    @property
    def gone(self) -> bool:
        """True if it was a process of this host that is no longer there."""
        if self.host != socket.gethostname():
            return False
        try:  # a process that began later has its number only
            began: float = psutil.Process(self.pid).create_time()
            return 0 < self.since < began - 1
        except (psutil.Error, ValueError, OverflowError):
            return True

    def __str__(self) -> str:
        try:
            when = time.strftime(", since %Y-%m-%d %H:%M", time.localtime(self.since))
        except (ValueError, OverflowError, OSError):
            when = ""
        return f"pid {self.pid} on host {self.host}{when if self.since else ''}"


class Lock:
    """An exclusive lock on a file, held until `release` or the end of the process.

    Parameters
    ----------
    path
        The lock's file, its folder's links resolved; created here, removed by `release`. One that
        holds something else than a lock is left as it is.
    what
        What is locked, for the message.

    Attributes
    ----------
    note : str or None
        Why the lock is a weaker one, where the file system has no ``flock``.

    Raises
    ------
    StoreError
        Another process holds it, or the file cannot be created, or is none of ours.
    """

    def __init__(self, path: Path, *, what: str) -> None:
        self.note: str | None = None
        self._path = path
        self._descriptor: int | None = None
        while self._descriptor is None:
            descriptor = self._open(what)
            try:
                self._take(descriptor, what)
                same = _same_file(descriptor, path)
            except BaseException:
                os.close(descriptor)
                raise
            if same:
                self._descriptor = descriptor
            else:  # its last holder removed the file between our opening and our locking it
                os.close(descriptor)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(asdict(Holder.me())).encode(), 0)

    @property
    def held(self) -> bool:
        """True if `release` has not been called."""
        return self._descriptor is not None

    def release(self) -> None:
        """Give the lock up and remove its file; a second call does nothing."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        if _same_file(descriptor, self._path):  # while it is locked: nobody else's file goes
            self._path.unlink(missing_ok=True)
        os.close(descriptor)

    def _open(self, what: str) -> int:
        try:
            return open_ours(self._path, os.O_RDWR | os.O_CREAT, what=_WHAT)
        except OSError as error:
            raise StoreError(
                f"Cannot create the lock {self._path}: {error}. "
                f"Choose a directory that can be written to for {what}."
            ) from error

    def _take(self, descriptor: int, what: str) -> None:
        content = os.pread(descriptor, SMALL, 0)
        holder = Holder.of(content)
        torn = not content.strip(b"\0") or content.startswith(b'{"pid":')
        if holder is None and not torn:
            raise not_ours(self._path, _WHAT)
        try:
            import fcntl  # not on Windows

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            self._by_its_file(holder, what, "this system")
        except OSError as error:
            if error.errno in _HELD:
                raise self._in_use(Holder.of(os.pread(descriptor, SMALL, 0)), what) from error
            if error.errno not in _UNSUPPORTED:
                raise
            self._by_its_file(holder, what, "its file system")

    def _by_its_file(self, holder: Holder | None, what: str, where: str) -> None:
        """Lock by the file's content alone."""
        if holder is not None and not holder.gone:
            raise self._in_use(holder, what)
        self.note = (
            f"{what} is not locked by the system, because {where} has no flock: the file "
            f"{self._path} stands for the lock. Take care that no second process begins at the "
            "same moment."
        )
        logger.warning("%s", one_line(self.note))

    def _in_use(self, holder: Holder | None, what: str) -> StoreError:
        who = "another process" if holder is None else str(holder)
        return StoreError(
            f"{what} is in use by {who}. One process at a time may write to a store: wait for it "
            "or stop it, or choose another output. If that process, or its host, is gone for good "
            f"and this stays, delete {self._path}."
        )


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False
