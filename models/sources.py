"""The four kinds of model, each as a picklable recipe that builds it in any process.

================== ===========================================================================
`ProgramSource`    a ``torch.export`` program: the checked archive's bytes (`models.pt2.program`)
`FactorySource`    ``"package.module:factory"``, with the weights to put into what it returns
`ModuleSource`     an ``nn.Module`` given in Python: its pickle
`CallableSource`   a function by name, or any callable by its pickle
================== ===========================================================================

The pickles in `ModuleSource` and `CallableSource` were made by the client for its own workers.
"""

import io
import pickle
import pickletools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import cloudpickle
import numpy as np

from approxifer.errors import ModelError
from approxifer.models import network
from approxifer.models.batches import ANY, BatchSizes
from approxifer.models.fingerprint import Entry, object_entries, tensor_entries
from approxifer.models.names import MAIN, first_line, import_name
from approxifer.models.runtime import imported_torch
from approxifer.models.user_code.inputs import ByName, parameters
from approxifer.models.weights import module_tensors, put_state

if TYPE_CHECKING:
    import torch

Forward = Callable[[np.ndarray[Any, Any]], Any]


@dataclass(frozen=True)
class Built:
    """A model built in this process: how to run it, and what its fingerprint is made of.

    `numpy` is true for functions of arrays, which run without torch.
    """

    forward: Forward
    text: str
    entries: list[Entry]
    device: str
    batches: BatchSizes = ANY
    numpy: bool = False


class Source(Protocol):
    """A picklable recipe for a model."""

    def build(self, *, dtype: str, device: str) -> Built:
        """Build the model in this process."""
        ...


@dataclass(frozen=True)
class FactorySource:
    """An importable factory without arguments; calling it runs its code."""

    spec: str
    state: bytes | None = field(default=None, repr=False)

    def make(self) -> Any:
        """Import and call the factory."""
        factory = import_name(self.spec)
        if not callable(factory):
            raise ModelError(
                f"model={self.spec!r} is a {type(factory).__name__}, not a factory. Name a function"
                " or class that takes no arguments and returns the model."
            )
        try:
            made = factory()
        except Exception as error:
            raise ModelError(
                f"model={self.spec!r}: calling it without arguments raised {first_line(error)}."
                " Name a function or class that takes no arguments and returns the model."
            ) from error
        if not callable(made):
            raise ModelError(
                f"model={self.spec!r} returned a {type(made).__name__}. A factory returns a"
                " torch.nn.Module or a function of (M, *feature) arrays."
            )
        return made

    def build(self, *, dtype: str, device: str) -> Built:
        """Call the factory and put the weights in."""
        made = self.make()
        if is_module(made):
            if self.state is not None:
                put_state(made, self.state, self.spec)
            return build_module(made, f"factory {self.spec}", dtype=dtype, device=device)
        return Built(made, f"factory {self.spec}", object_entries(made), "cpu", numpy=True)


@dataclass(frozen=True)
class ModuleSource:
    """An ``nn.Module`` that was given in Python."""

    spec: str
    payload: bytes = field(repr=False)

    def build(self, *, dtype: str, device: str) -> Built:
        """Unpickle the client's module."""
        import torch

        module = torch.load(io.BytesIO(self.payload), map_location="cpu", weights_only=False)
        return build_module(module, f"module {self.spec}", dtype=dtype, device=device)


@dataclass(frozen=True)
class CallableSource:
    """A function of arrays by its name, or a callable object by its pickle.

    `digest` is of its data, where its pickle holds code too, and is another one each time.
    """

    spec: str
    payload: bytes | None = field(default=None, repr=False)
    digest: str | None = None

    def build(self, *, dtype: str, device: str) -> Built:
        """Import the function, or unpickle the client's object."""
        text = f"callable {self.spec}"
        if self.payload is None:
            return Built(import_name(self.spec), text, [], "cpu", numpy=True)
        obj = pickle.loads(self.payload)
        data = self.payload if self.digest is None else self.digest.encode()
        return Built(obj, text, object_entries(obj, data), "cpu", numpy=True)


def is_module(obj: Any) -> bool:
    """True if `obj` is an ``nn.Module``, without importing torch for the answer."""
    torch = imported_torch()
    return torch is not None and isinstance(obj, torch.nn.Module)


def takes(forward: Forward, variables: Sequence[str]) -> dict[str, bool]:
    """Name the inputs of a model, and say whether it needs each; a function's count where there
    are several variables for them."""
    if isinstance(forward, network.ModuleForward):
        return forward.takes()
    return parameters(forward) if variables else {}


def by_name(forward: Forward, inputs: tuple[str, ...]) -> Forward:
    """Return the forward function of rows that hold these inputs one after another."""
    if not inputs:
        return forward
    if isinstance(forward, network.ModuleForward):
        return replace(forward, names=inputs)
    return ByName(forward, inputs)


def build_module(module: "torch.nn.Module", text: str, *, dtype: str, device: str) -> Built:
    """Take the module's fingerprint entries, then move it to its device and precision."""
    device = network.pick_device(device)
    entries = [
        entry._replace(data=np.array(entry.data, copy=True))
        for entry in tensor_entries(module_tensors(module))
    ]
    return Built(network.module_forward(module, dtype=dtype, device=device), text, entries, device)


def dump(obj: Any, what: str) -> bytes:
    """Pickle `obj` for the workers, with the code that they could not import.

    Raises
    ------
    ModelError
        It contains something that cannot be pickled.
    """
    try:
        return bytes(cloudpickle.dumps(obj))
    except Exception as error:
        raise ModelError(
            f"{what}={type(obj).__name__} cannot be sent to workers: {first_line(error)}. It must"
            " pickle: no open files, locks or connections in it, nor in the globals that its"
            " functions use."
        ) from error


def dump_object(obj: Any, what: str) -> tuple[bytes, bool]:
    """Pickle an object; also return whether its pickle holds code, not only names of code."""
    try:
        payload = pickle.dumps(obj, protocol=4)
    except Exception:  # a lambda in it, for instance
        return dump(obj, what), True
    if any(argument in MAIN for _, argument, _ in pickletools.genops(payload)):
        return dump(obj, what), True
    return payload, False
