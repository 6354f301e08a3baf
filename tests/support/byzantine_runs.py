"""Runs on workers that may return wrong numbers: their options, and checks of what they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import toy_models
import xarray as xr
from distributed import LocalCluster

from approxifer.datasets import Journal
from approxifer.pipeline.reporting.report import Report

#: Uncoded, K = 4: four shares a group, two groups a window, ten windows. The shares last 20 ms, so
#: that no worker is left without enough of them to corrupt.
COMMON: dict[str, Any] = {
    "model": toy_models.slow_linear,
    "scheme": "uncoded",
    "k": 4,
    "stragglers": 0,
    "byzantine": 1,
    "block": 5,
    "window": 40,
    "progress": False,
}
#: The same without spot checks: what the paper does, and majorities.
VOTES = COMMON | {"check": 0}


def nine_workers() -> LocalCluster:
    """Nine worker processes: two more than K = 4, E = 1 needs, enough for K = 2, E = 2."""
    return LocalCluster(
        n_workers=9,
        threads_per_worker=1,
        processes=True,
        dashboard_address="127.0.0.1:0",
        memory_limit=None,
        silence_logs=50,
    )


def check_whole(report: Report, rows: np.ndarray) -> None:
    """Every row there, and the model's own output to the last bit."""
    np.testing.assert_array_equal(report.predictions.prediction, toy_models.linear(rows))
    assert report.counts["exact"] + report.counts["repaired"] == len(rows)
    assert report.counts["failed"] == report.counts["decoded"] == 0


def convicted(report: Report) -> list[str]:
    """The names of the convicted."""
    return [conviction.member.name for conviction in report.convicted]


def contributors(found: xr.Dataset) -> set[str]:
    """The workers that rows of a store are from."""
    return {found.attrs["workers"][i] for i in np.unique(found.worker.values) if i >= 0}


def of_kind(out: Path, kind: str) -> list[dict[str, Any]]:
    """Events of the journal."""
    return [event for event in Journal.read(out) if event["event"] == kind]


def unneeded(out: Path) -> int:
    """Shares of a journal's groups that are not used, begun or not: on a busy machine some are
    late, and a second copy is sent; one that is dropped may begin all the same."""
    attempts = [a for group in of_kind(out, "group") for a in group["attempts"]]
    return sum(a["fate"] != "used" for a in attempts)
