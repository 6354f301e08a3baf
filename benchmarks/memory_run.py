"""One scoring run whose process is watched; started by `approxifer.benchmarks.memory`, alone.

``python -m approxifer.benchmarks.memory_run DATA OUT CLUSTER MEMORY``, CLUSTER as JSON;
prints JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

import approxifer
from approxifer.benchmarks.toy_model import project

EVERY = 0.05


class Watch:
    """Samples this process's resident memory from a thread, until it is left.

    Attributes
    ----------
    samples : list of int
        Bytes, one every 50 ms.
    """

    def __init__(self) -> None:
        self.samples: list[int] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="watch", daemon=True)

    def _sample(self) -> None:
        process = psutil.Process()
        while True:
            self.samples.append(process.memory_info().rss)
            if self._ended.wait(EVERY):
                return

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()


def peak() -> int:
    """Bytes that this process held at most, by the operating system's own account."""
    status = Path("/proc/self/status")
    if status.exists():  # unlike ru_maxrss, not inherited from the process that started this one
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Score, and print what was seen."""
    data, out, cluster, memory = sys.argv[1:]
    with Watch() as watch:
        report = approxifer.score(
            data,
            model=project,
            out=out,
            cluster=json.loads(cluster),
            memory=memory,
            progress=False,
        )
    found: dict[str, Any] = {
        "sampled_peak_mb": max(watch.samples) / 1e6,
        "peak_mb": peak() / 1e6,
        "samples": len(watch.samples),
        "wall_seconds": report.wall_seconds,
        "counts": report.counts,
        "evaluations_per_query": report.evaluations_per_query,
        "layout": report.predictions.attrs["layout"],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
