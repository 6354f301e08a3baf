"""Small models made on the fly, and modules that workers could import."""

import io
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

# For the networks and crafted archives that the fuzz uses too.
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

Write = Callable[[str, str], str]


def export(module: torch.nn.Module, rows: np.ndarray[Any, Any], *, dynamic: bool = True) -> bytes:
    """Export without a change to the module's mode."""
    shapes = ({0: torch.export.Dim("batch", min=1, max=512)},) if dynamic else None
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.export.export(module, (torch.from_numpy(rows),), dynamic_shapes=shapes)
        torch.export.save(program, buffer)
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Begin with one torch thread, and leave what was there."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def rows() -> np.ndarray[Any, Any]:
    return np.linspace(-1, 1, 24, dtype=np.float32).reshape(6, 4)


@pytest.fixture(scope="session")
def linear() -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(4, 3).eval()


@pytest.fixture(scope="session")
def program(linear: torch.nn.Linear, rows: np.ndarray[Any, Any]) -> bytes:
    return export(linear, rows)


@pytest.fixture(scope="session")
def static_program(linear: torch.nn.Linear, rows: np.ndarray[Any, Any]) -> bytes:
    return export(linear, rows, dynamic=False)


@pytest.fixture(scope="session")
def exporter() -> Callable[..., bytes]:
    return export


@pytest.fixture
def importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a module that can be imported, here and by processes with PYTHONPATH."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    written: list[str] = []

    def write(name: str, source: str) -> str:
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        sys.modules.pop(name, None)
        written.append(name)
        return name

    yield write
    for name in written:
        sys.modules.pop(name, None)
