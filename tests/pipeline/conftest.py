"""One cluster of real worker processes for each module, mended between tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster

SUPPORT = Path(__file__).parents[1] / "support"
sys.path.insert(0, str(SUPPORT))  # spawned workers inherit it

from leftovers import assert_clean  # noqa: E402

from approxifer.pipeline import faults  # noqa: E402

WORKERS = 6

# As `approxifer.pipeline.cluster.dask_process` has it: else a worker that takes long to come back,
# on a loaded machine, loses its nanny.
dask.config.set({"distributed.deploy.lost-worker-timeout": "52w"})


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Six worker processes with nannies, on loopback."""
    with LocalCluster(
        n_workers=WORKERS,
        threads_per_worker=1,
        processes=True,
        dashboard_address="127.0.0.1:0",
        memory_limit=None,
        silence_logs=50,
    ) as made:
        yield made


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    """A client of its own; afterwards nothing of approxifer's may be left on the scheduler."""
    with Client(cluster, set_as_default=False) as made:
        made.wait_for_workers(len(cluster.worker_spec), timeout=30)
        yield made
        faults_left = made.run_on_scheduler(
            lambda dask_scheduler: faults.PLUGIN in dask_scheduler.worker_plugins
        )
        if faults_left:
            faults.remove(made)
        assert_clean(made)


@pytest.fixture
def rows() -> np.ndarray:
    """(400, 4, 4) float32, all different."""
    return np.random.default_rng(7).normal(size=(400, 4, 4)).astype(np.float32)


@pytest.fixture
def store(tmp_path: Path, rows: np.ndarray) -> Path:
    """The rows as a Zarr store, in chunks of 100."""
    path = tmp_path / "in.zarr"
    data = xr.Dataset({"x": (("sample", "a", "b"), rows)})
    data.to_zarr(path, encoding={"x": {"chunks": (100, 4, 4)}}, consolidated=False)
    return path
