"""The arrays of a stranger's store that are read: known codecs, and sizes that can be held.

A Zarr store names the programs that decode it. Some of them unpickle, that is, run what its author
wrote (numcodecs' ``pickle``; numcodecs 0.16.6 refuses that by itself unless an environment variable
allows it, earlier ones did it). So only codecs on a list are read, before any chunk is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import psutil
import zarr

from approxifer.errors import InputError

Array: TypeAlias = "zarr.Array[Any]"

#: Codecs that turn bytes into bytes, numbers or text, under numcodecs' names.
_NUMCODECS = {
    "adler32", "astype", "bitround", "blosc", "bz2", "crc32", "crc32c", "delta", "fixedscaleoffset",
    "fletcher32", "gzip", "jenkins_lookup3", "lz4", "lzma", "packbits", "pcodec", "quantize",
    "shuffle", "vlen-bytes", "vlen-utf8", "zfpy", "zlib", "zstd",
}  # fmt: skip
#: The same and the specification's own, as Zarr v3 calls them.
_V3 = {
    "blosc", "bytes", "cast_value", "crc32c", "gzip", "scale_offset", "sharding_indexed",
    "transpose", "vlen-bytes", "vlen-utf8", "zstd",
} | {f"numcodecs.{name.replace('-', '_')}" for name in _NUMCODECS} | {
    f"numcodecs.{name}" for name in _NUMCODECS
}  # fmt: skip


def check_array(array: Array, location: str) -> None:
    """Refuse an array that is not to be read, before a chunk of it is.

    Parameters
    ----------
    array
    location
        Of the store, for the message.

    Raises
    ------
    InputError
        A codec that is not on the list; a chunk, or a lone coordinate, larger than the memory.
    """
    where = f"the array {array.path or '/'!r} of {location!r}"
    v2 = array.metadata.zarr_format == 2
    about: Any = array.metadata
    names = list(_v2(about) if v2 else _v3(about.codecs))
    allowed = _NUMCODECS if v2 else _V3
    if strange := sorted(set(names) - allowed):
        raise InputError(
            f"{where} is encoded with {', '.join(map(repr, strange))}, which is not read: a codec "
            "can run code. Nothing was decoded. Allowed are "
            f"{', '.join(sorted(allowed))}. Write the array again with one of these, or open it "
            "yourself and pass an xarray.DataArray, if you trust whoever made it."
        )
    most = psutil.virtual_memory().total
    numbers = math.prod(array.shape if _coordinate(array) else array.shards or array.chunks)
    too_large = numbers * array.dtype.itemsize
    if too_large > most:
        raise InputError(
            f"{where} has {too_large:,} bytes to be decoded at once (shape {array.shape}, "
            f"chunks {array.chunks}); this machine has {most:,}. It is damaged; or write it again "
            "in smaller chunks."
        )


def _coordinate(array: Array) -> bool:
    """True if xarray reads it as a whole: the values along its own dimension."""
    dims: Any = getattr(array.metadata, "dimension_names", None)
    dims = dims or array.attrs.get("_ARRAY_DIMENSIONS") or ()
    return list(dims) == [array.basename]


def check_memory(what: str, count: int, dtype: np.dtype) -> None:
    """Refuse to read more numbers at once than the memory holds.

    Raises
    ------
    InputError
    """
    most = psutil.virtual_memory().total
    if count * dtype.itemsize > most:
        raise InputError(
            f"Cannot read {what}: they are {count * dtype.itemsize:,} bytes, and this machine has "
            f"{most:,}. The input is damaged, or too large for windows of so many rows: set window="
        )


def _v2(metadata: Any) -> Iterator[str]:
    for codec in (*(metadata.filters or ()), metadata.compressor):
        if codec is not None:
            yield str(getattr(codec, "codec_id", type(codec).__name__))


def _v3(codecs: Any) -> Iterator[str]:
    for codec in codecs:
        about = codec.to_dict()
        yield str(about.get("name", type(codec).__name__))
        for inner in ("codecs", "index_codecs"):  # of a shard
            yield from _v3(getattr(codec, inner, ()))
