"""Coordinates of all kinds: kept as xarray would write them, or named; never a crash."""

from __future__ import annotations

import datetime
import json
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from approxifer.datasets import OutputStore, open_source
from approxifer.datasets.form import Forms, default_form
from approxifer.datasets.layout import coordinates_of

N = 6
TIMES = pd.date_range("2001-01-01", periods=N, freq="37min") + pd.Timedelta("123456789ns")


def image(dim="n", **coords):
    """Rows with coordinates along them."""
    values = np.zeros((N, 2), np.float32)
    return xr.DataArray(
        values, dims=(dim, "f"), name="t", coords={name: (dim, one) for name, one in coords.items()}
    )


@pytest.fixture
def stored(make_store):
    """Create an output store for some rows; as a user opens it, and what is noted."""

    def create(data):
        source = open_source(data)
        store = make_store(source=source, output_shape=(3,))
        store.release()
        found = xr.open_zarr(str(store.path), chunks=None)  # every warning is an error
        json.loads((store.path / "zarr.json").read_text())
        forms = Forms((default_form(source, (3,), "f4"),))
        assert store.coordinate_notes == coordinates_of(source, forms).notes
        return found, "\n".join(store.coordinate_notes)

    return create


@pytest.mark.parametrize(
    "values",
    [
        TIMES.values,
        TIMES.values.astype("M8[s]"),
        np.where(np.arange(N) % 5 == 0, np.datetime64("NaT"), TIMES.values),
        pd.to_timedelta(np.arange(N) * 3, "h").values,
        np.arange(N).astype("f2"),
        np.arange(N) * 1j,
        np.array(["é", "b", "", "d", "e", "f"]),
        pd.CategoricalIndex([f"c{i % 3}" for i in range(N)]),
        pd.array([1, 2] * 3, dtype="Int64"),
    ],
    ids=str,
)
def test_values_come_back(stored, values):
    found, said = stored(image(q=values))
    given, back = np.asarray(values), found["q"].values
    assert ((given == back) | (pd.isnull(given) & pd.isnull(back))).all()
    assert not said
    assert "q" in found.coords


@pytest.mark.parametrize(
    ("values", "expected", "note"),
    [
        (np.array([b"a", b"b", b"\xc3\xa9", b"d", b"e", b"f"]), list("abédef"), "kept as text"),
        (np.array([b"a", b"bb", b"c", b"d", b"e", b"f"], object), ["a", "bb", *"cdef"], "as text"),
        (np.array(["a", None, "c", np.nan, "e", "f"], object), ["a", "", "c", "", "e", "f"], "2 v"),
        (pd.date_range("2000", periods=N, tz="Europe/Berlin"), None, "kept in UTC"),
        (pd.array([1, None] * 3, dtype="Int64"), [1, np.nan] * 3, ""),
    ],
)
def test_what_zarr_lacks_is_changed_and_noted(stored, values, expected, note):
    found, said = stored(image(q=values))
    if expected is None:
        expected = values.tz_convert("UTC").tz_localize(None).values
    np.testing.assert_array_equal(found["q"].values, expected)
    assert note in said


