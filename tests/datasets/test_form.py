"""The form of an output: dimensions, coordinates, chunks, as xarray's users expect them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from approxifer.datasets import OutputStore, open_source
from approxifer.datasets.form import Form, Forms, default_form
from approxifer.errors import ConfigError, StoreError

ROWS = 7


def field(**encoding: Any) -> xr.Dataset:
    """Fields on a grid, as a forecast has them: north is first."""
    rng = np.random.default_rng(3)
    data = xr.Dataset(
        {"t": (("time", "lat", "lon"), rng.normal(size=(ROWS, 3, 4)).astype("f4"))},
        coords={
            "time": np.datetime64("2020-02-27", "ns") + np.arange(ROWS) * np.timedelta64(1, "D"),
            "lat": ("lat", [60.0, 50.0, 40.0], {"units": "degrees_north"}),
            "lon": ("lon", [0.0, 1, 2, 3], {"units": "degrees_east", "standard_name": "longitude"}),
            "area": (("lat", "lon"), rng.random((3, 4)), {"units": "m2"}),
            "name": ("lat", np.array(["north", "middle", "south"], object)),
            "height": ((), 2.0, {"units": "m"}),
            "crs": ((), 0, {"grid_mapping_name": "latitude_longitude"}),
        },
    )
    data["t"].attrs = {"units": "K", "standard_name": "air_temperature", "grid_mapping": "crs"}
    data["t"].encoding = encoding
    return data


def scored(path: Path, source: Any, function: Any, **given: Any) -> xr.Dataset:
    """The store that a run of this function writes, window by window, without a cluster."""
    output = function(source.read(0, source.rows))
    with OutputStore.create(
        path, source=source, output_shape=output.shape[1:], output_dtype=output.dtype, attrs={},
        **{"chunk": 3} | given,
    ) as store:  # fmt: skip
        for start in range(0, source.rows, 2 * store.chunk):
            stop = min(start + 2 * store.chunk, source.rows)
            store.write_window(start, stop, prediction=output[start:stop], status=1)
            np.testing.assert_array_equal(store.read_prediction(start, stop), output[start:stop])
    with xr.open_zarr(str(path), chunks=None) as found:
        return found.load()


def test_a_field_comes_back_as_a_field(tmp_path: Path) -> None:
    data = field(chunks=(3, 2, 4))
    data.to_zarr(tmp_path / "in.zarr", zarr_format=3, consolidated=False)
    found = scored(tmp_path / "out.zarr", open_source(tmp_path / "in.zarr", "t"), np.negative)
    xr.testing.assert_equal(found.prediction, -data.t)
    for name, coord in data.coords.items():
        assert found[name].attrs == coord.attrs, name
    assert {"units", "standard_name"}.isdisjoint(found.prediction.attrs)
    assert found.prediction.attrs["grid_mapping"] == "crs"
    array = zarr.open_array(str(tmp_path / "out.zarr" / "prediction"), mode="r")
    assert array.chunks == (3, 2, 4)
    assert {path.name for path in (tmp_path / "out.zarr" / "prediction").glob("c.*")} == {
        f"c.{i}.{j}.0" for i in range(3) for j in range(2)
    }


def test_what_is_no_field_has_dimensions_of_its_own(tmp_path: Path) -> None:
    found = scored(tmp_path / "a", open_source(field().t), lambda rows: rows.mean(axis=2))
    assert found.prediction.dims == ("time", "output_0")
    assert set(found.coords) == {"time", "height", "crs"}
    row = scored(tmp_path / "b", open_source(field().t[:, 0]), np.negative)
    assert row.prediction.dims == ("time", "output_0")  # one dimension: it may be classes


@pytest.mark.parametrize(
    "dims", [("time", "prediction", "x"), ("time", "status", "x"), ("time", "x", "x")]
)
def test_names_that_cannot_be_an_outputs(tmp_path: Path, dims: tuple[str, ...]) -> None:
    data = xr.Dataset({"t": xr.Variable(("a", "b", "c"), np.ones((4, 3, 3), "f4"))})
    data.to_zarr(tmp_path / "in.zarr", zarr_format=3, consolidated=False)
    group = zarr.open_group(str(tmp_path / "in.zarr"), mode="a", use_consolidated=False)
    group.create_array("u", data=np.ones((4, 3, 3), "f4"), dimension_names=dims)
    found = scored(tmp_path / "out.zarr", open_source(tmp_path / "in.zarr", "u"), np.negative)
    assert found.prediction.dims == ("time", "output_0", "output_1")


def test_shards_follow_the_inputs(tmp_path: Path) -> None:
    data = field(chunks=(1, 3, 2), shards=(2, 3, 4))
    data.to_zarr(tmp_path / "in.zarr", zarr_format=3, consolidated=False)
    found = scored(tmp_path / "out.zarr", open_source(tmp_path / "in.zarr", "t"), np.negative)
    xr.testing.assert_equal(found.prediction, -data.t)
    array = zarr.open_array(str(tmp_path / "out.zarr" / "prediction"), mode="r")
    assert (array.chunks, array.shards) == ((3, 3, 2), (3, 3, 4))


def test_a_wider_dtype_another_name_and_codec(tmp_path: Path) -> None:
    source = open_source(field().t)
    form = Form(
        (3, 4), np.dtype("f4"), ("y", "x"), (3, 2), variable="warming", dtype=np.dtype("f8"),
        codec={"name": "gzip", "configuration": {"level": 2}}, attrs={"units": "K"},
        coords={"y": xr.Variable("y", [1, 2, 3], {"units": "m"})},
    )  # fmt: skip
    found = scored(tmp_path / "out.zarr", source, np.negative, forms=Forms((form,)))
    assert found.warming.dims == ("time", "y", "x")
    assert found.warming.dtype == "f8"
    assert found.warming.attrs["units"] == "K"
    assert found.y.attrs == {"units": "m"}
    np.testing.assert_array_equal(found.warming, -field().t)
    with OutputStore.open(tmp_path / "out.zarr") as store:
        assert store.packing.dtype == "f4"
        assert store.read_prediction(0, 2).dtype == "f4"
        (store.path / "warming" / "c.0.0.1").write_bytes(b"rot")
        with pytest.raises(StoreError, match="cannot be read"):
            store.read_prediction(0, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dims": ("y",)}, "give 2 names"),
        ({"dims": ("y", "y")}, "'y' twice"),
        ({"dims": ("y", "status")}, "'status' twice"),
        ({"variable": "worker"}, "'worker' twice"),
        ({"variable": "a/b"}, "rename it"),
        ({"dtype": np.dtype("f2")}, "holds all its numbers"),
        ({"dtype": np.dtype("i8")}, "holds all its numbers"),
        ({"shards": (3, 3)}, "whole chunks"),
        ({"codec": {"name": "zip"}}, "Give blosc, gzip, zstd or none"),
        ({"codec": {"name": "zstd", "configuration": {"level": "x"}}}, "Give blosc"),
        ({"attrs": {"scale_factor": 2}}, "leave them out"),
        ({"attrs": {"made": object()}}, "JSON"),
        ({"coords": {"y": xr.Variable("y", [1, 2])}}, "of 2 along 'y'"),
        ({"coords": {"time": xr.Variable("time", np.arange(ROWS))}}, "come from the input"),
        ({"coords": {"y": xr.Variable("x", [1, 2, 3, 4])}}, "name is taken"),
    ],
)
def test_forms_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "shape": (3, 4), "model_dtype": np.dtype("f4"), "dims": ("y", "x"), "chunks": (3, 2)
    }  # fmt: skip
    with pytest.raises(ConfigError, match=message):
        Form(**good | changes)


NAMES = ("a", "b", "c", "d")


@st.composite
def inputs(draw: st.DrawFn) -> tuple[xr.DataArray, str, str]:
    """An array of two to four dimensions in any order, with coordinates of all kinds along any of
    them, in chunks or not; the dimension of its rows; and where it comes from."""
    dims = draw(st.permutations(NAMES))[: draw(st.integers(2, 4))]
    sizes = {dim: draw(st.integers(1, 5)) for dim in dims}
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    data = xr.DataArray(
        rng.normal(size=tuple(sizes.values())).astype("f4"), dims=dims, name="x",
        attrs={"units": "K", "standard_name": "air_temperature", "long_name": "t"},
    )  # fmt: skip
    kinds = {
        "number": lambda shape: rng.normal(size=shape),
        "time": lambda shape: np.datetime64("1999-12-31", "ns")
        + rng.integers(0, 999, shape) * np.timedelta64(1, "h"),
        "text": lambda shape: np.array([f"t{i}" for i in range(int(np.prod(shape)))], object)
        .reshape(shape),
        "whole": lambda shape: rng.integers(0, 9, shape),
    }  # fmt: skip
    for number in range(draw(st.integers(0, 4))):
        along = draw(st.permutations(dims))[: draw(st.integers(0, min(2, len(dims))))]
        name = along[0] if len(along) == 1 and draw(st.booleans()) else f"coord{number}"
        values = kinds[draw(st.sampled_from(sorted(kinds)))](tuple(sizes[d] for d in along))
        data = data.assign_coords({name: (along, values, {"long_name": f"about {name}"})})
    data.encoding["chunks"] = tuple(draw(st.integers(1, size)) for size in sizes.values())
    return data, draw(st.sampled_from(dims)), draw(st.sampled_from(["v2", "v3", "memory", "dask"]))


@pytest.mark.slow
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=inputs(), chunk=st.integers(1, 6), field=st.booleans())
def test_the_output_is_that_of_apply_ufunc(
    drawn: tuple[xr.DataArray, str, str], chunk: int, field: bool
) -> None:
    data, sample_dim, origin = drawn
    row = [dim for dim in data.dims if dim != sample_dim]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in.zarr"
        if origin in ("v2", "v3"):
            data.to_dataset().to_zarr(path, zarr_format=int(origin[1]), consolidated=False)
            source = open_source(path, "x", sample_dim)
        else:
            chunks = dict(zip(data.dims, data.encoding["chunks"], strict=True))
            source = open_source(data.chunk(chunks) if origin == "dask" else data, None, sample_dim)
        keep = field and len(row) > 1
        function = np.negative if keep else (lambda rows: rows.reshape(len(rows), -1)[:, :1] * 2)
        named = row if keep else ["output_0"]
        expected = xr.apply_ufunc(
            function if keep else (lambda x: x.reshape(*x.shape[:1], -1)[:, :1] * 2),
            data, input_core_dims=[row], output_core_dims=[named],
            exclude_dims=set() if keep else set(row), keep_attrs=True,
        ).drop_attrs(deep=False)  # fmt: skip
        found = scored(Path(folder) / "out.zarr", source, function, chunk=chunk).prediction
    found = found.drop_attrs(deep=False)
    xr.testing.assert_identical(found.rename(None), expected.rename(None))


def test_the_default_form_says_what_it_is() -> None:
    form = default_form(open_source(field().t), (3, 4), "f4")
    assert str(form) == "prediction (lat: 3, lon: 4) float32 for each row"
