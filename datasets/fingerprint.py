"""A mark by which one dataset differs from another, without reading all of it.

A fingerprint is a sha256 over what describes the data and over 16 chosen pieces of them. It
differs for datasets that were made differently; one changed row in a large store may escape it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from approxifer.datasets.codecs import Array
from approxifer.datasets.input.opening import DECODING

PIECES = 16
SEED = 0


def pick(count: int, *, pieces: int = PIECES, seed: int = SEED) -> list[int]:
    """Choose ``pieces`` of ``count`` things, all of them when there are fewer; sorted.

    The choice is made by sha256, so that it is the same in every version of everything.
    """
    if count <= pieces:
        return list(range(count))
    chosen: set[int] = set()
    turn = 0
    while len(chosen) < pieces:
        digest = hashlib.sha256(f"{seed}:{turn}".encode()).digest()
        chosen.add(int.from_bytes(digest[:16], "big") % count)
        turn += 1
    return sorted(chosen)


def of_array(
    array: Array,
    *,
    sample_dim: str | list[str],
    variable: str,
    shape: tuple[int, ...] | None = None,
) -> str:
    """Fingerprint a Zarr array: its metadata, and the values in 16 of its chunks.

    Of the attributes, those count by which numbers stand for values; a changed title is no
    other dataset.

    Parameters
    ----------
    sample_dim
        Or several.
    shape
        That of an array which has grown since: the fingerprint is the one that it had then.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    shape = array.shape if shape is None else shape
    metadata = dict(array.metadata.to_dict())
    metadata["shape"] = shape
    metadata["attributes"] = {k: v for k, v in array.attrs.items() if k in DECODING}
    digest = _begin(metadata, shape=shape, sample_dim=sample_dim, variable=variable)
    grid = [math.ceil(size / chunk) for size, chunk in zip(shape, array.chunks, strict=True)]
    for number in pick(math.prod(grid)):
        at = np.unravel_index(number, grid)
        _add(digest, number, np.asarray(array[_slab(at, array.chunks, shape)]))
    return digest.hexdigest()


def of_rows(
    read: Callable[[int, int], np.ndarray],
    *,
    shape: tuple[int, ...],
    dtype: np.dtype,
    dims: tuple[str, ...],
    block: int,
    variable: str,
    sample_shape: tuple[int, ...] = (),
) -> str:
    """Fingerprint what is known by its rows only: dtype, shape, dimensions, 16 blocks of rows.

    Parameters
    ----------
    read
        ``read(start, stop)`` gives those rows.
    shape, dims
        The sample dimension first.
    block
        Rows per block.
    sample_shape
        Lengths of the sample dimensions, where there are several.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    about: dict[str, Any] = {"dtype": str(dtype), "dims": list(dims)}
    if sample_shape:
        about["sample_shape"] = list(sample_shape)
    digest = _begin(about, shape=shape, sample_dim=dims[0], variable=variable)
    rows = shape[0]
    for number in pick(math.ceil(rows / block)):
        _add(digest, number, read(number * block, min((number + 1) * block, rows)))
    return digest.hexdigest()


def _begin(about: dict[str, Any], **more: Any) -> hashlib._Hash:
    return hashlib.sha256(json.dumps([about, more], sort_keys=True, default=str).encode())


def _add(digest: hashlib._Hash, number: int, values: np.ndarray) -> None:
    plain = values.dtype.kind in "biufcmMSU"
    content = np.ascontiguousarray(values).tobytes() if plain else repr(values.tolist()).encode()
    digest.update(f"{number}:{len(content)}:".encode())
    digest.update(content)


def _slab(
    at: tuple[Any, ...], chunks: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[slice, ...]:
    along = zip(at, chunks, shape, strict=True)
    return tuple(slice(int(i) * c, min((int(i) + 1) * c, n)) for i, c, n in along)
