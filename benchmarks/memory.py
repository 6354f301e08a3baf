"""The client's peak memory while the input grows.

::

    python -m approxifer.benchmarks memory [--gigabytes 2 4] [--memory 1GB] [--workers 3]
        [--clusters local address] [--dir DIR] [--out results.json]

For every size a Zarr array of float32 rows is made in a temporary folder (under ``--dir``) and
deleted afterwards; a gigabyte is 10^9 bytes of rows, which take a third of that on the disk. A
fresh process scores it with a NumPy model that costs next to nothing, with its rows limited to
``--memory``, and samples its own resident memory, of which the libraries are 0.2 GB:

- ``local``: the cluster is started by the run, its scheduler lives in the client's process;
- ``address``: scheduler and workers are processes of their own, the client is alone.

The workers' memory is not counted.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from rich.progress import track

from approxifer.benchmarks.common import Steps, command, parser_of, positive
from approxifer.errors import ClusterError, ConfigError
from approxifer.pipeline.reporting.report import as_text, table

FEATURES = 3072
CHUNK = 640  #: rows: 7.9 MB
SECONDS = 60.0  #: for a scheduler to start


def make_rows(path: Path, gigabytes: float, *, seed: int = 0) -> int:
    """Write float32 whole numbers from 0 to 255, another chunk every time; returns the rows."""
    chunks = max(1, round(gigabytes * 1e9 / (4 * FEATURES * CHUNK)))
    array = zarr.create_array(
        str(path),
        shape=(chunks * CHUNK, FEATURES),
        chunks=(CHUNK, FEATURES),
        dtype="float32",
        dimension_names=("sample", "feature"),
    )
    rng = np.random.default_rng(seed)
    quiet = not sys.stderr.isatty()
    for number in track(range(chunks), f"making {gigabytes:g} GB", disable=quiet):
        pixels = rng.integers(0, 256, (CHUNK, FEATURES), np.uint8)
        array[number * CHUNK : (number + 1) * CHUNK] = pixels.astype(np.float32)
    return chunks * CHUNK


@contextmanager
def scheduler_elsewhere(workers: int, folder: Path) -> Iterator[str]:
    """Start a scheduler and workers as processes of their own; yields the scheduler's address."""
    file, log = folder / "scheduler.json", folder / "dask.log"
    dask = [sys.executable, "-m", "dask"]
    where = ["--scheduler-file", str(file)]
    commands = [
        [*dask, "scheduler", *where, "--host", "127.0.0.1", "--port", "0", "--no-dashboard"],
        [*dask, "worker", *where, "--nworkers", str(workers), "--nthreads", "1", "--no-dashboard",
         "--host", "127.0.0.1", "--local-directory", str(folder)],
    ]  # fmt: skip
    with ExitStack() as stack:
        output = stack.enter_context(log.open("w"))
        for arguments in commands:
            process = subprocess.Popen(arguments, stdout=output, stderr=subprocess.STDOUT)
            stack.callback(_stop, process)
            end = time.monotonic() + SECONDS
            while not file.exists():
                if process.poll() is not None or time.monotonic() > end:
                    raise ClusterError(f"no scheduler started: {log.read_text()[-1000:]}")
                time.sleep(0.05)
        yield json.loads(file.read_text())["address"]


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def watch(data: Path, kind: str, workers: int, memory: str, folder: Path) -> dict[str, Any]:
    """Score in a fresh process, and return what it saw of itself."""
    with ExitStack() as stack:
        cluster: dict[str, Any] = {"kind": kind, "workers": workers}
        if kind == "address":
            cluster["address"] = stack.enter_context(scheduler_elsewhere(workers, folder))
        done = subprocess.run(
            [
                *(sys.executable, "-m", "approxifer.benchmarks.memory_run"),
                *(str(data), str(folder / "scores.zarr"), json.dumps(cluster), memory),
            ],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    if done.returncode:
        raise ClusterError(f"the scoring process ended with exit code {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(
    *,
    gigabytes: Sequence[float],
    memory: str,
    workers: int,
    clusters: Sequence[str],
    directory: str | None,
) -> dict[str, Any]:
    """Measure all sizes, print the table, return the figures."""
    measured = []
    steps = Steps(len(gigabytes) * (1 + len(clusters)))
    for size in gigabytes:
        with tempfile.TemporaryDirectory(prefix="approxifer-memory-", dir=directory) as name:
            folder = Path(name)
            free = shutil.disk_usage(folder).free
            if free < 1.2e9 * size:
                raise ConfigError(
                    f"{size:g} GB of rows do not fit: {free / 1e9:.1f} GB are free. Give a smaller "
                    "size (--gigabytes) or another folder (--dir)."
                )
            steps.begin(f"{size:g} GB, making the input")
            rows = make_rows(folder / "rows.zarr", size)
            for kind in clusters:
                steps.begin(f"{size:g} GB, scheduler {PLACES[kind]}")
                (folder / kind).mkdir()
                found = watch(folder / "rows.zarr", kind, workers, memory, folder / kind)
                measured.append({"gigabytes": size, "rows": rows, "cluster": kind, **found})
    results = {"benchmark": "memory", "memory": memory, "workers": workers, "runs": measured}
    print(describe(results))
    return results


PLACES = {"local": "in the client", "address": "elsewhere"}


def describe(results: dict[str, Any]) -> str:
    """The table."""
    made = table(
        f"Memory of the client process, memory={results['memory']!r}, {results['workers']} workers",
        "input", "rows", "scheduler", "window", "block", "sampled peak MB", "peak MB", "s", "MB/s",
    )  # fmt: skip
    for found in sorted(results["runs"], key=lambda found: found["cluster"] != "local"):
        made.add_row(
            f"{found['gigabytes']:g} GB",
            f"{found['rows']:,}",
            PLACES[found["cluster"]],
            f"{found['layout']['window']:,}",
            f"{found['layout']['block']:,}",
            f"{found['sampled_peak_mb']:,.0f}",
            f"{found['peak_mb']:,.0f}",
            f"{found['wall_seconds']:.1f}",
            f"{1000 * found['gigabytes'] / found['wall_seconds']:,.0f}",
        )
    return as_text([made])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = parser_of("memory")
    parser.add_argument("--gigabytes", nargs="+", type=float, default=(2.0, 4.0))
    parser.add_argument("--memory", default="1GB", help="what the client's rows may take")
    parser.add_argument("--workers", type=positive, default=3)
    parser.add_argument("--clusters", nargs="+", choices=PLACES, default=tuple(PLACES))
    parser.add_argument("--dir", dest="directory", help="where the temporary folder is made")
    return command(parser, arguments, run)


if __name__ == "__main__":
    sys.exit(main())
