"""Several runs at once on one cluster: each has its turn, its own ledger and its own output, and a
worker that one of them convicts is out of all."""

from __future__ import annotations

import time
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import toy_models
import xarray as xr
from distributed import Client

import approxifer
from approxifer.datasets import Journal
from approxifer.pipeline import faults

COMMON = {"k": 3, "block": 4, "window": 100, "progress": False}


# ---- on real workers -----------------------------------------------------------------------------


def begin_store(path: Path, seed: int, rows: int = 400) -> tuple[Path, np.ndarray]:
    """An input of its own for each seed."""
    made = np.random.default_rng(seed).normal(size=(rows, 4, 4)).astype(np.float32)
    data = xr.Dataset({"x": (("sample", "a", "b"), made)})
    data.to_zarr(path, encoding={"x": {"chunks": (100, 4, 4)}}, consolidated=False)
    return path, made


@pytest.fixture
def stores(tmp_path: Path) -> list[tuple[Path, np.ndarray]]:
    """Two inputs that differ."""
    return [begin_store(tmp_path / f"in{seed}.zarr", seed) for seed in range(2)]


def begin_jobs(
    client: Client, stores: list[tuple[Path, np.ndarray]], tmp_path: Path, **options: Any
) -> list[approxifer.Job]:
    return [
        approxifer.submit(
            path,
            model=toy_models.very_slow_linear,
            out=tmp_path / f"out{number}.zarr",
            client=client,
            **COMMON | options,
        )
        for number, (path, _) in enumerate(stores)
    ]


@pytest.mark.slow
def test_two_jobs_share_a_cluster(
    client: Client, stores: list[tuple[Path, np.ndarray]], tmp_path: Path
) -> None:
    jobs = begin_jobs(client, stores, tmp_path)
    half_time = None
    while not all(job.done() for job in jobs):
        done = [job.progress().done for job in jobs]
        if half_time is None and max(done) >= 200:
            half_time = done
        time.sleep(0.05)
    for job, (_, rows) in zip(jobs, stores, strict=True):
        report = job.result()
        np.testing.assert_array_equal(report.predictions.prediction, toy_models.linear(rows))
        assert sum(record.run for record in report.workers.values()) >= 400 / 4
    assert half_time is not None
    assert min(half_time) >= 100  # neither waited for the other


@pytest.mark.slow
def test_cancelling_one_leaves_the_other_whole(
    client: Client, stores: list[tuple[Path, np.ndarray]], tmp_path: Path
) -> None:
    first, second = begin_jobs(client, stores, tmp_path)
    while first.progress().done < 50:
        time.sleep(0.05)
    first.cancel()
    with pytest.raises(CancelledError):
        first.result(timeout=30)
    report = second.result(timeout=90)
    np.testing.assert_array_equal(report.predictions.prediction, toy_models.linear(stores[1][1]))


@pytest.mark.slow
def test_a_worker_that_one_convicts_is_out_of_both(client: Client, tmp_path: Path) -> None:
    """The second run would trust it: it checks nothing."""
    stores = [begin_store(tmp_path / f"in{n}.zarr", n, rows) for n, rows in ((0, 200), (1, 1600))]
    faults.install(client, {"3": faults.SignFlip()})
    model = toy_models.very_slow_linear
    second = approxifer.submit(
        stores[1][0], model=model, out=tmp_path / "out1.zarr", client=client, **COMMON
    )
    while second.progress().shares_run < 30:
        time.sleep(0.01)
    first = approxifer.submit(
        stores[0][0], model=model, out=tmp_path / "out0.zarr", client=client, byzantine=1,
        **COMMON | {"k": 1},
    )  # fmt: skip
    for job, (_, rows) in zip((first, second), stores, strict=True):
        report = job.result(timeout=100)
        assert [one.member.name for one in report.convicted] == ["3"]
        np.testing.assert_allclose(
            report.predictions.prediction, toy_models.linear(rows), rtol=1e-4, atol=1e-4
        )
    assert "in another run" in str(second.result().convicted[0])
    events = [e for e in Journal.read(tmp_path / "out1.zarr") if e["event"] == "conviction"]
    assert len(events) == 1


@pytest.mark.slow
def test_two_jobs_start_clusters_of_their_own_at_once(
    stores: list[tuple[Path, np.ndarray]], tmp_path: Path
) -> None:
    before = dask.config.get("distributed.worker.multiprocessing-method")
    jobs = [
        approxifer.submit(
            path, model=toy_models.linear, out=tmp_path / f"out{number}.zarr",
            cluster={"kind": "local", "workers": 2}, k=2, stragglers=0, progress=False,
        )
        for number, (path, _) in enumerate(stores)
    ]  # fmt: skip
    for job, (_, rows) in zip(jobs, stores, strict=True):
        report = job.result(timeout=90)
        np.testing.assert_array_equal(report.predictions.prediction, toy_models.linear(rows))
    assert dask.config.get("distributed.worker.multiprocessing-method") == before
