"""Rows of other types than float32, as the model gets them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_models
import xarray as xr
from distributed import Client
from marks import slow_after

from approxifer import score


def run(client: Client, rows: np.ndarray, out: Path, **options: Any) -> Any:
    data = xr.DataArray(rows, dims=("n", "f"), name="x")
    return score(data, out=out, client=client, k=2, progress=False, **options)


@pytest.mark.parametrize("kind", slow_after(1, ["uint8", "bool", "int32", "int64"]))
@pytest.mark.parametrize("scheme", slow_after(1, ["uncoded", "replication"]))
def test_tokens_reach_the_model_as_they_are(
    client: Client, tmp_path: Path, kind: str, scheme: str
) -> None:
    rows = np.arange(200).reshape(50, 4).astype(kind)
    report = run(
        client, rows, tmp_path / "out.zarr", model=toy_models.type_names, scheme=scheme,
        dtype="stored",
    )  # fmt: skip
    assert (report.predictions.prediction == np.dtype(kind).num).all()
    assert report.notes == []


def test_float64_rows_stay_and_nothing_else_is_noted(client: Client, tmp_path: Path) -> None:
    rows = 1.6e9 + np.arange(400.0).reshape(100, 4) / 1000
    for dtype, notes in (
        ("float64", []),
        ("float32", ["float64 rows are cast to float32"]),
    ):
        report = run(client, rows, tmp_path / f"{dtype}.zarr", model=toy_models.same, dtype=dtype)
        assert report.notes == notes
        assert (report.predictions.prediction.values == rows).all() == (dtype == "float64")


def test_wide_integers_are_coded_as_float64(client: Client, tmp_path: Path) -> None:
    rows = np.arange(400, dtype=np.int32).reshape(100, 4) + 2**30
    report = run(client, rows, tmp_path / "out.zarr", model=toy_models.same, dtype="float64")
    np.testing.assert_array_equal(report.predictions.prediction, rows)
    assert report.notes == ["int32 rows are cast to float64"]


@pytest.mark.parametrize("kind", ["uint8", "bool", "int32"])
def test_uncoded_sends_integers_as_they_are_where_the_model_takes_them(
    client: Client, tmp_path: Path, kind: str
) -> None:
    rows = np.arange(200).reshape(50, 4).astype(kind)
    report = run(client, rows, tmp_path / "out.zarr", model=toy_models.type_names, scheme="uncoded")
    assert (report.predictions.prediction == np.dtype(kind).num).all()
    assert report.notes == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "note"),
    [
        (toy_models.embedding, "uint8 rows are cast to int64"),
        (toy_models.float_network, "uint8 rows are cast to float32"),
    ],
)
def test_uncoded_casts_integers_where_the_model_takes_no_others(
    client: Client, tmp_path: Path, model: Any, note: str
) -> None:
    rows = np.arange(200).reshape(50, 4).astype("uint8")
    report = run(client, rows, tmp_path / "out.zarr", model=model(), scheme="uncoded")
    assert report.notes in ([note], [])  # an embedding of a later torch may take them as they are
    assert report.counts["exact"] == 50
