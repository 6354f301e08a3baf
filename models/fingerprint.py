"""Identity of a model: one sha256 over weights, code's name and precision."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import torch

HEAP_TYPE = 1 << 9  # CPython's flag of classes made by a class statement


class Entry(NamedTuple):
    """One named array of a model's state: `data` is its bytes in C order."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes | np.ndarray[Any, Any]


def fingerprint(text: str, state: Iterable[Entry], *, dtype: str, preprocess: str | None) -> str:
    """Return the hex sha256 that names a model.

    Parameters
    ----------
    text : str
        The graph's text, or the qualified name of the code.
    state : iterable of Entry
        Parameters, buffers and constants, in any order.
    dtype : str
        The precision in which rows are given to the model.
    preprocess : str or None
        Qualified name of the function that prepares the rows.

    Notes
    -----
    The same over processes, machines and devices. Code is known by its name only; what it
    is, `approxifer.models.user_code.identity` determines.
    """
    digest = hashlib.sha256()

    def add(part: Any) -> None:
        view = memoryview(part).cast("B") if len(part) else memoryview(b"")
        digest.update(view.nbytes.to_bytes(8, "little"))  # lengths first: parts cannot run together
        digest.update(view)

    for word in ("approxifer model 1", text, dtype, preprocess or ""):
        add(word.encode())
    for entry in sorted(state, key=lambda e: e.name):
        for word in (entry.name, entry.dtype, repr(tuple(entry.shape))):
            add(word.encode())
        add(entry.data)
    return digest.hexdigest()


def tensor_entries(tensors: Mapping[str, Any]) -> list[Entry]:
    """Turn named torch tensors into entries; what is not a tensor is left out."""
    import torch

    return [
        Entry(name, str(value.dtype).removeprefix("torch."), tuple(value.shape), _raw(value))
        for name, value in tensors.items()
        if isinstance(value, torch.Tensor)
    ]


def _raw(tensor: "torch.Tensor") -> np.ndarray[Any, Any]:
    import torch

    tensor = tensor.detach().cpu()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    flat = tensor.contiguous().reshape(-1)
    return np.asarray(flat.view(torch.uint8).numpy())


def object_entries(obj: Any, payload: bytes | None = None) -> list[Entry]:
    """Turn a callable object's attributes into entries.

    Arrays, numbers and texts count by their contents, also inside lists, dicts and plain objects;
    anything else (a set, an open file) by its type's name. An object that pickles in its own way (a
    ``functools.partial``, a bound method) counts by `payload`, its whole pickle.
    """
    if not _plain(obj):
        return [] if payload is None else [Entry("pickle", "bytes", (len(payload),), payload)]
    return [entry for name, value in vars(obj).items() for entry in _walk(name, value, 8)]


def _plain(obj: Any) -> bool:
    if not type(obj).__flags__ & HEAP_TYPE or not hasattr(obj, "__dict__"):
        return False
    own = {"__reduce__", "__reduce_ex__", "__getstate__", "__slots__"}
    return not any(own & set(vars(base)) for base in type(obj).__mro__[:-1])


def _walk(name: str, value: Any, depth: int) -> list[Entry]:
    kind = type(value)
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        data = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        return [Entry(name, value.dtype.str, value.shape, data)]
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.generic)):
        return [Entry(name, kind.__qualname__, (), repr(value).encode())]
    inner: list[tuple[Any, Any]] = []
    if isinstance(value, (list, tuple)):
        inner = list(enumerate(value))
    elif isinstance(value, dict):
        inner = list(value.items())
    elif _plain(value):
        inner = list(vars(value).items())
    entries = [Entry(name, f"{kind.__module__}.{kind.__qualname__}", (len(inner),), b"")]
    if depth:
        for key, item in inner:
            entries += _walk(f"{name}.{key}", item, depth - 1)
    return entries
