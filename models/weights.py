"""Weights in files and on the way to workers: never unpickled beyond plain tensors."""

import importlib
import io
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from approxifer.errors import ModelError, UntrustedModelError
from approxifer.models.files import read_file
from approxifer.models.names import first_line

if TYPE_CHECKING:
    import torch


def read_state(path: str | os.PathLike[str]) -> bytes:
    """Read a file of weights and return them packed for workers.

    Parameters
    ----------
    path : path or URL
        ``.safetensors``, or what ``torch.save(module.state_dict(), path)`` wrote (also inside a
        dict under ``"state_dict"``). Read with ``weights_only=True``.

    Raises
    ------
    ModelNotFoundError
        No such file.
    UntrustedModelError
        It holds more than tensors.
    ModelError
        It cannot be read, or holds something else.
    """
    name, data = read_file(path, "state", "Write it with torch.save(module.state_dict(), path).")
    found = _safetensors(data) if name.endswith(".safetensors") else _load(data, name)
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise ModelError(
            f"state={os.fspath(path)!r} holds a {type(found).__name__}, not a state_dict. Write it"
            " with torch.save(module.state_dict(), path)."
        )
    return pack_state(found)


def _safetensors(data: bytes) -> Any:
    try:
        reader = importlib.import_module("safetensors.torch")
    except ImportError as error:
        raise ModelError(
            "state= is a .safetensors file, but the package 'safetensors' is not installed. Install"
            " it (pip install safetensors), or give a file of torch.save(module.state_dict(), ...)."
        ) from error
    return reader.load(data)


def _load(data: bytes, name: str) -> Any:
    import pickle

    import torch

    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UntrustedModelError(
            f"state={name!r} is not a plain file of weights: {first_line(error)} Only tensors are"
            " read from it, whatever trust_model is: write it with"
            " torch.save(module.state_dict(), path)."
        ) from error
    except Exception as error:
        raise ModelError(
            f"state={name!r} is not a file of weights ({first_line(error)}). Write it with"
            " torch.save(module.state_dict(), path)."
        ) from error


def pack_state(state: Mapping[str, Any]) -> bytes:
    """Pack a state_dict into bytes that `put_state` reads."""
    import torch

    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def put_state(module: "torch.nn.Module", state: bytes, name: str) -> None:
    """Put packed weights into `module`.

    Raises
    ------
    ModelError
        Names or shapes do not fit.
    """
    try:
        module.load_state_dict(_load(state, name), strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()][:3]
        raise ModelError(
            f"model={name!r}: the state does not fit the module. {' '.join(lines)} Give the weights"
            " of this very architecture."
        ) from error


def module_tensors(module: "torch.nn.Module") -> dict[str, "torch.Tensor"]:
    """Return all parameters and buffers by name, the non-persistent ones too.

    Raises
    ------
    ModelError
        One has no values: of a lazy module that has not run yet, or on the device ``meta``.
    """
    from torch.nn.parameter import is_lazy

    named = dict(module.named_parameters(remove_duplicate=False))
    found = {**named, **dict(module.named_buffers(remove_duplicate=False))}
    if blank := [name for name, one in found.items() if is_lazy(one) or one.is_meta]:
        raise ModelError(
            f"model={type(module).__name__}: its parameter {blank[0]!r} has no values yet. Run a"
            " lazy module on a batch, move one from the device 'meta', or load its weights"
            " (state=), before it is given."
        )
    return found
