"""The reader of the rows: the workers, or the client."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_models
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from approxifer.coding import CodeSpec
from approxifer.errors import ConfigError
from approxifer.pipeline.planning.described import MOST_READ, bytes_read
from approxifer.pipeline.planning.options import Options
from approxifer.pipeline.planning.partition import Layout, Measures, make_layout
from approxifer.pipeline.planning.prepare import prepare, settle, why_sent
from approxifer.pipeline.planning.windows import aligned_block

MEASURES = Measures(
    rows=100_000, row_bytes=3_000, stored_bytes=750, output_bytes=60, input_chunk=100,
    rows_per_second=5_000.0, workers=10, described=True,
)  # fmt: skip


@given(most=st.integers(1, 3_000), chunk=st.integers(1, 3_000), batch=st.sampled_from([8, 64]))
def test_a_block_is_whole_chunks_or_an_equal_part_of_one(most: int, chunk: int, batch: int) -> None:
    block = aligned_block(most, chunk, batch)
    assert 1 <= block <= most
    if chunk <= most:
        assert block % chunk == 0
    else:
        assert -(-chunk // block) == -(-chunk // most)


@given(
    chunk=st.integers(1, 1_500),
    rate=st.floats(200.0, 50_000.0),
    scheme=st.sampled_from(["uncoded", "systematic"]),
)
def test_blocks_that_are_chosen_read_a_chunk_once(chunk: int, rate: float, scheme: str) -> None:
    spec = CodeSpec(scheme, 8, 1)
    measures = replace(MEASURES, input_chunk=chunk, rows_per_second=rate)
    layout = make_layout(spec, measures, order="none", seed=0, memory=10**9)
    read = bytes_read(layout, spec.k, measures.rows, chunk)
    if layout.block >= chunk:
        assert read < 1.2  # the last group's blocks are shorter
    else:
        assert read > 1.3


def test_bytes_read_are_counted() -> None:
    rows, layout = 1_000, Layout(240, 30, 8, 240, "none", 0)
    # Two groups of four blocks; of chunks of 20 rows, [0, 30) touches two, [30, 60) two, and so on.
    assert bytes_read(layout, 4, rows, 20) == 8 * 40 / 240
    assert bytes_read(layout, 4, rows, 30) == 1
    assert bytes_read(layout, 4, 235, 1_000) == 8  # no more than there is


def _stored(folder: Path, rows: np.ndarray, chunk: int) -> Path:
    found = xr.Dataset({"x": (("n", "feature"), rows)})
    found.to_zarr(folder / "in.zarr", encoding={"x": {"chunks": (chunk, 2)}}, consolidated=False)
    return folder / "in.zarr"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, ""),
        ({"scheme": "berrut", "order": "none", "repair": "none"}, "mixes each share"),
        ({"order": "similar"}, "all over a window"),
        ({"preprocess": lambda rows: rows}, "cannot be imported"),
        ({"block": 3}, "bytes for each byte"),
        ({"data": "memory"}, "an array in memory"),
        ({"data": "lazy"}, ""),
        ({"data": "mean"}, "work in common"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_the_client_sends_rows_for_a_reason(
    tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    path = _stored(tmp_path, np.random.default_rng(0).normal(size=(400, 2)).astype("f4"), 20)
    lazy = xr.open_zarr(path, consolidated=False).x
    given = {"lazy": lazy[20:], "mean": lazy - lazy.mean(), "memory": lazy.compute()}
    fields: dict[str, Any] = {
        "data": path, "model": toy_models.linear, "out": tmp_path / "out.zarr", "k": 4, "block": 20,
    }  # fmt: skip
    fields |= change
    fields["data"] = given.get(str(fields["data"]), fields["data"])
    prepared = prepare(Options(**fields))
    spec, layout = settle(prepared, 8)
    found = why_sent(prepared, spec, layout)
    assert (why in found) if why else found == ""
    read = bytes_read(layout, spec.k, prepared.source.rows, prepared.source.chunk)
    assert (read > MOST_READ) == ("bytes" in why)


def test_secrets_show_in_no_recipe(tmp_path: Path) -> None:
    path = _stored(tmp_path, np.zeros((40, 2), np.float32), 20)
    options = Options(
        data=f"file://{path}", model=toy_models.linear, out=tmp_path / "out.zarr", k=2,
    )  # fmt: skip
    recipe = prepare(options).recipe
    assert not isinstance(recipe, str)
    hidden = replace(recipe, opened=dict(recipe.opened) | {"storage_options": {"key": "s3cret"}})
    assert "s3cret" not in repr(hidden) + str(hidden)


def test_windows_that_do_not_fit_the_client_any_more_are_refused(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(4_000, 500)).astype(np.float32)
    found = xr.Dataset({"x": (("n", "feature"), rows)})
    found.to_zarr(tmp_path / "in.zarr", encoding={"x": {"chunks": (20, 500)}}, consolidated=False)
    from approxifer import score

    fields: dict[str, Any] = {
        "model": toy_models.linear, "out": tmp_path / "out.zarr", "memory": "2MB", "k": 2,
        "scheme": "uncoded", "progress": False, "cluster": {"workers": 2},
    }  # fmt: skip
    score(tmp_path / "in.zarr", **fields)
    with pytest.raises(ConfigError, match=r"windows of .* an array in memory: give more memory="):
        score(found.x.load(), **fields)
