"""Outputs that cannot be written, or were begun otherwise, are refused at once, in one line."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from bad_input import (
    begun,
    importable,
    refused,
    without_cluster,
)

from approxifer.datasets.lock import Lock
from approxifer.errors import ConfigError
from approxifer.pipeline.cluster import local as localcluster


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`bad_models`, importable here and in processes that inherit the environment."""
    importable(tmp_path / "modules", monkeypatch)
    yield
    sys.modules.pop("bad_models", None)


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting a cluster is a failure here, and takes no time."""
    without_cluster(monkeypatch)


# ---- the output ----------------------------------------------------------------------------------


DIFFERENT = {
    "model": (["--model", "toy_models:make_very_slow"], "model: given"),
    "weights": (
        ["--model", "bad_models:small", "--preprocess", "toy_models:double"],
        "model: given",
    ),
    "block": (["--block", "6"], "layout.block: given 6, stored 5"),
    "window": (["--window", "200"], "layout.window: given 200, stored 100"),
    "order": (["--order", "natural"], "layout.order: given 'natural', stored 'none'"),
    "seed": (["--seed", "1"], "layout.seed: given 1, stored 0"),
    "k": (["-k", "2"], "code.k: given 2, stored 4"),
    "stragglers": (["-s", "2"], "code.stragglers: given 2, stored 1"),
    "scheme": (["--scheme", "berrut"], "code.scheme: given 'berrut', stored 'systematic'"),
    "adaptive": (
        ["--scheme", "replication-adaptive", "-e", "1"],
        "code.scheme: given 'replication-adaptive', stored 'systematic'",
    ),
    "repair": (["--repair", "none"], "code.repair: given 'none', stored 'exact'"),
    "input": (["IN={tmp}/other.zarr"], "The input is not the one"),
}


@pytest.mark.usefixtures("no_cluster", "store")
@pytest.mark.parametrize("name", DIFFERENT)
def test_an_output_that_was_begun_differently(tmp_path: Path, rows: np.ndarray, name: str) -> None:
    begun(tmp_path)
    other = xr.Dataset({"x": (("sample", "a", "b"), rows[::-1])})
    other.to_zarr(tmp_path / "other.zarr", consolidated=False)
    changes, message = DIFFERENT[name]
    shown = refused(tmp_path, *changes)
    assert message in shown
    assert "another path" in shown


@pytest.mark.usefixtures("no_cluster", "store")
def test_a_dry_run_does_not_promise_to_go_on_with_another_output(tmp_path: Path) -> None:
    begun(tmp_path)
    assert "layout.block: given 6, stored 5" in refused(tmp_path, "--block", "6", "--dry-run")


@pytest.mark.usefixtures("store")
def test_an_output_that_was_begun_alike_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other cases are refused for their one difference alone."""
    begun(tmp_path)

    def start(**options: Any) -> None:
        raise ConfigError("it would start")

    monkeypatch.setattr(localcluster, "local_cluster", start)
    assert "it would start" in refused(tmp_path)


OUTPUTS = {
    "somebody's Zarr": ("theirs.zarr", "not an approxifer output store"),
    "the input": ("in.zarr", "not an approxifer output store"),
    "a file": ("file", "not an approxifer output store"),
    "a folder": ("folder", "not an approxifer output store"),
    "a dangling link": ("link", "link"),
    "a damaged store": ("damaged.zarr", "damaged.zarr"),
    "below a file": ("file/out.zarr", "file"),
    "a URL": ("s3://bucket/out.zarr", "s3://bucket/out.zarr"),
}


@pytest.mark.usefixtures("no_cluster", "store")
@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_that_cannot_be_written_to(tmp_path: Path, name: str) -> None:
    theirs = zarr.open_group(str(tmp_path / "theirs.zarr"), mode="w")
    theirs.create_array("x", shape=(4,), dtype="f4")[:] = 7
    (tmp_path / "file").write_text("hello")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("years of work")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    begun(tmp_path)
    (tmp_path / "out.zarr").rename(tmp_path / "damaged.zarr")
    shutil.rmtree(tmp_path / "damaged.zarr" / "status")
    path, message = OUTPUTS[name]
    out = path if "://" in path else str(tmp_path / path)
    assert message in refused(tmp_path, "--out", out)


@pytest.mark.usefixtures("no_cluster", "store")
def test_an_output_in_use(tmp_path: Path) -> None:
    begun(tmp_path)
    held = Lock(tmp_path / "out.zarr.lock", what="it")
    try:
        assert "in use by pid" in refused(tmp_path)
    finally:
        held.release()