def test_times_of_several_kinds_in_objects(stored):
    zoned = np.array([pd.Timestamp("2000-01-01 12:00", tz="Asia/Tokyo")] * N, object)
    found, said = stored(image(q=zoned))
    assert (found["q"].values == np.datetime64("2000-01-01T03:00")).all()
    assert "kept in UTC" in said


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array(["a", 1, 2.5, b"x", "e", "f"], object), "holds int"),
        (np.array([{}] * N, object), "holds dict"),
        (np.array([None] * N, object), "are missing"),
        (np.array([b"\xff"] * N), "no specification for bytes"),
        (np.arange(N).astype(np.longdouble), "no specification"),
        (np.zeros(N, [("a", "i4")]), "no specification"),
        (pd.interval_range(0, N), "Interval"),
        (pd.period_range("2000", periods=N, freq="M"), "Period"),
        (np.array([datetime.date(2000, 1, 1)] * N, object), "date"),
        (np.array(["\ud800"] * N, object), "surrogate"),
        (np.array([pd.Timestamp("2000", tz="UTC"), *[pd.Timestamp("2000", tz="Asia/Tokyo")] * 5],
                  object), "several zones"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_named(stored, values, reason):
    found, said = stored(image(q=values, ok=np.arange(N)))
    assert found.attrs["coordinates_left_out"] == ["q"]
    assert "the coordinate 'q' is left out" in said
    assert reason in said
    np.testing.assert_array_equal(found["ok"].values, np.arange(N))


@pytest.mark.parametrize(
    "name", ["wind/speed", "", "zarr.json", ".", "..", "__secret", "x" * 300, "status", 7, "a\0b"]
)
def test_names_that_are_no_folders(stored, name):
    found, said = stored(image(ok=np.arange(N)).assign_coords({name: ("n", np.arange(N))}))
    assert set(found.coords) == {"ok"}
    assert found.attrs["coordinates_left_out"] == [str(name)]
    assert "rename it" in said


def test_a_name_with_a_space_is_kept_as_xarray_keeps_it(stored):
    found, _ = stored(image(**{"ü x": np.arange(N)}))
    np.testing.assert_array_equal(found["ü x"].values, np.arange(N))


def test_a_multiindex_leaves_its_levels(stored):
    data = xr.DataArray(
        np.zeros((2, 3, 2), np.float32),
        dims=("time", "lat", "f"),
        coords={"time": TIMES.values[:2], "lat": [1.0, 2.0, 3.0]},
        name="t",
    )
    stacked = data.stack(sample=("time", "lat")).transpose("sample", "f")
    found, said = stored(stacked)
    np.testing.assert_array_equal(found["lat"].values, [1, 2, 3] * 2)
    np.testing.assert_array_equal(found["time"].values, np.repeat(TIMES.values[:2], 3))
    assert "'sample' is left out: it joins several levels" in said


@pytest.mark.parametrize(
    ("attrs", "kept"),
    [
        ({"a": np.int64(3), "b": np.float32(2)}, {"a": 3, "b": 2}),
        ({"c": np.arange(3)}, {"c": [0, 1, 2]}),
        ({"a": None, 3: "x"}, {"a": None, "3": "x"}),
        ({"made": np.datetime64("2020-01-01", "ns")}, {"made": "2020-01-01T00:00:00.000000000"}),
        ({"made": pd.Timestamp("2020-01-01")}, {"made": "2020-01-01 00:00:00"}),
        ({"made": [np.datetime64("2020-01-01")]}, None),
        ({"tags": {"b", "a"}}, {"tags": ["a", "b"]}),
        ({"x": b"abc"}, {"x": "abc"}),
        ({"x": 1j}, {"x": "1j"}),
    ],
)  # fmt: skip
def test_attributes_are_plain(stored, attrs, kept):
    data = image(q=np.arange(N))
    data["q"].attrs = attrs
    found, said = stored(data)
    np.testing.assert_array_equal(found["q"].values, np.arange(N))
    assert set(found["q"].attrs) == {str(key) for key in attrs}
    if kept is not None:
        assert found["q"].attrs == kept
    as_they_are = all(isinstance(one, int | np.number | None | str) or key == "c"
                      for key, one in attrs.items())  # fmt: skip
    assert ("kept as text" in said) is not as_they_are


@pytest.mark.parametrize(
    "attrs",
    [
        {"_FillValue": 3},
        {"scale_factor": 0.5},
        {"dtype": "bool"},
        {"coordinates": "a b"},
        {"missing_value": 2},
    ],
)
def test_attributes_that_xarray_obeys_change_nothing(stored, attrs):
    data = image(q=np.arange(N))
    data["q"].attrs = {**attrs, "long_name": "numbers"}
    found, said = stored(data)
    np.testing.assert_array_equal(found["q"].values, np.arange(N))
    assert found["q"].dtype == np.int64
    assert found["q"].attrs == {"long_name": "numbers"}
    assert f"would change it on reading: {next(iter(attrs))}" in said


def test_units_beside_a_datetime(stored):
    data = image("time", time=TIMES.values, lead=pd.to_timedelta(np.arange(N), "h").values)
    data["time"].attrs = {"units": "days since 1900-01-01", "calendar": "standard", "axis": "T"}
    data["lead"].attrs = {"units": "days"}
    found, said = stored(data)
    np.testing.assert_array_equal(found["time"].values, TIMES.values)
    np.testing.assert_array_equal(found["lead"].values, data["lead"].values)
    assert found["time"].attrs == {"axis": "T"}
    assert "units, calendar" in said


@pytest.mark.parametrize("units", ["hours", "months since 1960-01-01", "days since the flood"])
def test_numbers_with_units_of_times_stay_numbers(stored, units):
    data = image(lead=np.arange(N) * 1.5)
    data["lead"].attrs = {"units": units}
    found, _ = stored(data)
    np.testing.assert_array_equal(found["lead"].values, np.arange(N) * 1.5)
    assert units in found["lead"].attrs.values()


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "julian"])
def test_other_calendars_come_back(stored, calendar):
    cftime = pytest.importorskip("cftime")
    units = "days since 1850-02-25"
    times = cftime.num2date(np.arange(N), units, calendar)
    found, said = stored(image("time", time=times))
    assert (found["time"].values == times).all()
    assert not said


