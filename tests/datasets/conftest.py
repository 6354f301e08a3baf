"""Inputs and output stores on the disk."""

import numpy as np
import pytest
import xarray as xr

from approxifer.datasets import OutputStore, open_source

ATTRS = {
    "input": "aaaa",
    "model": "bbbb",
    "code": {"scheme": "systematic", "k": 4},
    "layout": {"window": 8, "block": 2, "micro_batch": 2, "order": "none", "seed": 0},
    "version": "0.1.0",
}


@pytest.fixture
def attrs():
    """What the engine gives a store."""
    return ATTRS


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def dataset(rng):
    """22 rows of (3, 2) along time, with a datetime index and a text label."""
    hours = np.arange(22) * np.timedelta64(1, "h")
    return xr.Dataset(
        {"image": (("time", "y", "x"), rng.normal(size=(22, 3, 2)).astype(np.float32))},
        coords={
            "time": np.datetime64("2020-01-01", "ns") + hours,
            "name": ("time", np.array([f"row {i}" for i in range(22)], dtype=object)),
            "y": [10.0, 20.0, 30.0],
        },
    )


@pytest.fixture
def source(dataset):
    return open_source(dataset["image"])


@pytest.fixture
def make_store(source, tmp_path):
    """Create a store for 22 rows of 5 outputs, 4 rows per chunk; released at the end."""
    made = []

    def make(path=tmp_path / "out.zarr", **changes):
        given = {
            "source": source,
            "output_shape": (5,),
            "output_dtype": "float32",
            "chunk": 4,
            "attrs": ATTRS,
        }
        store = OutputStore.create(path, **{**given, **changes})
        made.append(store)
        return store

    yield make
    for store in made:
        store.release()
