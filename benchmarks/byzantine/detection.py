"""One worker that is faulty in every share: shares until its conviction, wrong rows that are left.

Ours is `simulate` on a recording; beside it the three `rivals`. A share's checks are answered
before the next group. A worker is played twice: as broken hardware, which is wrong in the rows that
it checks too, and as one that is honest there. Of the latter it is known how often it escapes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from statistics import mean, median
from typing import Any

import numpy as np
from scipy.stats import binomtest

from approxifer.benchmarks.byzantine import rivals
from approxifer.benchmarks.byzantine.outcome import Outcome
from approxifer.benchmarks.byzantine.replay import Fault
from approxifer.benchmarks.byzantine.rivals import Scored
from approxifer.benchmarks.byzantine.simulation import WORKERS, simulate
from approxifer.benchmarks.byzantine.subjects import Subject
from approxifer.benchmarks.pool import Pool
from approxifer.pipeline.faults.corruption import (
    BitFlips,
    Corruption,
    Noise,
    NotANumber,
    Replay,
    Roll,
    ShuffleRows,
    SignFlip,
    SwapTopTwo,
    Zeros,
)

STUCK = "stuck weight"
CORRUPTIONS: dict[str, Corruption] = {
    "noise, sigma 1": Noise(1.0),
    "noise, sigma 10": Noise(10.0),
    "noise, sigma 100": Noise(100.0),
    "noise of 0.5 sd": Noise(0.5, relative=True),
    "noise of 2 sd": Noise(2.0, relative=True),
    "sign flip": SignFlip(),
    "rolled": Roll(),
    "10 % rolled": Roll(rows=0.1),
    "top 2 swapped": SwapTopTwo(),
    "zeros": Zeros(),
    "rows shuffled": ShuffleRows(),
    "2-bit flip": BitFlips(),
    "clustered flips": BitFlips(values=8, clustered=True),
    "NaN": NotANumber(),
    "infinity": NotANumber(infinite=True),
    "replay": Replay(),
}
FAULTS = (*CORRUPTIONS, STUCK)

PUBLISHED, MAJORITY, TWO = "published", "majority of 3", "2, then 3 copies"


def ours(subject: Subject, fault: str, check: int, seed: int, cautious: bool) -> Outcome:
    """One run; another worker is faulty in each."""
    injected: Fault = subject.stuck if fault == STUCK else CORRUPTIONS[fault]
    return simulate(
        subject.recording,
        tolerance=subject.tolerance,
        check=check,
        seed=seed,
        faults={faulty_worker(seed): injected},
        cautious=cautious,
    )


def faulty_worker(seed: int) -> str:
    """The name of the worker that is faulty in the run with this seed."""
    return f"w{seed % WORKERS}"


def rival(subject: Subject, fault: str, scheme: str, seed: int) -> Scored:
    """One run of a rival."""
    rng = np.random.default_rng(seed)
    recording, tolerance = subject.recording, subject.tolerance
    injected: Fault = CORRUPTIONS.get(fault, subject.stuck)
    if scheme == PUBLISHED:
        of = subject.published
        found = rivals.published(of, CORRUPTIONS.get(fault, subject.stuck_published), rng)
        evaluations = of.code.n * sum(made.shape[1] for made in of.outputs)
    elif scheme == MAJORITY:
        found = rivals.majority(recording, injected, rng, WORKERS)
        evaluations = 3 * recording.code.k * sum(made.shape[1] for made in recording.outputs)
    else:
        found, evaluations = rivals.two_then_three(recording, injected, rng, WORKERS, tolerance)
    return rivals.compare(found, evaluations, recording.plain, tolerance, subject.labels)


def measure(
    subject: Subject,
    call: Pool,
    *,
    faults: Sequence[str],
    check: int,
    seeds: int,
    rival_seeds: int,
    begin: Callable[[str], None],
) -> dict[str, Any]:
    """All faults, ours and the rivals.

    (The published locator solves a system for each output of each codeword: with fields for outputs
    it is run once.)
    """
    classes = subject.labels is not None
    rival_seeds = rival_seeds if classes else 1
    recording = subject.recording
    clean = simulate(recording, tolerance=subject.tolerance, check=check, seed=0).evaluations
    names = [faulty_worker(seed) for seed in range(seeds)]
    measured = []
    for fault in faults:
        begin(f"{subject.name}: {fault}")
        free, broken, cautious = (
            list(call(ours, [(fault, rows, seed, honest) for seed in range(seeds)]))
            for rows, honest in ((0, True), (check, False), (check, True))
        )
        others = {
            scheme: call(rival, [(fault, scheme, seed) for seed in range(rival_seeds)])
            for scheme in (PUBLISHED, MAJORITY, TWO)
        }
        measured.append(
            {
                "fault": fault,
                **_extent(free),
                "broken": summary(broken, clean, recording.block + check),
                "cautious": summary(cautious, clean, recording.block + check),
                "formula": formula(list(zip(names, free, cautious, strict=True)), check),
                "rivals": {scheme: _average(list(some)) for scheme, some in others.items()},
            }
        )
    right = recording.plain.argmax(axis=1) == subject.labels if classes else None
    return {
        "dataset": subject.name,
        "rows": len(recording.plain),
        "groups": len(recording.members),
        "k": recording.code.k,
        "n": recording.code.n,
        "block": recording.block,
        "check": check,
        "seeds": seeds,
        "rival_seeds": rival_seeds,
        "tolerance": float(np.max(subject.tolerance.relative)),
        "uncoded_accuracy": None if right is None else float(right.mean()),
        "clean_evaluations_per_query": clean / len(recording.plain),
        "faults": measured,
    }


def _extent(free: Sequence[Outcome]) -> dict[str, Any]:
    """With no checks made: the fraction of the rows that are wrong in a share that is, and whether
    a check cannot but see it: every row is wrong, or some output is not finite."""
    shares = [
        share for seed, run in enumerate(free) for share in run.wrong.get(faulty_worker(seed), ())
    ]
    fractions = [share.wrong / share.rows for share in shares]
    return {
        "wrong_of_a_share": {"mean": mean(fractions), "min": min(fractions)} if shares else None,
        "throughout": bool(shares) and all(s.wrong == s.rows or not s.finite for s in shares),
    }


def summary(runs: Sequence[Outcome], clean: int, price: int) -> dict[str, Any]:
    """Sum up the runs with seeds 0, 1, ...

    Parameters
    ----------
    runs
    clean : int
        Evaluations without faults.
    price : int
        What each share that a convicted worker returned may cost beside them: B + m.
    """
    names = [faulty_worker(seed) for seed in range(len(runs))]
    caught = [(name, run) for name, run in zip(names, runs, strict=True) if name in run.convicted]
    shares = [run.shares[name] for name, run in caught]
    return {
        "corrupted_runs": sum(name in run.corrupted for name, run in zip(names, runs, strict=True)),
        "convicted": len(caught),
        "shares": {"median": median(shares), "max": max(shares)} if shares else None,
        "honest_convicted": sum(len(run.convicted) for run in runs) - len(caught),
        "wrong_rows": max(run.wrong_rows for run in runs),
        "evaluations_per_query": {
            "mean": mean(run.evaluations_per_query for run in runs),
            "max": max(run.evaluations_per_query for run in runs),
        },
        #: Evaluations at most above ``clean`` plus the price of all shares.
        "rows_above": max(
            (run.evaluations - clean - price * run.shares[name] for name, run in caught), default=0
        ),
    }


def formula(runs: Sequence[tuple[str, Outcome, Outcome]], check: int) -> dict[str, Any]:
    """Compare faulty workers with the probability that they escape.

    Parameters
    ----------
    runs
        The faulty worker; the run without checks, which has what would be wrong; and the same run,
        checked.
    """
    chances = [free.chance(name, check) for name, free, _ in runs]
    left = [free.left(name) for name, free, _ in runs]
    escaped = [name not in run.convicted for name, _, run in runs]
    wrong = [run.wrong_rows for _, _, run in runs]
    interval = binomtest(sum(escaped), len(runs)).proportion_ci(0.95)
    expected = mean(chances)
    return {
        "escaped": sum(escaped),
        "expected": expected,
        "interval": [interval.low, interval.high],
        #: Whether no more escape than random rows let pass; the furthest ones let fewer.
        "holds": bool(interval.low <= expected),
        "wrong_rows": mean(wrong),
        "wrong_rows_expected": mean(c * rows for c, rows in zip(chances, left, strict=True)),
        #: Whether who escapes leaves what it returned wrong, and who is convicted nothing.
        "wrong_rows_exact": wrong == [e * rows for e, rows in zip(escaped, left, strict=True)],
    }


def _average(runs: Sequence[Scored]) -> dict[str, float | None]:
    """Mean of each figure."""
    found = [asdict(run) for run in runs]
    return {
        name: None if value is None else mean(one[name] for one in found)
        for name, value in found[0].items()
    }
