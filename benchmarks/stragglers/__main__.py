"""Slow and hung workers: latencies of groups, makespans, evaluations.

::

    python -m approxifer.benchmarks stragglers [--data DIR [--model lenet5.pt2]]
        [--sections groups simulated hung] [--faults few worker ...] [--schemes dask none ...]
        [--groups 2000] [--other-groups 300] [--simulated-groups 10000] [--workers 12]
        [--processes 2] [--seed 0] [--quick] [--out results.json] [--report page.md]

The sections:

- ``groups``: on real workers, every scheme under every schedule of faults
  (`schedules`): the latency of a group until it is *decodable* (enough shares
  back for an output of every row) and until it is *final* (every row exact or repaired), from the
  start of its first share; makespan; evaluations per query; agreement with the uncoded model.
  ``--groups`` of them under the schedule ``few``, for which there is a goal, ``--other-groups``
  under the others;
- ``simulated``: the same through the engine's own policy on a virtual clock
  (`simulation`), with more groups; its delays are measured on real workers
  without faults, and it is held against them under the schedules with faults;
- ``hung``: one of 10 workers hung from the start, K=8, S=1: makespans.

The sections take two hours. They may be run apart: those that are in the ``--out`` file already,
measured on this machine with the same settings, are kept.

A share takes a stated sleep and a real forward pass. Without ``--data`` the rows are scikit-learn's
digits, with it MNIST's test images; without ``--model`` a LeNet-5 is trained.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from approxifer.benchmarks.common import Steps, command, machine, parser_of, positive, rounded
from approxifer.benchmarks.datasets import kept_beside, trained
from approxifer.benchmarks.pool import Pool, process_pool
from approxifer.benchmarks.stragglers import latency, live
from approxifer.benchmarks.stragglers.report import describe, write_report
from approxifer.benchmarks.stragglers.schedules import SCHEDULES
from approxifer.benchmarks.stragglers.setup import (
    HANG_AFTER,
    HUNG_GROUPS,
    HUNG_LIMIT,
    HUNG_SLEEP,
    HUNG_WORKERS,
    SCHEMES,
    Scheme,
    Site,
    build,
)
from approxifer.benchmarks.stragglers.simulated_workers import Delays
from approxifer.benchmarks.stragglers.simulation import simulate

SECTIONS = ("groups", "simulated", "hung")
MAIN = SCHEMES.keys() - {"none-1", "exact-1"}
K = 8
#: Rows of a share and of a micro-batch: a share has four of these, between which it can stop.
BLOCK, MICRO_BATCH = 32, 8
#: Seconds of sleep in a share.
SLEEP = 0.12
#: The schedule for which there is a goal; the one on which the simulation is calibrated.
GOAL, CALIBRATION = "few", "none"
#: How much faster a group is simulated than run, about.
SPEED_UP = 60
#: What ``--quick`` puts for what is left out.
QUICK = {
    "groups": 40,
    "other_groups": 20,
    "simulated_groups": 200,
    "faults": ("none", "few"),
    "sections": SECTIONS[:2],
}


@dataclass(kw_only=True)
class Bench:
    """The sections, and what they have in common."""

    site: Site
    schemes: Sequence[str]
    faults: Sequence[str]
    steps: Steps
    results: dict[str, Any]

    def groups(self, counts: dict[str, int]) -> Delays | None:
        """The section ``groups``; and the delays, if they could be measured."""
        found: dict[str, dict[str, Any]] = {}
        self.results["groups"] = found
        delays = None
        with ExitStack() as stack:
            there = None
            for fault in self.faults:
                schedule, found[fault] = SCHEDULES[fault], {}
                for name in self.schemes:
                    scheme = SCHEMES[name]
                    self.steps.begin(f"{counts[fault]} groups: {schedule.label}; {scheme.label}")
                    if there is None:
                        there = stack.enter_context(live.fresh_workers(self.site.shape.workers))
                    one = live.run(*there, self.site, scheme, schedule, groups=counts[fault])
                    found[fault][name] = one.figures(finals=scheme.finals)
                    if fault == CALIBRATION and name == "hedged":
                        delays = live.delays(one.events, self.site)
                    if schedule.hung is not None:  # the worker is of no use any more
                        stack.close()
                        there = None
        return delays

    def calibrate(self, groups: int) -> Delays:
        """Measure the delays, where no run of the section ``groups`` has."""
        self.steps.begin("measuring what shares take")
        with live.fresh_workers(self.site.shape.workers) as there:
            one = live.run(
                *there, self.site, SCHEMES["hedged"], SCHEDULES[CALIBRATION], groups=groups
            )
        return live.delays(one.events, self.site)

    def simulated(self, delays: Delays, groups: int, call: Pool) -> None:
        """The section ``simulated``."""
        tasks = [(fault, name, groups, delays) for fault in self.faults for name in self.schemes]
        found: dict[str, dict[str, Any]] = {fault: {} for fault in self.faults}
        results = iter(call(simulate, tasks))
        for fault, name, *_ in tasks:
            label = f"{SCHEDULES[fault].label}; {SCHEMES[name].label}"
            self.steps.begin(f"{groups} groups, simulated: {label}")
            found[fault][name] = next(results)
        self.results["simulated"] = found
        self.results["delays"] = {
            "gap": delays.gap,
            "forward": latency.quantiles(delays.forward)["p50"],
        }

    def hung(self) -> None:
        """The section ``hung``: fault-free, healed, avoided; and plain Dask."""
        shape = replace(self.site.shape, workers=HUNG_WORKERS)
        batches = BLOCK // MICRO_BATCH
        site = replace(self.site, shape=shape, sleep=HUNG_SLEEP / batches)
        scheme = SCHEMES["exact-1"]
        ways: Sequence[tuple[str, Scheme, str, dict[str, Any]]] = (
            ("fault-free", scheme, "none", {}),
            ('heal="restart"', scheme, "hung", {"heal": "restart"}),
            ('heal="avoid"', scheme, "hung", {"heal": "avoid"}),
            ("plain Dask, fault-free", SCHEMES["dask"], "none", {}),
            ("plain Dask", SCHEMES["dask"], "hung", {"limit": HUNG_LIMIT, "idle": HUNG_LIMIT}),
        )
        found: dict[str, Any] = {}
        self.results["hung"] = found
        for label, way, fault, options in ways:
            self.steps.begin(f"one of {HUNG_WORKERS} workers hung: {label}")
            with live.fresh_workers(HUNG_WORKERS) as there:
                one = live.run(*there, site, way, SCHEDULES[fault], groups=HUNG_GROUPS, **options)
            found[label] = {
                "seconds": one.seconds,
                "whole": one.whole,
                "evaluations_per_query": one.evaluations_per_query,
                "agreement": one.agreement,
            }


def run(
    data: Path | None,
    *,
    model: Path | None,
    sections: Sequence[str],
    faults: Sequence[str],
    schemes: Sequence[str],
    groups: int,
    other_groups: int,
    simulated_groups: int,
    workers: int,
    processes: int,
    seed: int,
    out: str | None,
    report: Path | None,
    quick: bool,
) -> dict[str, Any]:
    """Measure, print the tables, return the figures."""
    counts = {fault: groups if fault == GOAL else other_groups for fault in faults}
    results: dict[str, Any] = {
        "benchmark": "stragglers",
        "k": K,
        "workers": workers,
        "block": BLOCK,
        "micro_batch": MICRO_BATCH,
        "sleep": SLEEP,
        "hang_after": HANG_AFTER,
        "seed": seed,
        **({"quick": True} if quick else {}),
    }
    calibrated = "groups" in sections and CALIBRATION in faults and "hedged" in schemes
    lengths: list[float] = []  # of the steps, in groups on real workers
    if "groups" in sections:
        lengths += [counts[fault] for fault in faults for _ in schemes]
    if "simulated" in sections:
        lengths += [] if calibrated else [other_groups]
        lengths += [simulated_groups / SPEED_UP] * (len(faults) * len(schemes))
    if "hung" in sections:
        lengths += [HUNG_GROUPS] * 5
    steps = Steps(lengths)
    with ExitStack() as stack:
        kept = stack.enter_context(kept_beside(out))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="approxifer-strag-")))
        source = "digits" if data is None else str(data / "mnist.npz")
        program = model or trained("lenet5", source, kept, epochs=None, seed=0)
        most = max(*counts.values(), HUNG_GROUPS * ("hung" in sections))
        site = build(
            folder, source, program, k=K, block=BLOCK, micro_batch=MICRO_BATCH, workers=workers,
            sleep=SLEEP / (BLOCK // MICRO_BATCH), groups=most, seed=seed,
        )  # fmt: skip
        results["data"] = "digits" if data is None else "MNIST"
        results["rows_of_a_window"] = len(site.labels)
        bench = Bench(site=site, schemes=schemes, faults=faults, steps=steps, results=results)
        spent: dict[str, float] = {}
        results["seconds"] = spent
        delays = None
        if "groups" in sections:
            with timed(spent, "groups"):
                delays = bench.groups(counts)
        if "simulated" in sections:
            with timed(spent, "simulated"):
                delays = delays or bench.calibrate(other_groups)
                with process_pool(site, processes) as call:
                    bench.simulated(delays, simulated_groups, call)
        if "hung" in sections:
            with timed(spent, "hung"):
                bench.hung()
    results = with_earlier(rounded(results), out)
    print(describe(results))
    if report is not None:
        write_report(results, report)
    return results


@contextmanager
def timed(spent: dict[str, float], section: str) -> Iterator[None]:
    """Add the seconds that a section takes."""
    begin = time.perf_counter()
    yield
    spent[section] = time.perf_counter() - begin


def with_earlier(results: dict[str, Any], out: str | None) -> dict[str, Any]:
    """Add the sections that the file holds and that were not measured now; none if its settings, or
    the machine, are others."""
    if out is None or not Path(out).exists():
        return results
    earlier = json.loads(Path(out).read_text(encoding="utf-8"))
    parts = {*SECTIONS, "delays", "seconds", "machine"}
    settings = [{n: one[n] for n in one.keys() - parts} for one in (earlier, results)]
    missing = {n: earlier[n] for n in (*SECTIONS, "delays") if n in earlier.keys() - results.keys()}
    if not missing or settings[0] != settings[1] or earlier["machine"] != machine():
        return results
    spent = {n: seconds for n, seconds in earlier["seconds"].items() if n in missing}
    return {**results, **missing, "seconds": spent | results["seconds"]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = parser_of("stragglers")
    parser.add_argument("--data", type=Path, help="folder with mnist.npz; none: digits")
    parser.add_argument("--model", type=Path, help="a .pt2 for these rows")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--faults", nargs="+", choices=SCHEDULES, default=tuple(SCHEDULES))
    every = tuple(name for name in SCHEMES if name in MAIN)
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES, default=every)
    parser.add_argument("--groups", type=positive, default=2000, help="with 2 %% of shares slow")
    parser.add_argument("--other-groups", type=positive, default=300, help="with other faults")
    parser.add_argument("--simulated-groups", type=positive, default=10_000)
    parser.add_argument("--workers", type=positive, default=12)
    parser.add_argument("--processes", type=positive, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, help="Markdown page to write, a picture beside it")
    return command(parser, arguments, run, quick=QUICK, passed=("out", "quick"))


if __name__ == "__main__":
    sys.exit(main())
