"""The output store as it looks from outside, and what it refuses."""

import os
import warnings

import numpy as np
import pytest
import xarray as xr
import zarr

from approxifer.datasets import FLAG_MEANINGS, OutputStore, open_source
from approxifer.errors import ConfigError, FingerprintError, StoreError


def window(rng, rows, shape=(5,)):
    return {
        "prediction": rng.normal(size=(rows, *shape)).astype(np.float32),
        "status": np.full(rows, 1),
        "group": np.arange(rows),
        "worker": np.zeros(rows, int),
        "residual": rng.random(rows),
    }


def plain(path):
    """As a user opens it; every warning is an error."""
    return xr.open_zarr(str(path), chunks=None)


def test_a_new_store_opens_without_a_warning(make_store, dataset, attrs):
    store = make_store()
    found = plain(store.path)
    assert dict(found.sizes) == {"time": 22, "output_0": 5}
    assert found["prediction"].dims == ("time", "output_0")
    assert {name: found[name].dtype.name for name in found} == {
        "prediction": "float32",
        "status": "uint8",
        "group": "int32",
        "worker": "int32",
        "residual": "float32",
    }
    assert not found["status"].values.any()
    assert (found["group"].values == -1).all()
    assert np.isnan(found["prediction"].values).all()
    xr.testing.assert_identical(
        found["time"], dataset["time"].drop_vars("name").assign_coords(name=found["name"])
    )
    assert found["name"].values.tolist() == dataset["name"].values.tolist()
    assert found.attrs["layout"] == attrs["layout"]
    assert store.attrs["code"] == attrs["code"]
    assert store.check(attrs) is None
    arrays = dict(zarr.open_group(str(store.path), mode="r").arrays())
    assert {array.chunks[0] for array in arrays.values()} == {4}  # one length for all


def test_status_is_a_cf_flag(make_store):
    found = plain(make_store().path)
    status = found["status"].attrs
    assert status["standard_name"] == "status_flag"
    assert status["flag_values"] == [0, 1, 2, 3, 4]
    assert status["flag_meanings"].split() == list(FLAG_MEANINGS)
    assert found["prediction"].attrs["ancillary_variables"].split() == [
        "status",
        "group",
        "worker",
        "residual",
    ]


def test_windows_are_read_back(make_store, rng):
    store = make_store()
    first, last = window(rng, 8), window(rng, 6)
    store.write_window(0, 8, **first)
    assert store.status().tolist() == [1] * 8 + [0] * 14
    assert plain(store.path)["status"].values.sum() == 8  # while the store is open
    store.write_window(16, 22, **last)
    np.testing.assert_array_equal(store.read_prediction(0, 8), first["prediction"])
    np.testing.assert_array_equal(store.read_prediction(17, 22), last["prediction"][1:])
    assert np.isnan(store.read_prediction(8, 16)).all()
    assert store.status().dtype == np.uint8
    found = store.dataset()
    np.testing.assert_array_equal(found["group"].values[:8], np.arange(8))
    np.testing.assert_allclose(found["residual"].values[16:], last["residual"], rtol=1e-6)


def test_single_values_stand_for_all_rows(make_store, rng):
    store = make_store()
    store.write_window(0, 4, prediction=rng.random((4, 5)), status=4)
    assert store.status()[:5].tolist() == [4, 4, 4, 4, 0]
    found = store.dataset()
    assert found["worker"].values[:4].tolist() == [-1] * 4
    assert np.isnan(found["residual"].values).all()


def test_closing_writes_the_counts_in_one_step(make_store, rng):
    store = make_store()
    store.write_window(0, 20, **window(rng, 20))
    counts = {"exact": np.int64(20), "decoded": 0}
    store.close(counts=counts, workers=["w0", "w1"], extra={"wall_seconds": 1.5})
    found = plain(store.path)
    assert found.attrs["counts"] == {"exact": 20, "decoded": 0}
    assert found.attrs["workers"] == ["w0", "w1"]
    assert found.attrs["wall_seconds"] == 1.5
    assert found.attrs["model"] == "bbbb"
    assert store.attrs["counts"]["exact"] == 20
    assert store.status().sum() == 20
    with pytest.raises(StoreError, match="has been released"):
        store.write_window(20, 22, **window(rng, 2))
    with OutputStore.open(store.path) as again:
        again.write_window(20, 22, **window(rng, 2))
        again.close(counts={"exact": 22}, workers=[])
    assert plain(store.path).attrs["counts"] == {"exact": 22}


