"""The part of a model's outputs that is stored, and its maker; refusals before any work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import several_outputs
import toy_models
import xarray as xr
from typer.testing import CliRunner

from approxifer.errors import ConfigError, InputError, ModelError
from approxifer.pipeline.cli.main import app
from approxifer.pipeline.planning.options import Options
from approxifer.pipeline.planning.prepare import Prepared, prepare

ROWS = np.random.default_rng(0).normal(size=(40, 4, 4)).astype(np.float32)


@pytest.fixture
def prepared(tmp_path: Any) -> Callable[..., Prepared]:
    """A run as it is known before a worker is asked."""

    def make(**given: Any) -> Prepared:
        data = xr.DataArray(ROWS, dims=("n", "a", "b"), name="x")
        options = {"data": data, "out": tmp_path / "out.zarr", "model": toy_models.linear}
        return prepare(Options.of(options | given))

    return make


@pytest.mark.parametrize(
    ("given", "there"),
    [
        ({"scheme": "uncoded"}, True),
        ({"scheme": "replication"}, True),
        ({"scheme": "systematic"}, False),
        ({"scheme": "uncoded", "keep": True}, False),
        ({"scheme": "uncoded", "check": 1}, False),
        ({"scheme": "replication-adaptive", "byzantine": 1}, False),
    ],
)
def test_workers_make_it_where_nothing_else_needs_the_outputs(
    prepared: Callable[..., Prepared], given: dict[str, Any], there: bool
) -> None:
    run = prepared(postprocess="argmax", **given)
    results = run.results
    assert (run.handle.postprocess is not None) == there
    assert (results.travel.shape == ()) == there
    assert results.comparable == (there or "keep" in given)
    names = ("prediction", "prediction_argmax") if "keep" in given else ("prediction",)
    assert results.kept.names == names
    outputs = toy_models.linear(ROWS)
    stored = results.kept.unpack(results.stored(outputs.argmax(axis=1) if there else outputs))
    np.testing.assert_array_equal(stored[-1], outputs.argmax(axis=1))


def test_what_workers_returned_comes_back_from_what_is_kept(
    prepared: Callable[..., Prepared],
) -> None:
    results = prepared(
        model=several_outputs.both, postprocess=several_outputs.joined, keep=True
    ).results
    assert results.kept.names == ("field", "logits", "postprocessed")
    named = several_outputs.both(ROWS)
    outputs = results.travel.pack([named[name] for name in results.travel.names])
    np.testing.assert_array_equal(results.returned(results.stored(outputs)), outputs)


@pytest.mark.parametrize(
    ("postprocess", "keep", "found"),
    [
        ("argmax", False, {"prediction": ()}),
        ("argmax", True, {"prediction": ("output_0",), "prediction_argmax": ()}),
        ("softmax", False, {"prediction": ("output_0",)}),
        ("softmax", True, {"prediction": ("output_0",), "prediction_softmax": ("output_0",)}),
        ("topk:2", False, {"prediction_indices": ("rank",), "prediction_values": ("rank",)}),
        (several_outputs.spread, False, {"first": (), "span": ()}),
        (toy_models.same, False, {"prediction": ("output_0",)}),
        (
            toy_models.same,
            True,
            {"prediction": ("output_0",), "postprocessed": ("postprocessed_0",)},
        ),
    ],
)
def test_names(
    prepared: Callable[..., Prepared], postprocess: Any, keep: bool, found: dict[str, Any]
) -> None:
    forms = prepared(postprocess=postprocess, keep=keep).forms
    assert {form.variable: form.dims for form in forms.each} == found


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"postprocess": "argmx"}, ConfigError, "did you mean 'argmax'"),
        ({"postprocess": "topk"}, ConfigError, "did you mean 'topk:5'"),
        ({"postprocess": "topk:0"}, ConfigError, "a number of at least 1|any number"),
        ({"postprocess": 3}, ConfigError, "postprocess=3 is unknown"),
        ({"postprocess": "topk:4"}, ConfigError, "the model has 3 classes"),
        ({"postprocess": several_outputs.coupled}, InputError, "postprocess .*among other rows"),
        ({"postprocess": several_outputs.shortened}, ModelError, "one row for each"),
        ({"keep": True}, ConfigError, "keep=True without postprocess="),
        ({"postprocess": "argmax", "assurance": 0.1, "byzantine": 1}, ConfigError, "keep=True"),
        (
            {"postprocess": lambda x: {"prediction": x}, "keep": True},
            ConfigError,
            "both have an output 'prediction'",
        ),
        (
            {"model": several_outputs.both, "postprocess": "argmax"},
            ConfigError,
            "one real number for each class, and this one turns a row into field",
        ),
        ({"model": several_outputs.scored}, ConfigError, "output 'large' is int64, which cannot"),
        ({"model": several_outputs.ragged}, ModelError, r"'output_1' is of shape \(63, 4, 4\)"),
        ({"model": several_outputs.named_status}, ConfigError, "variable 'status'"),
        (
            {"model": several_outputs.both, "repair": 0.99},
            ConfigError,
            "at least two classes, and nothing else",
        ),
    ],
)
def test_what_is_refused(
    prepared: Callable[..., Prepared], given: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        prepared(**given)


def test_from_a_shell(tmp_path: Any) -> None:
    data = xr.DataArray(ROWS, dims=("n", "a", "b"), name="x").to_dataset()
    data.to_zarr(tmp_path / "in.zarr", consolidated=False)
    made = ["--postprocess", "topk:2", "--keep", "--output", '{"prediction_values": "highest"}']
    command = ["score", str(tmp_path / "in.zarr"), "--out", str(tmp_path / "out.zarr"), "--dry-run"]
    done = CliRunner().invoke(app, [*command, "--model", "toy_models:large_raises", *made])
    assert done.exit_code == 0, done.stderr
    for line in (
        "prediction (output_0: 3) float32 for each row",
        "prediction_indices (rank: 2) int64 for each row",
        "highest (rank: 2) float32 for each row",
    ):
        assert line in " ".join(done.stdout.split())
