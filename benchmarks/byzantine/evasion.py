"""The probability that a worker that is faulty now and then is not convicted.

Of a share of B rows of which w are wrong, m checked ones miss all of them with probability
C(B - w, m) / C(B, m); a worker escapes with the product of these over the shares that it would have
returned wrong without checks. That is compared with runs of faulty workers that are honest where
they check others. Others are convicted there as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

from approxifer.benchmarks.byzantine.detection import faulty_worker, formula
from approxifer.benchmarks.byzantine.outcome import Outcome
from approxifer.benchmarks.byzantine.simulation import WORKERS, groups_waited, simulate
from approxifer.benchmarks.byzantine.subjects import Subject, repeated
from approxifer.benchmarks.pool import Pool
from approxifer.pipeline.faults.corruption import Corruption, Noise

#: Shares of each worker.
SHARES = 100


@dataclass(frozen=True)
class Cell:
    """One kind of fault.

    Attributes
    ----------
    name : str
    fraction : float
        Of the shares that are corrupted.
    corruption : Corruption
    cautious : bool
        Whether the worker is honest where it checks others.
    """

    name: str
    fraction: float
    corruption: Corruption
    cautious: bool


def cells(fraction: float, block: int) -> list[Cell]:
    """The faults that corrupt a fraction of the shares."""
    throughout = {f"every row, sigma {s:g}": Noise(s, shares=fraction) for s in (1.0, 10.0)}
    one = Noise(10.0, shares=fraction, rows=1 / block)
    return [
        *(Cell(name, fraction, some, cautious=True) for name, some in throughout.items()),
        *(Cell("one row, sigma 10", fraction, one, cautious=some) for some in (True, False)),
    ]


def long_run(subject: Subject) -> Subject:
    """The same rows again and again, so that each worker runs `SHARES` shares."""
    recording = subject.recording
    rows = WORKERS * SHARES * recording.block
    longer = repeated(recording, rows, block=recording.block, seed=0)
    return replace(subject, recording=longer)


def play(subject: Subject, cell: Cell, check: int, seed: int) -> tuple[Outcome, Outcome]:
    """One seed, without checks and with them."""
    recording = subject.recording

    def run(check: int) -> Outcome:
        return simulate(
            recording,
            tolerance=subject.tolerance,
            check=check,
            seed=seed,
            faults={faulty_worker(seed): cell.corruption},
            cautious=cell.cautious,
            wait=groups_waited(recording.code.n),
        )

    return run(0), run(check)


def measure(
    subject: Subject,
    call: Pool,
    *,
    fractions: Sequence[float],
    check: int,
    runs: int,
    begin: Callable[[str], None],
) -> dict[str, Any]:
    """All cells; the pool has the same subject."""
    measured = []
    for fraction in fractions:
        begin(f"escapes: faults in {100 * fraction:g} % of a worker's shares")
        for cell in cells(fraction, subject.recording.block):
            found = call(play, [(cell, check, seed) for seed in range(runs)])
            measured.append(
                {"corruption": cell.name, "fraction": fraction, "cautious": cell.cautious}
                | figures(list(found), check)
            )
    recording = subject.recording
    return {
        "dataset": subject.name,
        "rows": len(recording.plain),
        "block": recording.block,
        "check": check,
        "runs": runs,
        "cells": measured,
    }


def figures(pairs: Sequence[tuple[Outcome, Outcome]], check: int) -> dict[str, Any]:
    """Sum up the runs with seeds 0, 1, ..., those without a fault counted apart."""
    faulty = [seed for seed, (free, _) in enumerate(pairs) if free.wrong]
    checked = [run for _, run in pairs]
    some = [(faulty_worker(seed), *pairs[seed]) for seed in faulty]
    wrong = [run.wrong_rows for _, _, run in some]
    return {
        "without_fault": len(pairs) - len(faulty),
        "corrupted": mean(len(free.wrong[name]) for name, free, _ in some) if some else 0.0,
        **(formula(some, check) if some else {}),
        "wrong_rows_max": max(wrong, default=0),
        "honest_convicted": sum(
            len(set(run.convicted) - {faulty_worker(seed)}) for seed, run in enumerate(checked)
        ),
        "beyond_bound": mean(bool(run.beyond) for run in checked),
        "evaluations_per_query": mean(run.evaluations_per_query for run in checked),
    }
