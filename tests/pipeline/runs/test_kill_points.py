"""The client is killed at any step, with a Byzantine worker there; the next one goes on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path

import killed_at
import numpy as np
import pytest
import toy_corruptions
import toy_models
from distributed import Client, LocalCluster

from approxifer import score
from approxifer.datasets import OutputStore
from approxifer.pipeline import faults

SUPPORT = Path(__file__).parents[2] / "support"


def run_until(step: int, cluster: LocalCluster, store: Path, out: Path) -> tuple[int, str]:
    """A client that ends before that step: its return code, and what it printed."""
    command = [sys.executable, str(SUPPORT / "killed_at.py"), cluster.scheduler_address]
    done = subprocess.run(
        [*command, str(store), str(out), str(step)],
        env=os.environ | {"PYTHONPATH": str(SUPPORT)},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, done.stdout


@pytest.mark.slow
@pytest.mark.timeout(10_800)
def test_nothing_wrong_stays_wherever_the_client_was_killed(
    cluster: LocalCluster,
    client: Client,
    store: Path,
    rows: np.ndarray,
    tmp_path: Path,
    kill_points: int,
) -> None:
    """Other steps each day; ``--kill-points 0`` takes all."""
    # Honest for long enough to have written, and checked others, before it is found out.
    faults.install(client, {"3": toy_corruptions.Later(after=8)})
    code, printed = run_until(0, cluster, store, tmp_path / "whole.zarr")
    assert code == 0
    steps, convicted = map(int, printed.split())
    assert convicted == 1
    points = range(1, steps + 1)
    if kill_points:
        points = random.Random(date.today().toordinal()).sample(points, kill_points)
    right = toy_models.linear(rows)
    for step in points:
        out = tmp_path / f"{step}.zarr"
        faults.install(client, {"3": toy_corruptions.Later(after=8)})  # it counts anew
        run_until(step, cluster, store, out)
        if out.exists():
            assert OutputStore.open(out, write=False).status().shape == (400,)
        report = score(store, out=out, client=client, **killed_at.OPTIONS)
        wrong = np.flatnonzero((report.predictions.prediction.to_numpy() != right).any(axis=1))
        assert wrong.size == 0, f"killed before step {step} of {steps}: rows {wrong} are wrong"
        assert report.counts["exact"] + report.counts["repaired"] == 400
