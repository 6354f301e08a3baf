"""Zarr stores on the local disk: built whole or not at all, and synced.

zarr's own ``LocalStore`` replaces each file atomically but never syncs it, so a power failure may
take back what was written minutes ago. `sync` is the missing half.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import zarr

from approxifer.checks import instance, told
from approxifer.datasets.ourfiles import check_folder
from approxifer.errors import ConfigError, OutputError, StoreError
from approxifer.quiet import quiet
from approxifer.text import one_line


def plain_path(text: str) -> str:
    """A path as the system takes it: without ``file://``, its ``~`` resolved; a URL as it is."""
    for scheme in ("file://", "local://"):
        if text.startswith(f"{scheme}/"):
            text = text.removeprefix(scheme)
    if text.startswith("~") and not os.path.lexists(text):
        text = os.path.expanduser(text)
    return text


def local_path(path: str | os.PathLike[str]) -> Path:
    """Check that a store to be written is named by a path, and give its real one.

    Links are followed here, once: whatever a store is reached by, it has one lock, one journal and
    one job.

    Raises
    ------
    ConfigError
        A URL, nothing, or what is no path.
    StoreError
        A symbolic link to where nothing is.
    """
    instance("path", path, (str, os.PathLike), "a local path")
    text = plain_path(os.fspath(path))
    if "://" in text:
        raise ConfigError(
            f"Cannot write to {text!r}: only a local path is allowed, not a URL (but for "
            "file:///...). Write to a local or shared directory, and copy the store afterwards."
        )
    if not text:
        raise ConfigError("The path of the store to be written is empty; give a local path.")
    if "\0" in text:
        raise ConfigError(f"Cannot write to {text!r}: a path holds no NUL character.")
    link = Path(text.rstrip("/") or "/")
    try:
        real = Path(os.path.realpath(text))
        dangling = link.is_symlink() and not os.path.lexists(real)
    except (OSError, ValueError) as error:  # too long, or with characters that no path holds
        raise ConfigError(
            f"Cannot write to {told(text)}: {one_line(error)[:200]}. Give another path."
        ) from error
    if dangling:
        raise StoreError(
            f"{link} is a symbolic link to {real}, where there is nothing. Nothing was touched. "
            "Give that path, or delete the link."
        )
    return real


def beside(path: Path, suffix: str) -> Path:
    """Name the file beside a store: ``out.zarr`` with ``.lock`` is ``out.zarr.lock``."""
    return path.with_name(path.name + suffix)


def check_parent(path: Path) -> None:
    """Raise what `make_parent` would, and touch nothing."""
    there = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise StoreError(f"Cannot write to {path}: {there} is no directory that can be written to.")


def make_parent(path: Path) -> None:
    """Create the directory in which ``path`` is to be, where it is missing.

    Raises
    ------
    StoreError
        It cannot be created.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"Cannot create the directory {path.parent}: {error}. Choose another place."
        ) from error


@contextmanager
def building(path: Path) -> Iterator[Path]:
    """Build a directory beside ``path``, then rename it there: whole or not at all.

    Parameters
    ----------
    path
        Where the directory is to appear. Missing parents are created.

    Yields
    ------
    Path
        The directory to fill.

    Raises
    ------
    StoreError
        There is something at ``path`` already, or its parent cannot be written to.
    """
    _refuse_existing(path)
    part = path.with_name(f".{path.name}.partial")
    make_parent(path)
    try:
        if os.path.lexists(part):  # what a killed process left
            check_folder(part, what="the store while it is built")
            shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
    except OSError as error:
        raise StoreError(
            f"Cannot create {path}: {error}. Choose a directory that can be written to."
        ) from error
    try:
        yield part
        for folder, _, files in os.walk(part):
            sync(Path(folder), files)
        _refuse_existing(path)
        part.rename(path)
        sync(path.parent, ())
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise StoreError(
            f"There is something at {path} already. Nothing was touched. "
            "Choose another path, or delete it first."
        )


def sync(folder: Path, names: Iterable[str]) -> None:
    """Flush files, then the directory that lists them, to the disk.

    A name that is not there is passed over: zarr stores no chunk that holds fill values only.
    """
    for name in names:
        _fsync(folder / name, missing_ok=True)
    _fsync(folder)


def not_written(path: Path, error: OSError) -> OutputError:
    """Make the error for a write that failed half-way."""
    return OutputError(
        f"Cannot write to {path}: {error}. What is committed stays: make room, and the same "
        "command goes on from there."
    )


def _fsync(path: Path, *, missing_ok: bool = False) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        if missing_ok:
            return
        raise
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def consolidate(path: Path) -> None:
    """Write the metadata of all arrays into the group's own: what xarray looks for first."""
    with quiet():
        zarr.consolidate_metadata(str(path))
