"""One worker that lies in every share, on a cluster of real worker processes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import xarray as xr
from distributed import Client

import approxifer
from approxifer.benchmarks.faulty import LIES, STUCK, WORKERS
from approxifer.datasets import Journal
from approxifer.pipeline import faults
from approxifer.pipeline.faults import StuckWeight
from approxifer.pipeline.localcluster import local_cluster
from approxifer.pipeline.tolerance import Tolerance


def measure(
    rows: np.ndarray,
    plain: np.ndarray,
    tolerance: Tolerance,
    model: Any,
    *,
    names: Sequence[str],
    stuck: StuckWeight,
    k: int,
    block: int,
    audit: float,
    seeds: int,
    begin: Callable[[str], None],
) -> dict[str, Any]:
    """Score rows once per fault and seed, and hold the output against the uncoded one.

    Parameters
    ----------
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
        Told what begins.
    """
    data = xr.DataArray(rows, dims=("sample", *(f"axis{n}" for n in range(1, rows.ndim))))
    told: dict[str, faults.Fault] = {**LIES, STUCK: stuck}
    measured: list[dict[str, Any]] = []
    with (
        local_cluster(n_workers=WORKERS, memory=None, options={}) as cluster,
        Client(cluster, set_as_default=False) as client,
        tempfile.TemporaryDirectory(prefix="approxifer-byzantine-") as folder,
    ):
        for fault in names:
            runs = []
            for seed in range(seeds):
                begin(f"real workers: {fault}, seed {seed}")
                out = Path(folder) / f"{len(measured)}-{seed}.zarr"
                liar = f"worker-{seed % WORKERS}"
                faults.install(client, {liar: told[fault]}, seed=seed)
                clock = time.perf_counter()
                report = approxifer.score(
                    data, model=model, out=out, client=client, k=k, stragglers=0, byzantine=1,
                    block=block, audit=audit, seed=seed, progress=False,
                )  # fmt: skip
                prediction = report.predictions.prediction.to_numpy()
                found = [conviction.member.name for conviction in report.convicted]
                runs.append(
                    {
                        "convicted": liar in found,
                        "honest_convicted": len(set(found) - {liar}),
                        "groups": groups_before(Journal.read(out)) if found else None,
                        "wrong_rows": int(tolerance.differs(prediction, plain).sum()),
                        "evaluations_per_query": report.evaluations_per_query,
                        "seconds": time.perf_counter() - clock,
                    }
                )
            measured.append({"fault": fault, **summary(runs)})
    return {"rows": len(rows), "seeds": seeds, "faults": measured}


def groups_before(events: Iterable[Mapping[str, Any]]) -> int:
    """Coded groups that were decoded before the first conviction."""
    groups = 0
    for event in events:
        if event["event"] == "conviction":
            break
        groups += event["event"] == "group" and event.get("kind") == "coded"
    return groups


def summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """As `approxifer.benchmarks.faulty.summary`, of real runs."""
    groups = [run["groups"] for run in runs if run["convicted"]]
    evaluations = [run["evaluations_per_query"] for run in runs]
    return {
        "convicted": len(groups),
        "groups": {"median": median(groups), "max": max(groups)} if groups else None,
        "honest_convicted": sum(run["honest_convicted"] for run in runs),
        "wrong_rows": max(run["wrong_rows"] for run in runs),
        "evaluations_per_query": {"mean": mean(evaluations), "max": max(evaluations)},
        "seconds": mean(run["seconds"] for run in runs),
    }
