"""A run on a real Slurm that takes three times as long as its jobs may."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import toy_models
import xarray as xr
from runs import Run, assert_no_jobs
from slurm import Slurm

from approxifer.models import ensure, open_model, run_rows


@pytest.fixture(scope="module")
def shape() -> tuple[int, int]:
    return 5, 2


@pytest.mark.timeout(1200)
def test_a_run_outlasts_its_jobs(quiet: Slurm, tmp_path: Path, start: Callable[..., Run]) -> None:
    rows = np.random.default_rng(3).normal(size=(30_000, 4, 4)).astype(np.float32)
    data = xr.Dataset({"field": (("sample", "y", "x"), rows)})
    data.to_zarr(
        tmp_path / "in.zarr", encoding={"field": {"chunks": (1000, 4, 4)}}, consolidated=False
    )
    begun = time.monotonic()
    run = start(
        tmp_path / "in.zarr",
        {"workers": 10, "walltime": "00:02:00", "lifetime": "90s", "lifetime-stagger": "20s"},
        "--model", "toy_models:make_one_second", "-k", "4", "-s", "2", "--block", "8",
    )  # fmt: skip
    run.wait(1000)
    assert time.monotonic() - begun > 360
    with xr.open_zarr(run.out) as scores:
        assert set(np.unique(scores.status)) <= {1, 3}
        whole = run_rows(ensure(open_model(toy_models.linear)), rows, 8)
        np.testing.assert_array_equal(scores.prediction, whole)
    came = Counter(e["worker"] for e in run.events("worker") if e["what"] == "ready")
    assert len(came) == 10
    assert min(came.values()) >= 3, came
    assert "given up" not in run.stderr
    logs = "".join(path.read_text() for path in (tmp_path / "logs").glob("*.err"))
    assert "DUE TO TIME LIMIT" not in logs
    assert_no_jobs(quiet)
