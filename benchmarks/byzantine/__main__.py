"""Workers that return wrong outputs: detection, wrong rows left, evaluations.

::

    python -m approxifer.benchmarks byzantine --data DIR [--model lenet5.pt2]
        [--model-cifar resnet.pt2] [--model-era5 forecaster.pt2] [--sections faults clean ...]
        [--check 3] [--rows 8000] [--seeds 20] [--runs 400] [--processes 2] [--quick]
        [--out results.json] [--picture FILE.png]

The sections:

- ``faults``: one of 12 workers is faulty in every share; ours and three rivals, on MNIST,
  CIFAR-10 and ERA5 (those whose model is given; without ``--model`` a LeNet-5 is trained as by the
  benchmark ``accuracy``), played from outputs that are recorded once (`simulation`);
- ``clean``: runs of honest workers, each on other rows, and a long one;
- ``escapes``: a worker that is faulty now and then;
- ``published``: the published scheme's own experiment;
- ``workers``: one of 12 real workers is faulty in every share.

Ours is ``scheme="uncoded", byzantine=1``: a few rows of every share are run again elsewhere. A row
is wrong if it is further from the uncoded model's output than the referee allows.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from approxifer.benchmarks.byzantine import (
    detection,
    evasion,
    false_alarms,
    live,
    published,
    tables,
)
from approxifer.benchmarks.byzantine.detection import FAULTS
from approxifer.benchmarks.byzantine.simulation import WORKERS
from approxifer.benchmarks.byzantine.subjects import Source, Subject, record_subject, sources
from approxifer.benchmarks.common import Steps, command, parser_of, positive
from approxifer.benchmarks.datasets import kept_beside, trained
from approxifer.benchmarks.pool import process_pool
from approxifer.pipeline.byzantine.spot_checks import DEFAULT_CHECK

if TYPE_CHECKING:
    from distributed import Client

SECTIONS = ("faults", "clean", "escapes", "published", "workers")
FRACTIONS = (0.05,)
ERRORS, SIGMAS = (1, 2, 3), (1.0, 10.0, 100.0)
#: Faults of real workers on other data than MNIST, each injected once.
FEW = ("noise, sigma 1", "top 2 swapped", "NaN", "replay", detection.STUCK)
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
    check: int
    processes: int
    client: Client | None  #: of real workers
    steps: Steps
    results: dict[str, Any]

    def dataset(self, source: Source, model: Path) -> None:
        """The sections of one data set; MNIST has all."""
        mnist = source.name == "MNIST"
        if {"faults", "escapes", "workers"}.intersection(self.sections):
            self.steps.begin(f"{source.name}: recording")
            subject = record_subject(source)
            if "faults" in self.sections:
                self.faults(subject)
            if mnist and "escapes" in self.sections:
                self.escapes(subject)
            if self.client is not None:
                self.workers(self.client, source, subject, model)
        if "clean" in self.sections:
            self.steps.begin(f"{source.name}: clean runs")
            for measure in (false_alarms.measure, *([false_alarms.measure_many] * mnist)):
                found = self.timed("clean", measure, source, seeds=self.seeds, check=self.check)
                self.results.setdefault("clean", []).append(found)
        if mnist and "published" in self.sections:
            self.steps.begin("the published experiment")
            self.results["published"] = self.timed("published", self.published, source)

    def faults(self, subject: Subject) -> None:
        """Faults in every share."""
        with process_pool(subject, self.processes) as call:
            found = self.timed(
                "faults", detection.measure, subject, call, faults=FAULTS, check=self.check,
                seeds=self.seeds, rival_seeds=self.rival_seeds, begin=self.steps.begin,
            )  # fmt: skip
        self.results.setdefault("faults", []).append(found)

    def escapes(self, subject: Subject) -> None:
        """Faults now and then, in a longer run."""
        subject = evasion.long_run(subject)
        with process_pool(subject, self.processes) as call:
            self.results["escapes"] = self.timed(
                "escapes", evasion.measure, subject, call, fractions=FRACTIONS, check=self.check,
                runs=self.runs, begin=self.steps.begin,
            )  # fmt: skip

    def published(self, source: Source) -> dict[str, Any]:
        """The published experiment, on the same rows."""
        assert source.labels is not None
        coded = published.code_rows(source.rows, source.labels, source.forward, ERRORS, seed=0)
        with process_pool(coded, self.processes) as call:
            return published.measure(coded, call, errors=ERRORS, sigmas=SIGMAS, seed=0)

    def workers(self, client: Client, source: Source, subject: Subject, model: Path) -> None:
        """Real workers."""
        names, seeds = live_faults(source.name, self.worker_seeds)
        found = self.timed(
            "workers", live.measure, client, source.rows, subject.recording.plain,
            subject.tolerance, model, names=names, stuck=subject.weight, k=source.k,
            block=source.block, check=self.check, seeds=seeds, begin=self.steps.begin,
        )  # fmt: skip
        rows = len(subject.recording.plain)
        one = {"dataset": source.name, "rows": rows, "block": source.block, "faults": found}
        self.results.setdefault("workers", []).append(one)

    def timed(self, section: str, function: Any, *given: Any, **named: Any) -> Any:
        """Call, and add the time to that of a section."""
        begin = time.perf_counter()
        found = function(*given, **named)
        spent = self.results["seconds"]
        spent[section] = round(spent.get(section, 0.0) + time.perf_counter() - begin, 1)
        return found


def live_faults(dataset: str, seeds: int) -> tuple[Sequence[str], int]:
    """The faults that real workers have, and how often each."""
    return (FAULTS, seeds) if dataset == "MNIST" else (FEW, 1)


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
    check: int,
    processes: int,
    out: str | None,
    picture: Path | None,
) -> dict[str, Any]:
    """Measure, print the tables, return the figures."""
    results: dict[str, Any] = {
        "benchmark": "byzantine",
        "workers_per_run": WORKERS,
        "check": check,
        "seconds": {},
    }
    models = {"MNIST": model, "CIFAR-10": model_cifar, "ERA5": model_era5}
    with ExitStack() as stack:
        kept = stack.enter_context(kept_beside(out))
        models["MNIST"] = model or trained(
            "lenet5", str(data / "mnist.npz"), kept, epochs=None, seed=0
        )
        given = {name: path for name, path in models.items() if path is not None}
        live_too = "workers" in sections
        bench = Bench(
            sections=sections,
            seeds=seeds,
            rival_seeds=rival_seeds,
            runs=runs,
            worker_seeds=worker_seeds,
            check=check,
            processes=processes,
            client=stack.enter_context(live.real_workers()) if live_too else None,
            steps=Steps(_steps(sections, given, worker_seeds)),
            results=results,
        )
        for source in sources(data, given, rows):
            bench.dataset(source, given[source.name])
    print(tables.describe(results))
    if picture is not None:
        from approxifer.benchmarks.byzantine.picture import draw

        draw(results, picture)
    return results


def _steps(sections: Sequence[str], datasets: Collection[str], worker_seeds: int) -> int:
    """As many as are begun."""
    recorded = bool({"faults", "escapes", "workers"}.intersection(sections))
    each = recorded + len(FAULTS) * ("faults" in sections) + ("clean" in sections)
    total = len(datasets) * each
    total += len(FRACTIONS) * ("escapes" in sections) + ("published" in sections)
    for names, times in (live_faults(name, worker_seeds) for name in datasets):
        total += len(names) * times * ("workers" in sections)
    return total


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = parser_of("byzantine")
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist.npz")
    parser.add_argument("--model", type=Path, help="MNIST: a .pt2 that takes (n, 28, 28) float32")
    parser.add_argument("--model-cifar", type=Path, help="CIFAR-10: (n, 32, 32, 3)")
    parser.add_argument("--model-era5", type=Path, help="ERA5: (n, latitude, longitude)")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--check", type=positive, default=DEFAULT_CHECK, help="rows of a share")
    parser.add_argument("--rows", type=positive, default=8000, help="of a run on MNIST")
    parser.add_argument("--seeds", type=positive, default=20, help="runs of each fault")
    parser.add_argument("--rival-seeds", type=positive, default=3, help="the same, of the rivals")
    parser.add_argument("--runs", type=positive, default=400, help="of each kind of escape")
    parser.add_argument("--worker-seeds", type=positive, default=3, help="runs on real workers")
    parser.add_argument("--processes", type=positive, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--picture", type=Path, help="PNG file to write")
    return command(parser, arguments, run, quick=QUICK, passed=("out",))


if __name__ == "__main__":
    sys.exit(main())
