"""An exported program in this process: loaded, its inputs understood, and run.

Torch is imported inside functions, so that models without it never load it.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

from approxifer.errors import ModelError
from approxifer.models.archive import Program, read_program
from approxifer.models.batches import LARGEST, BatchSizes
from approxifer.models.fingerprint import tensor_entries
from approxifer.models.names import first_line
from approxifer.models.network import ModuleForward, pick_device
from approxifer.models.pt2.guards import guard
from approxifer.models.runner import STORED
from approxifer.models.runtime import imported_torch
from approxifer.models.sources import Built
from approxifer.models.user_code.inputs import check_inputs
from approxifer.quiet import quiet

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram


@dataclass(frozen=True)
class ProgramSource:
    """A ``torch.export`` program: the recipe that travels to the workers."""

    name: str
    program: Program

    def build(self, *, dtype: str, device: str) -> Built:
        """Load the archive; refuse rows of another precision than it was exported for."""
        import torch

        device = pick_device(device)
        exported = load_program(self.program, self.name)
        inputs = read_inputs(exported, self.name)
        expected = inputs.dtype
        cast = expected.is_floating_point and dtype != STORED
        if cast and expected is not getattr(torch, dtype):
            wanted = str(expected).removeprefix("torch.")
            raise ModelError(
                f"model {self.name!r} was exported for {wanted} rows, but dtype={dtype!r}. Pass"
                f" dtype={wanted!r}, or export it again in {dtype}."
            )
        return Built(
            program_forward(exported, inputs, dtype=dtype, device=device),
            self.program.text,
            tensor_entries({**exported.state_dict, **exported.constants}),
            device,
            inputs.batches,
        )


def is_program(obj: Any) -> TypeGuard["ExportedProgram"]:
    """True for an ``ExportedProgram``, without importing torch for the answer."""
    torch = imported_torch()
    return torch is not None and isinstance(obj, torch.export.ExportedProgram)


def pack_program(exported: "ExportedProgram") -> ProgramSource:
    """Return the recipe of a program that was given in Python, which its author trusts.

    Raises
    ------
    ModelError
        It cannot be saved.
    """
    import torch

    name, buffer = type(exported).__name__, io.BytesIO()
    try:
        with quiet():
            torch.export.save(exported, buffer)
    except Exception as error:
        raise ModelError(
            f"model={name} cannot be sent to workers: {first_line(error)}. Give the path of a .pt2"
            " file, or 'package.module:factory'."
        ) from error
    return ProgramSource(name, read_program(buffer.getvalue(), name=name, trust_model=True))


def load_program(program: Program, name: str) -> "ExportedProgram":
    """Load an archive that `approxifer.models.archive.read_program` has let through."""
    import torch

    try:
        return torch.export.load(io.BytesIO(program.data))
    except Exception as error:
        raise ModelError(
            f"model {name!r} could not be loaded by torch {torch.__version__}: {first_line(error)}."
            " Export it again with this torch version."
        ) from error


@dataclass(frozen=True)
class Inputs:
    """The arguments of a program: one tensor of rows, or several, and constants that its export
    fixed.

    Attributes
    ----------
    name : str
        Of the model, for messages.
    shape : tuple
        Of the rows, the batch first; a size that is open is no int. Of several tensors each has it.
    dtype : torch.dtype
    batches : BatchSizes
    leaves : tuple
        All arguments in the order of the program's `tree`; the rows' places hold None.
    places : dict of str to int
        Where the rows go, by the names of the arguments.
    tree : TreeSpec
        The form of (args, kwargs): rows may be a named argument, or stand in a dict.
    """

    name: str
    shape: tuple[Any, ...]
    dtype: "torch.dtype"
    batches: BatchSizes
    leaves: tuple[Any, ...]
    places: Mapping[str, int]
    tree: Any

    @property
    def alone(self) -> bool:
        """True if rows are the only argument, and positional."""
        from torch.utils import _pytree

        alone: bool = self.tree == _pytree.tree_structure(((0,), {}))
        return alone

    def arguments(
        self, rows: "torch.Tensor", names: tuple[str, ...] = ()
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of a call with these rows, cast to the program's type; of several
        variables each goes to the argument of its name.

        Raises
        ------
        ModelError
            Casting would change them.
        """
        if rows.dtype is not self.dtype:
            if not _holds(self.dtype, rows.dtype):
                given, wanted = (str(t).removeprefix("torch.") for t in (rows.dtype, self.dtype))
                raise ModelError(
                    f"model {self.name!r} was exported for {wanted} rows, and gets {given} ones."
                    " Rows that are coded, and the sums of them, are float32: export a model that"
                    f" takes float32 rows, or take scheme='uncoded' or 'replication' and"
                    f" dtype='stored' with {wanted} rows, which are sent as they are."
                )
            rows = rows.to(self.dtype)
        leaves, several = list(self.leaves), names or tuple(self.places)
        if len(several) == 1:
            leaves[self.places[several[0]]] = rows
        else:
            for number, one in enumerate(check_inputs(rows.shape, several)):
                leaves[self.places[one]] = rows[:, number].contiguous()
        args, kwargs = self.tree.unflatten(leaves)
        return args, kwargs


