"""`submit`: progress, cancel, result, and rows as they return."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest
import toy_models
from distributed import Client

from approxifer import score, submit
from approxifer.datasets import OutputStore
from approxifer.errors import ConfigError
from approxifer.pipeline import faults
from approxifer.pipeline.cluster.connect import workers_of
from approxifer.pipeline.job import Job
from approxifer.pipeline.records import Block, Progress, Status
from approxifer.pipeline.reporting.progress import ProgressBar

COMMON = {"model": toy_models.slow_linear, "k": 4, "block": 5, "window": 100}


async def collect(job: Job) -> list[Block]:
    """Every block of a job."""
    return [block async for block in job]


def final_rows(blocks: list[Block], shape: tuple[int, ...]) -> np.ndarray:
    """The predictions put together; every row must come once for good."""
    found = np.full(shape, np.nan, np.float32)
    for block in blocks:
        if not block.provisional:
            assert np.isnan(found[block.rows]).all(), "a row came twice"
            found[block.rows] = block.predictions
    assert not np.isnan(found).any()
    return found


def test_submit_returns_at_once_and_result_may_time_out(
    client: Client, store: Path, tmp_path: Path
) -> None:
    job = submit(store, out=tmp_path / "out.zarr", client=client, **COMMON)
    assert job.progress().rows in (0, 400)
    with pytest.raises(TimeoutError):
        job.result(timeout=0.05)
    report = job.result(timeout=60)
    assert report is job.result()
    progress = job.progress()
    assert progress.done == progress.rows == 400
    assert progress.windows_done == progress.windows == 4
    assert progress.stage == "done"


def test_bad_arguments_are_refused_by_submit_itself(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="repair"):
        submit(store, out=tmp_path / "out.zarr", **COMMON, repair="always")
    with pytest.raises(ConfigError, match="colour"):
        submit(store, out=tmp_path / "out.zarr", **COMMON, colour="red")


def test_an_error_reaches_result_and_the_iterator(
    client: Client, store: Path, tmp_path: Path
) -> None:
    job = submit(store, out=tmp_path / "out.zarr", client=client, **COMMON | {"block": 10**9})
    with pytest.raises(ConfigError, match="memory"):
        job.result(30)
    with pytest.raises(ConfigError, match="memory"):
        asyncio.run(collect(job))


def test_rows_as_they_return(client: Client, store: Path, rows: np.ndarray, tmp_path: Path) -> None:
    job = submit(store, out=tmp_path / "out.zarr", client=client, **COMMON)
    blocks = asyncio.run(collect(job))
    np.testing.assert_array_equal(final_rows(blocks, (400, 3)), toy_models.linear(rows))
    assert len(blocks) > 20, "they came in pieces"


def test_provisional_rows_come_first_and_are_marked(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    """berrut under exact repair: every row is decoded, then repaired."""
    job = submit(store, out=tmp_path / "out.zarr", client=client, scheme="berrut", **COMMON)
    blocks = asyncio.run(collect(job))
    np.testing.assert_array_equal(final_rows(blocks, (400, 3)), toy_models.linear(rows))
    provisional = [block for block in blocks if block.provisional]
    assert provisional
    for block in provisional:
        assert (block.status == Status.DECODED).all()


def test_a_reader_that_comes_late_still_gets_every_row(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    job = submit(store, out=tmp_path / "out.zarr", client=client, **COMMON)
    job.result(60)
    blocks = asyncio.run(collect(job))
    np.testing.assert_array_equal(final_rows(blocks, (400, 3)), toy_models.linear(rows))
    assert len(blocks) == 4, "whole windows, from the store"


def test_cancel_before_the_first_row(client: Client, store: Path, tmp_path: Path) -> None:
    job = submit(store, out=tmp_path / "out.zarr", client=client, **COMMON)
    job.cancel()
    with pytest.raises(CancelledError):
        job.result(20)
    with pytest.raises(CancelledError):
        asyncio.run(collect(job))


@pytest.mark.slow
def test_cancel_with_a_hung_worker(client: Client, store: Path, tmp_path: Path) -> None:
    faults.install(client, {"1": faults.Hang(), "2": faults.Hang()})
    job = submit(store, out=tmp_path / "out.zarr", client=client, **COMMON)
    while not job.progress().workers:
        assert not job.done(), job.result()
    job.cancel()
    with pytest.raises(CancelledError):
        job.result(20)
    faults.remove(client)
    workers = workers_of(client)
    client.restart_workers([a for a, w in workers.items() if str(w["name"]) in "12"])


def test_leaving_by_sys_exit_breaks_the_run_off(
    client: Client, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So Ctrl-C arrives where dask-jobqueue was imported: it sets a handler that calls sys.exit."""

    def leave(bar: ProgressBar, progress: Progress) -> None:
        if progress.done:
            raise SystemExit

    monkeypatch.setattr(ProgressBar, "update", leave)
    with pytest.raises(SystemExit):
        score(store, out=tmp_path / "out.zarr", client=client, **COMMON)
    assert not [t for t in threading.enumerate() if t.name == "approxifer-job"]
    with OutputStore.open(tmp_path / "out.zarr") as left:
        assert (left.status() == Status.PENDING).any()
