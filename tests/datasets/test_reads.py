"""Bytes that are read of the input, window by window, for each byte that it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from approxifer.datasets import open_source

#: Lengths of what is read, and of its chunks.
SIZES, CHUNKS = (12, 200, 160), (4, 50, 40)

SHAPES: dict[str, dict[str, Any]] = {
    "fields": {"variable": "u"},
    "points": {"variable": "u", "sample_dim": "time,y,x"},
    "points of some dimensions": {"variable": "u", "sample_dim": "time,x"},
    "several variables": {"variables": "u,v"},
    "points of several variables": {"variables": "v,u", "sample_dim": "time,y,x"},
    "tiles like chunks": {"variable": "u", "tile": {"y": 50, "x": 40}, "halo": 8},
    "tiles across chunks": {"variable": "u", "tile": {"y": 64, "x": 64}, "halo": 16},
    "tiles of several variables": {"variables": "u,v", "tile": {"y": 50}, "halo": 5},
    "an image of many bands": {"variable": "u", "sample_dim": (), "tile": {"y": 32}},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two variables, in chunks that are not compressed."""
    path = tmp_path_factory.mktemp("reads") / "in.zarr"
    rng = np.random.default_rng(0)
    data = {name: (("time", "y", "x"), rng.normal(size=SIZES).astype("f4")) for name in "uv"}
    encoding = {name: {"chunks": CHUNKS, "compressors": None} for name in data}
    xr.Dataset(data).to_zarr(path, consolidated=False, encoding=encoding)
    return path


@pytest.mark.parametrize("shape", SHAPES)
def test_no_byte_is_read_twice(shape: str, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("approxifer.datasets.source._TILES_BYTES", 2**18)
    source = open_source(store, **SHAPES[shape])
    read = 0
    get = zarr.storage.LocalStore.get

    async def counted(self: Any, key: str, *args: Any, **named: Any) -> Any:
        nonlocal read
        found = await get(self, key, *args, **named)
        read += len(found) if found is not None and "/c/" in key else 0
        return found

    monkeypatch.setattr(zarr.storage.LocalStore, "get", counted)
    windows = source.grid.windows(source.chunk)
    assert len(windows) > 1
    for start, stop in windows:
        source.read(start, stop)
    assert read == len(source.variables) * 4 * np.prod(SIZES)


def test_chunks_that_cannot_be_kept_are_noted(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"variable": "u", "tile": {"y": 50, "x": 40}, "halo": 8}
    assert open_source(store, **options).reads_again(1) == []
    monkeypatch.setattr("approxifer.datasets.source.KEPT_BYTES", 2**16)
    (note,) = open_source(store, **options).reads_again(1)
    assert "too large to be kept" in note
