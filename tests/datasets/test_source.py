"""Reading rows out of whatever xarray opens."""

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st

from approxifer.datasets import fingerprint, open_source
from approxifer.datasets.dtypes import not_finite
from approxifer.errors import InputError, InputNotFoundError


def save(dataset, path, *, zarr_format=3, consolidated=False, encoding=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what writing warns about is not ours
        dataset.to_zarr(
            str(path), zarr_format=zarr_format, consolidated=consolidated, encoding=encoding or {}
        )
    return str(path)


@pytest.mark.parametrize("consolidated", [False, True])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_store_of_either_format_is_read(dataset, tmp_path, zarr_format, consolidated):
    encoding = {"image": {"chunks": (4, 3, 1)}}
    path = save(
        dataset,
        tmp_path / "in.zarr",
        zarr_format=zarr_format,
        consolidated=consolidated,
        encoding=encoding,
    )
    source = open_source(path)
    assert (source.rows, source.feature_shape, source.dtype) == (22, (3, 2), np.float32)
    assert (source.variable, source.sample_dim, source.chunk) == ("image", "time", 4)
    rows = source.read(3, 9)
    assert rows.flags.c_contiguous
    assert rows.flags.writeable
    np.testing.assert_array_equal(rows, dataset["image"].values[3:9])
    assert source.read(5, 5).shape == (0, 3, 2)
    assert set(source.coords) == {"time", "name"}
    np.testing.assert_array_equal(source.coords["time"].values, dataset["time"].values)


def test_a_pathlike_and_a_trailing_slash_are_the_same_store(dataset, tmp_path):
    path = save(dataset, tmp_path / "in.zarr")
    assert open_source(tmp_path / "in.zarr").fingerprint() == open_source(path + "/").fingerprint()


@pytest.mark.parametrize("protocol", ["memory", "file"])
def test_an_fsspec_url_is_read(dataset, tmp_path, protocol):
    url = f"{protocol}://{tmp_path}/in.zarr"
    save(dataset, url if protocol == "memory" else tmp_path / "in.zarr")
    try:
        np.testing.assert_array_equal(open_source(url).read(0, 22), dataset["image"].values)
    finally:
        fs, root = fsspec.core.url_to_fs(url)
        fs.rm(root, recursive=True)


def test_a_shard_is_the_chunk_of_a_sharded_store(dataset, tmp_path):
    encoding = {"image": {"chunks": (2, 3, 2), "shards": (8, 3, 2)}}
    source = open_source(save(dataset, tmp_path / "in.zarr", encoding=encoding))
    assert source.chunk == 8
    np.testing.assert_array_equal(source.read(1, 15), dataset["image"].values[1:15])
    assert len(source.fingerprint()) == 64


def test_the_sample_dimension_need_not_be_first(dataset, tmp_path):
    encoding = {"image": {"chunks": (22, 3, 1)}}
    source = open_source(save(dataset, tmp_path / "in.zarr", encoding=encoding), sample_dim="x")
    assert (source.rows, source.feature_shape, source.chunk) == (2, (22, 3), 1)
    rows = source.read(1, 2)
    assert rows.flags.c_contiguous
    np.testing.assert_array_equal(rows[0], dataset["image"].values[:, :, 1])
    assert open_source(dataset["image"], sample_dim="y").coords.keys() == {"y"}


def test_scale_and_offset_are_decoded(tmp_path, rng):
    values = rng.integers(0, 200, (10, 3)).astype(np.uint8)
    group = zarr.create_group(str(tmp_path / "in.zarr"))
    attributes = {"scale_factor": 0.5, "add_offset": 1.0, "_FillValue": 255}
    array = group.create_array(
        "t", data=values, dimension_names=["n", "f"], attributes=attributes, chunks=(4, 3)
    )
    source = open_source(tmp_path / "in.zarr")
    assert source.dtype.kind == "f"
    np.testing.assert_allclose(source.read(0, 10), values * 0.5 + 1)
    before = source.fingerprint()
    array.attrs["title"] = "the same numbers"
    assert open_source(tmp_path / "in.zarr").fingerprint() == before
    array.attrs["scale_factor"] = 0.25
    assert open_source(tmp_path / "in.zarr").fingerprint() != before


def test_black_pixels_of_a_v2_store_stay_black(tmp_path):
    group = zarr.create_group(str(tmp_path / "in.zarr"), zarr_format=2)
    values = np.arange(12, dtype=np.uint8).reshape(4, 3)
    for name, attributes in (("image", {}), ("masked", {"scale_factor": 1.0})):
        array = group.create_array(
            name,
            shape=(4, 3),
            dtype="u1",
            chunks=(2, 3),
            fill_value=0,
            attributes={"_ARRAY_DIMENSIONS": ["n", "f"], **attributes},
        )
        array[:] = values
    assert xr.open_zarr(str(tmp_path / "in.zarr"), consolidated=False)["image"].dtype.kind == "f"
    source = open_source(tmp_path / "in.zarr", "image")
    assert source.dtype == np.uint8
    np.testing.assert_array_equal(source.read(0, 4), values)
    assert np.isnan(open_source(tmp_path / "in.zarr", "masked").read(0, 4)[0, 0])


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_array_without_names_is_read_alone_and_in_its_group(tmp_path, zarr_format):
    group = zarr.create_group(str(tmp_path / "in.zarr"), zarr_format=zarr_format)
    values = np.arange(12, dtype=">f4").reshape(4, 3)
    group.create_array("a", data=values, chunks=(2, 3))
    in_group = open_source(tmp_path / "in.zarr")
    assert (in_group.variable, in_group.sample_dim, in_group.chunk) == ("a", "dim_0", 2)
    np.testing.assert_array_equal(in_group.read(1, 4), values[1:])
    source = open_source(tmp_path / "in.zarr" / "a")
    assert (source.sample_dim, source.chunk, source.dtype) == ("dim_0", 2, np.dtype("=f4"))
    assert source.read(0, 4).dtype.isnative
    np.testing.assert_array_equal(source.read(1, 4), values[1:])


@pytest.mark.parametrize("lazy", [False, True])
def test_a_dataarray_is_read(dataset, lazy):
    image = dataset["image"].chunk(time=5) if lazy else dataset["image"]
    source = open_source(image)
    assert source.chunk == (5 if lazy else 22)
    assert source.variable == "image"
    np.testing.assert_array_equal(source.read(4, 11), dataset["image"].values[4:11])
    changed = dataset["image"].copy(deep=True)
    assert open_source(changed).fingerprint() == open_source(dataset["image"]).fingerprint()
    changed[7] += 1
    assert open_source(changed).fingerprint() != open_source(dataset["image"]).fingerprint()


def test_a_lazy_dataarray_knows_its_chunks(dataset, tmp_path):
    path = save(dataset, tmp_path / "in.zarr", encoding={"image": {"chunks": (6, 3, 2)}})
    opened = xr.open_zarr(path, chunks=None, consolidated=False)
    assert open_source(opened["image"]).chunk == 6


def test_what_is_read_may_be_changed_by_the_reader(dataset):
    source = open_source(dataset["image"])
    source.read(0, 22)[:] = 0
    assert dataset["image"].values.any()


def test_threads_may_read_together(dataset, tmp_path):
    source = open_source(
        save(dataset, tmp_path / "in.zarr", encoding={"image": {"chunks": (4, 3, 2)}})
    )
    gate = threading.Barrier(4)

    def read(start):
        gate.wait(timeout=30)
        return source.read(start, start + 10)

    with ThreadPoolExecutor(4) as pool:
        for start, rows in enumerate(pool.map(read, range(4))):
            np.testing.assert_array_equal(rows, dataset["image"].values[start : start + 10])


def test_the_fingerprint_tells_datasets_apart(dataset, tmp_path):
    one = save(dataset, tmp_path / "a.zarr")
    same = save(dataset, tmp_path / "b.zarr", consolidated=True)
    other = save(dataset.assign(image=dataset["image"] + 1), tmp_path / "c.zarr")
    mark = open_source(one).fingerprint()
    assert open_source(same).fingerprint() == mark
    assert open_source(other).fingerprint() != mark
    assert open_source(one, sample_dim="x").fingerprint() != mark


@given(st.integers(0, 10**12), st.integers(1, 20))
def test_pieces_are_distinct_sorted_and_within(count, pieces):
    chosen = fingerprint.pick(count, pieces=pieces)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, pieces)
    assert all(0 <= number < count for number in chosen)
    assert chosen == fingerprint.pick(count, pieces=pieces)


