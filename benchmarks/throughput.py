"""Bytes a second with a light model, beside a plain loop and plain Dask.

::

    python -m approxifer.benchmarks throughput [--gigabytes 1] [--repeats 3] [--quick]
        [--folder DIR] [--out results.json]

Float32 images of 3 x 224 x 224 numbers, in chunks of 32, become a Zarr store in a temporary folder
(in ``--folder``, if given), and are run through a NumPy model of one matrix product in several
ways, in turn (A B C ... A B C ...), each time on a new local cluster:

- ``loop``: this process, chunk by chunk;
- ``dask``: ``map_blocks`` and ``to_zarr``, one worker of one thread for each core, glibc's malloc
  thresholds raised as approxifer does it;
- ``uncoded``: ``approxifer.score(scheme="uncoded")`` on as many workers;
- ``systematic``: ``scheme="systematic", k=8, stragglers=1`` on the 9 workers that it needs.

All read the same store and write Zarr with the same codec. The clock runs from the opening of the
input until the output is on the disk (``sync``); starting workers comes before it, for all.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import zarr
from distributed import Client, LocalCluster

import approxifer
from approxifer.benchmarks.common import Steps, command, parser_of, positive, spread
from approxifer.benchmarks.toy_model import OUTPUTS, project
from approxifer.models.runtime import raise_malloc_thresholds
from approxifer.pipeline.reporting.report import as_text, table

ROW, CHUNK = (3, 224, 224), 32
K, S = 8, 1
#: What ``--quick`` puts for what is left out.
QUICK = {"gigabytes": 0.2, "repeats": 1}


def make_input(path: Path, gigabytes: float) -> int:
    """Write the images; the bytes of their numbers."""
    each = 4 * int(np.prod(ROW)) * CHUNK
    chunks = max(1, round(gigabytes * 1e9 / each))
    array = zarr.create_array(
        str(path), shape=(chunks * CHUNK, *ROW), chunks=(CHUNK, *ROW), dtype="float32",
        dimension_names=("image", "channel", "y", "x"),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    for start in range(0, chunks * CHUNK, CHUNK):
        array[start : start + CHUNK] = rng.standard_normal((CHUNK, *ROW), np.float32)
    return chunks * each


def loop(data: Path, out: Path) -> float:
    """Seconds of a plain loop."""
    begin = time.perf_counter()
    rows = zarr.open_array(str(data), mode="r")
    scores = zarr.create_array(
        str(out), shape=(rows.shape[0], OUTPUTS), chunks=(CHUNK, OUTPUTS), dtype="float32"
    )
    for start in range(0, rows.shape[0], CHUNK):
        scores[start : start + CHUNK] = project(np.asarray(rows[start : start + CHUNK]))
    os.sync()
    return time.perf_counter() - begin


def dask(data: Path, out: Path, *, workers: int) -> float:
    """Seconds of plain Dask."""
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        client.run(raise_malloc_thresholds)
        client.run(project, np.zeros((1, *ROW), np.float32))
        begin = time.perf_counter()
        rows = da.from_zarr(str(data))
        scores = rows.map_blocks(
            project, dtype=np.float32, drop_axis=[1, 2, 3], new_axis=1,
            chunks=(rows.chunks[0], (OUTPUTS,)), meta=np.empty((0, 0), np.float32),
        )  # fmt: skip
        scores.to_zarr(str(out))
        os.sync()
        return time.perf_counter() - begin


def ours(data: Path, out: Path, *, scheme: str, workers: int) -> float:
    """Seconds of approxifer."""
    report = approxifer.score(
        data, model=project, out=out, cluster={"workers": workers}, scheme=scheme, k=K,
        stragglers=S, progress=False,
    )  # fmt: skip
    begin = time.perf_counter()
    os.sync()
    return report.wall_seconds + time.perf_counter() - begin


def run(*, gigabytes: float, repeats: int, folder: Path | None) -> dict[str, Any]:
    """Measure all ways, print the table, return the figures."""
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="approxifer-throughput-", dir=folder) as name:
        data = Path(name) / "images.zarr"
        size = make_input(data, gigabytes)
        os.sync()
        ways: dict[str, Callable[[Path, Path], float]] = {
            "loop": loop,
            "dask": partial(dask, workers=cores),
            "uncoded": partial(ours, scheme="uncoded", workers=cores),
            "systematic": partial(ours, scheme="systematic", workers=K + S),
        }
        steps = Steps(repeats * len(ways))
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for repeat in range(repeats):
            for way, measure in ways.items():
                steps.begin(f"{way}, repeat {repeat + 1}")
                seconds[way].append(measure(data, Path(name) / f"{way}-{repeat}.zarr"))
    results = {
        "benchmark": "throughput",
        "bytes": size,
        "ways": {way: {"seconds": spread(found)} for way, found in seconds.items()},
    }
    print(describe(results))
    return results


def describe(results: dict[str, Any]) -> str:
    """The table."""
    made = table(
        f"{results['bytes'] / 1e9:.2f} GB of float32", "way", "median s", "min-max s", "MB/s",
        "of dask's MB/s",
    )  # fmt: skip
    base = results["ways"]["dask"]["seconds"]["median"]
    for way, found in results["ways"].items():
        seconds = found["seconds"]
        made.add_row(
            way,
            f"{seconds['median']:.2f}",
            f"{seconds['min']:.2f}-{seconds['max']:.2f}",
            f"{results['bytes'] / 1e6 / seconds['median']:,.0f}",
            f"{base / seconds['median']:.2f}",
        )
    return as_text([made])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = parser_of("throughput")
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--repeats", type=positive, default=3)
    parser.add_argument("--folder", type=Path, help="a folder with room for the input")
    return command(parser, arguments, run, quick=QUICK)


if __name__ == "__main__":
    sys.exit(main())
