"""A client, or a cluster, that its user closes in mid-run: one line, and the same call goes on."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster

import approxifer
from approxifer.errors import ClusterError
from approxifer.pipeline.job import Job


def slow(rows: np.ndarray) -> np.ndarray:
    time.sleep(0.02)
    return rows.reshape(len(rows), -1)[:, :2] * 2


def begun(rows: np.ndarray, out: Path, client: Client) -> Job:
    """A job of which a window is written."""
    data = xr.DataArray(rows, dims=("n", "a", "b"), name="x")
    job = approxifer.submit(data, model=slow, out=out, client=client, k=2, window=40, block=5)
    while not job.progress().windows_done and not job.done():
        time.sleep(0.02)
    return job


def test_a_closed_client(
    cluster: LocalCluster, client: Client, rows: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "out.zarr"
    with Client(cluster.scheduler_address, set_as_default=False) as own:  # and its own loop
        job = begun(rows, out, own)
    with pytest.raises(ClusterError, match=r"client was closed.*same call with an open client"):
        job.result(timeout=60)
    done = begun(rows, out, client).result(timeout=100)
    assert done.resumed >= 40
    np.testing.assert_array_equal(done.predictions.prediction, rows.reshape(400, -1)[:, :2] * 2)


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["cluster", "scheduler"])
def test_a_closed_cluster(lost: str, rows: np.ndarray, tmp_path: Path) -> None:
    with (
        LocalCluster(
            n_workers=3, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        job = begun(rows, tmp_path / "out.zarr", client)
        if lost == "cluster":
            cluster.close()
        else:
            cluster.sync(cluster.scheduler.close)
        with pytest.raises(ClusterError, match=r"same command goes on|same call"):
            job.result(timeout=60)
