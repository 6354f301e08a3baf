"""Reading the pickles of CIFAR-10 without running what else a pickle can hold.

A pickle is a program: it may call anything that can be imported. This reader knows the few names
with which an array is put together again and refuses every other one, before anything is called.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from approxifer.errors import InputError


def load(content: bytes, *, name: str) -> Any:
    """Read a pickle of dicts, lists, numbers, strings and plain arrays.

    Parameters
    ----------
    content
        The pickle. Strings written by Python 2 come out as bytes.
    name
        Of the file, for the message.

    Raises
    ------
    InputError
        It asks for anything else (nothing of it was called), or it is no pickle.
    """
    try:
        return _Reader(io.BytesIO(content), encoding="bytes").load()
    except InputError:
        raise
    except _RefusedError as error:
        raise InputError(
            f"{name} asks to run {error}, and nothing of it was run. Only plain arrays, numbers, "
            "strings, lists and dicts are read. Get the file from its publisher again."
        ) from error
    except Exception as error:  # a damaged pickle fails in any way it likes
        raise InputError(
            f"{name} is not a readable pickle: {error}. Get the file from its publisher again."
        ) from error


class _RefusedError(Exception):
    pass


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _RefusedError(f"{module}.{name}") from None


def _dtype(spec: Any, align: Any = False, copy: Any = False) -> np.dtype:
    dtype = np.dtype(spec.decode() if isinstance(spec, bytes) else spec, bool(align), bool(copy))
    if dtype.kind not in "biuf":
        raise _RefusedError(f"an array of dtype {dtype}")
    return dtype


def _encode(text: str, encoding: Any) -> bytes:
    """What ``_codecs.encode`` is in a pickle for: bytes in the old protocols."""
    if encoding not in ("latin1", b"latin1"):
        raise _RefusedError(f"the codec {encoding!r}")
    return text.encode("latin1")


_reconstruct: Callable[..., Any] = np.empty(0).__reduce__()[0]  # type: ignore[assignment]

_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("_codecs", "encode"): _encode,
}
