"""Rows of several variables, and tiles of fields, from whole runs."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster, Worker
from typer.testing import CliRunner
from waiting import until

from approxifer import score, submit
from approxifer.errors import ConfigError, FingerprintError, ModelError
from approxifer.pipeline import faults
from approxifer.pipeline.api import plan_run
from approxifer.pipeline.cli.jobfile import JobFile
from approxifer.pipeline.cli.main import app

COMMON: dict[str, Any] = {"scheme": "uncoded", "k": 2, "block": 4, "progress": False}
TILED: dict[str, Any] = {"tile": {"y": 8, "x": 8}, "halo": 2}


def around(rows: np.ndarray) -> np.ndarray:
    """Something of each point and its neighbours, not linear: (n, y, x) -> (n, y, x)."""
    padded = np.pad(rows, ((0, 0), (1, 1), (1, 1)))
    height, width = rows.shape[1:]
    near = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    found: np.ndarray = np.sqrt(1 + near[4] ** 2) * sum(near)
    return found


def slow(rows: np.ndarray) -> np.ndarray:
    time.sleep(0.02)
    return around(rows)


def whole(fields: np.ndarray) -> np.ndarray:
    """The same of whole fields, beyond the edge of which their reflection lies."""
    padded = np.pad(fields, ((0, 0), (2, 2), (2, 2)), mode="reflect")
    return around(padded)[:, 2:-2, 2:-2]


def speed(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.sqrt(u**2 + 2 * v**2)
    return found


def stacked(rows: np.ndarray) -> np.ndarray:
    return speed(rows[:, 0], rows[:, 1])


@pytest.fixture
def fields() -> xr.Dataset:
    """Twelve hours of two variables, north first."""
    rng = np.random.default_rng(6)
    dims, sizes = ("time", "y", "x"), (12, 20, 17)
    return xr.Dataset(
        {name: (dims, rng.normal(size=sizes).astype("f4"), {"units": "m s-1"}) for name in "uv"},
        coords={
            "time": np.datetime64("2020-01-01", "ns") + np.arange(12) * np.timedelta64(1, "h"),
            "y": ("y", 60 - np.arange(20.0), {"units": "degrees_north"}),
            "x": ("x", np.arange(17.0), {"units": "degrees_east"}),
        },
    )


@pytest.fixture
def path(fields: xr.Dataset, tmp_path: Path) -> Path:
    place = tmp_path / "in.zarr"
    chunks = {name: {"chunks": (4, 10, 9)} for name in "uv"}
    fields.to_zarr(place, encoding=chunks, consolidated=False)
    return place


def same(found: xr.DataArray, expected: np.ndarray, like: xr.DataArray) -> None:
    """Equal numbers, on the input's own grid."""
    np.testing.assert_allclose(found.values, expected, rtol=1e-5)
    xr.testing.assert_identical(
        found.coords.to_dataset().drop_attrs(deep=False), like.coords.to_dataset()
    )


@pytest.mark.parametrize("model", [speed, stacked])
def test_two_variables_make_one_field(
    client: Client, path: Path, fields: xr.Dataset, tmp_path: Path, model: Any
) -> None:
    options = COMMON | {"model": model, "client": client, "out": tmp_path / "out.zarr"}
    found = score(path, variables=["u", "v"], **options).predictions
    same(found.prediction, speed(fields.u.values, fields.v.values), fields.u)
    assert found.attrs["variables"] == ["u", "v"]
    with pytest.raises(FingerprintError, match=r"with variables u, v, and is given v, u"):
        score(path, variables=["v", "u"], **options)
    with pytest.raises(FingerprintError, match=r"with variables u, v, and is given none"):
        score(path, variable="u", **options)
    assert score(path, variables="u,v", **options).resumed == 12
    with pytest.raises(ConfigError, match="one of the two"):
        score(path, variables="u,v", variable="u", **options)


def polar(u: np.ndarray, v: np.ndarray) -> dict[str, np.ndarray]:
    return {"speed": speed(u, v), "angle": np.arctan2(v, u)}


def test_two_variables_in_and_two_out(
    client: Client, path: Path, fields: xr.Dataset, tmp_path: Path
) -> None:
    options = COMMON | {"model": polar, "client": client, "out": tmp_path / "out.zarr"}
    found = score(path, variables=["u", "v"], **options).predictions
    for name, expected in polar(fields.u.values, fields.v.values).items():
        same(found[name], expected, fields.u)


