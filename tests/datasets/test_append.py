"""A store that is lengthened because its input has grown, and crashes while it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from approxifer.datasets import OutputStore, Source, open_source
from approxifer.datasets.form import Forms, default_form
from approxifer.errors import FingerprintError


class CrashError(BaseException):
    """Ends the work as a killed process would."""


def rows(count: int) -> xr.DataArray:
    """Days in noleap years, with a label, a place and a scalar."""
    cftime = pytest.importorskip("cftime")
    data = np.arange(count * 6, dtype=np.float32).reshape(count, 2, 3)
    return xr.DataArray(
        data,
        dims=("time", "y", "x"),
        name="t",
        coords={
            "time": cftime.num2date(np.arange(count), "days since 1999-02-20", "noleap"),
            "label": ("time", np.array([f"row {i}" for i in range(count)], object)),
            "seen": ("time", np.datetime64("2020-01-01", "ns") + np.arange(count).astype("m8[h]")),
            "shift": (("time", "y"), data[:, :, 0]),
            "y": [2.0, 1.0],
            "height": 2.0,
        },
    )


def begun(path: Path, count: int = 10, chunk: int = 4) -> None:
    source = open_source(rows(count))
    with OutputStore.create(
        path, source=source, output_shape=(2, 3), output_dtype="f4", chunk=chunk,
        attrs={"input": source.fingerprint(), "rows": count},
    ) as store:  # fmt: skip
        fill(store, source, 0)
        store.close(counts={"exact": count}, workers=[])


def fill(store: OutputStore, source: Source, first: int) -> None:
    for start, stop in store.grid.windows(8):
        if start >= first:
            store.write_window(start, stop, prediction=-source.read(start, stop), status=1)


def append(path: Path, source: Source) -> OutputStore:
    forms = Forms((default_form(source, (2, 3), "f4"),))
    growth = OutputStore.open(path, write=False).growth(source, forms)
    store = OutputStore.open(path)
    try:
        store.grow(growth, {"input": source.fingerprint(), "rows": source.rows})
    except BaseException:
        store.release()  # a lock dies with its holder
        raise
    return store


@pytest.mark.parametrize("chunk", [1, 4, 5, 64])
def test_it_is_as_if_all_had_been_scored_at_once(tmp_path: Path, chunk: int) -> None:
    path = tmp_path / "out.zarr"
    begun(path, 10, chunk)
    for count in (13, 22):
        source = open_source(rows(count))
        with append(path, source) as store:
            before = store.status()
            assert before.tolist() == [1] * int(before.sum()) + [0] * int((before == 0).sum())
            assert "counts" not in store.attrs
            fill(store, source, int(before.sum()))
            assert store.status().all()
    whole = tmp_path / "whole.zarr"
    begun(whole, 22, chunk)
    with xr.open_zarr(path, chunks=None) as one, xr.open_zarr(whole, chunks=None) as other:
        xr.testing.assert_identical(one.drop_attrs(deep=False), other.drop_attrs(deep=False))
        assert one.attrs["input"] == other.attrs["input"]


def test_rows_of_a_shared_chunk_are_pending_while_it_is_rewritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.zarr"
    begun(path)
    source = open_source(rows(12))
    store = append(path, source)
    seen: list[list[int]] = []
    write = type(store._arrays).write

    def watched(self: Any, name: str, start: int, values: np.ndarray) -> None:
        if name == "prediction":
            seen.append(self.read("status", 0, 12).tolist())
        write(self, name, start, values)

    monkeypatch.setattr(type(store._arrays), "write", watched)
    fill(store, source, 10)
    assert seen == [[1] * 8 + [0] * 4]
    assert store.status().tolist() == [1] * 12
    store.release()


@pytest.mark.slow
def test_a_crash_at_each_step_is_made_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(rows(15))
    step = 0
    while True:
        step += 1
        path = tmp_path / f"{step}.zarr"
        begun(path)
        left = step

        def fsync(descriptor: int) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise CrashError

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            try:
                append(path, source).release()
            except CrashError:
                pass
            else:
                break
        with xr.open_zarr(path, chunks=None) as found:  # every warning is an error
            assert found.sizes["time"] in (10, 15)
            found.load()
        with OutputStore.open(path) as store:
            assert store.rows in (10, 15)
            assert store.status()[:10].all()
            assert store.attrs["input"] == source.fingerprint(None if store.rows == 15 else 10)
        if store.rows == 10:
            append(path, source).release()
        with OutputStore.open(path) as store:
            fill(store, source, 10)
            np.testing.assert_array_equal(store.read_prediction(0, 15), -source.read(0, 15))
            assert store.status().all()
        with xr.open_zarr(path, chunks=None) as found:
            assert found.label.values.tolist() == [f"row {i}" for i in range(15)]
            assert (found.time.values == rows(15).time.values).all()
    assert step > 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_vars("label"), "'label' cannot be continued: the input has none"),
        (lambda t: t.assign_coords(y=[9.0, 1.0]), "'y' of the input is another"),
        (lambda t: t.assign_coords(label=("time", ["x"] * 15)), "'label' of the input is another"),
        (lambda t: t.assign_coords(y=[2, 1]), "'y' cannot be continued: it is stored as float64"),
        (
            lambda t: t.assign_coords(seen=("time", t.seen.values + np.timedelta64(1, "s"))),
            "'seen' cannot be continued: ",
        ),
        (lambda t: t.assign_coords(seen=("time", np.arange(15))), "'seen' of the input is another"),
    ],
)  # fmt: skip
def test_coordinates_that_do_not_go_on_are_refused(
    tmp_path: Path, change: Any, message: str
) -> None:
    path = tmp_path / "out.zarr"
    begun(path)
    with pytest.raises(FingerprintError, match=message):
        append(path, open_source(change(rows(15))))
    with OutputStore.open(path) as store:
        assert store.rows == 10


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_the_old_rows_mark_is_the_one_that_they_had(tmp_path: Path, zarr_format: int) -> None:
    data = rows(10).to_dataset()[["t"]].drop_vars(["label", "seen", "shift"])
    path = tmp_path / "in.zarr"
    chunks = {"t": {"chunks": (4, 2, 3)}}
    data.to_zarr(path, zarr_format=zarr_format, consolidated=False, encoding=chunks)
    mark = open_source(path, "t").fingerprint()
    more = rows(15).to_dataset()[["t"]].drop_vars(["label", "seen", "shift"])
    new = more.isel(time=slice(10, None)).drop_vars(["y", "height"])
    new.to_zarr(path, append_dim="time", consolidated=False)
    grown = open_source(path, "t")
    assert grown.rows == 15
    assert grown.fingerprint(10) == mark != grown.fingerprint()
    for lazy in (rows(10), rows(10).chunk(time=4)):
        assert open_source(rows(15)).fingerprint(10) == open_source(rows(10)).fingerprint()
        longer = rows(15).chunk(time=4) if lazy.chunks else rows(15)
        assert open_source(longer).fingerprint(10) == open_source(lazy).fingerprint()


@pytest.mark.parametrize(
    "attrs", [{"growing": 99}, {"growing": "x"}, {"appended": [20]}, {"appended": {"a": 1}},
              {"appended": [3, 2]}, {"output": {"variable": "../x"}}, {"output": [1]},
              {"output": {"model_dtype": "c16"}}],
)  # fmt: skip
def test_crafted_attributes_are_refused(tmp_path: Path, attrs: dict[str, Any]) -> None:
    import zarr

    from approxifer.errors import StoreError

    path = tmp_path / "out.zarr"
    begun(path)
    zarr.open_group(str(path), mode="r+").update_attributes(attrs)
    with pytest.raises(StoreError, match="not as approxifer writes it"):
        OutputStore.open(path)
