"""Running a torch module: devices, precision, and the way between NumPy and tensors.

Torch is imported inside functions, so that models without it never load it.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from approxifer.errors import ModelError
from approxifer.models.names import first_line
from approxifer.models.outputs.structure import mapped
from approxifer.models.runner import STORED
from approxifer.models.user_code.inputs import check_inputs, parameters

if TYPE_CHECKING:
    import torch


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
    """Runs a module on arrays, without gradients but those that it takes itself."""

    module: "torch.nn.Module"
    dtype: str
    device: str
    names: tuple[str, ...] = field(default=(), kw_only=True)  #: of its inputs, if it has several

    def takes(self) -> dict[str, bool]:
        """Name its inputs, and say whether it needs each."""
        return parameters(self.module.forward)

    @property
    def alone(self) -> bool:
        """True if the module can be called with nothing but rows."""
        return True

    def run(self, rows: "torch.Tensor") -> Any:
        """Call the module."""
        if not self.names:
            return self.module(rows)
        names = check_inputs(rows.shape, self.names)
        return self.module(**{one: rows[:, i].contiguous() for i, one in enumerate(names)})

    def __call__(self, rows: np.ndarray[Any, Any]) -> Any:
        """(M, *feature) -> (M, *out), several outputs by their names, or whatever else the module
        returns."""
        import torch

        tensor = torch.from_numpy(rows)
        cast = tensor.is_floating_point() and self.dtype != STORED
        tensor = tensor.to(self.device, getattr(torch, self.dtype) if cast else None)
        with torch.no_grad():  # inference_mode() would refuse a model that enables gradients inside
            return mapped(self.run(tensor), _as_array)


def _as_array(out: Any) -> Any:
    """A tensor as an array; anything else as it is."""
    import torch

    if not isinstance(out, torch.Tensor):
        return out
    out = out.detach()
    if out.dtype is torch.bfloat16:
        out = out.float()
    return out.cpu().numpy()
