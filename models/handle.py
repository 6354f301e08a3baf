"""The handle: a model as a small, picklable, self-contained object.

Workers need no access to the client's file system: the handle carries the bytes of a program or of
weights. Code that can be imported is only named, and must be importable where the model is loaded;
what cannot (of a script, a notebook, a lambda, a closure) is carried as it is.
"""

import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import FunctionType
from typing import TYPE_CHECKING, Any

import cloudpickle

from approxifer.checks import instance, told, whole_number
from approxifer.errors import ConfigError, ModelError
from approxifer.models.archive import read_program
from approxifer.models.batches import BatchSizes
from approxifer.models.files import read_file
from approxifer.models.fingerprint import fingerprint
from approxifer.models.names import (
    first_line,
    full_name,
    is_importable,
    is_spec,
    resolve_callable,
)
from approxifer.models.pt2.program import ProgramSource, is_program, pack_program
from approxifer.models.pt2.trial import ensure_tried
from approxifer.models.runner import DTYPES, Crop, Runner
from approxifer.models.runtime import (
    MOST_THREADS,
    raise_malloc_thresholds,
    torch_lock,
    use_threads,
)
from approxifer.models.sources import (
    Built,
    CallableSource,
    FactorySource,
    ModuleSource,
    Source,
    by_name,
    dump,
    dump_object,
    is_module,
    takes,
)
from approxifer.models.user_code.exits import NoExit
from approxifer.models.user_code.identity import code_parts, data_digest
from approxifer.models.user_code.inputs import matched
from approxifer.models.weights import pack_state, read_state

if TYPE_CHECKING:
    from approxifer.models.outputs.postprocess import Postprocess

GIVE = "Give the path of a .pt2 program, or 'package.module:factory'."
DEVICE = re.compile(r"auto|cpu|mps|(cuda|xpu)(:[0-9]+)?")


@dataclass(frozen=True)
class ModelHandle:
    """A model that any process can load. Made by `open_model`.

    Attributes
    ----------
    name : str
        For people.
    kind : str
        ``"pt2"``, ``"factory"``, ``"module"`` or ``"callable"``.
    fingerprint : str
        sha256 in hex: the same for the same weights, graph or code, dtype and preprocess. Workers
        know the model by it.
    stored_fingerprint : str
        The same without `code`: what stores and parity models keep. Code is compared part by part.
    dtype : str
        Precision in which rows are given to the model.
    device : str
        ``"auto"`` or a torch device; settled when the model is loaded.
    batches : BatchSizes
        Numbers of rows that it takes at a time.
    preprocess : str or None
        Name of the function that prepares rows *before* they are coded and batched. The runner
        does not call it.
    code : mapping
        The user's own code that the model runs, part by part (`user_code.identity`).
    inputs : tuple of str
        Its inputs, where it is given the variables of a row one by one; else none.
    crop : tuple of (int, int)
        The part of a row's output that is returned, along each of its axes; else none.
    source : Source
        How to build the model.
    postprocess : Postprocess or None
        What is made of its outputs where it runs.
    """

    name: str
    kind: str
    fingerprint: str
    stored_fingerprint: str
    dtype: str
    device: str
    batches: BatchSizes
    preprocess: str | None
    code: Mapping[str, str] = field(repr=False, hash=False)
    source: Source = field(repr=False)
    inputs: tuple[str, ...] = ()
    crop: Crop = ()
    postprocess: "Postprocess | None" = field(default=None, repr=False)

    def cropped(self, crop: Crop) -> "ModelHandle":
        """Return the model that returns a part of its outputs."""
        return replace(self, crop=crop, fingerprint=_as_called(self.fingerprint, (), crop))

    def with_postprocess(self, postprocess: "Postprocess") -> "ModelHandle":
        """The model, its outputs made into something else where it runs."""
        mark = _with_postprocess(self.fingerprint, postprocess)
        return replace(self, fingerprint=mark, postprocess=postprocess)

    def load(self, threads: int = 1) -> Runner:
        """Build the model in this process.

        Parameters
        ----------
        threads : int
            torch threads of every call.

        Returns
        -------
        Runner
            Its fingerprint is taken from what was really loaded.

        Raises
        ------
        ModelError
            The model cannot be built here.
        ConfigError
            `threads` is no number of them.
        """
        threads = whole_number("threads", threads, least=1, most=MOST_THREADS)
        raise_malloc_thresholds()
        use_threads(threads)
        with torch_lock, NoExit(f"model {self.name!r}: loading it"):
            built = self.source.build(dtype=self.dtype, device=self.device)
            then = None if self.postprocess is None else self.postprocess.load()
        use_threads(threads)  # again: building may have imported torch
        found = _with_code(_fingerprint(built, self.dtype, self.preprocess), self.code)
        called = _as_called(_as_called(found, self.inputs, ()), (), self.crop)
        return Runner(
            name=self.name,
            fingerprint=_with_postprocess(called, self.postprocess),
            dtype=self.dtype,
            device=built.device,
            threads=threads,
            static_batch=built.batches.fixed,
            forward=by_name(built.forward, self.inputs),
            crop=self.crop,
            then=then,
        )


