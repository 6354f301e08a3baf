"""One worker that is faulty in every share, on a cluster of real worker processes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import xarray as xr
from distributed import Client

import approxifer
from approxifer.benchmarks.byzantine.detection import CORRUPTIONS, STUCK, faulty_worker
from approxifer.benchmarks.byzantine.simulation import BYZANTINE, WORKERS
from approxifer.datasets import Journal
from approxifer.pipeline import faults
from approxifer.pipeline.byzantine.tolerance import Tolerance
from approxifer.pipeline.cluster.local import local_cluster
from approxifer.pipeline.faults.execution import StuckWeight
from approxifer.pipeline.records import AttemptOutcome


@contextmanager
def real_workers() -> Iterator[Client]:
    """The workers, which end with the context; all runs share them."""
    with (
        local_cluster(n_workers=WORKERS, memory=None, options={}) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def measure(
    client: Client,
    rows: np.ndarray,
    plain: np.ndarray,
    tolerance: Tolerance,
    model: Any,
    *,
    names: Sequence[str],
    stuck: StuckWeight,
    k: int,
    block: int,
    check: int,
    seeds: int,
    begin: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Score rows once per fault and seed, and hold the output against the uncoded one.

    Parameters
    ----------
    client : distributed.Client
        Of `real_workers`.
    rows : (n, *feature)
    plain : (n, *out)
        The uncoded model's outputs, run in this process.
    tolerance : Tolerance
        The referee's.
    model
        As `approxifer.score` takes it.
    names : sequence of str
        Faults.
    stuck : StuckWeight
    begin
        Called with the label of what begins.

    Returns
    -------
    list of dict
        One for each fault.
    """
    data = xr.DataArray(rows, dims=("sample", *(f"axis{n}" for n in range(1, rows.ndim))))
    injected: dict[str, faults.Fault] = {**CORRUPTIONS, STUCK: stuck}

    def run(fault: str, seed: int, out: Path) -> dict[str, Any]:
        begin(f"real workers: {fault}, seed {seed}")
        name = f"worker-{faulty_worker(seed)[1:]}"
        faults.install(client, {name: injected[fault]}, seed=seed)
        clock = time.perf_counter()
        report = approxifer.score(
            data, model=model, out=out, client=client, scheme="uncoded", k=k, byzantine=BYZANTINE,
            block=block, check=check, seed=seed, progress=False,
        )  # fmt: skip
        prediction = report.predictions.prediction.to_numpy()
        convicted = {conviction.member.name for conviction in report.convicted}
        return {
            "convicted": name in convicted,
            "honest_convicted": len(convicted - {name}),
            "shares": returned(list(Journal.read(out)), name),
            "wrong_rows": int(tolerance.differs(prediction, plain).sum()),
            "evaluations_per_query": report.evaluations_per_query,
            "seconds": time.perf_counter() - clock,
        }

    with tempfile.TemporaryDirectory(prefix="approxifer-byzantine-") as folder:
        measured = []
        for fault in names:
            runs = [
                run(fault, seed, Path(folder) / f"{fault}-{seed}.zarr") for seed in range(seeds)
            ]
            measured.append({"fault": fault, **summary(runs)})
    faults.remove(client)
    return measured


def returned(events: Sequence[Mapping[str, Any]], name: str) -> int:
    """The shares that a worker had returned by the time of its conviction, checks not counted; all
    of them if it was not convicted."""
    convictions = (
        event["time"]
        for event in events
        if event["event"] == "conviction" and event["member"]["name"] == name
    )
    until = next(convictions, inf)
    return sum(
        attempt["worker"] == name
        and attempt["fate"] in (AttemptOutcome.USED, AttemptOutcome.SPARE)
        and attempt["stop"] <= until
        for attempt in _attempts(events)
    )


def _attempts(events: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Attempts at shares that are for the output."""
    for event in events:
        if event["event"] == "group" and event["kind"] in ("coded", "repair"):
            yield from event["attempts"]


def summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """As `approxifer.benchmarks.byzantine.detection.summary`, of real runs."""
    shares = [run["shares"] for run in runs if run["convicted"]]
    evaluations = [run["evaluations_per_query"] for run in runs]
    return {
        "runs": len(runs),
        "convicted": len(shares),
        "shares": {"median": median(shares), "max": max(shares)} if shares else None,
        "honest_convicted": sum(run["honest_convicted"] for run in runs),
        "wrong_rows": max(run["wrong_rows"] for run in runs),
        "evaluations_per_query": {"mean": mean(evaluations), "max": max(evaluations)},
        "seconds": mean(run["seconds"] for run in runs),
    }
