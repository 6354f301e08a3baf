"""Several sample dimensions: each point is a row, read and written chunk by chunk."""

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
from approxifer.datasets.form import Forms, default_form
from approxifer.errors import InputError

DIMS = ("time", "lat", "lon")


def cube(sizes: tuple[int, ...] = (7, 5, 6)) -> xr.DataArray:
    data = np.random.default_rng(5).normal(size=sizes).astype("f4")
    return xr.DataArray(
        data, dims=DIMS, name="t",
        coords={"time": np.arange(sizes[0]), "lat": -np.arange(sizes[1]) * 0.5,
                "area": (("lat", "lon"), data[0])},
    )  # fmt: skip


def score_all(path: Path, source: Any, first: int = 0, most: int = 50) -> xr.Dataset:
    """Write what a run would, window by window: each row and its negative."""
    shape = (2, *source.feature_shape)
    if not path.exists():
        OutputStore.create(
            path, source=source, output_shape=shape, output_dtype="f4", chunk=source.chunk, attrs={}
        ).release()
    with OutputStore.open(path) as store:
        for start, stop in store.grid.windows(most):
            if start < first:
                continue
            rows = source.read(start, stop)
            both = np.stack([rows, -rows], axis=1)
            store.write_window(start, stop, prediction=both, status=1 + (rows.ravel()[0] > 0))
            np.testing.assert_array_equal(store.read_prediction(start, stop), both)
        assert store.status().all()
    with xr.open_zarr(path, chunks=None) as found:
        return found.load()


@pytest.mark.slow
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.integers(1, 6), min_size=3, max_size=3),
    st.lists(st.integers(1, 7), min_size=3, max_size=3),
    st.lists(st.sampled_from(DIMS), min_size=2, max_size=3, unique=True),
    st.sampled_from(["zarr", "memory", "dask"]),
)
def test_points_come_back_where_they_were(
    sizes: list[int], chunks: list[int], chosen: list[str], origin: str
) -> None:
    data = cube(tuple(sizes))
    with tempfile.TemporaryDirectory() as folder:
        source = open_source(data.chunk(dict(zip(DIMS, chunks, strict=True))), None, chosen)
        if origin == "memory":
            source = open_source(data, None, chosen)
        elif origin == "zarr":
            encoding = {"t": {"chunks": tuple(chunks)}}
            data.to_dataset().to_zarr(f"{folder}/in", consolidated=False, encoding=encoding)
            source = open_source(f"{folder}/in", "t", ",".join(chosen))
        found = score_all(Path(folder) / "out.zarr", source)
    samples = [dim for dim in DIMS if dim in chosen]
    rest = [dim for dim in DIMS if dim not in chosen]
    assert found.status.dims == tuple(samples)
    expected = np.stack([data, -data], axis=len(samples))
    if rest:
        moved = data.transpose(*samples, *rest).values
        expected = np.stack([moved, -moved], axis=len(samples))
    np.testing.assert_array_equal(found.prediction, expected)
    for name, coord in data.coords.items():
        if set(coord.dims) <= set(samples):
            np.testing.assert_array_equal(found[name], coord)


def test_the_output_has_the_inputs_chunks_each_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "in.zarr"
    cube().to_dataset().to_zarr(path, consolidated=False, encoding={"t": {"chunks": (3, 2, 6)}})
    source = open_source(path, "t", DIMS)
    read: list[str] = []
    get = zarr.storage.LocalStore.get

    async def watched(self: Any, key: str, *args: Any, **named: Any) -> Any:
        if str(self.root) == str(path) and "/c/" in key:
            read.append(key)
        return await get(self, key, *args, **named)

    monkeypatch.setattr(zarr.storage.LocalStore, "get", watched)
    found = score_all(tmp_path / "out.zarr", source)
    values = [key for key in read if key.startswith("t/")]
    assert len(values) == len(set(values)) == 3 * 3 * 1
    out = zarr.open_group(str(tmp_path / "out.zarr"), mode="r")
    assert out["prediction"].chunks == (3, 2, 6, 2)
    assert out["status"].chunks == (3, 2, 6)
    assert found.prediction.dims == (*DIMS, "output_0")


def test_a_grown_cube_is_appended_to(tmp_path: Path) -> None:
    path, out = tmp_path / "in.zarr", tmp_path / "out.zarr"
    chunks = {"t": {"chunks": (4, 2, 6)}}
    data = cube((13, 5, 6))
    first = data.isel(time=slice(6))
    first.to_dataset().to_zarr(path, consolidated=False, encoding=chunks)
    source = open_source(path, "t", DIMS)
    mark = source.fingerprint()
    score_all(out, source)
    for count in (9, 13):
        new = data.isel(time=slice(6 if count == 9 else 9, count)).to_dataset()
        new.drop_vars(["lat", "area"]).to_zarr(path, append_dim="time", consolidated=False)
        source = open_source(path, "t", DIMS)
        with OutputStore.open(out) as store:
            source.follow(store.grid, appended=True)
            assert count != 9 or source.fingerprint(6) == mark
            before = store.rows
            growth = store.growth(source, Forms((default_form(source, (2,), "f4"),)))
            store.grow(growth, {})
            assert store.grid == source.grid
        found = score_all(out, source, first=before)
    np.testing.assert_array_equal(found.prediction, np.stack([data, -data], axis=3))
    np.testing.assert_array_equal(found.time, data.time)
    np.testing.assert_array_equal(found.area, data.area)


@pytest.mark.parametrize("wrong", [("time", "time"), ("time", "lot"), (), "time,lot"])
def test_dimensions_that_are_not_there(wrong: Any) -> None:
    with pytest.raises(InputError, match="lat"):
        open_source(cube(), None, wrong)


def test_points_without_chunks_are_cut_into_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("approxifer.datasets.source._POINTS", 8)
    assert open_source(cube(), None, DIMS).grid.chunk == (1, 1, 6)
    assert open_source(cube(), None, ("time", "lat")).grid.chunk == (1, 5)