def open_model(
    model: object,
    *,
    state: str | os.PathLike[str] | None = None,
    dtype: str = "float32",
    device: str = "auto",
    trust_model: bool = False,
    preprocess: str | Callable[..., Any] | None = None,
    variables: Sequence[str] = (),
) -> ModelHandle:
    """Turn what a user gives as a model into a handle.

    Parameters
    ----------
    model : path, URL, str, ExportedProgram, torch.nn.Module or callable
        A ``torch.export`` program, or the path or fsspec URL of one (``.pt2``);
        ``"package.module:factory"``, a function or class that is called without arguments and
        returns a module or a function of arrays (**importing and calling it runs its code**, here
        and on every worker); an ``nn.Module`` instance; or a callable from (M, *feature) to
        (M, *out) arrays. Code that workers cannot import is sent to them.
    state : path, optional
        Weights for the factory's module: ``torch.save(module.state_dict(), path)`` or
        ``.safetensors``. Only tensors are ever read from it.
    dtype : {"float32", "float64", "float16", "bfloat16", "stored"}
        Floating rows are cast to it; a module that has no parameters of it is converted.
        ``"stored"``: rows and module are left as they are.
    device : str
        ``"auto"``: CUDA where a worker has it, else the CPU.
    trust_model : bool
        Load a ``.pt2`` even if it holds pickles or unknown operators, and without the trial in a
        child process (some 3 s, once for each file). **This runs whatever code its author put into
        it**, here and on every worker.
    preprocess : str or callable, optional
        ``"package.module:function"``, or a function; its name is part of the fingerprint.
    variables : sequence of str
        The variables of a row, in their order, where it has several. A model with several inputs
        is given each by its name.

    Raises
    ------
    ModelNotFoundError
        No such file, module or name.
    UntrustedModelError
        Loading the file would unpickle or run what is in it.
    ModelError
        Workers could not load it, or it is no model of one batch of rows.
    ConfigError
        `dtype`, `device` or `state` make no sense.
    """
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ConfigError(f"dtype={told(dtype)} is not one of {', '.join(map(repr, DTYPES))}.")
    shown = repr(model) if isinstance(model, (str, os.PathLike)) else type(model).__name__
    if not isinstance(device, str) or not DEVICE.fullmatch(device):
        raise ConfigError(f"device={told(device)} is not 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'.")
    instance("trust_model", trust_model, bool, "True or False")
    if state is not None:
        instance("state", state, (str, os.PathLike), "the path of a file of weights")
    with torch_lock, NoExit(f"model={shown}: loading it"):
        prepared = _preprocess_name(preprocess)
        name, kind, source, code = _source(model, state, dtype, trust_model, prepared)
        built = source.build(dtype=dtype, device="cpu")
    inputs = matched(takes(built.forward, variables), variables, name)
    if built.numpy and dtype == "bfloat16":
        raise ConfigError("dtype='bfloat16': NumPy has no such type. Use 'float32' or 'float16'.")
    stored = _fingerprint(built, dtype, prepared)
    return ModelHandle(
        name=name,
        kind=kind,
        fingerprint=_as_called(_with_code(stored, code), inputs, ()),
        stored_fingerprint=stored,
        dtype=dtype,
        device=device,
        batches=built.batches,
        preprocess=prepared,
        code=code,
        source=source,
        inputs=inputs,
    )


