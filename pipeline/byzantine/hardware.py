"""Classes of hardware: what must be alike for two honest runs of a row to be equal bit by bit.

The device, its model, the libraries' builds and torch's threads. The client and the workers compute
it by the same function. Importing this imports neither torch nor the rest of a run.
"""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from approxifer.models import Runner

CPUINFO = Path("/proc/cpuinfo")


def hardware_class(runner: Runner, threads: int) -> str:
    """The class of hardware that a model runs on in this process, with so many torch threads:
    ``"cpu | AMD EPYC 7B13 | torch 2.13.0+cpu | numpy 2.4.1 | 1 threads"``."""
    # As installed, whether the model uses them or not: nothing else shows what it imports.
    builds = [f"{name} {version(name)}" for name in ("torch", "numpy")]
    kind, unit = runner.device.partition(":")[0], processor()
    if kind == "cuda":
        import torch

        unit = torch.cuda.get_device_name(runner.device)
    return " | ".join([kind, unit, *builds, f"{threads} threads"])


def processor() -> str:
    """The model of this machine's processor; what Python calls its kind where nothing names it."""
    named: list[str] = []
    if CPUINFO.exists():
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
        named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(filter(None, named), "") or platform.processor() or platform.machine()
