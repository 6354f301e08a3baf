"""``output=``: a name, a mapping, a template; and what is refused, in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from approxifer.datasets import Source, open_source
from approxifer.datasets.form import Form
from approxifer.errors import ConfigError
from approxifer.packing import Packing, Part
from approxifer.pipeline.planning.options import Options
from approxifer.pipeline.planning.output import form_for, forms_for

F4 = np.dtype("f4")


def one(*shape: int) -> Part:
    return Part("prediction", shape, F4)


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
    alone = form_for(None, source, one(3, 4))
    assert alone == form_for("like-input", source, one(3, 4))
    assert (alone.dims, alone.chunks, alone.attrs) == (("lat", "lon"), (2, 4), {})
    assert form_for(None, source, one(3)).dims == ("output_0",)


def test_a_mapping_changes_what_it_names(source: Source) -> None:
    form = form_for({"attrs": {"units": "1"}, "chunks": {"lon": 2}}, source, one(3, 4))
    assert (form.dims, form.chunks, form.attrs) == (("lat", "lon"), (3, 2), {"units": "1"})
    assert form_for({"attrs": "like-input"}, source, one(3, 4)).attrs == source.attrs
    sharded = form_for({"shards": {"lat": 4}}, source, one(3, 4))
    assert (sharded.chunks, sharded.shards) == ((2, 4), (4, 4))
    classes = form_for(
        {
            "variable": "p", "dims": ["class"], "dtype": "float64", "codec": "none",
            "coords": {"class": ["cat", "dog"], "bias": {"dims": [], "data": 2, "attrs": {"a": 1}}},
        },
        source, one(2),
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
    form = form_for(template, source, one(3, 2))
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
        form_for(asked, source, one(*shape))


@pytest.mark.parametrize("asked", ["like input", "out.zarr", '{"dims": ', 3, ["lat"]])
def test_values_of_the_argument(asked: Any) -> None:
    with pytest.raises(ConfigError, match=r"output="):
        Options.of({"data": "a", "out": "b", "model": "m:f", "output": asked})


def test_json_from_a_shell() -> None:
    options = Options.of({"data": "a", "out": "b", "model": "m:f", "output": '{"dims": ["x"]}'})
    assert options.output == {"dims": ["x"]}


def test_dimensions_that_a_variable_cannot_have() -> None:
    data = xr.DataArray(np.ones((5, 3, 4), "f4"), dims=("time", "status", "x"))
    assert isinstance(form_for(None, open_source(data), one(3, 4)), Form)
    with pytest.raises(ConfigError, match="names of their own"):
        form_for("like-input", open_source(data), one(3, 4))


SEVERAL = Packing.of(
    {"field": np.ones((2, 3, 4), "f4"), "label": np.ones(2, "i8"), "risk": np.ones((2, 2), "f8")}
)


def test_several_outputs_by_themselves(source: Source) -> None:
    forms = forms_for(None, source, SEVERAL)
    dims = {form.variable: form.dims for form in forms.each}
    assert dims == {"field": ("lat", "lon"), "label": (), "risk": ("risk_0",)}
    assert forms.packing == SEVERAL
    assert [one["variable"] for one in forms.described()["variables"]] == list(SEVERAL.names)


def test_several_outputs_by_name(source: Source) -> None:
    asked = {"label": "class", "risk": {"dims": ["kind"], "coords": {"kind": ["a", "b"]}}}
    forms = forms_for(asked, source, SEVERAL)
    assert [form.variable for form in forms.each] == ["field", "class", "risk"]
    assert forms.each[2].dims == ("kind",)
    assert list(forms.coords) == ["kind"]


def test_a_template_of_several(source: Source) -> None:
    template = xr.Dataset(
        {"mean": (("time",), np.zeros(5)), "spread": (("time", "kind"), np.zeros((5, 2)))},
        coords={"kind": ["a", "b"]},
    )
    nameless = Packing.of({"output_0": np.ones(2, "f4"), "output_1": np.ones((2, 2), "f4")})
    forms = forms_for(template, source, nameless)
    assert [form.variable for form in forms.each] == ["mean", "spread"]
    assert forms.each[1].dims == ("kind",)
    with pytest.raises(ConfigError, match="variables mean, spread, and the outputs are field"):
        forms_for(template, source, SEVERAL)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"lable": "class"}, "did you mean 'label'"),
        ({"dims": ["x"]}, "has the key 'dims'.* The outputs are field, label, risk"),
        ({"label": 3}, "has 3 for 'label'"),
        ({"label": "risk"}, "two outputs the name 'risk'"),
        ({"label": "status"}, "variable 'status'"),
        ({"label": "lat"}, "'lat', and the store has that name"),
        ({"label": "time"}, "'time', and the store has that name"),
        ({"label": "risk_0"}, "'risk_0' as the name of a variable and of a dimension"),
        ({"risk": {"dims": ["lat"]}}, "dimension 'lat' with 3 and with 2"),
        ("like-input", r"into shape \(\), and a row"),
    ],
)
def test_what_is_refused_of_several(source: Source, asked: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        forms_for(asked, source, SEVERAL)
