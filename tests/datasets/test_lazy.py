"""Lazy Dask arrays: each block is computed once; chunks that are read again and again."""

from __future__ import annotations

import threading
from collections import Counter

import dask.array
import numpy as np
import pytest
import xarray as xr
import zarr

from approxifer.datasets import open_source
from approxifer.datasets.input import lazy
from approxifer.errors import InputError

VALUES = np.arange(40 * 6, dtype=np.float32).reshape(40, 6)


@pytest.fixture
def computed():
    """An array that counts how often each of its blocks is computed, and the counts."""
    counts: Counter[tuple[int, ...]] = Counter()
    lock = threading.Lock()

    def count(block, block_info=None):
        with lock:
            counts[block_info[0]["chunk-location"]] += 1
        return block

    def make(chunks):
        blocks = dask.array.from_array(VALUES, chunks=chunks).map_blocks(
            count, dtype="f4", meta=np.empty((0, 0), "f4")
        )
        return xr.DataArray(blocks, dims=("n", "f"), name="t")

    return counts, make


@pytest.mark.parametrize("chunks", [(10, 6), (10, 2), ((1, 20, 7, 12), (6,))])
@pytest.mark.parametrize("window", [40, 20, 10, 7])
def test_each_block_is_computed_once(computed, chunks, window):
    counts, make = computed
    source = open_source(make(chunks))
    source.read(0, 16)  # as the model's probe
    source.fingerprint()
    for start in range(0, 40, window):
        stop = min(start + window, 40)
        np.testing.assert_array_equal(source.read(start, stop), VALUES[start:stop])
    assert set(counts.values()) == {1}
    assert source.read(5, 5).shape == (0, 6)
    assert source.reads_again(window) == []


def test_other_axes(computed):
    counts, make = computed
    source = open_source(make((10, 2)), sample_dim="f")
    for start in range(6):
        np.testing.assert_array_equal(source.read(start, start + 1), VALUES.T[start : start + 1])
    assert set(counts.values()) == {1}


def test_no_more_is_kept_than_allowed(computed, monkeypatch):
    counts, make = computed
    monkeypatch.setattr(lazy, "KEPT_BYTES", 2 * 10 * 6 * 4)
    source = open_source(make((10, 6)))
    for _ in range(2):
        for start in range(0, 40, 5):
            np.testing.assert_array_equal(source.read(start, start + 5), VALUES[start : start + 5])
    assert set(counts.values()) == {2}
    monkeypatch.setattr(lazy, "KEPT_BYTES", 100)
    np.testing.assert_array_equal(source.read(3, 17), VALUES[3:17])
    assert "its 4 chunks are read 8 times" in source.reads_again(5)[0]


def test_the_reader_may_change_what_it_got(computed):
    _, make = computed
    source = open_source(make((10, 6)))
    source.read(0, 20)[:] = 0
    np.testing.assert_array_equal(source.read(0, 20), VALUES[:20])


def test_threads_share_what_is_computed(computed):
    counts, make = computed
    source = open_source(make((10, 6)))
    threads = [threading.Thread(target=source.read, args=(0, 40)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(counts.values()) == {1}


def test_masked_blocks_are_nan_or_refused():
    def masked(dtype):
        blocks = dask.array.from_array(VALUES.astype(dtype), chunks=(10, 6))
        return blocks.map_blocks(lambda block: np.ma.masked_less(block, 9), meta=blocks._meta)

    found = open_source(xr.DataArray(masked("f4"), dims=("n", "f"), name="t")).read(0, 40)
    np.testing.assert_array_equal(found, np.where(VALUES < 9, np.nan, VALUES))
    source = open_source(xr.DataArray(masked("i4"), dims=("n", "f"), name="t"))
    np.testing.assert_array_equal(source.read(10, 20), VALUES[10:20])
    with pytest.raises(InputError, match=r"masked int32.*fill them first"):
        source.read(0, 10)


def test_blocks_on_a_cluster_are_read_through_their_client():
    from distributed import Client, LocalCluster

    blocks = dask.array.from_array(VALUES, chunks=(10, 6))
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        kept = client.persist(blocks)
        assert lazy.clients_of(blocks) == []
        marks = {}
        for name, given, expected in [
            ("as it is", kept, VALUES),
            ("again", client.persist(blocks + 0), VALUES),
            ("derived", kept[5:] + 1, VALUES[5:] + 1),
        ]:
            assert lazy.clients_of(given) == [client]
            source = open_source(xr.DataArray(given, dims=("n", "f"), name="t"))
            np.testing.assert_array_equal(source.read(3, 25), expected[3:25])
            marks[name] = source.fingerprint()
        # Values decide, not keys.
        assert marks["as it is"] == marks["again"] != marks["derived"]
        failing = xr.DataArray(client.persist(kept.map_blocks(_fail, dtype="f4")), name="t")
        with pytest.raises(InputError, match="lost file"):
            open_source(failing).read(0, 5)


def _fail(block):
    raise KeyError("lost file")


def test_a_block_that_fails_is_an_input_error():
    blocks = dask.array.from_array(VALUES, chunks=(10, 6)).map_blocks(_fail, dtype="f4")
    source = open_source(xr.DataArray(blocks, dims=("n", "f"), name="t"))
    with pytest.raises(InputError, match="lost file"):
        source.read(0, 5)


@pytest.mark.parametrize(
    ("chunks", "window", "expected"),
    [
        ((10, 3), 2, "its 8 chunks are read 40 times"),
        ((10, 3), 3, "its 8 chunks are read 32 times"),
        ((10, 3), 10, None),
        ((10, 3), 15, None),
        ((40, 6), 4, "its 1 chunks are read 10 times"),
        ((40, 6), 40, None),
        ((1, 6), 3, None),
    ],
)
def test_chunks_that_are_read_again_are_noted(tmp_path, chunks, window, expected):
    group = zarr.create_group(str(tmp_path / "in.zarr"))
    group.create_array("t", data=VALUES, chunks=chunks, dimension_names=["n", "f"])
    said = open_source(tmp_path / "in.zarr").reads_again(window)
    assert len(said) == (expected is not None)
    if expected:
        assert expected in said[0]
        assert f"window= a multiple of {chunks[0]} rows" in said[0]


def test_chunks_of_a_shard_are_what_is_read(tmp_path):
    group = zarr.create_group(str(tmp_path / "in.zarr"))
    group.create_array("t", data=VALUES, chunks=(2, 6), shards=(20, 6))
    assert open_source(tmp_path / "in.zarr").reads_again(4) == []


def test_rows_in_memory_are_not_read_again():
    assert open_source(xr.DataArray(VALUES, dims=("n", "f"))).reads_again(3) == []
