"""Whole runs without spot checks: the locator of the paper, majorities, copies that must agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import toy_models
from byzantine_runs import (
    VOTES,
    check_whole,
    contributors,
    nine_workers,
    of_kind,
    unneeded,
)
from distributed import Client, LocalCluster

from approxifer import score
from approxifer.pipeline import faults

ADAPTIVE = VOTES | {"scheme": "replication-adaptive"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with nine_workers() as made:
        yield made


@pytest.mark.slow
def test_without_checks_the_papers_locator_leaves_suspects_out(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    """It may find none, and nobody is convicted; what was decoded is run again."""
    out = tmp_path / "out.zarr"
    faults.install(client, {"3": faults.Noise(sigma=100.0)})
    options = VOTES | {"scheme": "berrut", "k": 2, "repair": "none"}
    report = score(store, out=out, client=client, **options)
    assert report.convicted == []
    assert report.workers["3"].suspected > 0
    assert sum(w.checked for w in report.workers.values()) == 0
    suspects = Counter(event["worker"] for event in of_kind(out, "suspect"))
    assert suspects.most_common(1)[0][0] == "3", "honest shares are suspected too, if seldom"
    right = toy_models.linear(rows)
    assert np.abs(report.predictions.prediction.to_numpy() - right).max() < 20


def test_replication_with_a_majority(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    faults.install(client, {"3": faults.Collude()})
    options = VOTES | {"scheme": "replication"}
    report = score(store, out=tmp_path / "out.zarr", client=client, **options)
    check_whole(report, rows)


def test_adaptive_copies_cost_two_evaluations_where_no_worker_is_wrong(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    """Whatever stragglers= is."""
    options = ADAPTIVE | {"stragglers": 1}
    out = tmp_path / "out.zarr"
    report = score(store, out=out, client=client, **options)
    check_whole(report, rows)
    # Where a copy was lost, a third one votes.
    assert 2.0 <= report.evaluations_per_query <= 2.0 + 2 * 5 * unneeded(out) / len(rows)
    assert report.convicted == []
    assert sum(worker.suspected for worker in report.workers.values()) == 0
    assert "replication-adaptive K=4 S=1 E=1, 8 shares" in str(report)


@pytest.mark.parametrize("shares", [1.0, 0.05])
def test_without_checks_a_third_copy_decides(
    shares: float, client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "out.zarr"
    faults.install(client, {"3": faults.Collude(shares=shares)})
    report = score(store, out=out, client=client, **ADAPTIVE | {"block": 2})
    check_whole(report, rows)
    assert report.convicted == []
    assert report.counts["exact"] == len(rows)
    outvoted = of_kind(out, "suspect")
    assert {event["worker"] for event in outvoted} <= {"3"}
    thirds = [event for event in of_kind(out, "group") if event["kind"] == "vote"]
    late = unneeded(out)  # where a copy is late a third one votes, or it is left over itself
    assert report.workers["3"].suspected == len(outvoted) <= len(thirds) <= len(outvoted) + late
    assert all(event["shares"]["0"] != "3" for event in thirds)
    if shares == 1.0:
        assert 0 < len(outvoted) <= report.workers["3"].run <= len(outvoted) + late
        assert "3" not in contributors(report.predictions)
    extra = report.evaluations - 2 * len(rows)
    assert 2 * len(thirds) <= extra <= 2 * (len(thirds) + late)


@pytest.mark.slow
def test_two_byzantine_workers_among_adaptive_copies(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    """Rows that the first had touched are run again, and not by the second alone."""
    faults.install(client, {"1": faults.Collude(shares=0.3), "4": faults.Collude(shares=0.3)})
    options = ADAPTIVE | {"byzantine": 2, "k": 2}
    report = score(store, out=tmp_path / "out.zarr", client=client, **options)
    check_whole(report, rows)
    assert report.convicted == []


def test_adaptive_copies_with_a_byzantine_worker_and_a_straggler(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    faults.install(client, {"3": faults.SignFlip(), "5": faults.Slow(factor=1, seconds=1.0)})
    options = ADAPTIVE | {"hedge": "spark", "model": toy_models.slow_linear}
    report = score(store, out=tmp_path / "out.zarr", client=client, **options)
    check_whole(report, rows)
    assert report.workers["3"].suspected > 0
    runs = {name: worker.run for name, worker in report.workers.items()}
    assert 2 * runs.pop("5") < max(runs.values()), "copies are sent, and other work passes it by"
