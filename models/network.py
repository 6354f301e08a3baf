"""Running a torch module: devices, precision, and the way between NumPy and tensors.

Torch is imported inside functions, so that models without it never load it.
"""

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from approxifer.errors import ModelError
from approxifer.models.archive import Program
from approxifer.models.names import first_line
from approxifer.models.pt2.guards import guard
from approxifer.models.runner import STORED

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram


def pick_device(device: str) -> str:
    """Return the torch device for ``"auto"`` (CUDA where there is one, else the CPU) or a name.

    Which of several GPUs ``"auto"`` and ``"cuda"`` mean is what ``CUDA_VISIBLE_DEVICES`` leaves to
    this process.

    Raises
    ------
    ModelError
        No such device here.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"device={device!r} cannot be used in this process ({first_line(error)}). Use 'auto' or"
            " 'cpu', or install a torch build for that device."
        ) from error
    return device


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


def only_input(exported: "ExportedProgram", name: str) -> "torch.Tensor":
    """Return the (fake) tensor that describes a program's one input.

    Raises
    ------
    ModelError
        The program takes several inputs, or one without a batch dimension.
    """
    names = exported.graph_signature.user_inputs
    nodes = {node.name: node for node in exported.graph.nodes if node.op == "placeholder"}
    values = [nodes[n].meta.get("val") for n in names if isinstance(n, str) and n in nodes]
    if len(names) != 1 or len(values) != 1 or not getattr(values[0], "ndim", 0):
        raise ModelError(
            f"model {name!r} takes {len(names)} inputs ({', '.join(map(str, names))}). Only models"
            " of one batch of rows can be scored: export one that takes a single tensor (M, ...)."
        )
    found: torch.Tensor = values[0]
    return found


def program_forward(exported: "ExportedProgram", *, dtype: str, device: str) -> "ModuleForward":
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
    except Exception as error:  # torch asserts much of a program only here
        raise ModelError(
            f"the program was read but cannot be run: {first_line(error)}. Export the module again"
            " with this torch version."
        ) from error
    return ModuleForward(module, dtype, device)


def module_forward(module: "torch.nn.Module", *, dtype: str, device: str) -> "ModuleForward":
    """Put a module into eval mode on `device` and return its forward function.

    A module none of whose floating parameters has the precision `dtype` is converted to it.
    """
    import torch

    module.eval()
    floating = {p.dtype for p in module.parameters() if p.is_floating_point()}
    module.to(device)
    if floating and dtype != STORED and getattr(torch, dtype) not in floating:
        module.to(getattr(torch, dtype))
    return ModuleForward(module, dtype, device)


@dataclass(frozen=True, eq=False)
class ModuleForward:
    """Runs a module on arrays, without gradients."""

    module: "torch.nn.Module"
    dtype: str
    device: str

    def __call__(self, rows: np.ndarray[Any, Any]) -> Any:
        """(M, *feature) -> (M, *out), or whatever else the module returns."""
        import torch

        tensor = torch.from_numpy(rows)
        cast = tensor.is_floating_point() and self.dtype != STORED
        tensor = tensor.to(self.device, getattr(torch, self.dtype) if cast else None)
        with torch.inference_mode():
            out = self.module(tensor)
            if not isinstance(out, torch.Tensor):
                return out
            if out.dtype is torch.bfloat16:
                out = out.float()
            return out.cpu().numpy()
