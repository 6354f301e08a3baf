"""Outputs as xarray's users expect them, from whole runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster

from approxifer import score
from approxifer.errors import FingerprintError

SUPPORT = Path(__file__).parents[2] / "support"
COMMON: dict[str, Any] = {"scheme": "uncoded", "k": 2, "block": 4, "window": 8, "progress": False}


def anomaly(rows: np.ndarray) -> np.ndarray:
    """Each field without its own mean."""
    found: np.ndarray = rows - rows.mean(axis=(1, 2), keepdims=True)
    return found


def mean(rows: np.ndarray) -> np.ndarray:
    found: np.ndarray = rows.mean(axis=2)
    return found


@pytest.fixture
def field(tmp_path: Path) -> Path:
    """22 fields, north first, in chunks of 4 rows."""
    rng = np.random.default_rng(1)
    data = xr.DataArray(
        rng.normal(size=(22, 5, 6)).astype("f4") + np.linspace(0, 9, 5, dtype="f4")[:, None],
        dims=("time", "latitude", "longitude"),
        name="t2m",
        coords={
            "time": np.datetime64("2019-03-01", "ns") + np.arange(22) * np.timedelta64(1, "h"),
            "latitude": ("latitude", 60 - np.arange(5.0), {"units": "degrees_north"}),
            "longitude": ("longitude", np.arange(6.0), {"units": "degrees_east"}),
            "mask": (("latitude", "longitude"), rng.random((5, 6)) > 0.5),
        },
        attrs={"units": "K", "long_name": "2 metre temperature"},
    )
    path = tmp_path / "in.zarr"
    data.to_dataset().to_zarr(path, encoding={"t2m": {"chunks": (4, 5, 3)}}, consolidated=False)
    return path


def test_a_field_is_scored_to_a_field(client: Client, field: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    report = score(field, model=anomaly, out=out, client=client, **COMMON)
    with xr.open_zarr(field, chunks=None, consolidated=False) as given:
        expected = given.t2m.copy(data=anomaly(given.t2m.values)).drop_attrs(deep=False)
        found = report.predictions.prediction
        xr.testing.assert_identical(found.drop_attrs(deep=False), expected.rename("prediction"))
    assert "units" not in found.attrs
    again = score(field, model=anomaly, out=out, client=client, **COMMON)
    assert again.resumed == 22


def test_asked_for_it_has_names_units_and_chunks(
    client: Client, field: Path, tmp_path: Path
) -> None:
    asked = {"variable": "zonal", "dims": ["latitude"], "attrs": "like-input", "dtype": "float64"}
    options = COMMON | {"out": tmp_path / "out.zarr", "client": client, "model": mean}
    found = score(field, output=asked, **options).predictions
    assert found.zonal.dims == ("time", "latitude")
    assert found.zonal.attrs["units"] == "K"
    with xr.open_zarr(field, chunks=None, consolidated=False) as given:
        np.testing.assert_array_equal(found.zonal, mean(given.t2m.values))
        xr.testing.assert_identical(found.latitude, given.latitude)
    with pytest.raises(FingerprintError, match=r"output.variable: given 'mean', stored 'zonal'"):
        score(field, output=asked | {"variable": "mean"}, **options)
    assert score(field, **options).resumed == 22  # nothing asked for: as it was begun


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("how", ["options", "job"])
def test_from_the_shell(cluster: LocalCluster, field: Path, tmp_path: Path, how: str) -> None:
    asked = {"variable": "scaled", "chunks": {"latitude": 2}}
    address = tmp_path / "cluster.yaml"
    address.write_text(f"kind: address\naddress: {cluster.scheduler_address}\n")
    place: dict[str, Any] = {
        "cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(SUPPORT)}, "timeout": 200,
    }  # fmt: skip
    command = [sys.executable, "-m", "approxifer.pipeline.cli.main"]
    given = {
        "out": "out.zarr",
        "model": "toy_models:make_double",
        "k": "2",
        "cluster": str(address),
    }
    if how == "options":
        command += ["score", str(field), "-k", "2", "--output", json.dumps(asked), "--no-progress"]
        command += [part for key, value in given.items() for part in (f"--{key}", value)]
    else:
        job = given | {"k": 2, "data": str(field), "output": asked}
        (tmp_path / "job.yaml").write_text(json.dumps(job))  # which is YAML
        subprocess.run([*command, "submit", "job.yaml"], check=True, **place)
        command += ["result", "job.yaml"]
    subprocess.run(command, check=True, **place)
    with xr.open_zarr(tmp_path / "out.zarr") as found:
        assert found.scaled.dims == ("time", "latitude", "longitude")
        assert found.scaled.chunksizes["latitude"] == (2, 2, 1)
