"""A real Slurm for each module of tests, in a folder with a short path."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

HERE = Path(__file__).parent
SUPPORT = HERE.parent / "support"
sys.path[:0] = [str(HERE), str(SUPPORT)]

from runs import Run, until  # noqa: E402
from slurm import NoSlurmError, Slurm  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of these need Slurm, and take their time."""
    for item in items:
        if HERE in item.path.parents and "slurm" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.hpc)
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module")
def shape() -> tuple[int, int]:
    """Nodes, and slots of each; modules override it."""
    return 4, 4


@pytest.fixture(scope="module")
def slurm(shape: tuple[int, int]) -> Iterator[Slurm]:
    """A Slurm that is up, with all its nodes."""
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
        made = Slurm(Path(folder), nodes=shape[0], slots=shape[1])
        try:
            made.up()
        except NoSlurmError as error:
            made.down()
            pytest.skip(f"no Slurm: {error}")
        try:
            yield made
        finally:
            made.down()


@pytest.fixture
def quiet(slurm: Slurm) -> Iterator[Slurm]:
    """No job before and after."""
    assert slurm.jobs() == []
    yield slurm
    left = slurm.jobs()
    if left:
        slurm.run("scancel", *left, check=False)
        until(lambda: not slurm.jobs(), 30)


@pytest.fixture
def digits(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Scanned digits, twenty times over (35,940 rows of 8 x 8), as a Zarr store."""
    from sklearn.datasets import load_digits

    rows = np.tile(load_digits().images.astype(np.float32) / 16, (20, 1, 1))
    rows += np.arange(len(rows), dtype=np.float32)[:, None, None] / len(rows)  # all different
    path = tmp_path / "digits.zarr"
    data = xr.Dataset({"image": (("sample", "y", "x"), rows)})
    data.to_zarr(path, encoding={"image": {"chunks": (1000, 8, 8)}}, consolidated=False)
    return path, rows


@pytest.fixture
def start(quiet: Slurm, tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Starts a run of a slow NumPy model (150 ms a share) from a file of kind slurm."""
    made = []

    def start_one(data: Path, cluster: dict[str, Any], *options: str) -> Run:
        file = {"kind": "slurm", "memory": "300MB", "interface": "lo", "log-directory": "logs"}
        model = ("--model", "toy_models:make_very_slow")
        made.append(Run(quiet, tmp_path, data, file | cluster, *model, *options))
        return made[-1]

    yield start_one
    for run in made:
        run.close()
