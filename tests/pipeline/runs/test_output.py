"""Outputs as xarray's users expect them, from whole runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_models
import xarray as xr
import zarr
from distributed import Client, LocalCluster
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from approxifer import score
from approxifer.errors import ConfigError, FingerprintError
from approxifer.pipeline.api import plan_run

SUPPORT = Path(__file__).parents[2] / "support"
COMMON: dict[str, Any] = {"scheme": "uncoded", "k": 2, "block": 4, "window": 8, "progress": False}


def anomaly(rows: np.ndarray) -> np.ndarray:
    """Each field without its own mean."""
    found: np.ndarray = rows - rows.mean(axis=(1, 2), keepdims=True)
    return found


def turned(rows: np.ndarray) -> np.ndarray:
    found: np.ndarray = -rows
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
    with xr.open_zarr(field, chunks=None, consolidated=False) as opened:
        expected = opened.t2m.copy(data=anomaly(opened.t2m.values)).drop_attrs(deep=False)
        found = report.predictions.prediction
        xr.testing.assert_identical(found.drop_attrs(deep=False), expected.rename("prediction"))
    assert "units" not in found.attrs
    again = score(field, model=anomaly, out=out, client=client, **COMMON)
    assert again.resumed == 22


@pytest.mark.slow
@pytest.mark.timeout(400)
@settings(max_examples=10, suppress_health_check=list(HealthCheck))
@given(
    dims=st.permutations(["time", "latitude", "longitude"]),
    sizes=st.lists(st.integers(2, 9), min_size=3, max_size=3),
    chunk=st.integers(1, 5),
    at=st.integers(0, 2),
    window=st.integers(3, 9),
)
def test_any_order_of_dimensions_is_that_of_apply_ufunc(
    client: Client, dims: list[str], sizes: list[int], chunk: int, at: int, window: int
) -> None:
    data = xr.DataArray(
        np.random.default_rng(sum(sizes)).normal(size=sizes).astype("f4"), dims=dims, name="x",
        coords={dims[0]: np.arange(sizes[0]) * -0.5, "height": 2.0,
                "area": (dims[:2], np.ones(sizes[:2]), {"units": "m2"})},
    )  # fmt: skip
    row = [dim for dim in dims if dim != dims[at]]
    with tempfile.TemporaryDirectory() as folder:
        chunks = {"x": {"chunks": (chunk, chunk, chunk)}}
        data.to_dataset().to_zarr(f"{folder}/in", encoding=chunks, consolidated=False)
        options = COMMON | {"window": window, "sample_dim": dims[at], "client": client}
        report = score(f"{folder}/in", model=turned, out=f"{folder}/out", variable="x", **options)
        found = report.predictions.prediction.load().drop_attrs(deep=False)
    expected = xr.apply_ufunc(turned, data, input_core_dims=[row], output_core_dims=[row],
                              keep_attrs=True)  # fmt: skip
    xr.testing.assert_identical(found, expected.rename("prediction"))


def test_asked_for_it_has_names_units_and_chunks(
    client: Client, field: Path, tmp_path: Path
) -> None:
    asked = {"variable": "zonal", "dims": ["latitude"], "attrs": "like-input", "dtype": "float64"}
    options = COMMON | {"out": tmp_path / "out.zarr", "client": client, "model": mean}
    found = score(field, output=asked, **options).predictions
    assert found.zonal.dims == ("time", "latitude")
    assert found.zonal.attrs["units"] == "K"
    with xr.open_zarr(field, chunks=None, consolidated=False) as opened:
        np.testing.assert_array_equal(found.zonal, mean(opened.t2m.values))
        xr.testing.assert_identical(found.latitude, opened.latitude)
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


def square(points: np.ndarray) -> np.ndarray:
    found: np.ndarray = points * points
    return found


def test_points_of_a_cube_come_back_as_the_cube(
    client: Client, field: Path, tmp_path: Path
) -> None:
    options = COMMON | {"model": square, "client": client, "block": 16, "window": 150}
    asked: dict[str, Any] = {"sample_dim": ("time", "latitude", "longitude")}
    out = tmp_path / "out.zarr"
    found = score(field, out=out, **options | asked).predictions
    with xr.open_zarr(field, chunks=None, consolidated=False) as opened:
        looped = np.array([square(point) for point in opened.t2m.values.ravel()])
        expected = opened.t2m.copy(data=looped.reshape(opened.t2m.shape)).drop_attrs(deep=False)
        prediction = found.prediction.drop_attrs(deep=False)
        xr.testing.assert_identical(prediction, expected.rename("prediction"))
    assert found.status.dims == opened.t2m.dims
    assert score(field, out=out, **options | asked).resumed == 660
    with pytest.raises(FingerprintError, match="has rows along time, latitude, longitude"):
        score(field, out=out, **options)
    with pytest.raises(ConfigError, match="whole chunks"):
        score(field, out=tmp_path / "small.zarr", **options | asked | {"window": 20})


@pytest.mark.parametrize("sample_dim", ["time", "time,latitude,longitude"])
def test_a_grown_input_is_appended(client: Client, tmp_path: Path, sample_dim: str) -> None:
    rng = np.random.default_rng(2)
    data = xr.DataArray(
        rng.normal(size=(150, 3, 2)).astype("f4"),
        dims=("time", "latitude", "longitude"),
        name="t",
        coords={"time": np.datetime64("2020-01-01", "ns") + np.arange(150).astype("m8[h]")},
    ).to_dataset()
    path, out = tmp_path / "in.zarr", tmp_path / "out.zarr"
    first = data.isel(time=slice(100))
    first.to_zarr(path, consolidated=False, encoding={"t": {"chunks": (30, 3, 2)}})
    point = "," in sample_dim
    options = COMMON | {"model": square, "client": client, "sample_dim": sample_dim}
    options |= {"window": 180, "block": 20} if point else {"window": 40}
    score(path, out=out, **options)
    data.isel(time=slice(100, None)).to_zarr(path, append_dim="time", consolidated=False)
    old, new = (600, 900) if point else (100, 150)
    with pytest.raises(FingerprintError, match=rf"grown: {old} to {new} rows.*append=True"):
        score(path, out=out, **options)
    assert f"append  {new - old} rows to the {old}" in plan_run(
        path, out=out, append=True, **options
    )
    report = score(path, out=out, append=True, **options)
    assert (report.rows, report.resumed) == (new, old)
    whole = score(path, out=tmp_path / "whole.zarr", **options).predictions
    for name in ("prediction", "time"):
        xr.testing.assert_identical(report.predictions[name], whole[name])
    assert score(path, out=out, append=True, **options).resumed == new
    assert score(path, out=out, **options).resumed == new
    group = zarr.open_group(str(path), mode="r+")
    group["t"][3] = 9
    with pytest.raises(FingerprintError, match="is not the one that"):
        score(path, out=out, append=True, **options)


@pytest.mark.slow
def test_an_appending_client_that_was_killed_goes_on(
    cluster: LocalCluster, client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    """SIGKILL once two of the new windows are written."""
    out = tmp_path / "out.zarr"
    path = tmp_path / "growing.zarr"
    data = xr.Dataset({"x": (("sample", "a", "b"), rows)})
    first = data.isel(sample=slice(130))
    first.to_zarr(path, encoding={"x": {"chunks": (100, 4, 4)}}, consolidated=False)
    options = COMMON | {"model": toy_models.counted, "k": 4, "block": 5, "window": 40}
    options |= {"scheme": "systematic", "client": client}
    score(path, out=out, **options)
    data.isel(sample=slice(130, None)).to_zarr(path, append_dim="sample", consolidated=False)
    command = [sys.executable, str(SUPPORT / "score_and_die.py"), cluster.scheduler_address]
    died = subprocess.run(
        [*command, str(path), str(out), "6"],
        env=os.environ | {"PYTHONPATH": str(SUPPORT)}, capture_output=True, timeout=100,
    )  # fmt: skip
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    report = score(path, out=out, **options)
    assert 130 < report.resumed < 400
    np.testing.assert_array_equal(report.predictions.prediction, toy_models.linear(rows))
