"""Groups that xarray cannot open, subgroups, zip files, and the ways to name a place."""

from __future__ import annotations

import json
import os
import shutil
import zipfile

import numpy as np
import pytest
import xarray as xr
import zarr

from approxifer.datasets import OutputStore, open_source
from approxifer.errors import ConfigError, InputError

ROWS = np.arange(8 * 4 * 4, dtype=np.float32).reshape(8, 4, 4)


def read(*args, **options):
    source = open_source(*args, **options)
    return source.read(0, source.rows)


@pytest.fixture
def place(tmp_path):
    return str(tmp_path / "in.zarr")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_pyramid_of_images(place, zarr_format):
    """OME-Zarr: levels of several sizes, without names or with the same ones."""
    group = zarr.create_group(place, zarr_format=zarr_format)
    names = {} if zarr_format == 2 else {"dimension_names": ["z", "y", "x"]}
    for level in range(3):
        values = ROWS[:, :: 2**level, :: 2**level]
        array = group.create_array(
            str(level), shape=values.shape, dtype="f4", chunks=(2, 2, 2), **names
        )
        array[:] = values
    with pytest.raises(InputError, match=r"'0', '1', '2'.*variable=.*in\.zarr/0'"):
        open_source(place)
    np.testing.assert_array_equal(read(place, "0"), ROWS)
    np.testing.assert_array_equal(read(place, "1"), ROWS[:, ::2, ::2])
    np.testing.assert_array_equal(read(f"{place}/2"), ROWS[:, ::4, ::4])
    np.testing.assert_array_equal(read(f"{place}/2", "2"), ROWS[:, ::4, ::4])


def test_a_plate_of_fields(place):
    """HCS: nothing but groups, some levels deep."""
    field = zarr.create_group(place, zarr_format=2).create_group("A/1/0")
    field.create_array("0", shape=ROWS.shape, dtype="f4", chunks=(2, 4, 4))[:] = ROWS
    with pytest.raises(InputError, match=r"its subgroups are 'A/1/0/0'.*in\.zarr/A/1/0/0'"):
        open_source(place)
    with pytest.raises(InputError, match=r"its subgroups are 'A/1/0/0'.*in\.zarr/A/1/0/0'"):
        open_source(place, "/")
    with pytest.raises(InputError, match=r"no variable 'A/1/1', did you mean .*It holds '0'|holds"):
        open_source(place, "A/1/1")
    for path, variable in (("", "A/1/0/0"), ("", "A/1/0"), ("/A/1/0", None), ("/A/1/0/0", None)):
        np.testing.assert_array_equal(read(place + path, variable), ROWS)


def test_a_tree_of_datasets(place):
    scan = xr.Dataset({"t": (("n", "y", "x"), ROWS)}, coords={"n": np.arange(8.0)})
    lat = xr.Dataset({"u": (("n", "y", "x"), ROWS)})
    tree = {"/": xr.Dataset(), "/fine": scan, "/fine/more": lat}
    xr.DataTree.from_dict(tree).to_zarr(place, consolidated=False)
    with pytest.raises(InputError, match=r"'fine/t', 'fine/more/u'"):
        open_source(place)
    source = open_source(place, "fine/t")
    np.testing.assert_array_equal(source.read(0, 8), ROWS)
    np.testing.assert_array_equal(source.coords["n"].values, np.arange(8.0))
    inherited = open_source(place, "fine/more/u")
    np.testing.assert_array_equal(inherited.coords["n"].values, np.arange(8.0))


@pytest.mark.parametrize(
    "other",
    [
        {"data": ROWS[:5], "dimension_names": ["n", "y", "x"]},
        {"data": ROWS[:5]},
        {"data": ROWS[:5, 0, 0], "dimension_names": ["x"]},
    ],
    ids=["another size", "no names", "no coordinate"],
)
def test_a_sibling_does_not_spoil_an_array(place, other):
    group = zarr.create_group(place)
    group.create_array("good", data=ROWS, chunks=(2, 4, 4), dimension_names=["n", "y", "x"])
    group.create_array("n", data=np.arange(8), dimension_names=["n"])
    group.create_array("x" if other.get("dimension_names") == ["x"] else "other", **other)
    source = open_source(place, "good")
    np.testing.assert_array_equal(source.read(2, 5), ROWS[2:5])
    assert set(source.coords) == {"n"}


def test_a_sibling_with_an_unknown_codec(place):
    group = zarr.create_group(place)
    group.create_array("good", data=ROWS, dimension_names=["n", "y", "x"])
    group.create_array("odd", data=ROWS, dimension_names=["n", "y", "x"])
    about = f"{place}/odd/zarr.json"
    with open(about) as file:
        text = json.load(file)
    text["codecs"] = [{"name": "from_tomorrow", "configuration": {}}]
    with open(about, "w") as file:
        json.dump(text, file)
    np.testing.assert_array_equal(read(place, "good"), ROWS)
    np.testing.assert_array_equal(read(place), ROWS)
    with pytest.raises(InputError, match="from_tomorrow"):
        open_source(place, "odd")


def test_some_dimensions_without_a_name(place):
    group = zarr.create_group(place)
    group.create_array("good", data=ROWS, dimension_names=["n", None, None])
    source = open_source(place, sample_dim="dim_1")
    np.testing.assert_array_equal(source.read(1, 3), np.moveaxis(ROWS, 1, 0)[1:3])


