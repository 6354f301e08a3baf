"""Datasets as they are published, as Zarr.

``python -m approxifer.datasets.convert SRC DST.zarr [--split test|train|all]``
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from approxifer.datasets.localdisk import local_path
from approxifer.datasets.published.formats import Split, read
from approxifer.datasets.published.images import write
from approxifer.errors import ApproxiferError, ConfigError, StoreError
from approxifer.text import say


def convert(
    src: str | os.PathLike[str], dst: str | os.PathLike[str], *, split: Split = "test"
) -> Path:
    """Write published images as a Zarr store.

    Parameters
    ----------
    src
        A ``.npz`` file, a directory of MNIST's IDX files, or CIFAR-10's Python directory: see
        `approxifer.datasets.published.formats`. Nothing in them is executed.
    dst
        Where the store is to be; there must be nothing yet.
    split
        ``"test"``, ``"train"``, or ``"all"``: training images, then test images.

    Returns
    -------
    Path
        The store: ``image (sample, y, x[, channel])`` and ``label (sample)``, uint8.

    Raises
    ------
    InputError
        The source is missing, damaged or in another format.
    StoreError
        There is something at ``dst`` already, or it cannot be written to.
    ConfigError
        An unknown split, or a URL.
    """
    if split not in get_args(Split):
        raise ConfigError(f"split is {split!r}; give one of {', '.join(get_args(Split))}.")
    target = local_path(dst)
    if os.path.lexists(target):  # before much is read
        raise StoreError(f"There is something at {target} already. Choose another path.")
    source = local_path(src)
    return write(read(source, split), target, title=f"{source.stem}, {split}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code, 0 or 2."""
    parser = argparse.ArgumentParser(
        prog="python -m approxifer.datasets.convert",
        description="Write MNIST or CIFAR-10, as they are published, as a Zarr store.",
    )
    parser.add_argument("src", help="a .npz file, or a directory of IDX or CIFAR-10 files")
    parser.add_argument("dst", help="the Zarr store to write")
    parser.add_argument("--split", choices=get_args(Split), default="test")
    options = parser.parse_args(arguments)
    try:
        path = convert(options.src, options.dst, split=options.split)
    except ApproxiferError as error:
        say(f"error: {error}", err=True)
        return 2
    say(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
