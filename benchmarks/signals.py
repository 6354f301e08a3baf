"""What statistics of outputs add to spot checks, at equal evaluations.

::

    approxifer bench signals --data DIR [--model lenet5.pt2] --model-cifar resnet.pt2
        [--rows 15872] [--seeds 20] [--quick] [--out X.json] [--report X.md] [--commit HASH]

Of every data share that comes back some rows are drawn and run again on another, honest worker; one
that differs convicts, by the referee, and all that the liar ran is run again. Beside that:

- suspicion: more rows of the shares that `approxifer.pipeline.suspicion` suspects, and of those of
  watched workers; uncoded, in natural and in similar order, and with one parity share;
- near-null: rows that leave the directions in which honest outputs hardly vary;
- furthest: the rows furthest from the mean output, instead of some of the random ones;
- estimate: those furthest from what a ridge regression on features of the inputs foretells.

Everyone spends the same on clean runs: fewer rows are drawn at random where a statistic costs
something. With parity the rival is spot checks alone that draw more, for the price of the parity.
Settings are chosen on other rows and seeds than those reported. One of 12 workers lies; outputs of
MNIST and CIFAR-10 are recorded once.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from approxifer.benchmarks.cases import forward, kept_beside, trained
from approxifer.benchmarks.common import Steps, command, parse, positive, rounded
from approxifer.benchmarks.faulty import FAULTS, WORKERS
from approxifer.benchmarks.recorded import AT_ONCE, Forward, record
from approxifer.benchmarks.signals_contest import WAYS, contest
from approxifer.benchmarks.signals_features import FEATURES
from approxifer.benchmarks.signals_report import describe, write_report
from approxifer.benchmarks.signals_story import Material
from approxifer.benchmarks.subjects import MICRO_BATCH, some_of, stuck_weight
from approxifer.coding import CodeSpec
from approxifer.models import Runner, open_model, run_rows
from approxifer.models.samples import npz_split
from approxifer.pipeline.referee import Tolerance, measure_tolerance

K = 8
#: Rows of a share, and what part of the rows is played in such shares: small ones are many.
BLOCKS = {64: 1, 8: 2}
#: Rows that settings are chosen on, as a part of those reported.
HELD = 0.75
FILES = {"MNIST": "mnist.npz", "CIFAR-10": "cifar10.npz"}
QUICK = {"rows": 4096, "seeds": 2}
SPECS = {
    "natural": (CodeSpec("uncoded", K), "natural"),
    "similar": (CodeSpec("uncoded", K), "similar"),
    "parity": (CodeSpec("systematic", K, 1), "similar"),
}


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows, and all that is known of them whatever the code is.

    ``costs``: processor time of each kind of features, as a multiple of the model's.
    """

    name: str
    rows: np.ndarray
    run: Forward
    plain: np.ndarray
    features: Mapping[str, np.ndarray]
    costs: Mapping[str, float]
    tolerance: Tolerance
    stuck: Forward | None = None
    stuck_plain: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        name: str,
        pictures: np.ndarray,
        run: Forward,
        tolerance: Tolerance,
        stuck: Forward | None = None,
    ) -> Rows:
        """Run the model, and make the features."""
        rows = pictures.astype(np.float32)
        plain, spent = timed(partial(whole, run, rows))
        features, costs = {}, {}
        for kind, make in FEATURES.items():
            features[kind], took = timed(partial(make, rows))
            costs[kind] = took / spent
        stuck_plain = None if stuck is None else whole(stuck, rows)
        return cls(name, rows, run, plain, features, costs, tolerance, stuck, stuck_plain)

    def materials(self, block: int) -> dict[str, Material]:
        """Recordings in blocks of that size, by name of `SPECS`."""
        stop = len(self.rows) // BLOCKS[block] // (K * block) * (K * block)
        rows, found = self.rows[:stop], {}
        for name, (spec, order) in SPECS.items():
            made = [
                record(self.name, rows, run, spec, block=block, order=order, plain=plain[:stop])
                for run, plain in ((self.run, self.plain), (self.stuck, self.stuck_plain))
                if run is not None and plain is not None
            ]
            found[name] = Material.of(
                made[0],
                self.tolerance,
                stuck=made[1] if len(made) > 1 else None,
                features={kind: one[:stop] for kind, one in self.features.items()},
            )
        return found


