"""Fault-free speed against plain Dask: what the code, the ledger and the journal cost.

::

    python -m approxifer.benchmarks overhead --data DIR [--model FILE.pt2] [--rows N] [--repeats 3]
        [--systematic-workers N] [--quick] [--out results.json]

The test images of ``DIR/cifar10.npz`` become a Zarr store in a temporary folder and are scored in
several ways, in turn (A B C ... A B C ...), each time on a new local cluster, so that only one
lives:

- ``plain``: dask.array ``map_blocks`` on Dask's default ``LocalCluster()``, nothing tuned, the
  model run on whole chunks (`approxifer.benchmarks.plain_dask`);
- ``uncoded``: ``approxifer.score(scheme="uncoded")``, one worker per core;
- ``systematic``: ``approxifer.score(scheme="systematic", k=8, stragglers=1)`` on the 9 workers that
  this code needs, more than there are cores on a small machine;
- the last two again without TLS between their processes (``security: false``).

All write a Zarr store. The clock runs from the first read of the input to the closed store;
starting workers and loading the model come before it, for all. Without ``--model`` a small
untrained ResNet is exported; its speed is that of a trained one. ``--quick`` is a first look with
few rows, rough figures.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

import approxifer
from approxifer.benchmarks import plain_dask
from approxifer.benchmarks.common import Steps, command, parser_of, positive, spread
from approxifer.datasets.convert import convert
from approxifer.datasets.published.images import Images, write
from approxifer.errors import ModelNotFoundError
from approxifer.pipeline.reporting.report import as_text, table

VARIABLE = "image"
K, S = 8, 1
#: What ``--quick`` puts for what is left out.
QUICK = {"rows": 2000, "repeats": 1}


@dataclass(frozen=True)
class Measured:
    """One run of one way."""

    seconds: float
    setup_seconds: float | None
    workers: int
    evaluations_per_query: float
    micro_batch: int | None
    block: int | None
    predictions: np.ndarray


def measure_plain(data: Path, model: Path, out: Path) -> Measured:
    """Plain Dask."""
    seconds, workers = plain_dask.score(data, VARIABLE, model=model, out=out)
    predictions = np.asarray(zarr.open_array(str(out), mode="r")[:])
    return Measured(seconds, None, workers, 1.0, None, None, predictions)


def measure_ours(
    data: Path, model: Path, out: Path, *, scheme: str, workers: int, tls: bool = True
) -> Measured:
    """approxifer with one scheme."""
    report = approxifer.score(
        data,
        model=model,
        out=out,
        variable=VARIABLE,
        cluster={"kind": "local", "workers": workers, "security": tls},
        scheme=scheme,
        k=K,
        stragglers=S,
        progress=False,
    )
    found = report.predictions
    layout = found.attrs["layout"]
    return Measured(
        seconds=report.wall_seconds,
        setup_seconds=report.setup_seconds,
        workers=workers,
        evaluations_per_query=report.evaluations_per_query,
        micro_batch=layout["micro_batch"],
        block=layout["block"],
        predictions=found.prediction.to_numpy(),
    )


def run(
    data: Path,
    *,
    model: Path | None,
    rows: int | None,
    repeats: int,
    systematic_workers: int,
) -> dict[str, Any]:
    """Measure all ways, print the table, return the figures."""
    cores = os.cpu_count() or 1
    if model is not None and not model.is_file():
        raise ModelNotFoundError(f"model={str(model)!r}: there is no such file")
    with tempfile.TemporaryDirectory(prefix="approxifer-overhead-") as name:
        folder = Path(name)
        store = folder / "cifar10.zarr"
        convert(data / "cifar10.npz", store)
        if rows is not None:
            store = _first_rows(store, rows, folder / "some.zarr")
        program = model or _untrained(folder / "resnet.pt2")
        ours = partial(measure_ours, store, program)
        uncoded = partial(ours, scheme="uncoded", workers=cores)
        systematic = partial(ours, scheme="systematic", workers=systematic_workers)
        ways: dict[str, Callable[[Path], Measured]] = {
            "plain": partial(measure_plain, store, program),
            "uncoded": uncoded,
            "systematic": systematic,
            "uncoded, no TLS": partial(uncoded, tls=False),
            "systematic, no TLS": partial(systematic, tls=False),
        }
        steps = Steps(repeats * len(ways))
        measured: dict[str, list[Measured]] = {way: [] for way in ways}
        for repeat in range(repeats):
            for way, measure in ways.items():
                steps.begin(f"{way}, repeat {repeat + 1}")
                measured[way].append(measure(folder / f"{way}-{repeat}.zarr"))
    results = {
        "benchmark": "overhead",
        "rows": len(measured["plain"][0].predictions),
        "model": program.name,
        "ways": {way: summary(found) for way, found in measured.items()},
        "agreement": agreement({way: found[0].predictions for way, found in measured.items()}),
    }
    print(describe(results))
    return results


def summary(found: Sequence[Measured]) -> dict[str, Any]:
    """The figures of one way over its repeats."""
    first = found[0]
    setup = [one.setup_seconds for one in found if one.setup_seconds is not None]
    return {
        "seconds": spread([one.seconds for one in found]),
        "setup_seconds": spread(setup) if setup else None,
        "evaluations_per_query": spread([one.evaluations_per_query for one in found]),
        "workers": first.workers,
        "micro_batch": first.micro_batch,
        "block": first.block,
    }


def agreement(predictions: dict[str, np.ndarray]) -> dict[str, Any]:
    """Differences between the ways' predictions; equality, bit by bit, of ours."""

    def apart(one: str, other: str) -> float:
        return float(np.abs(predictions[one] - predictions[other]).max())

    return {
        "largest_logit": float(np.abs(predictions["plain"]).max()),
        "plain_uncoded": apart("plain", "uncoded"),
        "plain_systematic": apart("plain", "systematic"),
        "uncoded_systematic_bitwise": (
            predictions["uncoded"].tobytes() == predictions["systematic"].tobytes()
        ),
    }


