"""A record of the programs that passed their trial: by hash, in the user's cache.

An entry is trusted only if the folder and the file belong to the user and nobody else may write to
them. A cache that cannot be read or written costs a trial, and is no error.
"""

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from approxifer.version import __version__

#: Keys known to this process: the same file is tried once even where there is no cache.
_here: set[str] = set()


def known(data: bytes) -> bool:
    """Tell whether these bytes passed, with this version of torch and of approxifer."""
    key = _key(data)
    if key not in _here and _recorded(key):
        _here.add(key)
    return key in _here


def remember(data: bytes) -> None:
    """Record that these bytes passed."""
    key = _key(data)
    _here.add(key)
    with contextlib.suppress(OSError, RuntimeError):  # a full disk, no home directory
        path = _folder() / key
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _private(path.parent, stat.S_ISDIR):
            temporary = path.with_suffix(f".{os.getpid()}")
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with os.fdopen(os.open(temporary, flags, 0o600), "w") as file:
                json.dump(key, file)
            os.replace(temporary, path)


def _key(data: bytes) -> str:
    versions = f"{metadata.version('torch')} {__version__} ".encode()
    return hashlib.sha256(versions + hashlib.sha256(data).digest()).hexdigest()


def _folder() -> Path:
    """``$XDG_CACHE_HOME/approxifer/models``, by default under ``~/.cache``."""
    home = os.environ.get("XDG_CACHE_HOME")
    base = Path(home) if home and os.path.isabs(home) else Path("~/.cache").expanduser()
    return base / "approxifer" / "models"


def _private(path: Path, kind: Callable[[int], bool]) -> bool:
    """Tell whether only this user can have written it; a link is not followed."""
    found = os.lstat(path)
    mine = found.st_uid == os.geteuid() and not found.st_mode & 0o022
    return mine and kind(found.st_mode)


def _recorded(key: str) -> bool:
    try:
        path = _folder() / key
        if not (_private(path.parent, stat.S_ISDIR) and _private(path, stat.S_ISREG)):
            return False
        return bool(json.loads(path.read_bytes()) == key)
    except (OSError, ValueError, RuntimeError):  # no home directory
        return False
