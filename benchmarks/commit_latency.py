"""Latency of written windows with spot checks, against that without them.

::

    python -m approxifer.benchmarks commit_latency [--windows 100] [--repeats 3] [--workers 12]
        [--quick] [--out results.json]

Real worker processes whose model sleeps, so that the cores are no bottleneck: 35 ms a micro-batch,
140 ms a share of 256 rows. Runs with ``byzantine=1`` (three rows of each share checked) and without
alternate on one cluster; a window's time counts from the start of its first share until it is
written. Quantiles are over the windows of a run, medians over its repeats.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import xarray as xr
from distributed import Client

import approxifer
from approxifer.benchmarks.common import Steps, command, parser_of, positive
from approxifer.benchmarks.toy_model import project
from approxifer.datasets import Journal
from approxifer.pipeline.cluster.local import local_cluster
from approxifer.pipeline.reporting.report import as_text, table

K, BLOCK, GROUPS = 8, 256, 4
#: Rows of a window.
WINDOW = K * BLOCK * GROUPS
SECONDS = 0.035
QUICK = {"windows": 20, "repeats": 1}


def sleeping(rows: np.ndarray) -> np.ndarray:
    """`toy.project`, 35 ms a micro-batch."""
    time.sleep(SECONDS)
    return project(rows)


def sleeping_factory() -> Callable[[np.ndarray], np.ndarray]:
    """Make it: a model that has a name."""
    return sleeping


def window_seconds(events: Iterable[Mapping[str, Any]]) -> list[float]:
    """The time of each window of a journal of one session."""
    began: dict[int, float] = {}
    found = []
    for event in events:
        if event["event"] == "group" and event.get("window") is not None:
            starts = [a["start"] for a in event["attempts"] if a["start"] is not None]
            index = event["window"]
            began[index] = min([began.get(index, np.inf), *starts])
        elif event["event"] == "window":
            found.append(event["time"] - began[event["window"]])
    return found


def measure(
    client: Client, folder: Path, *, windows: int, repeats: int, begin: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    """Runs in turn; figures of each kind."""
    rows = np.random.default_rng(0).normal(size=(windows * WINDOW, 4)).astype(np.float32)
    data = xr.DataArray(rows, dims=("sample", "feature"), name="x")
    runs: dict[str, list[dict[str, float]]] = {"without": [], "checked": []}
    for repeat in range(repeats):
        for kind, made in runs.items():
            begin(f"{kind}, run {repeat + 1}")
            report = approxifer.score(
                data,
                model="approxifer.benchmarks.commit_latency:sleeping_factory",
                out=folder / f"{kind}-{repeat}.zarr",
                client=client,
                scheme="uncoded",
                k=K,
                block=BLOCK,
                window=WINDOW,
                byzantine=1 if kind == "checked" else 0,
                progress=False,
            )
            seconds = window_seconds(Journal.read(report.out))
            p50, p99 = np.quantile(seconds, [0.5, 0.99])
            made.append(
                {
                    "p50": float(p50),
                    "p99": float(p99),
                    "wall": report.wall_seconds,
                    "evaluations_per_query": report.evaluations_per_query,
                }
            )
    return {
        kind: {name: median(run[name] for run in made) for name in made[0]}
        for kind, made in runs.items()
    }


def run(*, windows: int, repeats: int, workers: int) -> dict[str, Any]:
    """Measure, print the table, return the figures."""
    steps = Steps(2 * repeats)
    with (
        local_cluster(n_workers=workers, memory=None, options={}) as cluster,
        Client(cluster, set_as_default=False) as client,
        tempfile.TemporaryDirectory(prefix="approxifer-commit-latency-") as folder,
    ):
        found = measure(client, Path(folder), windows=windows, repeats=repeats, begin=steps.begin)
    ratio = {name: found["checked"][name] / found["without"][name] for name in found["without"]}
    made = table("Windows", "", "p50 s", "p99 s", "wall s", "evaluations")
    for kind, one in (*found.items(), ("ratio", ratio)):
        made.add_row(kind, *(f"{one[name]:.3f}" for name in one))
    print(as_text([made]))
    return {
        "benchmark": "commit_latency", "windows": windows, "repeats": repeats, "workers": workers,
        "rows_per_window": WINDOW, "block": BLOCK, **found, "ratio": ratio,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = parser_of("commit_latency")
    parser.add_argument("--windows", type=positive, default=100, help="of each run")
    parser.add_argument("--repeats", type=positive, default=3, help="runs of each kind")
    parser.add_argument("--workers", type=positive, default=12)
    return command(parser, arguments, run, quick=QUICK)


if __name__ == "__main__":
    sys.exit(main())
