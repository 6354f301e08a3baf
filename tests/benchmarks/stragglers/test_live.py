"""The benchmark ``stragglers`` on a few real workers, with a model of NumPy lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from distributed import Client, LocalCluster

from approxifer.benchmarks.stragglers import live
from approxifer.benchmarks.stragglers.live import Outcome
from approxifer.benchmarks.stragglers.schedules import SCHEDULES, Schedule
from approxifer.benchmarks.stragglers.setup import SCHEMES, Shape, Site, write_rows
from approxifer.benchmarks.toy_model import project

WORKERS, GROUPS = 4, 6


@pytest.fixture(scope="module")
def workers() -> Iterator[tuple[LocalCluster, Client]]:
    with live.fresh_workers(WORKERS) as there:
        yield there


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """K=2, shares of 8 rows in one micro-batch, 20 ms each."""
    folder = tmp_path_factory.mktemp("site")
    rows = np.random.default_rng(0).normal(size=(48, 4, 4)).astype(np.float32)
    return Site(
        folder=folder,
        data=write_rows(folder / "data.zarr", rows, GROUPS * 16, chunk=16),
        model="approxifer.benchmarks.toy_model:project_factory",
        parity=folder,
        labels=project(rows).argmax(axis=1),
        k=2,
        shape=Shape(block=8, micro_batch=8, window=3, workers=WORKERS),
        sleep=0.02,
        seed=0,
    )


def play(workers: Any, site: Site, name: str, fault: Schedule, **options: Any) -> Outcome:
    return live.run(*workers, site, SCHEMES[name], fault, groups=GROUPS, **options)


@pytest.mark.parametrize("name", ["dask", "hedged", "replication", "exact-1"])
def test_every_group_is_timed_and_every_row_is_the_models(
    name: str, workers: tuple[LocalCluster, Client], site: Site
) -> None:
    found = play(workers, site, name, SCHEDULES["none"])
    assert found.whole
    assert found.agreement == 1.0
    assert len(found.latencies) == GROUPS
    for one in found.latencies:
        assert 0 < one.decodable <= one.final < found.seconds
    assert found.evaluations_per_query >= 1.0


def test_a_slow_worker_is_waited_for_by_dask_alone(
    workers: tuple[LocalCluster, Client], site: Site
) -> None:
    slow = Schedule("one worker slow", worker=1, factor=50.0)  # a second each
    waited = max(one.decodable for one in play(workers, site, "dask", slow).latencies)
    passed = play(workers, site, "none-1", slow)
    assert waited > 1.0 > max(one.decodable for one in passed.latencies)
    assert passed.decoded > 0


@pytest.mark.slow
def test_dask_is_cut_where_a_worker_hangs(site: Site) -> None:
    with live.fresh_workers(WORKERS) as there:
        found = play(there, site, "dask", SCHEDULES["hung"], idle=1.0)
    assert not found.whole
    assert 0 < sum(one.final < np.inf for one in found.latencies) < GROUPS