def _source(
    model: object,
    state: str | os.PathLike[str] | None,
    dtype: str,
    trust_model: bool,
    preprocess: str | None,
) -> tuple[str, str, Source, dict[str, str]]:
    """Return the model's name and kind, the recipe for it, and the parts of the user's code."""
    if isinstance(model, str) and is_spec(model) and not os.path.exists(model):
        made = FactorySource(model).make()
        factory = _factory(FactorySource(model), made, state, dtype, preprocess)
        return model, "factory", factory, code_parts(model, made)
    if state is not None:
        raise ConfigError(
            f"state={os.fspath(state)!r} goes with model='package.module:factory' only; a program"
            " or an object has its weights inside."
        )
    if isinstance(model, (str, os.PathLike)):
        name, data = read_file(model, "model", GIVE)
        program = read_program(data, name=name, trust_model=trust_model)
        if not trust_model:
            ensure_tried(program.data, name)
        return name, "pt2", ProgramSource(name, program), {}
    if is_program(model):
        packed = pack_program(model)
        return packed.name, "pt2", packed, {}
    if is_module(model):
        name = full_name(type(model))
        return name, "module", ModuleSource(name, _module_payload(model)), code_parts(model)
    if isinstance(model, type) or not callable(model):
        raise ModelError(
            f"model={told(model)} is not a model. Give a .pt2 path, 'package.module:factory', a"
            " torch.nn.Module instance or a function of (M, *feature) arrays."
        )
    if is_module(getattr(model, "__self__", None)):
        raise ModelError(
            f"model={told(model)} is a method of a torch.nn.Module, which takes tensors. Give the"
            " module itself."
        )
    name, source = callable_source(model, "model")
    return name, "callable", source, code_parts(model)


def _fingerprint(built: Built, dtype: str, preprocess: str | None) -> str:
    return fingerprint(built.text, built.entries, dtype=dtype, preprocess=preprocess)


def _with_code(stored: str, code: Mapping[str, str]) -> str:
    if not code:
        return stored
    return hashlib.sha256(json.dumps([stored, dict(code)], sort_keys=True).encode()).hexdigest()


def _as_called(fingerprint: str, inputs: tuple[str, ...], crop: Crop) -> str:
    """Mark a model that is given its inputs by name, or of whose outputs a part is kept."""
    if not inputs and not crop:
        return fingerprint
    return hashlib.sha256(json.dumps([fingerprint, inputs, crop]).encode()).hexdigest()


def _with_postprocess(fingerprint: str, postprocess: "Postprocess | None") -> str:
    if postprocess is None:
        return fingerprint
    return hashlib.sha256(repr((fingerprint, postprocess)).encode()).hexdigest()


def _preprocess_name(preprocess: str | Callable[..., Any] | None) -> str | None:
    if preprocess is None:
        return None
    found = resolve_callable(preprocess, "preprocess")
    return preprocess if isinstance(preprocess, str) else full_name(found)


def _factory(
    source: FactorySource,
    made: Any,
    state: str | os.PathLike[str] | None,
    dtype: str,
    preprocess: str | None,
) -> FactorySource:
    """Add the weights: those of the file, or the client's if the factory makes others each time."""
    if not is_module(made):
        if state is not None:
            raise ConfigError(
                f"state={os.fspath(state)!r}: {source.spec!r} returns a {type(made).__name__}, not"
                " a torch.nn.Module, and takes no weights."
            )
        return source
    if state is not None:
        return FactorySource(source.spec, read_state(state))
    first, second = (
        _fingerprint(source.build(dtype=dtype, device="cpu"), dtype, preprocess) for _ in range(2)
    )
    return source if first == second else FactorySource(source.spec, pack_state(made.state_dict()))


def _module_payload(module: Any) -> bytes:
    """Pickle a module, with the code of its parts that workers could not import."""
    import torch

    buffer = io.BytesIO()
    try:
        torch.save(module, buffer, pickle_module=cloudpickle)
    except Exception as error:
        raise ModelError(
            f"model={type(module).__name__} cannot be sent to workers: {first_line(error)}. Export"
            " it with torch.export.save and give the .pt2 path, or give"
            " 'package.module:factory' with state=."
        ) from error
    return buffer.getvalue()


def callable_source(function: Any, what: str) -> tuple[str, CallableSource]:
    """Name a function that workers can import; pickle all other callables.

    Raises
    ------
    ModelError
        It cannot be sent to workers.
    """
    name = full_name(function)
    if isinstance(function, FunctionType):
        if is_importable(function):
            return name, CallableSource(name)
        return name, CallableSource(name, dump(function, what), data_digest(function))
    payload, by_value = dump_object(function, what)
    digest = data_digest(function) if by_value else None
    return name, CallableSource(type(function).__qualname__, payload, digest)
