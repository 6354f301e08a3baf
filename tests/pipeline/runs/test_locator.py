"""The paper's locator through `score` and through the benchmark, on the same outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import toy_models
import xarray as xr
from distributed import Client, LocalCluster

from approxifer import score
from approxifer.benchmarks.byzantine.published import _suspects
from approxifer.benchmarks.recording import record
from approxifer.coding import CodeSpec
from approxifer.datasets import Journal
from approxifer.pipeline import faults

K, BLOCK, ROWS = 2, 5, 200


@pytest.mark.parametrize("corruption", [faults.SignFlip(), faults.Roll()], ids=str)
def test_score_suspects_the_shares_that_the_benchmark_names(
    corruption: faults.Corruption, client: Client, tmp_path: Path
) -> None:
    rows = np.random.default_rng(4).normal(size=(ROWS, 6)).astype(np.float32)
    out = tmp_path / "out.zarr"
    faults.install(client, {"3": corruption})
    try:
        score(
            xr.DataArray(rows, dims=("n", "f"), name="x"),
            model=toy_models.linear,
            out=out,
            client=client,
            scheme="berrut",
            k=K,
            stragglers=0,
            byzantine=1,
            check=0,
            repair="none",
            order="none",
            block=BLOCK,
            window=ROWS,
            progress=False,
        )
    finally:
        faults.remove(client)
    events = Journal.read(out)
    asked = {
        event["group"]: [a["share"] for a in event["attempts"] if a["worker"] == "3"]
        for event in events
        if event["event"] == "group" and event["kind"] == "coded"
    }
    by_score = {(e["group"], e["share"]) for e in events if e["event"] == "suspect"}

    spec = CodeSpec("berrut", K, 0, 1)
    recording = record("toy", rows, toy_models.linear, spec, block=BLOCK, order="none")
    assert sorted(asked) == list(range(len(recording.outputs)))
    corruptor, by_benchmark, wrong = corruption.bind(np.random.default_rng(0)), set(), set()
    assert all(len(event) <= 1 for event in asked.values()), "each share ran once"
    for group, outputs in enumerate(recording.outputs):
        returned = outputs.copy()
        for share in asked[group]:
            returned[share] = corruptor.corrupt(returned[share])
            wrong.add((group, share))
        named = _suspects(recording.code, returned, outputs.shape[1])[0]
        by_benchmark.update((group, share) for share in named)
    assert by_score == by_benchmark
    assert by_score & wrong, "else it would show little"


@pytest.fixture(scope="module")
def client():
    with (
        LocalCluster(
            n_workers=9,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",
            memory_limit=None,
            silence_logs=50,
        ) as cluster,
        Client(cluster, set_as_default=False) as made,
    ):
        yield made
