"""The user's code on the command line and in scripts: found where it lies, and what it may do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

OURS = """
import sys, time
import numpy as np

def model(rows):
    return rows * 2

def make():
    return model

def leave():
    sys.exit(0)

def interrupt():
    raise KeyboardInterrupt

def wait():
    print("waiting", flush=True)
    time.sleep(60)
    return model
"""
LOCAL = '{"kind": "local", "workers": 2}'
SCRIPT = f"""
import numpy as np, xarray as xr
import approxifer
FACTOR = 2
def double(rows): return rows * FACTOR
data = xr.open_zarr("in.zarr")["x"]
report = approxifer.score(
    data, model=lambda rows: double(rows), preprocess=lambda rows: rows + 1, out="out.zarr", k=1,
    stragglers=0, scheme="uncoded", cluster={LOCAL}, progress=False,
)
assert (report.predictions.prediction.values == (data.values + 1) * 2).all()
print("exact:", report.counts["exact"])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with rows, a module, a cluster file and a script of the command."""
    rows = np.arange(120, dtype=np.float32).reshape(40, 3)
    xr.Dataset({"x": (("n", "f"), rows)}).to_zarr(tmp_path / "in.zarr", consolidated=False)
    (tmp_path / "ours_alone.py").write_text(OURS)
    (tmp_path / "cluster.yaml").write_text("kind: local\nworkers: 2\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "command.py").write_text(
        "from approxifer.pipeline.cli.main import main\nmain()"
    )
    return tmp_path


def command(model: str, *more: str) -> list[str]:
    return [
        sys.executable, "bin/command.py", "score", "in.zarr", "--model", f"ours_alone:{model}",
        "--out", "out.zarr", "--scheme", "uncoded", "-k", "1", "-s", "0", "--cluster",
        "cluster.yaml", "--no-progress", *more,
    ]  # fmt: skip


def run(folder: Path, what: list[str], given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        what, cwd=folder, input=given, capture_output=True, text=True, timeout=200
    )


def test_the_working_directory_is_importable_here_and_on_local_workers(folder: Path) -> None:
    done = run(folder, command("make"))
    assert done.returncode == 0, done.stderr
    assert "40 rows" in done.stdout


def test_not_where_python_is_to_leave_it_out(folder: Path) -> None:
    safe = command("make", "--dry-run")
    safe.insert(1, "-P")
    done = run(folder, safe)
    assert done.returncode == 2
    assert "no module 'ours_alone'" in done.stderr


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("name", "said"), [("leave", "sys.exit(0)"), ("interrupt", "KeyboardInterrupt")]
)
def test_code_that_would_end_the_command_is_wrong_input(
    folder: Path, name: str, said: str, dry: tuple[str, ...]
) -> None:
    done = run(folder, command(name, *dry))
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"approxifer: error: model='ours_alone:{name}': loading it")
    assert said in line
    assert not (folder / "out.zarr").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_person_who_interrupts_the_load_interrupts_the_command(
    folder: Path, number: signal.Signals
) -> None:
    process = subprocess.Popen(
        command("wait", "--dry-run"), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    os.kill(process.pid, number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in said


@pytest.mark.parametrize("how", ["stdin", "file"])
def test_scripts_need_neither_a_file_nor_a_guard(folder: Path, how: str) -> None:
    (folder / "script.py").write_text(SCRIPT)
    what = [sys.executable, "-" if how == "stdin" else "script.py"]
    done = run(folder, what, SCRIPT if how == "stdin" else "")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "exact: 40\n", "the script ran once"
