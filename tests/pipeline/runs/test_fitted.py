"""Whole runs with ``decoder="fitted"`` on real worker processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_models
import xarray as xr
from distributed import Client

from approxifer import score
from approxifer.datasets import Journal
from approxifer.errors import ConfigError
from approxifer.pipeline.planning.options import Options
from approxifer.pipeline.records import Status

COMMON: dict[str, Any] = {
    "model": toy_models.bent,
    "k": 5,
    "block": 5,
    "window": 200,
    "repair": "none",
    "order": "natural",
    "progress": False,
}


@pytest.fixture
def rows() -> np.ndarray:
    """(400, 3): along a smooth curve."""
    time = np.arange(400.0)
    return np.stack([np.sin(time / 6), np.cos(time / 9), time / 400], 1).astype(np.float32)


@pytest.fixture
def store(tmp_path: Path, rows: np.ndarray) -> Path:
    path = tmp_path / "in.zarr"
    data = xr.Dataset({"x": (("time", "a"), rows)})
    data.to_zarr(path, encoding={"x": {"chunks": (100, 3)}}, consolidated=False)
    return path


@pytest.mark.parametrize("scheme", ["systematic", "berrut"])
def test_decoded_rows_are_nearer_than_berruts(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path, scheme: str
) -> None:
    truth, error = toy_models.bent(rows), {}
    for decoder in ("berrut", "fitted"):
        out = tmp_path / f"{decoder}.zarr"
        report = score(store, out=out, client=client, scheme=scheme, decoder=decoder, **COMMON)
        found = report.predictions.load()
        decoded = found.status.values == Status.DECODED
        assert decoded.sum() >= 15
        assert report.counts["failed"] == 0
        np.testing.assert_array_equal(found.prediction.values[~decoded], truth[~decoded])
        error[decoder] = np.abs(found.prediction.values - truth)[decoded].mean()
        kinds = [event["kind"] for event in Journal.read(out) if event["event"] == "group"]
        # The five queries and the mixtures: berrut has five of them, one share being a query.
        learning = {"systematic": 5 + 1, "berrut": 5 + 5}[scheme] if decoder == "fitted" else 0
        assert kinds.count("learning") == learning
    assert error["fitted"] < 0.9 * error["berrut"]


def test_it_is_refused_where_workers_are_not_trusted_and_where_nothing_is_interpolated() -> None:
    given: dict[str, Any] = {"data": "x", "model": "m", "out": "o", "decoder": "fitted"}
    for wrong in ({"byzantine": 1}, {"scheme": "replication"}):
        with pytest.raises(ConfigError, match=r"decoder='fitted'.*leave it out"):
            Options(**given | wrong)
    with pytest.raises(ConfigError, match="decoder='fited' is unknown, did you mean 'fitted'"):
        Options(**given | {"decoder": "fited"})
