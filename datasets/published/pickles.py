"""Reading the pickles of CIFAR-10 without running what else a pickle can hold.

A pickle is a program: it may call anything that can be imported. This reader knows the few names
with which an array is put together again and refuses every other one, before anything is called.
For numpy's own classes it has stand-ins, as these trust what they are built from; and it looks
through the program first, as a short one can nest deeper, or ask for more memory, than there is.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any

import numpy as np

from approxifer.errors import InputError
from approxifer.text import one_line

#: Tuples, lists and so on, of which CIFAR-10's files have about ten.
MOST_CONTAINERS = 1000
_CONTAINERS = {
    "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "LIST", "EMPTY_LIST", "DICT", "EMPTY_DICT", "EMPTY_SET",
    "FROZENSET", "REDUCE", "BUILD", "OBJ", "INST", "NEWOBJ", "NEWOBJ_EX",
}  # fmt: skip


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
        _look_through(content)
        return _plain(_Reader(io.BytesIO(content), encoding="bytes").load())
    except _RefusedError as error:
        raise InputError(
            f"{name} asks to run {error}, and nothing of it was run. Only plain arrays, numbers, "
            "strings, lists and dicts are read. Get the file from its publisher again."
        ) from error
    except Exception as error:  # a damaged pickle fails in any way it likes
        raise InputError(
            f"{name} is not a readable pickle: {one_line(error)}. Get the file from its publisher "
            "again."
        ) from error


class _RefusedError(Exception):
    pass


def _look_through(content: bytes) -> None:
    containers = 0
    for code, argument, _ in pickletools.genops(content):
        containers += code.name in _CONTAINERS
        if containers > MOST_CONTAINERS:
            raise ValueError(f"it has more than {MOST_CONTAINERS} tuples, lists and dicts")
        if code.name in ("PUT", "LONG_BINPUT") and int(argument or 0) > len(content):
            raise ValueError(f"it keeps something at place {argument}")


class _DType:
    """Stands for ``numpy.dtype``: of numbers only."""

    def __init__(self, spec: Any, align: Any = False, copy: Any = False) -> None:
        text = spec.decode() if isinstance(spec, bytes) else spec
        if not isinstance(text, str) or np.dtype(text).kind not in "biuf":
            raise _RefusedError(f"an array of dtype {text!r}")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: Any) -> None:
        order: Any = state[1]
        plain: Any = order.decode() if isinstance(order, bytes) else order
        self.dtype = self.dtype.newbyteorder(plain)


class _Array:
    """Stands for ``numpy.ndarray``; made by `_reconstruct`, filled by ``BUILD``."""

    values: np.ndarray

    def __new__(cls) -> _Array:
        raise _RefusedError("numpy.ndarray")

    def __setstate__(self, state: Any) -> None:
        _, shape, made, fortran, raw = state
        if not isinstance(made, _DType) or not isinstance(raw, bytes):
            raise _RefusedError("an array of objects")
        values = np.frombuffer(raw, made.dtype)
        self.values = values.reshape(shape, order="F" if fortran else "C").copy()


def _reconstruct(kind: Any, shape: Any, dtype: Any) -> _Array:
    if kind is not _Array:
        raise _RefusedError(f"an array of class {kind!r}")
    return object.__new__(_Array)


def _encode(text: str, encoding: Any) -> bytes:
    """Stand-in for ``_codecs.encode``: bytes in the old protocols."""
    if encoding not in ("latin1", b"latin1"):
        raise _RefusedError(f"the codec {encoding!r}")
    return text.encode("latin1")


def _plain(value: Any) -> Any:
    """The same with arrays for their stand-ins."""
    if isinstance(value, _Array):
        return value.values
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("_codecs", "encode"): _encode,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _RefusedError(f"{module}.{name}") from None