def test_points_of_two_variables(client: Client, fields: xr.Dataset, tmp_path: Path) -> None:
    options = COMMON | {"model": speed, "client": client, "block": 64}
    points = ("time", "y", "x")
    found = score(fields, sample_dim=points, out=tmp_path / "out.zarr", **options).predictions
    same(found.prediction, speed(fields.u.values, fields.v.values), fields.u)
    assert found.status.dims == points


def test_inputs_that_are_no_variables(client: Client, path: Path, tmp_path: Path) -> None:
    def other(u: np.ndarray, w: np.ndarray) -> np.ndarray:
        return u + w

    options = COMMON | {"client": client, "out": tmp_path / "out.zarr", "variables": "u,v"}
    with pytest.raises(ModelError, match=r"takes 2 inputs \(u, w\)\..*variables u, v"):
        score(path, model=other, **options)
    with pytest.raises(ModelError, match="what preprocess= returns must hold"):
        score(path, model=speed, preprocess=stacked, **options)
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize("sample_dim", [None, ()])
def test_tiles_are_what_the_whole_gives(
    client: Client, path: Path, fields: xr.Dataset, tmp_path: Path, sample_dim: Any
) -> None:
    data = path if sample_dim is None else fields.u[3]
    options = COMMON | TILED | {"model": around, "client": client, "out": tmp_path / "out.zarr"}
    options |= {"sample_dim": sample_dim, "variable": "u"}
    planned = plan_run(data, **options)
    assert "(12, 12) float32, tiles of y: 8 and a border of 2, x: 8 and a border of 2" in planned
    assert "(y: 20, x: 17) float32 put together" in planned
    report = score(data, **options)
    if sample_dim is None:
        same(report.predictions.prediction, whole(fields.u.values), fields.u)
        assert report.predictions.status.dims == ("time", "tile_y", "tile_x")
        assert report.rows == 12 * 3 * 3
    else:
        same(report.predictions.prediction, whole(fields.u.values[3:4])[0], fields.u[3])
    assert score(data, **options).resumed == report.rows
    with pytest.raises(FingerprintError, match=r"begun with tiles .*'halo': 2.*given .*'halo': 3"):
        score(data, **options | {"halo": 3})


def test_one_chunk_of_tiles_is_committed_at_once(
    client: Client, path: Path, tmp_path: Path
) -> None:
    options = COMMON | TILED | {"model": around, "client": client, "variable": "u"}
    with pytest.raises(ConfigError, match="of tiles, whole chunks are committed together, 36 rows"):
        score(path, out=tmp_path / "out.zarr", window=20, **options)
    with pytest.raises(ConfigError, match="cannot be put together"):
        score(path, out=tmp_path / "out.zarr", **options | {"model": lambda rows: rows[:, 2:-2]})
    with pytest.raises(ConfigError, match="trained on whole rows"):
        score(path, out=tmp_path / "out.zarr", **options | {"scheme": "parm", "parity": "p"})


@pytest.mark.parametrize("trouble", ["lost", "liar"])
@pytest.mark.parametrize("rows", ["fields", "tiles"])
def test_a_worker_that_is_lost_or_lies_changes_nothing(
    client: Client, fields: xr.Dataset, tmp_path: Path, rows: str, trouble: str
) -> None:
    """Systematic, K = 3, S = 1; E = 1 where one lies."""
    many = xr.concat([fields.u, -2 * fields.u], "time") if rows == "tiles" else xr.concat(
        [fields.u * n for n in range(1, 16)], "time"
    )  # fmt: skip
    many["time"] = np.datetime64("2020-01-01", "ns") + np.arange(len(many)).astype("m8[h]")
    options: dict[str, Any] = {"model": slow, "k": 3, "block": 2, "client": client}
    options |= {"out": tmp_path / "out.zarr"}
    if rows == "tiles":
        options |= TILED
    else:
        options |= {"window": 60, "output": "like-input"}
    if trouble == "liar":
        faults.install(client, {"3": faults.Noise(sigma=1.0)})
        report = score(many, byzantine=1, progress=False, **options)
        assert [one.member.name for one in report.convicted] == ["3"]
    else:
        job = submit(many, **options)
        until(lambda: job.progress().done > 0)
        os.kill(process(client, "2"), signal.SIGKILL)
        report = job.result(timeout=60)
    expected = whole(many.values) if rows == "tiles" else around(many.values)
    same(report.predictions.prediction, expected, many)
    assert report.counts["exact"] + report.counts["repaired"] == report.rows
    client.wait_for_workers(6, timeout=30)