@pytest.mark.parametrize("by", ["store", "array", "DataArray", "Dask"])
@pytest.mark.parametrize(
    ("dims", "sample_dim", "axis"),
    [
        (("s", "s"), None, 0),
        (("s", "s", "f"), "s", 0),
        (("f", "s", "s"), "s", 1),
        (("n", "f", "f"), None, 0),
        (("s", "s", "s"), None, 0),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate dimension names")
def test_a_name_that_occurs_twice(place, by, dims, sample_dim, axis):
    """A matrix of samples by samples: a slice along a name would cut both."""
    values = np.random.default_rng(0).normal(size=(8,) * len(dims)).astype(np.float32)
    data = place
    if by in ("store", "array"):
        group = zarr.create_group(place)
        chunks = (2,) * len(dims)
        group.create_array("kinship", data=values, chunks=chunks, dimension_names=dims)
        data = place if by == "store" else f"{place}/kinship"
    else:
        data = xr.DataArray(values, dims=dims, name="kinship")
        if by == "Dask":
            import dask.array

            blocks = dask.array.from_array(values, chunks=3)
            data = xr.DataArray(blocks, dims=dims, name="kinship")
    source = open_source(data, sample_dim=sample_dim)
    assert source.feature_shape == (8,) * (len(dims) - 1)
    for start, stop in ((0, 8), (2, 5), (7, 8)):
        np.testing.assert_array_equal(
            source.read(start, stop), np.moveaxis(values, axis, 0)[start:stop]
        )
    assert len(source.fingerprint()) == 64
    twice = dims.count(source.sample_dim) > 1
    assert ("occurs" in " ".join(source.notes)) is twice


def test_marks_of_missing_data_mean_the_same_by_either_way(place):
    values = ROWS.copy()
    values[3, 1, 2] = np.nan
    data = xr.Dataset({"t": (("n", "y", "x"), values)})
    for zarr_format in (2, 3):
        for fill in (np.nan, -9999.0):
            shutil.rmtree(place, ignore_errors=True)
            encoding = {"t": {"_FillValue": np.float32(fill)}}
            data.to_zarr(place, zarr_format=zarr_format, encoding=encoding, consolidated=False)
            np.testing.assert_array_equal(read(place), values)
            np.testing.assert_array_equal(read(f"{place}/t"), values)


def test_rows_with_units_of_time_are_numbers(place):
    periods = xr.Dataset({"t": (("n", "y", "x"), ROWS, {"units": "seconds"})})
    periods.to_zarr(place, consolidated=False)
    source = open_source(place)
    assert source.dtype == np.float32
    np.testing.assert_array_equal(source.read(0, 8), ROWS)
    assert not source.notes
    group = zarr.open_group(place, mode="r+")
    group["t"].attrs["units"] = "months since 1960-01-01"
    source = open_source(f"{place}/t")
    np.testing.assert_array_equal(source.read(0, 8), ROWS)
    assert "holds times (months since" in source.notes[0]


@pytest.mark.parametrize("folder", ["", "in.zarr/", "data/in.zarr/"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_zip_file(tmp_path, place, folder, zarr_format):
    data = xr.Dataset({"t": (("n", "y", "x"), ROWS)}, coords={"n": np.arange(8.0)})
    data.to_zarr(place, zarr_format=zarr_format, consolidated=False)
    packed = tmp_path / "in.zarr.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path, _, files in os.walk(place):
            for name in files:
                file = os.path.join(path, name)
                archive.write(file, folder + os.path.relpath(file, place))
    source = open_source(packed)
    np.testing.assert_array_equal(source.read(2, 8), ROWS[2:])
    assert set(source.coords) == {"n"}
    assert source.fingerprint() == open_source(place).fingerprint()
    if not folder:
        np.testing.assert_array_equal(read(f"zip::file://{packed}"), ROWS)


def test_a_zip_file_without_a_store(tmp_path):
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.writestr("a.txt", "text")
    with pytest.raises(InputError, match="is not Zarr"):
        open_source(tmp_path / "in.zip")


def test_home_and_file_urls(tmp_path, monkeypatch, make_store):
    monkeypatch.setenv("HOME", str(tmp_path))
    xr.Dataset({"t": (("n", "y", "x"), ROWS)}).to_zarr(
        str(tmp_path / "in.zarr"), consolidated=False
    )
    for name in ("~/in.zarr", f"file://{tmp_path}/in.zarr", f"local://{tmp_path}/in.zarr"):
        np.testing.assert_array_equal(read(name), ROWS)
    assert make_store(path="~/home.zarr").path == tmp_path / "home.zarr"
    url = f"file://{tmp_path}/url.zarr"
    assert make_store(path=url).path == tmp_path / "url.zarr"
    assert OutputStore.exists(url)
    with pytest.raises(ConfigError, match="file:///"):
        OutputStore.check_path("file://out.zarr")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~").mkdir()
    assert make_store(path="~/kept.zarr").path == tmp_path / "kept.zarr"


def test_storage_options_need_a_url(place, dataset):
    dataset.to_zarr(place, zarr_format=2)
    with pytest.raises(ConfigError, match="is for URLs"):
        open_source(place, "image", storage_options={"anon": True})
    with pytest.raises(ConfigError, match="is for URLs"):
        open_source(dataset["image"], storage_options={"anon": True})
    with pytest.raises(ConfigError, match="read_timeout=0"):
        open_source("memory://in.zarr", storage_options={"read_timeout": 0})