def test_a_missing_store_is_not_found(tmp_path):
    with pytest.raises(InputNotFoundError, match="Check the spelling"):
        open_source(tmp_path / "nothing.zarr")
    with pytest.raises(FileNotFoundError, match="memory://nothing"):
        open_source("memory://nothing/here")


def test_what_is_not_zarr_is_refused(tmp_path, dataset):
    (tmp_path / "in.nc").write_bytes(b"CDF")
    for path in (tmp_path, tmp_path / "in.nc"):
        with pytest.raises(InputError, match="is not Zarr; a Zarr v2 or v3 store is expected"):
            open_source(path)
    (tmp_path / "bad.zarr").mkdir()
    (tmp_path / "bad.zarr" / "zarr.json").write_text("{ no json")
    with pytest.raises(InputError, match="Cannot open"):
        open_source(tmp_path / "bad.zarr")
    with pytest.raises(InputError, match="Protocol not known"):
        open_source("nowhere://a/b")
    with pytest.raises(InputError, match="data is a list"):
        open_source([dataset])


def test_wrong_names_are_answered_with_the_right_ones(dataset, tmp_path):
    path = save(
        dataset.assign(label=("time", np.arange(22)), scalar=((), 1.0)), tmp_path / "in.zarr"
    )
    with pytest.raises(InputError, match="holds 2 variables: 'image', 'label'"):
        open_source(path)
    with pytest.raises(InputError, match="did you mean 'image'"):
        open_source(path, "imgae")
    with pytest.raises(InputError, match="no dimension 'tme', did you mean 'time'"):
        open_source(path, "image", "tme")
    with pytest.raises(InputError, match="a single value"):
        open_source(path, "scalar")
    with pytest.raises(InputError, match="Leave variable out"):
        open_source(dataset["image"], "label")
    assert open_source(path, "label").feature_shape == ()


