"""A store that was begun before there were spot checks is gone on with.

``tests/data/begun_before_spot_checks.zip`` was written by commit 7011e5a: the first of two windows
of 32 rows, ``systematic`` with K = 2 and ``byzantine=1``, which then was four shares, until the job
was cancelled. Worker 2 returned every output with the other sign, and is convicted in it.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_models
import xarray as xr
from distributed import Client

from approxifer import score
from approxifer.datasets import Journal, OutputStore
from approxifer.errors import FingerprintError
from approxifer.pipeline import faults
from approxifer.pipeline.records import Status

BEGUN = Path(__file__).parents[2] / "data" / "begun_before_spot_checks.zip"
OPTIONS: dict[str, Any] = {
    "model": toy_models.slow_linear,
    "k": 2,
    "stragglers": 0,
    "block": 4,
    "window": 32,
    "progress": False,
}


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    with zipfile.ZipFile(BEGUN) as archive:
        archive.extractall(tmp_path)
    return tmp_path / "before.zarr"


@pytest.fixture
def data() -> xr.DataArray:
    rows = np.random.default_rng(7).normal(size=(64, 3)).astype(np.float32)
    return xr.DataArray(rows, dims=("sample", "f"), name="x")


def test_it_keeps_its_shares_and_is_checked_from_now_on(
    client: Client, begun: Path, data: xr.DataArray
) -> None:
    faults.install(client, {"4": faults.SignFlip()})
    report = score(data, out=begun, client=client, byzantine=1, **OPTIONS)
    np.testing.assert_array_equal(report.predictions.prediction, toy_models.linear(data.to_numpy()))
    assert report.resumed == 32
    assert report.scheme == "systematic K=2 S=0 E=1, 4 shares"
    assert [c.member.name for c in report.convicted] == ["2", "4"]
    events = Journal.read(begun)
    names = [event for event in events if event["event"] == "name"]
    assert [event["index"] for event in names] == list(range(len(names)))
    assert any(event["event"] == "check" for event in events)
    # On one host, worker 2 of this session is another one.
    assert report.workers["2"].state == "ready"


def test_what_its_convicted_worker_had_written_is_pending_at_once(
    client: Client, begun: Path, data: xr.DataArray
) -> None:
    """As if its session had been killed before it took those rows back."""
    store = OutputStore.open(begun)
    now = store.read_window(0, 32)
    names = [event for event in Journal.read(begun) if event["event"] == "name"]
    bad = next(event["index"] for event in names if event["worker"] == "2")
    now["prediction"][5], now["worker"][5], now["status"][5] = -9, bad, Status.EXACT
    store.write_window(0, 32, **now)
    store.release()
    report = score(data, out=begun, client=client, byzantine=1, **OPTIONS)
    np.testing.assert_array_equal(report.predictions.prediction, toy_models.linear(data.to_numpy()))


def test_another_number_of_byzantine_workers_is_refused(
    client: Client, begun: Path, data: xr.DataArray
) -> None:
    with pytest.raises(FingerprintError, match="byzantine"):
        score(data, out=begun, client=client, **OPTIONS)
