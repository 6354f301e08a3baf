"""The small files beside a store: the lock, the journal, a job's folder.

They may be where others can write too. So none is reached through a symbolic link or a second
name, nothing that is no plain file is opened, and what is made here is for its user alone.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from approxifer.errors import StoreError

#: Bytes of a small file that is read whole: a lock, a job's state.
SMALL = 1 << 20
#: A pipe, which somebody else may have put there, would hold the opening up for ever.
_CAREFUL = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def open_ours(path: Path, flags: int, *, what: str) -> int:
    """Open a file without following a link; one that is created is readable by its user alone.

    Parameters
    ----------
    path
        Its folder has been resolved.
    flags
        As for ``os.open``; never with ``O_TRUNC``.
    what
        What it is for, for the message.

    Returns
    -------
    int
        A descriptor, which child processes do not inherit.

    Raises
    ------
    StoreError
        A symbolic link, something else than a plain file, or a file of several names.
    OSError
        It cannot be opened.
    """
    try:
        descriptor = os.open(path, flags | _CAREFUL, 0o600)
    except OSError as error:
        if path.is_symlink():
            raise _foreign(path, what, "is a symbolic link") from error
        if not path.is_file() and os.path.lexists(path):
            raise _foreign(path, what, "is no plain file") from error
        raise
    about = os.fstat(descriptor)
    fault = ""
    if not stat.S_ISREG(about.st_mode):
        fault = "is no plain file"
    elif about.st_nlink > 1:
        fault = f"is one file of {about.st_nlink} names (hard links)"
    if fault:
        os.close(descriptor)
        raise _foreign(path, what, fault)
    return descriptor


def not_ours(path: Path, what: str) -> StoreError:
    """The error for a file that holds something else; it was left as it is."""
    return _foreign(path, what, "holds something else")


def _foreign(path: Path, what: str, fault: str) -> StoreError:
    return StoreError(
        f"{path} is to be {what}, and {fault}: it may be somebody else's. Nothing was touched. "
        "Look at it, move it away, and give the same command again; or choose another output."
    )


def read_small(path: Path, *, what: str) -> bytes | None:
    """The content of a small file; None where there is none.

    Raises
    ------
    StoreError
        As in `open_ours`, or it is too large, or cannot be read.
    """
    try:
        with open(open_ours(path, os.O_RDONLY, what=what), "rb") as file:
            content = file.read(SMALL + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path}, {what}, cannot be read: {error}.") from error
    if len(content) > SMALL:
        raise not_ours(path, what)
    return content


def write_private(path: Path, content: bytes) -> None:
    """Replace a file as a whole, in a folder of ours: nobody reads half of one, or another
    user's.

    Raises
    ------
    OSError
        The disk is full, or gone.
    """
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)  # what a killed process left, or a link
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CAREFUL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
    part.replace(path)


def private_folder(path: Path, *, what: str) -> None:
    """Make a folder that its user alone can enter, or close one that is there to all others.

    Raises
    ------
    StoreError
        A link or a file is there, or another user's folder; or it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            check_folder(path, what=what)
            path.chmod(0o700)
    except OSError as error:
        raise StoreError(
            f"Cannot make {path}, {what}: {error}. Choose an output in a directory that can be "
            "written to."
        ) from error


def check_folder(path: Path, *, what: str) -> None:
    """Refuse a folder that is a link, or not this user's.

    Raises
    ------
    StoreError
    FileNotFoundError
    """
    about = path.lstat()
    if stat.S_ISLNK(about.st_mode):
        raise _foreign(path, what, "is a symbolic link")
    if not stat.S_ISDIR(about.st_mode):
        raise _foreign(path, what, "is no folder")
    if about.st_uid != os.geteuid():
        raise _foreign(path, what, f"belongs to another user (uid {about.st_uid})")
