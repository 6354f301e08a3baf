"""What decoding keeps when S shares of every codeword are always lost: the worst case.

::

    python -m approxifer.benchmarks.accuracy --data DIR [--model lenet.pt2] [--schemes berrut
        systematic] [--k 8] [--stragglers 1 2 3] [--orders random similar] [--rows N]
        [--window 8000] [--epochs 3] [--seed 0] [--quick] [--out results.json]

The test images of ``DIR/mnist.npz`` are coded, run and decoded in this process, with the same calls
as the engine's. Which shares are lost is drawn codeword by codeword, every set of them equally
often. Without ``--model`` a LeNet-5 is trained on the training images first (minutes), and kept
beside ``--out`` for the next time. ``--quick`` is a first look with few rows, rough figures.

Three figures each for accuracy (against the labels) and agreement (with the uncoded model's class):

- available: nothing is lost;
- degraded: S shares are lost, the rows that had to be interpolated;
- overall: S shares are lost, all rows.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from approxifer.benchmarks.common import Steps, command, parse, positive
from approxifer.benchmarks.losses import Forward, Recovered, recover
from approxifer.coding import CodeSpec
from approxifer.coding.order import ORDERS
from approxifer.errors import ConfigError
from approxifer.models import open_model, run_rows
from approxifer.pipeline.report import as_text, table

SCHEMES = ("berrut", "systematic", "replication")
MICRO_BATCH = 64
#: What ``--quick`` puts for what is left out.
QUICK = {"rows": 2000, "stragglers": (1,), "epochs": 1}


@dataclass(frozen=True)
class Setting:
    """What is measured."""

    scheme: str
    k: int
    stragglers: int
    order: str
    window: int
    seed: int


def measure(setting: Setting, rows: np.ndarray, forward: Forward) -> Recovered:
    """Score all rows, window by window."""
    spec = CodeSpec(scheme=setting.scheme, k=setting.k, stragglers=setting.stragglers)
    code = spec.build()
    parts = [
        recover(
            rows[start : start + setting.window],
            code,
            forward,
            order=setting.order,
            lost=setting.stragglers,
            seed=setting.seed + number,
        )
        for number, start in enumerate(range(0, len(rows), setting.window))
    ]
    return Recovered(
        available=np.concatenate([part.available for part in parts]),
        degraded=np.concatenate([part.degraded for part in parts]),
        exact=np.concatenate([part.exact for part in parts]),
    )


def figures(found: Recovered, truth: np.ndarray) -> dict[str, float | None]:
    """The share of rows whose class is the true one: three figures, None where there are no rows.

    Parameters
    ----------
    found : Recovered
    truth : int (n,)
        The labels, or the classes that the uncoded model gives.
    """
    right = found.degraded.argmax(axis=1) == truth
    return {
        "available": float((found.available.argmax(axis=1) == truth).mean()),
        "degraded": None if found.exact.all() else float(right[~found.exact].mean()),
        "overall": float(right.mean()),
    }


def run(
    data: Path,
    *,
    model: Path | None,
    schemes: Sequence[str],
    k: int,
    stragglers: Sequence[int],
    orders: Sequence[str],
    rows: int | None,
    window: int,
    epochs: int,
    seed: int,
    out: str | None,
) -> dict[str, Any]:
    """Measure all settings, print the table, return the figures."""
    from approxifer.models.samples import npz_split

    split = npz_split(data / "mnist.npz")
    chosen = split.test[:rows]
    images, labels = split.rows[chosen].astype(np.float32), split.labels[chosen]
    settings = [
        Setting(scheme, k, s, order, window, seed)
        for scheme, order, s in product(schemes, orders, stragglers)
    ]
    with _program(model, out, data / "mnist.npz", epochs, seed) as program:
        runner = open_model(program).load(threads=os.cpu_count() or 1)
    begin = time.perf_counter()

    def forward(some: np.ndarray) -> np.ndarray:
        return run_rows(runner, some, MICRO_BATCH)

    uncoded = forward(images).argmax(axis=1)
    steps = Steps(len(settings))
    measured = []
    for setting in settings:
        steps.begin(f"{setting.scheme}, {setting.order} order, S={setting.stragglers}")
        found = measure(setting, images, forward)
        measured.append(
            {
                "scheme": setting.scheme,
                "order": setting.order,
                "stragglers": setting.stragglers,
                "decoded_rows": int((~found.exact).sum()),
                "accuracy": figures(found, labels),
                "agreement": figures(found, uncoded),
            }
        )
    results = {
        "benchmark": "accuracy",
        "rows": len(images),
        "k": k,
        "window": window,
        "seed": seed,
        "uncoded_accuracy": float((uncoded == labels).mean()),
        "seconds": round(time.perf_counter() - begin, 1),
        "settings": measured,
    }
    print(describe(results))
    return results


def describe(results: dict[str, Any]) -> str:
    """The table."""
    made = table(
        f"LeNet-5 on {results['rows']:,} MNIST test rows, K={results['k']}, windows of "
        f"{results['window']:,}; uncoded accuracy {results['uncoded_accuracy']:.4f}",
        "scheme", "order", "S", "decoded rows", "accuracy: available", "degraded", "overall",
        "agreement: available", "degraded", "overall",
    )  # fmt: skip
    for found in results["settings"]:
        values = [*found["accuracy"].values(), *found["agreement"].values()]
        made.add_row(
            found["scheme"],
            found["order"],
            str(found["stragglers"]),
            f"{100 * found['decoded_rows'] / results['rows']:.1f} %",
            *("-" if value is None else f"{value:.3f}" for value in values),
        )
    return f"{as_text([made])}\nmeasured in {results['seconds']:.1f} s"


@contextmanager
def _program(
    model: Path | None, out: str | None, data: Path, epochs: int, seed: int
) -> Iterator[Path]:
    """The model given, or a LeNet-5: the one beside the results, trained if it is not there."""
    if model is not None:
        yield model
        return
    with tempfile.TemporaryDirectory(prefix="approxifer-accuracy-") as name:
        folder = Path(name) if out is None else Path(out).parent
        kept = folder / f"lenet5-mnist-{epochs}-epochs-{seed}.pt2"
        if not kept.exists():
            from approxifer.models.train import main as train

            options = ["--out", str(kept), "--epochs", str(epochs), "--seed", str(seed)]
            if train(["lenet5", str(data), *options]):
                raise ConfigError(f"no LeNet-5 could be trained on {data}; give one with --model")
        yield kept


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m approxifer.benchmarks.accuracy",
        description="Accuracy and agreement when S shares of every codeword are lost.",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist.npz")
    parser.add_argument("--model", type=Path, help="a .pt2 that takes (n, 28, 28) float32")
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES, default=SCHEMES[:2])
    parser.add_argument("--k", type=positive, default=8)
    parser.add_argument("--stragglers", nargs="+", type=int, default=(1, 2, 3))
    parser.add_argument("--orders", nargs="+", choices=ORDERS, default=("random", "similar"))
    parser.add_argument("--rows", type=positive, help="only so many test rows")
    parser.add_argument("--window", type=positive, default=8000)
    parser.add_argument("--epochs", type=positive, default=3, help="of the LeNet-5's training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="JSON file to write")
    given = parse(parser, arguments, quick=QUICK)
    quick = given.pop("quick")
    return command(lambda: run(**given), given["out"], quick=quick)


if __name__ == "__main__":
    sys.exit(main())
