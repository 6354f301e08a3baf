"""Ways to find the share that is a lie, side by side on the same real outputs.

::

    python -m approxifer.benchmarks.locators --data DIR [--lenet lenet5.pt2] [--model resnet.pt2]
        [--forecaster era5.pt2] [--rows 28000] [--passes 20] [--seed 0] [--quick] [--out X.json]

The images of ``DIR/mnist.npz`` and ``DIR/cifar10.npz`` (test images first, then training images:
nothing here needs labels) and the fields of ``DIR/era5_uk_t2m.zarr`` are coded and run, for each
model that is given, once and in this process: K=8, S=0, E=1. In one half of the groups a locator
may learn what is usual. In each group of the other half one share, drawn at random, is lied about;
then the halves change places. (Published: a vote in every codeword, summed over the block. Shares
that are not finite, as flipped bits leave some, are known without a locator.)

- false: clean groups in which somebody is suspected; 1 % is allowed to those who say "none";
- for each fault the fraction of groups in which somebody is suspected, and that in which it is the
  liar.

And clean runs, group by group as in the engine, of 12 workers: groups with a suspect, and shares
that began a watch of their worker.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import RenderableType
from scipy.stats import binom

from approxifer.benchmarks.common import Steps, command, parse, positive
from approxifer.benchmarks.judges import RATE, locators
from approxifer.benchmarks.recorded import Recording, record
from approxifer.coding import CodeSpec
from approxifer.coding.interpolating import InterpolatingCode
from approxifer.errors import ConfigError
from approxifer.models import open_model, run_rows
from approxifer.models.runner import Runner
from approxifer.models.samples import era5_split, npz_split
from approxifer.pipeline.liar import Lie
from approxifer.pipeline.lies import (
    BitFlips,
    Noise,
    Replay,
    Roll,
    ShuffleRows,
    SignFlip,
    SwapTopTwo,
    Zeros,
)
from approxifer.pipeline.report import as_text, table
from approxifer.pipeline.suspicion import FALSE_WATCH, Suspicion

FAULTS: dict[str, Lie] = {
    "noise .5 sd": Noise(0.5, relative=True),
    "noise 2 sd": Noise(2.0, relative=True),
    "sigma 1": Noise(1.0),
    "sigma 10": Noise(10.0),
    "sigma 100": Noise(100.0),
    "sign flip": SignFlip(),
    "rolled": Roll(),
    "shuffled": ShuffleRows(),
    "zeros": Zeros(),
    "top 2 swapped": SwapTopTwo(),
    "10 % rolled": Roll(rows=0.1),
    "bit flips": BitFlips(values=4, clustered=True),
    "replay": Replay(),
}
SPEC = CodeSpec(scheme="systematic", k=8, stragglers=0, byzantine=1)
WORKERS = 12
#: Groups in which lies are told, at most, for each half.
JUDGED = 100
MICRO_BATCH = 64
BURN_IN = 20
#: Codewords of images that are alike, or not; of hours, also consecutive ones.
ORDERS = {
    "MNIST": ("random", "similar"),
    "CIFAR-10": ("random", "similar"),
    "ERA5": ("random", "similar", "natural"),
}


def compare(recording: Recording, *, seed: int) -> list[dict[str, Any]]:
    """Measure all locators on one recording, each half of its groups judged by the other."""
    code = recording.code
    assert isinstance(code, InterpolatingCode)
    whole = [one for one in recording.outputs if one.shape == recording.outputs[0].shape]
    order = np.random.default_rng(seed).permutation(len(whole))
    counts: dict[str, Counter[str]] = {}
    groups = 0
    for half in range(2):
        judges = locators(code, [whole[g] for g in order[half::2]])
        rng = np.random.default_rng([seed, half])
        liars = {name: lie.arm(rng) for name, lie in FAULTS.items()}
        for g in order[1 - half :: 2][:JUDGED]:
            honest = whole[g]
            groups += 1
            share = int(rng.integers(code.n))
            shown = {"": honest}
            for fault, liar in liars.items():
                shown[fault] = honest.copy()
                shown[fault][share] = liar.lie(honest[share])
            for name, judge in judges.items():
                found = counts.setdefault(name, Counter())
                for fault, outputs in shown.items():
                    named = judge(outputs) if np.isfinite(outputs).all() else share
                    found[fault] += named is not None
                    found[f"{fault}, right"] += named == share
    return [
        {
            "locator": name,
            "groups": groups,
            "false": found[""],
            "false_limit": int(binom.ppf(0.99, groups, RATE)),
            "suspected": {fault: found[fault] / groups for fault in FAULTS},
            "named": {fault: found[f"{fault}, right"] / groups for fault in FAULTS},
        }
        for name, found in counts.items()
    ]


def clean_runs(recording: Recording, *, passes: int, seed: int) -> dict[str, Any]:
    """Show `Suspicion` clean groups, shuffled, `passes` times."""
    whole = [one for one in recording.outputs if one.shape == recording.outputs[0].shape]
    suspects = watches = 0
    for number in range(passes):
        rng = np.random.default_rng([seed, number])
        suspicion = Suspicion(recording.code, rate=RATE, burn_in=BURN_IN)
        found = set()
        for g in rng.permutation(len(whole)):
            names = [f"w{worker}" for worker in rng.permutation(WORKERS)[: recording.code.n]]
            outputs = dict(enumerate(whole[g]))
            found |= {one.group for one in suspicion.add(g, outputs, dict(enumerate(names)))}
            for worker in suspicion.watched:
                watches += 1
                suspicion.cleared(worker)
        suspects += len(found)
    groups = passes * len(whole)
    return {
        "groups": groups,
        "suspects": suspects,
        "limit": int(binom.ppf(0.99, groups, RATE)),
        "shares": groups * recording.code.n,
        "watches": watches,
        "watches_limit": int(binom.ppf(0.99, groups * recording.code.n, FALSE_WATCH)),
    }


def recordings(
    data: Path,
    models: Mapping[str, Path],
    *,
    rows: int,
    blocks: Sequence[int],
    steps: Steps,
    seed: int,
) -> Iterator[Recording]:
    """Record what each given model returns."""
    for name, model in models.items():
        runner = open_model(model).load(threads=os.cpu_count() or 1)

        def forward(some: np.ndarray, runner: Runner = runner) -> np.ndarray:
            return run_rows(runner, some, MICRO_BATCH)

        given = _rows(name, data)[:rows]
        plain: np.ndarray | None = None
        for order, block in product(ORDERS[name], blocks if name != "ERA5" else (1,)):
            steps.begin(f"{name}, {order} order, blocks of {block}")
            made = record(
                name, given, forward, SPEC, block=block, order=order, seed=seed, plain=plain
            )
            plain = made.plain
            yield made


def _rows(name: str, data: Path) -> np.ndarray:
    """Test rows, then training rows; hours in their own order."""
    if name == "ERA5":
        return era5_split(data / "era5_uk_t2m.zarr").rows
    split = npz_split(data / {"MNIST": "mnist.npz", "CIFAR-10": "cifar10.npz"}[name])
    rows: np.ndarray = split.rows[np.concatenate([split.test, split.train])].astype(np.float32)
    return rows


def run(
    data: Path,
    *,
    lenet: Path | None,
    model: Path | None,
    forecaster: Path | None,
    rows: int,
    blocks: Sequence[int],
    passes: int,
    seed: int,
) -> dict[str, Any]:
    """Measure, print the tables, return the figures."""
    given = {"MNIST": lenet, "CIFAR-10": model, "ERA5": forecaster}
    models = {name: path for name, path in given.items() if path is not None}
    if not models:
        raise ConfigError("no model was given; give at least one of --lenet, --model, --forecaster")
    total = sum(len(ORDERS[n]) * (1 if n == "ERA5" else len(blocks)) for n in models)
    steps, begin, measured = Steps(total), time.perf_counter(), []
    for recording in recordings(data, models, rows=rows, blocks=blocks, steps=steps, seed=seed):
        measured.append(
            {
                "dataset": recording.name,
                "order": recording.order,
                "block": recording.block,
                "locators": compare(recording, seed=seed),
                "clean_runs": clean_runs(recording, passes=passes, seed=seed),
            }
        )
    results = {
        "benchmark": "locators",
        "rows": rows,
        "rate": RATE,
        "workers": WORKERS,
        "burn_in": BURN_IN,
        "passes": passes,
        "seed": seed,
        "seconds": round(time.perf_counter() - begin, 1),
        "settings": measured,
    }
    print(describe(results))
    return results


def describe(results: dict[str, Any]) -> str:
    """The tables."""
    parts: list[RenderableType] = []
    for setting in results["settings"]:
        groups = setting["locators"][0]["groups"]
        where = f"{setting['dataset']}, {setting['order']} order, blocks of {setting['block']}"
        made = table(
            f"{where}: {groups} groups; somebody suspected / the liar named",
            "locator", "false", *FAULTS,
        )  # fmt: skip
        for found in setting["locators"]:
            made.add_row(
                found["locator"],
                f"{found['false']} ({found['false_limit']})",
                *(f"{found['suspected'][f]:.2f}/{found['named'][f]:.2f}" for f in FAULTS),
            )
        parts.append(made)
    clean = table(
        f"Clean runs of {results['workers']} workers, {results['passes']} each: found (one-sided "
        "99 % limit of the stated rate)",
        "recording", "groups", "with a suspect", "shares", "watches begun",
    )  # fmt: skip
    for setting in results["settings"]:
        found = setting["clean_runs"]
        clean.add_row(
            f"{setting['dataset']}, {setting['order']}, {setting['block']}",
            f"{found['groups']:,}",
            f"{found['suspects']} ({found['limit']})",
            f"{found['shares']:,}",
            f"{found['watches']} ({found['watches_limit']})",
        )
    text = as_text([*parts, clean], width=260)
    return f"{text}\nmeasured in {results['seconds']:.1f} s"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m approxifer.benchmarks.locators",
        description="Ways to find the share that is a lie, side by side on real outputs.",
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with mnist.npz, cifar10.npz, ERA5's Zarr"
    )
    parser.add_argument("--lenet", type=Path, help="a .pt2 for MNIST: (n, 28, 28) float32")
    parser.add_argument("--model", type=Path, help="a .pt2 for CIFAR-10: (n, 32, 32, 3) float32")
    parser.add_argument("--forecaster", type=Path, help="a .pt2 for ERA5: (n, lat, lon) float32")
    parser.add_argument("--rows", type=positive, default=28_000, help="of images, at most")
    parser.add_argument("--blocks", type=positive, nargs="+", default=(8, 64))
    parser.add_argument("--passes", type=positive, default=20, help="clean runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="JSON file to write")
    given = parse(parser, arguments, quick={"rows": 6400, "blocks": (8,), "passes": 5})
    out, quick = given.pop("out"), given.pop("quick")
    return command(lambda: run(**given), out, quick=quick)


if __name__ == "__main__":
    sys.exit(main())
