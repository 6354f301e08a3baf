"""Whole runs with ``repair=0.99`` on real worker processes, a share lost in most groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_models
import xarray as xr
from distributed import Client
from policies import change_policy

from approxifer import score
from approxifer.datasets import OutputStore
from approxifer.errors import ConfigError
from approxifer.pipeline import faults
from approxifer.pipeline.records import Status
from approxifer.pipeline.reporting.inspect import inspect_store

COMMON: dict[str, Any] = {
    "model": toy_models.classify,
    "k": 5,
    "block": 10,
    "window": 2000,
    "repair": 0.99,
    "progress": False,
}


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """(4000, 16): around the centres of the classes, some between them."""
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(4000, 16)) * rng.choice([0.5, 4.0], size=(4000, 1))
    found: np.ndarray = toy_models.CENTRES[rng.integers(10, size=4000)] + noise
    return found.astype(np.float32)


@pytest.fixture
def store(tmp_path: Path, rows: np.ndarray) -> Path:
    path = tmp_path / "in.zarr"
    data = xr.Dataset({"x": (("sample", "a"), rows)})
    data.to_zarr(path, encoding={"x": {"chunks": (500, 16)}}, consolidated=False)
    return path


@pytest.mark.slow
def test_rows_in_doubt_are_run_again_and_the_others_stay(
    client: Client,
    store: Path,
    rows: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out.zarr"
    change_policy(monkeypatch, patience=0.0)
    report = score(store, out=out, client=client, **COMMON)
    # Without patience a group is complete with its first five shares: the sixth is lost.
    found, truth = report.predictions.load(), toy_models.classify(rows)
    status, prediction = found.status.values, found.prediction.values
    assert report.counts["failed"] == 0
    assert report.counts["decoded"] > 30
    assert report.counts["repaired"] > 30
    decoded = status == Status.DECODED
    np.testing.assert_array_equal(prediction[~decoded], truth[~decoded])
    assert not (prediction[decoded] == truth[decoded]).all(axis=1).any()
    wrong = (prediction.argmax(axis=1) != truth.argmax(axis=1)).mean()
    assert wrong <= 0.0125, "0.0156 without any repair"

    doubt = report.doubt
    assert doubt is not None
    assert doubt.kept == report.counts["decoded"]
    assert 0 < doubt.stated <= 0.01
    assert doubt.checked > 0
    assert doubt.measured() is not None
    assert str(doubt) in str(report)
    attrs = OutputStore.open(out, write=False).attrs["doubtful"]
    assert attrs == doubt.attrs()
    assert f"kept {doubt.kept}" in inspect_store(out)
    assert report.evaluations_per_query < 6 / 5 + (decoded.sum() + report.counts["repaired"]) / 4000


def test_with_patience_and_without_a_fault_nearly_all_rows_are_exact(
    client: Client, store: Path, tmp_path: Path
) -> None:
    report = score(store, out=tmp_path / "out.zarr", client=client, **COMMON)
    assert report.counts["exact"] >= 0.9 * 4000
    assert report.counts["failed"] == 0


@pytest.mark.slow
def test_with_a_byzantine_worker_what_is_kept_is_free_of_its_outputs(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    faults.install(client, {"4": faults.Roll()})
    report = score(
        store, out=tmp_path / "out.zarr", client=client,
        **COMMON | {"k": 2, "stragglers": 0, "byzantine": 1, "check": 1},
    )  # fmt: skip
    found, truth = report.predictions.load(), toy_models.classify(rows)
    assert [conviction.member.name for conviction in report.convicted] == ["4"]
    whole = found.status.values != Status.DECODED
    np.testing.assert_array_equal(found.prediction.values[whole], truth[whole])
    assert (found.prediction.values.argmax(axis=1) != truth.argmax(axis=1)).mean() <= 0.02


@pytest.mark.parametrize("model", [toy_models.count_large, toy_models.squared])
def test_outputs_that_are_no_classes_are_refused(
    client: Client, store: Path, tmp_path: Path, model: Any
) -> None:
    given = COMMON | {"model": model, "scheme": "replication", "stragglers": 1}
    with pytest.raises(ConfigError, match=r"repair=, a fraction.*Take repair='exact' or 'none'"):
        score(store, out=tmp_path / "out.zarr", client=client, **given)
    assert not (tmp_path / "out.zarr").exists()
