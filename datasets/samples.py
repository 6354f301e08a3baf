"""A small real dataset to try things on, without a download."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from approxifer.datasets.published.images import Images, write


def digits(path: str | os.PathLike[str]) -> Path:
    """Write scikit-learn's 1,797 handwritten digits as Zarr.

    Parameters
    ----------
    path
        Where the store is to be; there must be nothing yet.

    Returns
    -------
    Path
        The store: ``image (sample, y, x)`` float32 from 0 to 16, ``label (sample)`` uint8; chunks
        of 64 rows.

    Raises
    ------
    StoreError
        There is something at the path already, or it cannot be written to.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    images = Images(
        image=data.images.astype(np.float32),
        label=data.target.astype(np.uint8),
        classes=tuple(str(name) for name in data.target_names),
    )
    return write(images, path, chunk=64, title="scikit-learn digits")
