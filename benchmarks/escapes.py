"""The chance that a worker that lies now and then passes for honest.

A worker that returns m corrupted shares, each of which is audited with probability a, escapes with
probability (1-a)^m. That is measured with random audits alone, m being what the worker would have
corrupted in the whole run had nobody looked; and then with everything on that finds liars, for lies
that are hard to see and for gross ones (to audits all are alike). The worker is honest where it
audits others: lies there are found out as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np
from scipy.stats import binomtest

from approxifer.benchmarks.crew import Crew
from approxifer.benchmarks.faulty import ALONE, WORKERS, liar
from approxifer.benchmarks.simulated import Outcome, simulate
from approxifer.benchmarks.subjects import Subject
from approxifer.pipeline.audits import AuditRule
from approxifer.pipeline.lies import Noise

#: What is told; to begin with the one of which the chance with audits alone is measured.
LIES = {"sigma 1": 1.0, "sigma 10": 10.0}


@dataclass(frozen=True)
class Pair:
    """One seed at one audit rate.

    Attributes
    ----------
    corrupted : int
        Shares that the worker corrupts if nobody looks: m.
    alone : Outcome
        With random audits alone.
    everything : dict of Outcome
        By lie, with all that finds liars.
    """

    corrupted: int
    alone: Outcome
    everything: dict[str, Outcome]


def play(subject: Subject, fraction: float, rates: Sequence[float], seed: int) -> list[Pair]:
    """Run one seed at each rate."""

    def run(rule: AuditRule, sigma: float, *, detectors: bool) -> Outcome:
        return simulate(
            subject.recording,
            tolerance=subject.tolerance,
            rule=rule,
            seed=seed,
            faults={liar(seed): Noise(sigma, shares=fraction)},
            workers=WORKERS,
            detectors=detectors,
            cautious=True,
        )

    first = next(iter(LIES.values()))
    corrupted = run(ALONE, first, detectors=False).corrupted[liar(seed)]
    return [
        Pair(
            corrupted,
            run(AuditRule(rate, first=False, least=0), first, detectors=False),
            {lie: run(AuditRule(rate), sigma, detectors=True) for lie, sigma in LIES.items()},
        )
        for rate in rates
    ]


def measure(
    subject: Subject,
    call: Crew,
    *,
    fractions: Sequence[float],
    rates: Sequence[float],
    runs: int,
    begin: Callable[[str], None],
) -> dict[str, Any]:
    """All cells."""
    cells = []
    for fraction in fractions:
        begin(f"escapes: lies in {100 * fraction:g} % of a worker's shares")
        tasks = [(fraction, tuple(rates), seed) for seed in range(runs)]
        found = list(zip(*call(play, tasks), strict=True))
        cells += [
            {"fraction": fraction, "audit": rate, **cell(rate, pairs)}
            for rate, pairs in zip(rates, found, strict=True)
        ]
    return {
        "dataset": subject.name,
        "rows": len(subject.recording.rows),
        "runs": runs,
        "cells": cells,
    }


def cell(rate: float, pairs: Sequence[Pair]) -> dict[str, Any]:
    """The figures of one fraction of lies and one audit rate; ``pairs`` by seed."""
    expected = mean((1 - rate) ** pair.corrupted for pair in pairs)
    alone = _figures([pair.alone for pair in pairs])
    interval = binomtest(alone["escaped"], len(pairs)).proportion_ci(0.95)
    return {
        "corrupted": mean(pair.corrupted for pair in pairs),
        "expected": expected,
        "interval": [interval.low, interval.high],
        "holds": bool(interval.low <= expected <= interval.high),
        "alone": alone,
        "everything": {lie: _figures([pair.everything[lie] for pair in pairs]) for lie in LIES},
    }


def _figures(runs: Sequence[Outcome]) -> dict[str, Any]:
    """Of the runs with seeds 0, 1, ..."""
    convicted = np.array([liar(seed) in run.convicted for seed, run in enumerate(runs)])
    wrong = np.array([run.wrong_rows for run in runs])
    beyond = [
        not caught
        and run.shares[name] > 0
        and run.corrupted[name] / run.shares[name] > run.bounds[name]
        for seed, (run, caught) in enumerate(zip(runs, convicted, strict=True))
        for name in [liar(seed)]
    ]
    return {
        "escaped": int((~convicted).sum()),
        "honest_convicted": sum(len(run.convicted) for run in runs) - int(convicted.sum()),
        "wrong_rows_if_convicted": int(wrong[convicted].sum()),
        "wrong_rows_mean": float(wrong.mean()),
        "wrong_rows_max": int(wrong.max()),
        "beyond_bound": float(np.mean(beyond)),
        "evaluations_per_query": mean(run.evaluations_per_query for run in runs),
    }
