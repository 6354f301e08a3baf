"""Two jobs of one Python process at a time, each with Slurm jobs of its own."""

from __future__ import annotations

from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_models
import xarray as xr
from runs import assert_no_jobs, until
from slurm import Slurm

from approxifer import submit
from approxifer.models import ensure, open_model, run_rows

CLUSTER = {"kind": "slurm", "memory": "300MB", "interface": "lo", "workers": 6}


def begin(data: Path, out: Path, **options: Any) -> Any:
    return submit(
        data, model=toy_models.very_slow_linear, out=out, k=3, block=8, window=400,
        cluster=CLUSTER | {"log-directory": str(out.parent / "logs")}, **options,
    )  # fmt: skip


@pytest.mark.timeout(300)
def test_two_jobs_at_a_time(quiet: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are right; then one is cancelled, and the other is right, too."""
    for name, value in quiet.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(Path(toy_models.__file__).parent))
    rows = [np.random.default_rng(n).normal(size=(1200, 4)).astype(np.float32) for n in (0, 1)]
    paths = [tmp_path / f"in{number}.zarr" for number in range(2)]
    for path, one in zip(paths, rows, strict=True):
        data = xr.Dataset({"x": (("sample", "f"), one)})
        data.to_zarr(path, encoding={"x": {"chunks": (400, 4)}}, consolidated=False)
    runner = ensure(open_model(toy_models.linear))
    right = [run_rows(runner, one, 8) for one in rows]

    jobs = [begin(path, tmp_path / f"both{n}.zarr") for n, path in enumerate(paths)]
    until(lambda: len(quiet.jobs("RUNNING")) == 12, 60)
    for job, expected in zip(jobs, right, strict=True):
        np.testing.assert_array_equal(job.result(120).predictions.prediction, expected)
    assert_no_jobs(quiet)

    first, second = (begin(path, tmp_path / f"one{n}.zarr") for n, path in enumerate(paths))
    until(lambda: first.progress().done > 100 or first.done(), 60)
    if first.done():
        first.result()
    first.cancel()
    with pytest.raises(CancelledError):
        first.result(60)
    np.testing.assert_array_equal(second.result(120).predictions.prediction, right[1])
    assert_no_jobs(quiet)
