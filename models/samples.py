"""Rows to train on: scikit-learn's digits, pictures in an ``.npz`` file, fields in a Zarr store."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from approxifer.errors import InputError, InputNotFoundError

#: Accepted names in an ``.npz`` file: training rows and labels, test rows and labels.
LAYOUTS = (
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("x_train", "y_train", "x_test", "y_test"),
)
TEST_FRACTION = 0.3
#: Of the rows of a time series.
LATE_FRACTION = 0.2
#: Hours that are forecast.
LEAD = 6


@dataclass(frozen=True)
class Split:
    """Rows and labels, and which of them are for training.

    Attributes
    ----------
    rows : ndarray, (n, *feature)
        As stored.
    labels : ndarray of int64, (n,), or of floats, (n, *out)
        What a network is to find: classes, or values.
    train, test : ndarray of int64
        Disjoint row numbers that together are all rows.
    """

    rows: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]
    train: np.ndarray[Any, Any]
    test: np.ndarray[Any, Any]


def digits_split(seed: int = 0) -> Split:
    """Return scikit-learn's 1,797 digits, (8, 8) float32 pixels in 0..16, and a seeded split.

    The last `TEST_FRACTION` of a seeded permutation are test rows: 539 of them. Whoever scores all
    rows with a network trained on this split states its accuracy on ``test`` only.
    """
    from sklearn.datasets import load_digits

    found = load_digits()
    rows = np.asarray(found.images, np.float32)
    order = np.random.default_rng(seed).permutation(len(rows))
    cut = len(rows) - int(TEST_FRACTION * len(rows))
    labels = np.asarray(found.target, np.int64)
    return Split(rows, labels, np.sort(order[:cut]), np.sort(order[cut:]))


def npz_split(path: str | Path) -> Split:
    """Return the pictures of an ``.npz`` file; its test rows follow its training rows.

    Parameters
    ----------
    path : path
        With arrays ``train_images, train_labels, test_images, test_labels`` or ``x_train, y_train,
        x_test, y_test``; pictures (n, side, side[, channels]).

    Raises
    ------
    InputNotFoundError
        No such file.
    InputError
        Other arrays in it.
    """
    if not Path(path).is_file():
        raise InputNotFoundError(f"{str(path)!r}: there is no such file. Give an .npz or 'digits'.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = next((n for n in LAYOUTS if set(n) <= set(archive.files)), None)
            if names is None:
                raise InputError(
                    f"{str(path)!r} has the arrays {', '.join(archive.files)}; needed are"
                    f" {', '.join(LAYOUTS[0])} or {', '.join(LAYOUTS[1])}."
                )
            train, train_labels, test, test_labels = (archive[name] for name in names)
    except (ValueError, OSError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(path)!r} is not an .npz file of plain arrays ({error}).") from error
    labels = np.concatenate([train_labels, test_labels]).astype(np.int64).reshape(-1)
    numbers = np.arange(len(labels))
    return Split(
        np.concatenate([train, test]), labels, numbers[: len(train)], numbers[len(train) :]
    )


def era5_split(path: str | Path, variable: str | None = None) -> Split:
    """Return hourly fields and their increments over `LEAD` hours; the last hours are test rows.

    No field that a test row is to forecast is among the training rows or in their increments.

    Parameters
    ----------
    path : path
        A Zarr store with floating-point fields (time, lat, lon), an hour apart, such as ERA5's.
    variable : str, optional
        By default the only one.

    Returns
    -------
    Split
        Rows (n, lat, lon) as stored, labels of that shape and unit; n is `LEAD` fewer than the
        hours. The last `LATE_FRACTION` of them are test rows.

    Raises
    ------
    InputNotFoundError
        No such store.
    InputError
        It is not Zarr, has no such variable, or other fields than these.
    """
    from approxifer.datasets import open_source

    source = open_source(path, variable)
    fields = source.read(0, source.rows)
    fit = fields.ndim == 3 and fields.dtype.kind == "f" and len(fields) >= LEAD + 2
    if not fit or not np.isfinite(fields).all():
        raise InputError(
            f"{source.variable!r} in {str(path)!r} is {fields.dtype} of shape {fields.shape};"
            f" needed are at least {LEAD + 2} finite floating-point fields (time, lat, lon)."
        )
    rows, labels = fields[:-LEAD], fields[LEAD:] - fields[:-LEAD]
    numbers = np.arange(len(rows))
    cut = int((1 - LATE_FRACTION) * len(rows))
    return Split(rows, labels, numbers[:cut], numbers[cut:])
