"""Workers that lie: how soon they are found, what they leave in the output, and what that costs.

::

    python -m approxifer.benchmarks.byzantine --data DIR [--model lenet5.pt2]
        [--model-cifar resnet.pt2] [--model-era5 forecaster.pt2] [--sections faults clean ...]
        [--rows 8000] [--seeds 20] [--runs 400] [--processes 2] [--quick] [--out results.json]
        [--picture FILE.png]

The sections:

- ``faults``: one of 12 workers lies in every share; ours and three rivals, on MNIST, CIFAR-10 and
  ERA5 (those whose model is given; without ``--model`` a LeNet-5 is trained as by the benchmark
  ``accuracy``), played from outputs that are recorded once (`approxifer.benchmarks.simulated`);
- ``clean``: runs of honest workers, each on other rows;
- ``escapes``: a worker that lies now and then;
- ``published``: the published scheme's own experiment;
- ``workers``: one of 12 real workers lies in every share.

A row is wrong if it is further from the uncoded model's output than the referee allows.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from approxifer.benchmarks import byzantine_tables, clean, escapes, faulty, live, published
from approxifer.benchmarks.cases import kept_beside, trained
from approxifer.benchmarks.common import Steps, command, parse, positive
from approxifer.benchmarks.crew import Crew, crew
from approxifer.benchmarks.faulty import FAULTS, WORKERS
from approxifer.benchmarks.subjects import Source, Subject, record_subject, sources

SECTIONS = ("faults", "clean", "escapes", "published", "workers")
FRACTIONS = (0.01, 0.05, 0.2)
RATES = (0.02, 0.05, 0.1)
ERRORS, SIGMAS = (1, 2, 3), (1.0, 10.0, 100.0)
#: What ``--quick`` puts for what is left out.
QUICK = {
    "rows": 2000,
    "seeds": 2,
    "rival_seeds": 1,
    "runs": 10,
    "sections": SECTIONS[:4],
}


@dataclass(kw_only=True)
class Bench:
    """The sections, and what they have in common."""

    sections: Sequence[str]
    seeds: int
    rival_seeds: int
    runs: int
    worker_seeds: int
    audit: float
    processes: int
    steps: Steps
    results: dict[str, Any]

    def dataset(self, source: Source, model: Path) -> None:
        """The sections of one data set; MNIST has all."""
        mnist = source.name == "MNIST"
        if {"faults", "escapes", "workers"}.intersection(self.sections):
            self.steps.begin(f"{source.name}: recording")
            subject = record_subject(source)
            with crew(subject, self.processes) as call:
                self.recorded(subject, call, escapes_too=mnist)
            if mnist and "workers" in self.sections:
                self.workers(source, subject, model)
        if "clean" in self.sections:
            self.steps.begin(f"{source.name}: clean runs")
            found = self.timed("clean", clean.measure, source, seeds=self.seeds, audit=self.audit)
            self.results.setdefault("clean", []).append(found)
        if mnist and "published" in self.sections:
            self.steps.begin("the published experiment")
            self.results["published"] = self.timed("published", self.published, source)

    def recorded(self, subject: Subject, call: Crew, *, escapes_too: bool) -> None:
        """What is played from one recording."""
        if "faults" in self.sections:
            found = self.timed(
                "faults", faulty.measure, subject, call, faults=FAULTS, audit=self.audit,
                seeds=self.seeds, rival_seeds=self.rival_seeds, begin=self.steps.begin,
            )  # fmt: skip
            self.results.setdefault("faults", []).append(found)
        if escapes_too and "escapes" in self.sections:
            self.results["escapes"] = self.timed(
                "escapes", escapes.measure, subject, call, fractions=FRACTIONS, rates=RATES,
                runs=self.runs, begin=self.steps.begin,
            )  # fmt: skip

    def published(self, source: Source) -> dict[str, Any]:
        """The published experiment, on the same rows."""
        assert source.labels is not None
        coded = published.code_rows(source.rows, source.labels, source.forward, ERRORS, seed=0)
        with crew(coded, self.processes) as call:
            return published.measure(coded, call, errors=ERRORS, sigmas=SIGMAS, seed=0)

    def workers(self, source: Source, subject: Subject, model: Path) -> None:
        """Real workers."""
        self.results["workers"] = self.timed(
            "workers", live.measure, source.rows, subject.recording.plain, subject.tolerance, model,
            names=FAULTS, stuck=subject.weight, k=source.k, block=source.block,
            audit=self.audit, seeds=self.worker_seeds, begin=self.steps.begin,
        )  # fmt: skip

    def timed(self, section: str, function: Any, *given: Any, **named: Any) -> Any:
        """Call, and add the time to that of a section."""
        begin = time.perf_counter()
        found = function(*given, **named)
        spent = self.results["seconds"]
        spent[section] = round(spent.get(section, 0.0) + time.perf_counter() - begin, 1)
        return found


def run(
    data: Path,
    *,
    model: Path | None,
    model_cifar: Path | None,
    model_era5: Path | None,
    sections: Sequence[str],
    rows: int,
    seeds: int,
    rival_seeds: int,
    runs: int,
    worker_seeds: int,
    audit: float,
    processes: int,
    out: str | None,
    picture: Path | None,
) -> dict[str, Any]:
    """Measure, print the tables, return the figures."""
    results: dict[str, Any] = {
        "benchmark": "byzantine",
        "workers_per_run": WORKERS,
        "audit": audit,
        "seconds": {},
    }
    with ExitStack() as stack:
        kept = stack.enter_context(kept_beside(out))
        program = model or trained("lenet5", str(data / "mnist.npz"), kept, epochs=None, seed=0)
        total = _total(sections, 1 + sum(m is not None for m in (model_cifar, model_era5)))
        bench = Bench(
            sections=sections,
            seeds=seeds,
            rival_seeds=rival_seeds,
            runs=runs,
            worker_seeds=worker_seeds,
            audit=audit,
            processes=processes,
            steps=Steps(total + len(FAULTS) * worker_seeds * ("workers" in sections)),
            results=results,
        )
        for source in sources(data, program, model_cifar, model_era5, rows):
            bench.dataset(source, program)
    print(byzantine_tables.describe(results))
    if picture is not None:
        from approxifer.benchmarks.byzantine_picture import draw

        draw(results, picture)
    return results


def _total(sections: Sequence[str], datasets: int) -> int:
    """Steps, but for those on real workers."""
    recorded = bool({"faults", "escapes", "workers"}.intersection(sections))
    return (
        datasets * (recorded + len(FAULTS) * ("faults" in sections) + ("clean" in sections))
        + len(FRACTIONS) * ("escapes" in sections)
        + ("published" in sections)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m approxifer.benchmarks.byzantine",
        description="Workers that lie: detection, wrong rows left, evaluations.",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist.npz")
    parser.add_argument("--model", type=Path, help="MNIST: a .pt2 that takes (n, 28, 28) float32")
    parser.add_argument("--model-cifar", type=Path, help="CIFAR-10: (n, 32, 32, 3)")
    parser.add_argument("--model-era5", type=Path, help="ERA5: (n, latitude, longitude)")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--rows", type=positive, default=8000, help="of a run on MNIST")
    parser.add_argument("--seeds", type=positive, default=20, help="runs of each fault")
    parser.add_argument("--rival-seeds", type=positive, default=3, help="the same, of the rivals")
    parser.add_argument("--runs", type=positive, default=400, help="of each cell of the escapes")
    parser.add_argument("--worker-seeds", type=positive, default=3, help="runs on real workers")
    parser.add_argument("--audit", type=float, default=0.05, help="fraction of shares")
    parser.add_argument("--processes", type=positive, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--picture", type=Path, help="PNG file to write")
    parser.add_argument("--out", help="JSON file to write")
    given = parse(parser, arguments, quick=QUICK)
    quick = given.pop("quick")
    return command(lambda: run(**given), given["out"], quick=quick)


if __name__ == "__main__":
    sys.exit(main())