def store_with_times(path, units, calendar, values):
    attrs = {"units": units, "calendar": calendar}
    rows = np.arange(N * 2, dtype=np.float32).reshape(N, 2)
    xr.Dataset({"t": (("time", "f"), rows)}, coords={"time": ("time", values, attrs)}).to_zarr(
        str(path), zarr_format=2
    )
    return str(path)


@pytest.mark.parametrize(
    ("units", "calendar", "values"),
    [
        ("months since 1960-01-01", "360", np.arange(N)),
        ("days since 0001-01-01", "moon", np.arange(N)),
        ("hours since yesterday", "standard", np.arange(N)),
        ("days since 2000-01-01", "standard", np.arange(N) + 10**15),
    ],
)
def test_times_that_cannot_be_decoded_stay_numbers(stored, tmp_path, units, calendar, values):
    path = store_with_times(tmp_path / "in.zarr", units, calendar, values)
    assert open_source(path).read(1, 3).tolist() == [[2, 3], [4, 5]]
    found, said = stored(path)
    np.testing.assert_array_equal(found["time"].values, values)
    assert f"({units} {calendar}) cannot be decoded, and are kept as numbers" in said
    assert found["time"].attrs["undecoded_units"] == units


def test_without_cftime_the_note_names_it(stored, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cftime", None)
    monkeypatch.setattr("xarray.coding.times.cftime", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found, said = stored(
        store_with_times(tmp_path / "in.zarr", "days since 1850-01-01", "noleap", np.arange(N))
    )
    assert found["time"].values.tolist() == list(range(N))
    assert "install cftime" in said


@pytest.mark.parametrize("name", ["n", "q"])
def test_a_damaged_coordinate_is_named_and_left_out(stored, tmp_path, name):
    data = image(n=np.arange(N) * 1.1, q=np.arange(N) * 1.3).to_dataset()
    data.to_zarr(str(tmp_path / "in.zarr"), zarr_format=2)
    (tmp_path / "in.zarr" / name / "0").write_bytes(b"\1garbage")
    found, said = stored(tmp_path / "in.zarr")
    assert set(found.coords) == {"n", "q"} - {name}
    assert f"the coordinate {name!r} is left out" in said
    with OutputStore.open(found.encoding["source"]) as store:
        assert store.coordinate_notes == said.split("\n")