def process(client: Client, name: str) -> int:
    """The process id of a worker."""

    def pid(dask_worker: Worker) -> tuple[str, int]:
        return str(dask_worker.name), os.getpid()

    return dict(client.run(pid).values())[name]


SHELL: dict[str, dict[str, Any]] = {
    "several variables": {"variables": "u,v", "model": "toy_models:first_of_two"},
    "points": {"variable": "u", "sample-dim": "time,y,x", "model": "toy_models:make_double"},
    "tiles": {"variable": "u", "tile": "y=8,x=8", "halo": "2", "model": "toy_models:make_double"},
}


@pytest.mark.parametrize("how", ["options", "job file"])
@pytest.mark.parametrize("rows", SHELL)
def test_from_a_shell_and_from_a_job_file_with_rows_appended(
    cluster: LocalCluster, client: Client, fields: xr.Dataset, tmp_path: Path, rows: str, how: str
) -> None:
    place, out, file = tmp_path / "in.zarr", tmp_path / "out.zarr", tmp_path / "cluster.yaml"
    file.write_text(f"kind: address\naddress: {cluster.scheduler_address}\n")
    chunks = {name: {"chunks": (4, 10, 9)} for name in "uv"}
    fields.isel(time=slice(8)).to_zarr(place, encoding=chunks, consolidated=False)
    given = SHELL[rows] | {"scheme": "uncoded", "k": "2", "cluster": str(file), "out": str(out)}

    def run(*flags: str) -> None:
        if how == "options":
            options = [part for key, value in given.items() for part in (f"--{key}", value)]
            command = ["score", str(place), *options, *flags, "--no-progress"]
            done = CliRunner().invoke(app, command, catch_exceptions=False)
            assert done.exit_code == 0, done.output
            return
        job = {key.replace("-", "_"): value for key, value in given.items()}
        job |= {"k": 2, "data": "in.zarr", "append": "--append" in flags}
        job |= {"halo": 2, "tile": {"y": 8, "x": 8}} if rows == "tiles" else {}
        (tmp_path / "job.yaml").write_text(json.dumps(job))  # which is YAML
        score(**JobFile.read(tmp_path / "job.yaml").options, progress=False)

    run()
    fields.isel(time=slice(8, None)).drop_vars(["y", "x"]).to_zarr(
        place, append_dim="time", consolidated=False
    )
    run("--append")
    with xr.open_zarr(out) as found:
        first = fields.u.values if rows == "several variables" else 2 * fields.u.values
        same(found.prediction.load(), first, fields.u)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_tiles_of_a_large_image_are_what_a_network_gives_for_the_whole(
    client: Client, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    layers = [torch.nn.Unflatten(1, (1, -1)), torch.nn.Conv2d(1, 4, 5, padding="same")]
    layers += [torch.nn.ReLU(), torch.nn.Conv2d(4, 1, 7, padding="same"), torch.nn.Flatten(1, 2)]
    network = torch.nn.Sequential(*layers).eval()  # sees 5 points on either side
    image = np.random.default_rng(2).normal(size=(2000, 2000)).astype("f4")
    data = xr.DataArray(image, dims=("y", "x"), coords={"y": -np.arange(2000.0)})
    options = COMMON | {"model": network, "client": client, "scheme": "systematic", "k": 4}
    report = score(data, out=tmp_path / "out.zarr", tile={"y": 256, "x": 256}, halo=32, **options)
    with torch.no_grad():
        padded = torch.from_numpy(np.pad(image, 32, mode="reflect"))[None]
        expected = network(padded)[0, 32:-32, 32:-32].numpy()
    np.testing.assert_allclose(report.predictions.prediction, expected, atol=1e-5)
    xr.testing.assert_identical(report.predictions.prediction.y.variable, data.y.variable)
    assert report.rows == 64
