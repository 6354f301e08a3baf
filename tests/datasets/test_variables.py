"""Several variables in one row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from approxifer.datasets import open_source
from approxifer.datasets.form import Forms, default_form
from approxifer.datasets.layout import coordinates_of
from approxifer.errors import ConfigError, InputError


@pytest.fixture
def winds() -> xr.Dataset:
    rng = np.random.default_rng(4)
    sizes, dims = (9, 4, 5), ("time", "lat", "lon")
    return xr.Dataset(
        {
            "u": (dims, rng.normal(size=sizes).astype("f4"), {"units": "m s-1", "long_name": "u"}),
            "v": (dims, rng.normal(size=sizes).astype("f4"), {"units": "m s-1", "long_name": "v"}),
            "n": (dims, rng.integers(0, 99, sizes).astype("i4")),
            "short": (("time", "lat"), rng.normal(size=(9, 4)).astype("f4")),
        },
        coords={"lat": [3.0, 2, 1, 0], "lon": np.arange(5.0)},
    )


def opened(data: xr.Dataset, path: Path, origin: str, **options: Any) -> Any:
    if origin == "dataset":
        return open_source(data, **options)
    if origin == "dask":
        return open_source(data.chunk(time=4, lat=2), **options)
    chunks = {name: {"chunks": (4, 2, 5)[: one.ndim]} for name, one in data.data_vars.items()}
    data.to_zarr(path, consolidated=False, encoding=chunks)
    return open_source(path, **options)


@pytest.mark.parametrize("origin", ["zarr", "dataset", "dask"])
@pytest.mark.parametrize("sample_dim", ["time", "lon", ("time", "lat"), ("time", "lat", "lon")])
def test_rows_hold_variables_in_the_order_that_is_asked_for(
    winds: xr.Dataset, tmp_path: Path, origin: str, sample_dim: Any
) -> None:
    source = opened(winds, tmp_path / "in", origin, variables="v, u", sample_dim=sample_dim)
    samples = (sample_dim,) if isinstance(sample_dim, str) else sample_dim
    assert (source.variables, source.dtype) == (("v", "u"), np.float32)
    assert source.feature_shape[0] == 2
    rest = [dim for dim in ("time", "lat", "lon") if dim not in samples]
    expected = winds[["v", "u"]].to_array().transpose(*samples, "variable", *rest).values
    found, done = source.read(0, source.rows), 0
    for slab, first, last in source.grid.pieces(0, source.rows):
        piece = expected[slab].reshape(-1, *source.feature_shape)[first:last]
        np.testing.assert_array_equal(found[done : done + len(piece)], piece)
        done += len(piece)
    np.testing.assert_array_equal(source.read(1, 2), source.read(0, 2)[1:])


def test_other_numbers_are_promoted_and_said(winds: xr.Dataset) -> None:
    source = open_source(winds, variables=["u", "n"])
    assert source.dtype == np.float64
    assert source.notes == ["the variables are read as float64: 'u' is float32, 'n' is int32"]
    np.testing.assert_array_equal(source.read(0, 9)[:, 1], winds.n.values)


def test_one_dataset_is_all_its_variables(winds: xr.Dataset) -> None:
    both = open_source(winds[["u", "v"]])
    assert both.variables == ("u", "v")
    assert both.attrs == {"units": "m s-1"}  # what they share
    one = open_source(winds[["u"]])
    assert (one.stacked, one.feature_shape) == (False, (4, 5))
    assert open_source(winds, "v").variables == ("v",)
    assert open_source(winds, variables=["u"]).feature_shape == (1, 4, 5)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        (
            {"variables": ["u", "short"]},
            InputError,
            r"'u' has .*lon: 5\) and 'short' \(time: 9, lat: 4\)",
        ),
        ({"variables": ["u", "w"]}, InputError, "no variable 'w'"),
        ({"variables": ["u", "u"]}, ConfigError, "each once"),
        ({"variables": []}, ConfigError, "give the names"),
        ({"variables": "u,"}, ConfigError, "give the names"),
        ({"variables": "u,v", "variable": "u"}, ConfigError, "one of the two"),
    ],
)
@pytest.mark.parametrize("origin", ["zarr", "dataset"])
def test_what_cannot_be_scored_together(
    winds: xr.Dataset, tmp_path: Path, origin: str, given: Any, error: Any, said: str
) -> None:
    with pytest.raises(error, match=said):
        opened(winds, tmp_path / "in", origin, **given)


def test_a_dataarray_is_one_variable(winds: xr.Dataset) -> None:
    with pytest.raises(InputError, match="give the Dataset"):
        open_source(winds.u, variables=["u"])


@pytest.mark.parametrize("origin", ["zarr", "dataset"])
def test_the_order_is_part_of_the_mark(winds: xr.Dataset, tmp_path: Path, origin: str) -> None:
    marks = {
        opened(winds, tmp_path / f"in{i}", origin, variables=names).fingerprint()
        for i, names in enumerate([["u", "v"], ["v", "u"], ["u"], "u,v"])
    }
    assert len(marks) == 3


def test_an_output_like_the_stack_or_like_one_of_it(winds: xr.Dataset) -> None:
    source = open_source(winds, variables=["u", "v"])
    stack = default_form(source, (2, 4, 5), "f4")
    assert (stack.dims, stack.chunks) == (("variable", "lat", "lon"), (1, 4, 5))
    coords = coordinates_of(source, Forms((stack,))).kept
    assert coords["variable"].values.tolist() == ["u", "v"]
    one = default_form(source, (4, 5), "f4")
    assert one.dims == ("lat", "lon")
    assert set(coordinates_of(source, Forms((one,))).kept) == {"lat", "lon"}
    assert default_form(source, (3, 5), "f4").dims == ("output_0", "output_1")


def test_tiles_of_several_variables(winds: xr.Dataset) -> None:
    source = open_source(winds, variables=["u", "v"], tile={"lat": 2, "lon": 5}, halo={"lat": 1})
    assert (source.rows, source.feature_shape) == (18, (2, 4, 5))
    padded = np.pad(winds.v.values, ((0, 0), (1, 1), (0, 0)), mode="reflect")
    at = np.unravel_index(np.arange(18), (9, 2))
    for row, (time, tile) in enumerate(zip(*at, strict=True)):
        np.testing.assert_array_equal(
            source.read(row, row + 1)[0, 1], padded[time, 2 * tile : 2 * tile + 4]
        )