@pytest.mark.parametrize("shape", [(), (2, 3)])
@pytest.mark.parametrize("dtype", ["float16", "float64", "int64", "uint8", "bool"])
def test_predictions_of_any_shape_and_number(make_store, rng, tmp_path, shape, dtype):
    store = make_store(output_shape=shape, output_dtype=dtype)
    values = (rng.random((8, *shape)) * 9).astype(dtype)
    store.write_window(8, 16, prediction=values, status=2)
    assert store.packing.shape == shape
    found = plain(store.path)["prediction"]
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.values[8:16], values)


def test_only_whole_chunks_are_written(make_store, rng):
    store = make_store()
    for start, stop in ((1, 4), (0, 6), (20, 24), (8, 8), (-4, 4), (4, 0)):
        with pytest.raises(ValueError, match="only whole chunks of 4"):
            store.write_window(start, stop, **window(rng, max(stop - start, 0)))


def test_wrong_values_are_refused_before_anything_is_written(make_store, rng):
    store = make_store()
    good = window(rng, 4)
    for wrong, message in (
        ({"prediction": np.zeros((4, 6))}, r"shape \(4, 6\); \(4, 5\)"),
        ({"prediction": np.zeros((4, 5), complex)}, "complex128; float32"),
        ({"prediction": 0.0}, r"shape \(\)"),
        ({"status": np.full(4, 5)}, "allowed are 0 to 4"),
        ({"status": np.full(4, -1)}, "integers from 0"),
        ({"worker": np.full(4, 0.5)}, "worker must be integers"),
        ({"group": np.full(4, 2**40)}, "group must be integers"),
        ({"residual": np.zeros(3)}, r"residual has shape \(3,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            store.write_window(0, 4, **{**good, **wrong})
    assert not store.status().any()
    assert np.isnan(store.read_prediction(0, 22)).all()


def test_a_difference_is_named(make_store, attrs):
    store = make_store()
    given = {**attrs, "model": "cccc", "layout": {**attrs["layout"], "block": 3}, "version": "9"}
    with pytest.raises(FingerprintError) as caught:
        store.check(given)
    message = str(caught.value)
    assert "model: given 'cccc', stored 'bbbb'" in message
    assert "layout.block: given 3, stored 2" in message
    assert "--out" in message
    for same in ("input", "code", "window", "version"):
        assert f"  {same}" not in message
    with pytest.raises(FingerprintError, match=r"layout\.extra: given 1, stored nothing"):
        store.check({"layout": {**attrs["layout"], "extra": 1}})
    assert (
        store.check({"input": "aaaa", "code": {"scheme": "systematic", "k": np.int64(4)}}) is None
    )


def test_coordinates_survive(tmp_path, make_store):
    image = xr.DataArray(
        np.zeros((6, 2), np.float32),
        dims=("n", "f"),
        coords={
            "n": np.arange(6)[::-1] * 0.5,
            "delay": ("n", np.arange(6) * np.timedelta64(90, "s")),
            "flag": ("n", np.arange(6) % 2 == 0),
            "text": ("n", np.array(["ä", "bb", "c", "d", "e", "f"]), {"long_name": "letters"}),
            "group": ("n", np.arange(6)),
            "thing": ("n", np.array([{}] * 6, dtype=object)),
            "f": [1, 2],
            "run": 7,
        },
    )
    store = make_store(source=open_source(image), output_shape=(2,))
    found = plain(store.path)
    assert set(found.coords) == {"n", "delay", "flag", "text", "run"}
    assert found.attrs["coordinates_left_out"] == ["group", "thing"]
    for name in ("n", "delay", "flag"):
        xr.testing.assert_equal(found[name].variable, image[name].variable)
    assert found["text"].values.tolist() == image["text"].values.tolist()
    assert found["text"].attrs == {"long_name": "letters"}


def test_coordinates_of_a_v2_store_survive(dataset, tmp_path, make_store):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.to_zarr(str(tmp_path / "in.zarr"), zarr_format=2)
    found = plain(make_store(source=open_source(tmp_path / "in.zarr")).path)
    np.testing.assert_array_equal(found["time"].values, dataset["time"].values)
    assert found["name"].values.tolist() == dataset["name"].values.tolist()


@pytest.mark.parametrize("dim", ["group", "output_0"])
def test_a_sample_dimension_with_a_name_of_ours_is_renamed(make_store, dim):
    image = xr.DataArray(np.zeros((6, 2), np.float32), dims=(dim, "f"))
    store = make_store(source=open_source(image))
    assert store.row_dims == ("sample",)
    assert plain(store.path)["status"].dims == ("sample",)


def test_a_chunk_may_be_longer_than_the_dataset(make_store, rng):
    store = make_store(chunk=64)
    store.write_window(0, 22, **window(rng, 22))
    assert store.chunk == 64
    assert plain(store.path)["status"].values.all()


def test_rot_on_the_disk_is_seen(make_store, rng):
    store = make_store()
    store.write_window(0, 8, **window(rng, 8))
    for name, read in (
        ("prediction/c.1.0", lambda: store.read_prediction(0, 8)),
        ("status/c.0", store.status),
    ):
        chunk = store.path / name
        content = bytearray(chunk.read_bytes())
        content[len(content) // 2] ^= 1
        chunk.write_bytes(content)
        with pytest.raises(StoreError, match="cannot be read"):
            read()
    chunk.unlink()  # the remedy in the message
    assert store.status().tolist() == [0] * 4 + [1] * 4 + [0] * 14


def test_only_local_paths(source):
    for call in (
        lambda: OutputStore.exists("s3://bucket/out.zarr"),
        lambda: OutputStore.open("memory://out.zarr"),
    ):
        with pytest.raises(ConfigError, match="only a local path"):
            call()


def test_other_peoples_things_are_not_touched(tmp_path, make_store, dataset):
    path = tmp_path / "out.zarr"
    zarr.create_group(str(path), attributes={"mine": True})
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("text")
    before = sorted(tmp_path.rglob("*"))
    for name in ("out.zarr", "folder", "file"):
        assert OutputStore.exists(tmp_path / name)
        with pytest.raises(StoreError, match="not an approxifer output store"):
            OutputStore.open(tmp_path / name)
        with pytest.raises(StoreError, match="something at"):
            make_store(path=tmp_path / name)
    assert not OutputStore.exists(tmp_path / "none.zarr")
    with pytest.raises(StoreError, match="is not there"):
        OutputStore.open(tmp_path / "none.zarr")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_store_of_another_layout_or_a_damaged_one_is_refused(make_store):
    store = make_store()
    store.release()
    group = zarr.open_group(str(store.path), mode="r+")
    group.attrs["approxifer_store"] = 99
    with pytest.raises(StoreError, match="layout 99"):
        OutputStore.open(store.path)
    group.attrs["approxifer_store"] = 1
    (store.path / "worker" / "zarr.json").unlink()
    with pytest.raises(StoreError, match="lacks its array 'worker'"):
        OutputStore.open(store.path)
    assert not store.path.with_name("out.zarr.lock").exists()


def test_bad_arguments_leave_nothing_behind(make_store, tmp_path):
    for wrong, message in (
        ({"output_dtype": "U3"}, "predictions must be numbers"),
        ({"output_dtype": "longdouble"}, "of at most 64 bits"),
        ({"output_dtype": "clongdouble"}, "of at most 64 bits"),
        ({"output_shape": (0,)}, "empty dimension"),
        ({"chunk": 0}, "chunk=0 is too small"),
        ({"attrs": {"counts": 1}}, "the store's own"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_store(**wrong)
    with pytest.raises(ConfigError, match="no form in JSON"):
        make_store(attrs={"model": object()})
    assert list(tmp_path.iterdir()) == []


def test_missing_parents_are_created_and_files_in_the_way_are_named(make_store, tmp_path):
    assert make_store(path=tmp_path / "a" / "b" / "out.zarr").path.exists()
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="Cannot create the directory"):
        make_store(path=tmp_path / "file" / "out.zarr")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written_to(make_store, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(StoreError, match="that can be written to"):
        make_store(path=tmp_path / "locked" / "out.zarr")