def prepare(
    name: str, data: Path, runner: Runner, rows: int, begin: Callable[[str], None]
) -> tuple[Rows, Rows]:
    """Rows to choose settings on, and others to report: pictures of training and test, mixed."""
    split = npz_split(data / FILES[name])
    mixed = np.random.default_rng(0).permutation(len(split.rows))
    reported, held = mixed[:rows], mixed[rows:][: int(HELD * rows)]
    rng = np.random.default_rng(0)
    sample = some_of(split.rows[held].astype(np.float32))
    tolerance = measure_tolerance(runner, sample, MICRO_BATCH, rng=rng)
    weight = stuck_weight(runner, sample, tolerance, rng)
    stuck = partial(run_rows, weight.arm(rng)(runner), micro_batch=MICRO_BATCH)
    begin(f"{name}: outputs and features of {len(held):,} rows to choose settings on")
    chosen_on = Rows.of(name, split.rows[held], forward(runner), tolerance)
    begin(f"{name}: outputs and features of {len(reported):,} rows")
    return chosen_on, Rows.of(name, split.rows[reported], forward(runner), tolerance, stuck)


def whole(run: Forward, rows: np.ndarray) -> np.ndarray:
    """The outputs of all rows."""
    return np.concatenate([run(rows[at : at + AT_ONCE]) for at in range(0, len(rows), AT_ONCE)])


def timed(make: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    """What is made, and the seconds of processor time that it takes."""
    began = time.process_time()
    return make(), time.process_time() - began


def run(
    data: Path,
    *,
    model: Path | None,
    model_cifar: Path | None,
    rows: int,
    seeds: int,
    commit: str,
    out: str | None,
    report: Path | None,
) -> dict[str, Any]:
    """Measure, print the tables, return the figures."""
    began = time.perf_counter()
    sets: list[dict[str, Any]] = []
    with kept_beside(out) as kept, threadpool_limits(1):
        program = model or trained("lenet5", str(data / "mnist.npz"), kept, epochs=None, seed=0)
        given = {"MNIST": program, "CIFAR-10": model_cifar}
        models = {name: path for name, path in given.items() if path is not None}
        steps = Steps(len(models) * (2 + len(BLOCKS) * (len(WAYS) + 1)))
        for name, path in models.items():
            runner = open_model(path).load(threads=1)
            held, judged = prepare(name, data, runner, rows, steps.begin)
            for block in BLOCKS:
                of = f"{name}, {block} rows a share"
                found = contest(
                    held.materials(block), judged.materials(block), faults=FAULTS, seeds=seeds,
                    begin=partial(_begin, steps, of),
                )  # fmt: skip
                sets.append({"dataset": name, "costs": dict(judged.costs), **found})
    results: dict[str, Any] = rounded(
        {
            "benchmark": "signals",
            "commit": commit,
            "workers": WORKERS,
            "k": K,
            "seeds": seeds,
            "seconds": round(time.perf_counter() - began, 1),
            "sets": sets,
        }
    )
    print(describe(results))
    if report is not None:
        write_report(results, report)
    return results


def _begin(steps: Steps, of: str, what: str) -> None:
    steps.begin(f"{of}: {what}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m approxifer.benchmarks.signals",
        description="What statistics of outputs add to spot checks, at equal evaluations.",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist.npz")
    parser.add_argument("--model", type=Path, help="MNIST: a .pt2 that takes (n, 28, 28) float32")
    parser.add_argument("--model-cifar", type=Path, help="CIFAR-10: (n, 32, 32, 3)")
    parser.add_argument("--rows", type=positive, default=15872, help="reported, of each data set")
    parser.add_argument("--seeds", type=positive, default=20, help="runs of each fault, at least")
    parser.add_argument("--commit", default="", help="of this code, to name in the report")
    parser.add_argument("--report", type=Path, help="Markdown page to write")
    parser.add_argument("--out", help="JSON file to write")
    given = parse(parser, arguments, quick=QUICK)
    quick = given.pop("quick")
    return command(lambda: run(**given), given["out"], quick=quick)


if __name__ == "__main__":
    sys.exit(main())