def _holds(wide: "torch.dtype", narrow: "torch.dtype") -> bool:
    """True for floats, and for whole numbers among which all values of the narrow type are."""
    import torch

    if wide.is_floating_point or wide.is_complex:
        return wide.is_complex or not narrow.is_complex
    if wide is torch.bool or narrow.is_floating_point or narrow.is_complex:
        return False
    if narrow is torch.bool:
        return True
    inner, outer = torch.iinfo(narrow), torch.iinfo(wide)
    return outer.min <= inner.min and inner.max <= outer.max


def read_inputs(exported: "ExportedProgram", name: str) -> Inputs:
    """Find the rows among a program's arguments, and the batch sizes that it takes.

    Raises
    ------
    ModelError
        It takes several tensors, one without a batch dimension, or batches that cannot be scored.
    """
    try:
        return _inputs(exported, name)
    except ModelError:
        raise
    except Exception as error:  # torch asserts much of a program only here
        raise _contradiction(error) from error


def _inputs(exported: "ExportedProgram", name: str) -> Inputs:
    from torch.export.graph_signature import ConstantArgument, InputKind

    specs = exported.graph_signature.input_specs
    given = [spec.arg for spec in specs if spec.kind is InputKind.USER_INPUT]
    open_ones = [place for place, arg in enumerate(given) if not isinstance(arg, ConstantArgument)]
    values = {n.name: n.meta.get("val") for n in exported.graph.nodes if n.op == "placeholder"}
    places = {str(given[place].name): place for place in open_ones}
    tensors: list[Any] = [values.get(one) for one in places]
    found: Any = tensors[0] if tensors else None
    alike = {(str(getattr(t, "shape", "")), str(getattr(t, "dtype", ""))) for t in tensors}
    if not getattr(found, "ndim", 0) or len(alike) > 1:  # a number, no dimensions, or several kinds
        raise ModelError(
            f"model {name!r} takes {len(open_ones)} inputs ({', '.join(places) or 'none'}). Only"
            " models of one batch of rows can be scored, or of several of one shape and type:"
            " export one that takes a single tensor (M, ...)."
        )
    return Inputs(
        name=name,
        shape=tuple(found.shape),
        dtype=found.dtype,
        batches=_batches(found.shape[0], exported.range_constraints, name),
        leaves=tuple(getattr(arg, "value", None) for arg in given),
        places=places,
        tree=exported.call_spec.in_spec,
    )


def _batches(size: Any, ranges: Mapping[Any, Any], name: str) -> BatchSizes:
    """Return the sizes that a batch dimension can have: a number, or one more than so many times
    another number, which has bounds."""
    if type(size) is int:
        found = BatchSizes(size, size)
    else:
        formula = size.node.expr
        symbols = formula.free_symbols
        step = formula.diff(*symbols) if len(symbols) == 1 else None
        if step is None or not step.is_Integer or step < 1:
            raise ModelError(
                f"model {name!r} takes batches of {formula} rows. Export it with a plain dynamic"
                " batch dimension, such as dynamic_shapes=({0: torch.export.Dim('batch')},)."
            )
        (symbol,) = symbols
        step, first = int(step), int(formula.subs(symbol, 0))
        bounds = ranges.get(symbol)
        low = max(_whole(getattr(bounds, "lower", None), 1), -((first - 1) // step))
        high = _whole(getattr(bounds, "upper", None), LARGEST)
        found = BatchSizes(first + low * step, min(first + high * step, LARGEST), step)
    if not 0 < found.least <= found.most <= LARGEST:
        raise ModelError(
            f"model {name!r} takes batches of {found} rows; 1 to {LARGEST} can be scored. Export it"
            " with a dynamic batch dimension."
        )
    return found


def _whole(bound: Any, default: int) -> int:
    """Return a bound as Python's number; torch has infinite ones."""
    return int(bound) if getattr(bound, "is_Integer", type(bound) is int) else default


def program_forward(
    exported: "ExportedProgram", inputs: Inputs, *, dtype: str, device: str
) -> "ProgramForward":
    """Put a loaded program on `device` and return its forward function.

    Raises
    ------
    ModelError
        It contradicts itself.
    """
    from torch.export.passes import move_to_device_pass

    # Programs come from the file on the device of their export: also "cpu" needs the move.
    try:
        exported = move_to_device_pass(exported, device)
        # torch's guards are code in the file; ours compare the sizes that kernels trust.
        module = exported.module(check_guards=False)
        guard(module)
    except Exception as error:  # likewise
        raise _contradiction(error) from error
    return ProgramForward(module, dtype, device, inputs)


def _contradiction(error: Exception) -> ModelError:
    return ModelError(
        f"the program was read but cannot be run: {first_line(error)}. Export the module again with"
        " this torch version."
    )


@dataclass(frozen=True, eq=False)
class ProgramForward(ModuleForward):
    """Runs a program on arrays, with the arguments that it was exported for."""

    inputs: Inputs

    def takes(self) -> dict[str, bool]:
        """Name its inputs: it needs each."""
        return dict.fromkeys(self.inputs.places, True)

    @property
    def alone(self) -> bool:
        """True if the module can be called with nothing but rows."""
        return self.inputs.alone

    def run(self, rows: "torch.Tensor") -> Any:
        """Call the program."""
        args, kwargs = self.inputs.arguments(rows, self.names)
        return self.module(*args, **kwargs)
