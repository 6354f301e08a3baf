"""``output=``: a name, a mapping, a template; and what is refused, in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from approxifer.datasets import Source, open_source
from approxifer.datasets.form import Form
from approxifer.errors import ConfigError
from approxifer.pipeline.planning.options import Options
from approxifer.pipeline.planning.output import form_for

F4 = np.dtype("f4")


@pytest.fixture
def source() -> Source:
    data = xr.DataArray(
        np.ones((5, 3, 4), "f4"),
        dims=("time", "lat", "lon"),
        coords={"lat": [3.0, 2, 1], "lon": [0.0, 1, 2, 3]},
        attrs={"units": "K", "standard_name": "air_temperature"},
    )
    return open_source(data.chunk(lat=2))


def test_by_itself_and_by_name(source: Source) -> None:
    alone = form_for(None, source, (3, 4), F4)
    assert alone == form_for("like-input", source, (3, 4), F4)
    assert (alone.dims, alone.chunks, alone.attrs) == (("lat", "lon"), (2, 4), {})
    assert form_for(None, source, (3,), F4).dims == ("output_0",)


def test_a_mapping_changes_what_it_names(source: Source) -> None:
    form = form_for({"attrs": {"units": "1"}, "chunks": {"lon": 2}}, source, (3, 4), F4)
    assert (form.dims, form.chunks, form.attrs) == (("lat", "lon"), (3, 2), {"units": "1"})
    assert form_for({"attrs": "like-input"}, source, (3, 4), F4).attrs == source.attrs
    sharded = form_for({"shards": {"lat": 4}}, source, (3, 4), F4)
    assert (sharded.chunks, sharded.shards) == ((2, 4), (4, 4))
    classes = form_for(
        {
            "variable": "p", "dims": ["class"], "dtype": "float64", "codec": "none",
            "coords": {"class": ["cat", "dog"], "bias": {"dims": [], "data": 2, "attrs": {"a": 1}}},
        },
        source, (2,), F4,
    )  # fmt: skip
    assert (classes.variable, classes.dims, classes.stored_dtype) == ("p", ("class",), np.float64)
    assert classes.coords["class"].values.tolist() == ["cat", "dog"]
    assert classes.coords["bias"].attrs == {"a": 1}


def test_a_template(source: Source) -> None:
    template = xr.Dataset(
        {"risk": (("time", "lat", "kind"), np.zeros((5, 3, 2), "f8"), {"units": "1"})},
        coords={"kind": ["a", "b"], "lat": [3.0, 2, 1], "time": np.arange(5)},
    )
    template.risk.encoding["chunks"] = (5, 3, 1)
    form = form_for(template, source, (3, 2), F4)
    assert (form.variable, form.dims, form.chunks) == ("risk", ("lat", "kind"), (3, 1))
    assert form.attrs == {"units": "1"}
    assert set(form.coords) == {"kind", "lat"}  # those of the rows are the input's


@pytest.mark.parametrize(
    ("asked", "shape", "message"),
    [
        ("like-input", (2,), r"into shape \(2,\), and a row of the input is \{'lat': 3"),
        ({"dim": ["a"]}, (2,), "did you mean 'dims'"),
        ({"dims": 3}, (2,), "a list of names"),
        ({"dims": ["time"]}, (2,), "the rows' own"),
        ({"dims": ["a", "b"]}, (2,), "give 1 names"),
        ({"chunks": {"time": 2}}, (3, 4), "window="),
        ({"chunks": {"lat": 0}}, (3, 4), "lengths by dimension"),
        ({"chunks": 3}, (3, 4), "lengths by dimension"),
        ({"coords": {"lat": {"data": [1, 2, 3]}}}, (3, 4), "'lat' that is none"),
        ({"coords": 3}, (3, 4), "values by name"),
        ({"attrs": "units"}, (3, 4), "give a mapping"),
        ({"dtype": "float33"}, (3, 4), "numpy does not know"),
        ({"codec": 7}, (3, 4), "Give blosc"),
        ({"variable": 7}, (3, 4), "give a name"),
        (xr.Dataset(), (3, 4), "one variable"),
    ],
)
def test_what_is_refused(source: Source, asked: Any, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        form_for(asked, source, shape, F4)


@pytest.mark.parametrize("asked", ["like input", "out.zarr", '{"dims": ', 3, ["lat"]])
def test_values_of_the_argument(asked: Any) -> None:
    with pytest.raises(ConfigError, match=r"output="):
        Options.of({"data": "a", "out": "b", "model": "m:f", "output": asked})


def test_json_from_a_shell() -> None:
    options = Options.of({"data": "a", "out": "b", "model": "m:f", "output": '{"dims": ["x"]}'})
    assert options.output == {"dims": ["x"]}


def test_dimensions_that_a_variable_cannot_have() -> None:
    data = xr.DataArray(np.ones((5, 3, 4), "f4"), dims=("time", "status", "x"))
    assert isinstance(form_for(None, open_source(data), (3, 4), F4), Form)
    with pytest.raises(ConfigError, match="names of their own"):
        form_for("like-input", open_source(data), (3, 4), F4)
