"""Bad input for the command line: modules of bad models, and the check that it is refused."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

import approxifer
from approxifer.coding import CodeSpec
from approxifer.datasets import OutputStore, open_source
from approxifer.datasets.journal import journal_path
from approxifer.models import open_model
from approxifer.pipeline.cli.main import app
from approxifer.pipeline.cluster import local as localcluster
from approxifer.pipeline.planning.partition import Layout

SUPPORT = Path(__file__).parent

#: A module that workers could import: factories of what is no good model, and preprocess functions.
MODULE = """
    import toy_models

    def linear():
        return toy_models.linear

    def raises():
        return _raise

    def _raise(rows):
        raise ValueError("the first line\\nand a second one")

    def forgets_rows():
        return _first

    def _first(rows):
        return rows[:1]

    def integers():
        return toy_models.count_large

    def nothing():
        return 3

    def broken():
        raise OSError("no weights here")

    def dropout():
        import torch

        class Forgetful(torch.nn.Module):
            def forward(self, x):
                return torch.nn.functional.dropout(x.flatten(1), 0.5, training=True)

        return Forgetful()

    def batchnorm():
        import torch

        class Training(torch.nn.Module):
            def forward(self, x):
                x = x.flatten(1)
                return torch.nn.functional.batch_norm(x, None, None, training=True)

        return Training()

    def small():
        import torch
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))

    def half(rows):
        return rows[::2]

    def centred(rows):
        return rows - rows.mean(axis=0)

    def noisy(rows):
        import numpy as np
        return rows + np.random.default_rng().normal(size=rows.shape).astype(np.float32)

    def cannot(rows):
        raise ValueError("cannot do this\\nand a second line")
"""


def importable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `bad_models` importable here and in processes that inherit the environment."""
    folder.mkdir()
    (folder / "bad_models.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(SUPPORT)]))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")


def without_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have it a failure, which takes no time, to start a cluster."""

    def start(**options: Any) -> None:
        raise AssertionError(f"a cluster is started: {options}")

    monkeypatch.setattr(localcluster, "local_cluster", start)


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder, with its bytes; None for a directory."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def arguments(tmp_path: Path, *changes: str) -> list[str]:
    """A good call, then what is bad about it; ``IN=`` replaces the input, ``{tmp}`` the folder."""
    source, rest = str(tmp_path / "in.zarr"), []
    for change in (change.replace("{tmp}", str(tmp_path)) for change in changes):
        if change.startswith("IN="):
            source = change.removeprefix("IN=")
        else:
            rest.append(change)
    given = {"--model": "bad_models:linear", "--out": str(tmp_path / "out.zarr")}
    for name, value in given.items():
        if name not in rest:
            rest += [name, value]
    return ["score", source, *rest]


def refused(tmp_path: Path, *changes: str) -> str:
    """Call the command line; what it prints, once it is sure that it did nothing else."""
    before, running, begin = snapshot(tmp_path), children(), time.monotonic()
    result = CliRunner().invoke(app, [*arguments(tmp_path, *changes), "--no-progress"])
    seconds = time.monotonic() - begin
    if not isinstance(result.exception, SystemExit):
        raise AssertionError(f"not refused in one line: {result.exception!r}") from result.exception
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    check_line(result.stderr)
    assert snapshot(tmp_path) == before
    assert children() <= running
    assert seconds < 10
    return result.stderr


def check_line(stderr: str) -> None:
    assert stderr.startswith("approxifer: error: ")
    assert stderr.endswith("\n")
    assert len(stderr.splitlines()) == 1, stderr
    assert "Traceback" not in stderr


def begun(tmp_path: Path, **changes: Any) -> None:
    """A store as a run that was killed leaves it, with its journal: K = 4, blocks of 5 rows."""
    source = open_source(tmp_path / "in.zarr")
    spec = CodeSpec(scheme="systematic", k=4)
    layout = Layout(window=100, block=5, micro_batch=8, chunk=100, order="none", seed=0)
    code = asdict(spec)
    del code["adaptive"], code["encoder"]  # kept where they mean something; older stores lack them
    attrs = {
        "code": code | {"repair": "exact"},
        "layout": layout.attrs(),
        "model": open_model("bad_models:linear").fingerprint,
        "input": source.fingerprint(),
        "version": approxifer.__version__,
    }
    out = tmp_path / "out.zarr"
    with OutputStore.create(
        out,
        source=source,
        output_shape=(3,),
        output_dtype=np.float32,
        chunk=100,
        attrs=attrs | changes,
    ):
        pass
    journal_path(out).write_text('{"event": "session", "session": "a"}\n')
