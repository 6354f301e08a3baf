"""Classes of hardware."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import toy_models

from approxifer.models import Runner, open_model
from approxifer.pipeline.byzantine import hardware
from approxifer.pipeline.byzantine.hardware import hardware_class, processor


@pytest.fixture
def runner() -> Runner:
    """A NumPy model."""
    return open_model(toy_models.linear).load(1)


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What takes the place of /proc/cpuinfo; not there yet."""
    monkeypatch.setattr(hardware, "CPUINFO", tmp_path / "cpuinfo")
    return tmp_path / "cpuinfo"


def test_the_processor_is_named_by_the_kernel(cpuinfo: Path) -> None:
    cpuinfo.write_text("processor\t: 0\nmodel name\t: One 9000\n\nmodel name\t: Two\n")
    assert processor() == "One 9000"


@pytest.mark.parametrize("text", [None, "", "processor : 0\nCPU part : 0xd0c\n", "model name :\n"])
def test_a_processor_without_a_name_is_of_a_kind(cpuinfo: Path, text: str | None) -> None:
    if text is not None:
        cpuinfo.write_text(text)
    assert processor() == (platform.processor() or platform.machine()) != ""


def test_a_class_names_what_makes_the_last_bits(
    runner: Runner, cpuinfo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo.write_text("model name : One 9000\n")
    builds = f"torch {version('torch')} | numpy {np.__version__}"
    assert hardware_class(runner, 1) == f"cpu | One 9000 | {builds} | 1 threads"
    torch = ModuleType("torch")
    torch.cuda = SimpleNamespace(get_device_name=lambda device: f"GPU of {device}")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    on_gpu = hardware_class(replace(runner, device="cuda:1"), 2)
    assert on_gpu == f"cuda | GPU of cuda:1 | {builds} | 2 threads"


def test_looking_at_it_does_not_import_torch() -> None:
    code = (
        "import sys; from types import SimpleNamespace;"
        "from approxifer.pipeline.byzantine.hardware import hardware_class;"
        "assert hardware_class(SimpleNamespace(device='cpu'), 1).endswith('| 1 threads');"
        "assert 'torch' not in sys.modules and 'distributed' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
