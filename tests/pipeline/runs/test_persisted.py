"""A persisted DataArray is scored on the cluster that holds its blocks."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import toy_models
import xarray as xr
from distributed import Client, LocalCluster

import approxifer
from approxifer.errors import ConfigError
from approxifer.pipeline.api import plan_run


@pytest.fixture(autouse=True)
def no_blocks_left(client: Client) -> Iterator[None]:
    """Blocks go with the last array that is made of them."""
    yield
    gc.collect()


def persisted(client: Client, rows: np.ndarray) -> xr.DataArray:
    blocks = xr.DataArray(rows, dims=("n", "a", "b"), name="x").chunk(n=50)
    return blocks.copy(data=client.persist(blocks.data + 0))


def test_its_own_client_scores_it(client: Client, rows: np.ndarray, tmp_path: Path) -> None:
    data, again = persisted(client, rows), persisted(client, rows) + 0  # other keys
    call = {"model": toy_models.linear, "out": tmp_path / "out.zarr", "k": 2}
    assert "6 workers (3 needed)" in plan_run(data, **call)
    job = approxifer.submit(data, window=100, **call)
    while not job.progress().windows_done and not job.done():
        time.sleep(0.02)
    job.cancel()
    job.wait()
    report = approxifer.score(again, progress=False, **call)
    np.testing.assert_array_equal(report.predictions.prediction, toy_models.linear(rows))
    assert report.resumed >= 100


def test_a_client_of_the_same_cluster_scores_it(
    client: Client, cluster: LocalCluster, rows: np.ndarray, tmp_path: Path
) -> None:
    call = {"model": toy_models.linear, "out": tmp_path / "out.zarr", "progress": False}
    with Client(cluster.scheduler_address, set_as_default=False) as other:
        report = approxifer.score(persisted(client, rows), client=other, **call)
    np.testing.assert_array_equal(report.predictions.prediction, toy_models.linear(rows))


def test_another_cluster_is_refused(client: Client, rows: np.ndarray, tmp_path: Path) -> None:
    call = {"model": toy_models.linear, "out": tmp_path / "out.zarr"}
    data = persisted(client, rows)
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address="127.0.0.1:0") as elsewhere,
        Client(elsewhere, set_as_default=False) as other,
    ):
        for given in ({"client": other}, {"cluster": {"kind": "local"}}):
            with pytest.raises(ConfigError, match="the cluster that holds its blocks: leave"):
                approxifer.submit(data, **call, **given)
        lost = persisted(other, rows)
    with pytest.raises(ConfigError, match="persisted; of its client: its status is 'closed'"):
        plan_run(lost, **call)