def describe(results: dict[str, Any]) -> str:
    """The table, and the agreement in words."""
    made = table(
        f"{results['rows']:,} rows, {results['model']}", "way", "workers", "block", "median s",
        "min-max s", "rows/s", "of plain", "evaluations/query", "set-up s",
    )  # fmt: skip
    base = results["ways"]["plain"]["seconds"]["median"]
    for way, found in results["ways"].items():
        seconds, setup = found["seconds"], found["setup_seconds"]
        made.add_row(
            way,
            str(found["workers"]),
            "chunk" if found["block"] is None else str(found["block"]),
            f"{seconds['median']:.2f}",
            f"{seconds['min']:.2f}-{seconds['max']:.2f}",
            f"{results['rows'] / seconds['median']:,.0f}",
            f"{seconds['median'] / base:.2f}",
            f"{found['evaluations_per_query']['median']:.3f}",
            "" if setup is None else f"{setup['median']:.1f}",
        )
    same = results["agreement"]
    bits = "the same bits" if same["uncoded_systematic_bitwise"] else "NOT the same bits"
    return as_text([made]) + (
        f"\nuncoded and systematic: {bits}; largest difference from plain: "
        f"{max(same['plain_uncoded'], same['plain_systematic']):.1e} "
        f"(largest logit {same['largest_logit']:.1f})"
    )


def _first_rows(store: Path, rows: int, target: Path) -> Path:
    image = xr.open_zarr(str(store), chunks=None)[VARIABLE]
    chunk = image.encoding["chunks"][0]
    return write(Images(image[:rows].to_numpy()), target, chunk=min(chunk, rows))


def _untrained(path: Path) -> Path:
    import torch

    from approxifer.models import zoo
    from approxifer.models.export import export_program

    torch.manual_seed(0)
    example = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    export_program(zoo.small_resnet(widths=(24, 48, 96)).eval(), example, path)
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = parser_of("overhead")
    parser.add_argument("--data", type=Path, required=True, help="folder with cifar10.npz")
    parser.add_argument("--model", type=Path, help="a .pt2 that takes (n, 32, 32, 3) float32")
    parser.add_argument("--rows", type=positive, help="only so many rows")
    parser.add_argument("--repeats", type=positive, default=3)
    parser.add_argument("--systematic-workers", type=positive, default=K + S)
    return command(parser, arguments, run, quick=QUICK)


if __name__ == "__main__":
    sys.exit(main())
