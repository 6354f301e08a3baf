"""Fields in, increments out: the split of a time series, and the training of its network."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from approxifer.errors import InputError, InputNotFoundError
from approxifer.models import open_model, probe, run_rows
from approxifer.models.samples import LEAD, era5_split
from approxifer.models.train import Epoch, main, skill, train
from approxifer.models.zoo import forecaster

HOURS = 60


def wave() -> np.ndarray[Any, Any]:
    """Hourly temperatures of waves that travel at one speed: a field determines its increment."""
    time, lat, lon = np.ogrid[:HOURS, :6, :8]
    phase = 2 * np.pi * (time / 24 + lon / 8)
    return 280 + 3 * np.sin(phase) + np.cos(phase + lat)


def write(path: Path, **variables: np.ndarray[Any, Any]) -> Path:
    dims = ("time", "lat", "lon")
    dataset = xr.Dataset({name: (dims[: v.ndim], v) for name, v in variables.items()})
    dataset.to_zarr(path, consolidated=False)
    return path


def test_increments_belong_to_their_rows_and_the_end_is_kept_for_the_test(tmp_path: Path) -> None:
    fields = wave().astype(np.float32)
    split = era5_split(write(tmp_path / "t2m.zarr", t2m=fields))
    np.testing.assert_array_equal(split.rows, fields[:-LEAD])
    np.testing.assert_array_equal(split.labels, fields[LEAD:] - fields[:-LEAD])
    np.testing.assert_array_equal([*split.train, *split.test], np.arange(HOURS - LEAD))
    assert len(split.train) == 43
    looked_at = {*split.train.tolist(), *(split.train + LEAD).tolist()}
    assert not looked_at & {*(split.test + LEAD).tolist()}


@pytest.mark.parametrize(
    "fields",
    [
        np.full((9, 3, 4), 280),
        np.full((9, 3), 280.0),
        np.full((LEAD + 1, 3, 4), 280.0),
        np.full((9, 3, 4), np.nan),
    ],
    ids=["integers", "no fields", "too few", "missing values"],
)
def test_other_fields_are_refused(fields: np.ndarray[Any, Any], tmp_path: Path) -> None:
    store = write(tmp_path / "other.zarr", t2m=fields)
    with pytest.raises(InputError, match="needed are at least 8 finite floating-point fields"):
        era5_split(store)
    assert len(era5_split(write(tmp_path / "least.zarr", t2m=wave()[: LEAD + 2])).test) == 1


def test_the_variable_must_be_clear(tmp_path: Path) -> None:
    store = write(tmp_path / "two.zarr", t2m=wave(), u10=wave() - 280)
    with pytest.raises(InputError, match="2 variables"):
        era5_split(store)
    np.testing.assert_array_equal(era5_split(store, "u10").rows, (wave() - 280)[:-LEAD])
    with pytest.raises(InputNotFoundError):
        era5_split(tmp_path / "nothing.zarr")


@pytest.mark.slow
def test_the_command_trains_and_exports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = write(tmp_path / "t2m.zarr", t2m=wave())  # float64; the program takes float32
    out, state = tmp_path / "era5.pt2", tmp_path / "era5.pth"
    options = ["--state", str(state), "--epochs", "30", "--batch", "16"]
    assert main(["forecaster", str(store), "--out", str(out), *options]) == 0
    printed = capsys.readouterr().out
    assert printed.count("epoch ") == 30
    assert "accuracy" not in printed
    split = era5_split(store)
    rows, labels = split.rows[split.test].astype(np.float32), split.labels[split.test]
    found = run_rows(open_model(out).load(), rows, 4)
    assert found.shape == rows.shape
    error = float(np.sqrt(np.mean((found - labels) ** 2)))
    still = float(np.sqrt(np.mean(labels**2)))
    said = re.search(r"test skill (\S+) \(rms error (\S+), of persistence (\S+)\) on 11", printed)
    assert said is not None
    assert [float(x) for x in said.groups()] == pytest.approx(
        [1 - (error / still) ** 2, error, still], abs=2e-3
    )
    assert float(said[1]) > 0.5
    again = open_model("approxifer.models.zoo:forecaster", state=state).load()
    np.testing.assert_allclose(run_rows(again, rows, 4), found, atol=1e-4)


def test_rows_do_not_depend_on_their_batch() -> None:
    torch.manual_seed(0)
    handle = open_model(forecaster(280.0, 3.0, 2.0).eval())
    assert probe(handle, wave()[:16].astype(np.float32), 8).output_shape == (6, 8)


def test_skill_is_measured_against_no_change() -> None:
    rows = np.random.default_rng(0).normal(size=(300, 2, 2)).astype(np.float32)
    assert skill(torch.nn.Identity(), rows, rows) == 1
    assert skill(torch.nn.Identity(), np.zeros_like(rows), rows) == 0
    assert skill(torch.nn.Identity(), -rows, rows) == pytest.approx(-3)


def test_values_are_learned_by_squared_error() -> None:
    rows = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 2)
    seen: list[Epoch] = []
    train(module, rows, 2 * rows[:, :2], epochs=40, lr=0.1, batch=8, on_epoch=seen.append)
    assert {epoch.accuracy for epoch in seen} == {None}
    assert seen[-1].loss < 0.01 * seen[0].loss
    np.testing.assert_allclose(module.weight.detach(), [[2, 0, 0], [0, 2, 0]], atol=0.05)


def test_pictures_have_no_variable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["mlp", "digits", "--out", str(tmp_path / "x.pt2"), "--variable", "t2m"]
    assert main(arguments) == 2
    assert "only the forecaster reads a Zarr store" in capsys.readouterr().err
