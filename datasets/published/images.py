"""Labelled images, and how they are written as Zarr."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from approxifer.datasets.localdisk import building, consolidate, local_path
from approxifer.errors import InputError

#: Bytes that a chunk of images holds, about.
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Images:
    """Images and their labels.

    Attributes
    ----------
    image : (n, height, width) or (n, height, width, channels)
    label : (n,), or None where there are none
    classes : tuple of str
        Names of the labels 0, 1, ...; may be empty.

    Raises
    ------
    InputError
        The shapes do not fit together.
    """

    image: np.ndarray
    label: np.ndarray | None = None
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.image.ndim not in (3, 4) or not self.image.size:
            raise InputError(
                f"The images have shape {self.image.shape}; (n, height, width) or "
                "(n, height, width, channels) is needed, with n of at least 1."
            )
        if self.label is not None and self.label.shape != self.image.shape[:1]:
            raise InputError(
                f"There are {len(self.image)} images, and labels of shape {self.label.shape}; "
                "one label for each image is needed."
            )


def chunk_rows(image: np.ndarray) -> int:
    """Rows that make a chunk of about 1 MB: a power of two, from 1 to the number of images."""
    row_bytes = max(image.nbytes // len(image), 1)
    rows = max(min(CHUNK_BYTES // row_bytes, len(image)), 1)
    return 1 << (rows.bit_length() - 1)


def write(
    images: Images, path: str | os.PathLike[str], *, chunk: int | None = None, title: str = ""
) -> Path:
    """Write images as a Zarr v3 store, whole or not at all.

    Parameters
    ----------
    path
        Where the store is to be; there must be nothing yet.
    chunk
        Rows per chunk. None: about 1 MB of images.

    Returns
    -------
    Path
        The store: ``image (sample, y, x[, channel])`` and ``label (sample)``.

    Raises
    ------
    StoreError
        There is something at the path already, or it cannot be written to.
    """
    target = local_path(path)
    rows = chunk_rows(images.image) if chunk is None else chunk
    dims = ("sample", "y", "x", "channel")[: images.image.ndim]
    dataset = xr.Dataset({"image": (dims, images.image)}, attrs={"title": title} if title else {})
    encoding = {"image": {"chunks": (rows, *images.image.shape[1:])}}
    if images.label is not None:
        about = {"classes": list(images.classes)} if images.classes else {}
        dataset["label"] = ("sample", images.label, about)
        encoding["label"] = {"chunks": (rows,)}
    with building(target) as folder:
        dataset.to_zarr(str(folder), mode="w", zarr_format=3, consolidated=False, encoding=encoding)
        consolidate(folder)
    return target
