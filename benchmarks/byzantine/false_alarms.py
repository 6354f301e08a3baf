"""Runs of honest workers: convictions, of which there should be none, and evaluations.

The rows to check wait as long as in the engine, so that also the micro-batches that
they leave unfilled are counted.
"""

from __future__ import annotations

from statistics import mean
from typing import Any

import numpy as np

from approxifer.benchmarks.byzantine.outcome import Outcome
from approxifer.benchmarks.byzantine.simulation import groups_waited, simulate
from approxifer.benchmarks.byzantine.subjects import Source, repeated, some_of
from approxifer.benchmarks.datasets import MICRO_BATCH
from approxifer.benchmarks.recording import Recording, record
from approxifer.coding import CodeSpec
from approxifer.pipeline.byzantine.noise import measure_tolerance
from approxifer.pipeline.byzantine.tolerance import Tolerance

#: Rows of a long run, and of its blocks.
MANY, LARGE = 100_000, 1000


def measure(source: Source, *, seeds: int, check: int) -> dict[str, Any]:
    """Record and play runs, each on rows of its own."""
    runs = []
    for seed in range(seeds):
        rows = source.some(seed)
        recording = _record(source, rows)
        runs.append(_play(recording, _tolerance(source, rows, seed), check=check, seed=seed))
    return {"dataset": source.name, "block": source.block, **figures(runs)}


def measure_many(
    source: Source, *, seeds: int, check: int, rows: int = MANY, block: int = LARGE
) -> dict[str, Any]:
    """Play runs of many rows, which are the source's again and again, in large blocks."""
    recording = repeated(_record(source, source.rows), rows, block=block, seed=0)
    tolerance = _tolerance(source, source.rows, 0)
    runs = [_play(recording, tolerance, check=check, seed=seed) for seed in range(seeds)]
    return {"dataset": source.name, "block": block, **figures(runs)}


def _record(source: Source, rows: np.ndarray) -> Recording:
    spec = CodeSpec("uncoded", source.k)
    return record(source.name, rows, source.forward, spec, block=source.block, order="none")


def _tolerance(source: Source, rows: np.ndarray, seed: int) -> Tolerance:
    rng = np.random.default_rng(seed)
    return measure_tolerance(source.runner, some_of(rows), MICRO_BATCH, rng=rng)


def _play(recording: Recording, tolerance: Tolerance, *, check: int, seed: int) -> Outcome:
    wait = groups_waited(recording.code.n)
    return simulate(recording, tolerance=tolerance, check=check, seed=seed, wait=wait)


def figures(runs: list[Outcome]) -> dict[str, Any]:
    """Over all runs."""
    return {
        "runs": len(runs),
        "rows": runs[0].rows,
        "convictions": sum(len(run.convicted) for run in runs),
        "wrong_rows": max(run.wrong_rows for run in runs),
        "checks": mean(run.checks for run in runs),
        "evaluations_per_query": max(run.evaluations_per_query for run in runs),
        #: Of the workers' time, that for checks and what fills their micro-batches up.
        "checking_time": mean(run.checks_padded / run.padded for run in runs),
    }
