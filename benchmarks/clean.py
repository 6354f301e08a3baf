"""Runs of honest workers: nobody is to be convicted, and suspicion is to keep its stated rates."""

from __future__ import annotations

from statistics import mean
from typing import Any

import numpy as np
from scipy.stats import binom

from approxifer.benchmarks.faulty import WORKERS
from approxifer.benchmarks.recorded import record
from approxifer.benchmarks.simulated import simulate
from approxifer.benchmarks.subjects import MICRO_BATCH, Source, some_of
from approxifer.coding import CodeSpec
from approxifer.pipeline.audits import AuditRule
from approxifer.pipeline.suspicion import FALSE_WATCH
from approxifer.pipeline.tolerance import measure_tolerance

#: Of clean groups, those that may have a suspect: as `Trust` has it.
RATE = 0.01


def measure(source: Source, *, seeds: int, audit: float) -> dict[str, Any]:
    """Record and play runs, each on rows of its own.

    Returns
    -------
    dict
        Convictions; and suspicions beside the one-sided 99 % limits of what is stated.
    """
    spec = CodeSpec("systematic", source.k, 0, 1)
    runs, groups = [], 0
    for seed in range(seeds):
        rows = source.some(seed)
        recording = record(
            source.name, rows, source.forward, spec,
            block=source.block, order=source.order, seed=seed,
        )  # fmt: skip
        tolerance = measure_tolerance(
            source.runner, some_of(rows), MICRO_BATCH, rng=np.random.default_rng(seed)
        )
        rule = AuditRule(audit)
        runs.append(simulate(recording, tolerance=tolerance, rule=rule, seed=seed, workers=WORKERS))
        groups += len(recording.members)
    return {
        "dataset": source.name,
        "runs": len(runs),
        "groups": groups,
        "convictions": sum(len(run.convicted) for run in runs),
        "suspect_groups": sum(run.suspect_groups for run in runs),
        "suspect_limit": int(binom.ppf(0.99, groups, RATE)),
        "watches": sum(run.watches for run in runs),
        "watch_limit": int(binom.ppf(0.99, groups * spec.n, FALSE_WATCH)),
        "wrong_rows": max(run.wrong_rows for run in runs),
        "evaluations_per_query": mean(run.evaluations_per_query for run in runs),
    }