def test_no_rows_are_refused(dataset, tmp_path):
    with pytest.raises(InputError, match="nothing to score"):
        open_source(dataset["image"][:0])
    with pytest.raises(InputError, match="no variable with a dimension"):
        open_source(save(xr.Dataset({"a": 1.0}), tmp_path / "in.zarr"))


def test_rows_that_are_not_there_are_refused(source):
    with pytest.raises(ValueError, match="rows 0 to 22"):
        source.read(20, 23)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_chunks_that_are_not_stored_are_noted(tmp_path, zarr_format):
    group = zarr.create_group(str(tmp_path / "in.zarr"), zarr_format=zarr_format)
    array = group.create_array("t", shape=(12, 3), dtype="f4", chunks=(4, 3), fill_value=7)
    array[:8] = 1
    (said,) = open_source(tmp_path / "in.zarr").notes
    assert "1 of the 3 chunks of 't' are not stored" in said
    assert "the fill value, 7.0" in said
    assert "restore them" in said
    array[8:] = 1
    assert open_source(tmp_path / "in.zarr").notes == []


@pytest.mark.parametrize("fault", [PermissionError("no list"), NotImplementedError(), None])
def test_a_store_that_cannot_be_listed_raises_no_alarm(dataset, tmp_path, monkeypatch, fault):
    path = save(dataset, tmp_path / "in.zarr")

    async def nothing(self, prefix):
        if fault is not None:
            raise fault
        for name in ():
            yield name

    source = open_source(path)
    monkeypatch.setattr("zarr.storage.LocalStore.list_dir", nothing)
    monkeypatch.setattr("zarr.storage.LocalStore.list_prefix", nothing)
    assert source.notes == []


@pytest.mark.parametrize(
    ("bad", "expected"),
    [([], None), ([0], "1 of 300"), ([150, 299], "2 of 300"), ("all", "300 of")],
)
def test_rows_with_nan_are_noted(bad, expected):
    rows = np.ones((300, 4), np.float32)
    rows[slice(None) if bad == "all" else bad, 2] = np.inf
    said = not_finite(lambda start, stop: rows[start:stop], 300)
    assert len(said) == (expected is not None)
    if expected:
        assert expected in said[0]
        assert "preprocess=" in said[0]
    assert not_finite(lambda start, stop: np.ones((stop - start, 4), np.int32), 300) == []


def test_rows_looked_at_for_nan_are_few_of_a_large_input():
    seen = []

    def load(start, stop):
        seen.append((start, stop))
        return np.full((stop - start, 2**20), np.nan, np.float32)

    assert "3 of 3 rows" in not_finite(load, 10**6)[0]
    assert seen == [(0, 1), (0, 1), (499_999, 500_000), (999_999, 10**6)]
