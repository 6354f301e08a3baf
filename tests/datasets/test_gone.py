"""An output store that is deleted, or an input that has grown, while a run is on or stopped."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import xarray as xr

from approxifer.datasets import OutputStore, open_source
from approxifer.errors import FingerprintError, OutputError

WINDOW = {"prediction": np.ones((8, 5), np.float32), "status": 1}


@pytest.mark.parametrize("lost", ["", "prediction", "status", "worker"])
def test_a_deleted_store_is_not_written_to(make_store, lost):
    store = make_store()
    store.write_window(0, 8, **WINDOW)
    shutil.rmtree(store.path / lost)
    calls = [
        lambda: store.write_window(8, 16, **WINDOW),
        lambda: store.read_window(0, 8),
    ]
    if lost in ("", "status"):
        calls += [store.status, lambda: store.set_pending([1])]
        calls += [lambda: store.close(counts={}, workers=[])]
    for call in calls:
        with pytest.raises(OutputError, match="was deleted or moved while it was in use") as error:
            call()
        assert "\n" not in str(error.value)
    assert not (store.path / lost).exists()


@pytest.mark.parametrize("another", [False, True])
def test_a_moved_store_is_not_begun_anew(make_store, tmp_path, another):
    store = make_store()
    store.path.rename(tmp_path / "elsewhere.zarr")
    if another:
        shutil.copytree(tmp_path / "elsewhere.zarr", store.path)
    with pytest.raises(OutputError, match="deleted or moved"):
        store.write_window(0, 8, **WINDOW)
    assert store.path.exists() is another
    assert not OutputStore.open(tmp_path / "elsewhere.zarr", write=False).status().any()


@pytest.mark.parametrize(("rows", "word"), [(300, "grown"), (200, "shrunk")])
def test_other_rows_are_named_in_words(make_store, attrs, rows, word):
    def source(count):
        return open_source(xr.DataArray(np.zeros((count, 2), np.float32), dims=("n", "f")))

    store = make_store(source=source(256))
    given = {**attrs, "input": "cccc", "rows": source(rows).rows}
    with pytest.raises(FingerprintError, match=f"has {word}: 256 to {rows} rows") as error:
        store.check(given)
    assert "cccc" not in str(error.value)
    with pytest.raises(FingerprintError, match="Also different: model"):
        store.check({**given, "model": "dddd"})
    store.check({**attrs, "rows": 256})  # which is not written into the store of an older version
