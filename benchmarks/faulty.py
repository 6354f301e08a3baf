"""One worker that lies in every share: how soon it is found, and what is left of it in the output.

Ours is `simulate` on a recording; beside it the three `rivals`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from statistics import mean, median
from typing import Any

import numpy as np

from approxifer.benchmarks import rivals
from approxifer.benchmarks.crew import Crew
from approxifer.benchmarks.rivals import Scored
from approxifer.benchmarks.script import Fault
from approxifer.benchmarks.simulated import Outcome, simulate
from approxifer.benchmarks.subjects import Subject
from approxifer.pipeline.audits import AuditRule
from approxifer.pipeline.liar import Lie
from approxifer.pipeline.lies import (
    BitFlips,
    Noise,
    NotANumber,
    Replay,
    Roll,
    ShuffleRows,
    SignFlip,
    SwapTopTwo,
    Zeros,
)

WORKERS = 12
STUCK = "stuck weight"
LIES: dict[str, Lie] = {
    "noise, sigma 1": Noise(1.0),
    "noise, sigma 10": Noise(10.0),
    "noise, sigma 100": Noise(100.0),
    "noise of .5 sd": Noise(0.5, relative=True),
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
FAULTS = (*LIES, STUCK)
#: What is audited beside suspicion: nothing.
ALONE = AuditRule(0.0, first=False, least=0)

PUBLISHED, MAJORITY, TWO = "published", "majority of 3", "2, then 3 copies"


def ours(subject: Subject, fault: str, rule: AuditRule, seed: int) -> Outcome:
    """One run; the liar is another worker in each."""
    told: Fault = subject.stuck if fault == STUCK else LIES[fault]
    return simulate(
        subject.recording,
        tolerance=subject.tolerance,
        rule=rule,
        seed=seed,
        faults={liar(seed): told},
        workers=WORKERS,
    )


def liar(seed: int) -> str:
    """Who lies."""
    return f"w{seed % WORKERS}"


def rival(subject: Subject, fault: str, scheme: str, seed: int) -> Scored:
    """One run of a rival."""
    rng = np.random.default_rng(seed)
    recording, tolerance = subject.recording, subject.tolerance
    told: Fault = LIES.get(fault, subject.stuck)
    if scheme == PUBLISHED:
        of = subject.published
        found = rivals.published(of, LIES.get(fault, subject.stuck_published), rng)
        evaluations = of.code.n * sum(made.shape[1] for made in of.outputs)
    elif scheme == MAJORITY:
        found = rivals.majority(recording, told, rng, WORKERS)
        evaluations = 3 * recording.code.k * sum(made.shape[1] for made in recording.outputs)
    else:
        found, evaluations = rivals.two_then_three(recording, told, rng, WORKERS, tolerance)
    return rivals.judge(found, evaluations, recording.plain, tolerance, subject.labels)


def measure(
    subject: Subject,
    call: Crew,
    *,
    faults: Sequence[str],
    audit: float,
    seeds: int,
    rival_seeds: int,
    begin: Callable[[str], None],
) -> dict[str, Any]:
    """All faults, ours with all that finds liars and with suspicion alone, and the rivals.

    (The published locator solves a system for each output of each codeword: with fields for outputs
    it is run once.)
    """
    classes = subject.labels is not None
    rival_seeds = rival_seeds if classes else 1
    measured = []
    for fault in faults:
        begin(f"{subject.name}: {fault}")
        whole = call(ours, [(fault, AuditRule(audit), seed) for seed in range(seeds)])
        alone = call(ours, [(fault, ALONE, seed) for seed in range(seeds)])
        others = {
            scheme: call(rival, [(fault, scheme, seed) for seed in range(rival_seeds)])
            for scheme in (PUBLISHED, MAJORITY, TWO)
        }
        measured.append(
            {
                "fault": fault,
                "ours": summary(list(whole)),
                "suspicion": summary(list(alone)),
                "rivals": {scheme: _average(list(runs)) for scheme, runs in others.items()},
            }
        )
    recording = subject.recording
    right = recording.plain.argmax(axis=1) == subject.labels if classes else None
    return {
        "dataset": subject.name,
        "rows": len(recording.rows),
        "groups": len(recording.members),
        "k": recording.code.k,
        "n": recording.code.n,
        "block": recording.block,
        "order": recording.order,
        "audit": audit,
        "seeds": seeds,
        "rival_seeds": rival_seeds,
        "tolerance": float(np.max(subject.tolerance.relative)),
        "uncoded_accuracy": None if right is None else float(right.mean()),
        "stuck_rows": subject.stuck_rows,
        "faults": measured,
    }


def summary(runs: Sequence[Outcome]) -> dict[str, Any]:
    """What became of the runs with seeds 0, 1, ..."""
    found = [run.convicted.get(liar(seed)) for seed, run in enumerate(runs)]
    groups = [group for group in found if group is not None]
    return {
        "convicted": len(groups),
        "groups": {"median": median(groups), "max": max(groups)} if groups else None,
        "honest_convicted": sum(len(run.convicted) for run in runs) - len(groups),
        "wrong_rows": max(run.wrong_rows for run in runs),
        "evaluations_per_query": {
            "mean": mean(run.evaluations_per_query for run in runs),
            "max": max(run.evaluations_per_query for run in runs),
        },
    }


def _average(runs: Sequence[Scored]) -> dict[str, float | None]:
    """Mean of each figure."""
    found = [asdict(run) for run in runs]
    return {
        name: None if value is None else mean(one[name] for one in found)
        for name, value in found[0].items()
    }
