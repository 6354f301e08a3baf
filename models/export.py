"""Writing models: ``.pt2`` programs and weights, whole or not at all."""

import io
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from approxifer.models.weights import pack_state
from approxifer.quiet import quiet


def export_program(
    module: torch.nn.Module,
    rows: np.ndarray[Any, Any],
    path: str | os.PathLike[str],
    *,
    static_batch: bool = False,
) -> None:
    """Export `module` in eval mode as a ``torch.export`` program that takes batches of such rows.

    Parameters
    ----------
    module : torch.nn.Module
        It is left in eval mode.
    rows : ndarray, (at least 2, *feature)
        Examples: their shape and type are what the program will take.
    path : path
        Replaced in one step; a crash leaves the old file, or none.
    static_batch : bool
        Fix the number of rows to ``len(rows)`` instead of leaving it open.
    """
    module.eval()
    example = torch.from_numpy(np.array(rows))
    dynamic = None if static_batch else ({0: torch.export.Dim("batch", min=1, max=2**20)},)
    buffer = io.BytesIO()
    with quiet():
        program = torch.export.export(module, (example,), dynamic_shapes=dynamic)
        torch.export.save(program, buffer)
    write_whole(path, buffer.getvalue())


def save_state(module: torch.nn.Module, path: str | os.PathLike[str]) -> None:
    """Write the weights only, for ``state=`` beside a factory."""
    write_whole(path, pack_state(module.state_dict()))


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file in one step: to a temporary name beside it, then renamed over it."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # mkstemp's 0600 would hide the file from others
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise
