"""Runs whose decoded rows stay as they are: complex outputs, and rows on which the model raises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import toy_models
import xarray as xr
from distributed import Client
from policies import change_policy

from approxifer import score
from approxifer.pipeline import faults
from approxifer.pipeline.records import Status


@pytest.mark.parametrize("scheme", ["systematic", "berrut"])
def test_complex_outputs_are_decoded_in_both_parts(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path, scheme: str
) -> None:
    faults.install(client, {"1": faults.Slow(0.2)})
    report = score(
        store, model=toy_models.rotated, out=tmp_path / "out.zarr", client=client, k=4, block=5,
        window=100, scheme=scheme, repair="none", progress=False,
    )  # fmt: skip
    found = report.predictions.load()
    assert found.prediction.dtype == np.complex64
    assert report.counts["decoded"] > 0
    decoded = found.prediction.values[found.status.values == Status.DECODED]
    assert np.abs(decoded.imag).mean() > np.abs(decoded.real).mean()


def test_a_row_on_which_the_model_raised_is_not_decoded(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_policy(monkeypatch, patience=1000)
    rows = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    rows[[42, 171], 0] = 5000
    report = score(
        xr.DataArray(rows, dims=("n", "f"), name="x"), model=toy_models.raises_on_mark,
        out=tmp_path / "out.zarr", client=client, k=2, block=5, window=100, scheme="systematic",
        repair="none", late=1000, progress=False,
    )  # fmt: skip
    status = report.predictions.status.values
    assert np.flatnonzero(status == Status.FAILED).tolist() == [42, 171]
    assert [row for row, _ in sorted(report.failures)] == [42, 171]
