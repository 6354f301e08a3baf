"""A run on a real Slurm whose folders and job have names that a shell would take for commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import toy_models
import xarray as xr
from runs import Run, assert_no_jobs
from slurm import Slurm

from approxifer.models import ensure, open_model, run_rows

HOSTILE = "a b'c\"d $(touch OWNED) `touch OWNED`;touch OWNED #&x"


def test_a_hostile_folder(quiet: Slurm, digits: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    data, rows = digits
    folder = tmp_path / HOSTILE
    folder.mkdir()
    data = data.rename(folder / "in $(touch OWNED).zarr")
    cluster = {
        "kind": "slurm", "memory": "300MB", "interface": "lo", "job-name": HOSTILE,
        "log-directory": str(folder / "logs"), "local-directory": str(folder / "scratch"),
    }  # fmt: skip
    (folder / "scratch").mkdir()
    run = Run(
        quiet, folder, data, cluster,
        "--model", "toy_models:make_very_slow", "-k", "4", "-s", "1", "--block", "400",
    )  # fmt: skip
    try:
        run.wait(100)
    finally:
        run.close()
    with xr.open_zarr(run.out) as scores:
        np.testing.assert_array_equal(
            scores.prediction, run_rows(ensure(open_model(toy_models.linear)), rows, 32)
        )
    assert list((folder / "logs").glob("*.err"))
    assert not [path for path in tmp_path.rglob("*") if path.name == "OWNED"]
    assert not list(Path.cwd().glob("OWNED"))
    assert_no_jobs(quiet)
