"""Hedged runs on real worker processes, one of which is slow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_models
from distributed import Client

from approxifer import score
from approxifer.datasets import Journal
from approxifer.pipeline import faults

#: 80 shares of about 20 ms on 6 workers. ``late`` is out of the way.
COMMON: dict[str, Any] = {
    "model": toy_models.slow_linear,
    "k": 4,
    "block": 5,
    "window": 100,
    "late": 10_000.0,
    "progress": False,
}


def fates(out: Path, worker: str) -> tuple[list[str], list[list[str]]]:
    """What became of the shares that a worker had begun; and of all copies of each of them."""
    mine, copies = [], []
    for event in Journal.read(out):
        if event["event"] != "group":
            continue
        for attempt in event["attempts"]:
            if attempt["worker"] == worker and attempt["start"] is not None:
                mine.append(attempt["fate"])
                share = [a["fate"] for a in event["attempts"] if a["share"] == attempt["share"]]
                copies.append(share)
    return mine, copies


@pytest.mark.parametrize("scheme", ["uncoded", "replication"])
def test_a_slow_workers_shares_are_copied_and_the_slower_ones_dropped(
    scheme: str, client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    """Without hedging each of them is waited for."""
    faults.install(client, {"2": faults.Slow(factor=1, seconds=1.0)})
    common = COMMON | {"scheme": scheme, "stragglers": 0, "client": client}
    for hedge in (None, "spark"):
        out = tmp_path / f"{hedge}.zarr"
        report = score(store, out=out, hedge=hedge, **common)
        np.testing.assert_array_equal(report.predictions.prediction, toy_models.linear(rows))
        assert report.counts["exact"] == len(rows)
        mine, copies = fates(out, "2")
        assert mine, "it had something to do"
        if hedge is None:
            assert set(mine) == {"used"}
            assert report.evaluations_per_query == 1.0
        else:
            assert set(mine) == {"dropped"}
            assert all(sorted(fate) == ["dropped", "used"] for fate in copies)
            assert report.evaluations_per_query < 1.2
