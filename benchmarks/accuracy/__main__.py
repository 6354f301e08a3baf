"""Accuracy and agreement where shares are lost and nothing is repaired: all schemes side by side.

::

    python -m approxifer.benchmarks accuracy --data DIR --out results.json
        [--report results.md] [--quick] [--model-mnist lenet5.pt2] [--model-cifar resnet.pt2] ...
        [--only MNIST ERA5] [--parity K ...] [--k 2 4 8 10 12] [--stragglers 1 2 3]

Test rows are one window; they are ordered, coded, run and decoded in this process and its helpers,
with the same calls as the engine's. Each (K, S, order, code) is run once, decoded for all losses:

- S shares of every codeword are always lost, each set of S equally often: the worst case;
- each share is lost with a chance of 1 % or 5 %; a codeword that cannot be decoded has as few of
  its lost shares as will do submitted again, by the engine's own rule, and these count.

``systematic`` and ``berrut`` are decoded by Berrut's weights, and by weights fitted to 25 codewords
of other rows. For each: figures with nothing lost (available), of the rows that had to be decoded
(degraded), of all (overall); see `metrics`. Evaluations per query count every share run, but for
those that a decoder learns from.

Models that are not given, and parity models, are trained first, and kept beside ``--out`` for the
next time.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from approxifer.benchmarks.accuracy.cases import Case, cases, load
from approxifer.benchmarks.accuracy.measurement import (
    CHANCES,
    FEATURES_K,
    by_features,
    measure,
    uncoded_figures,
)
from approxifer.benchmarks.accuracy.parity import add_parity
from approxifer.benchmarks.accuracy.report import summary, write_report
from approxifer.benchmarks.common import Steps, command, parser_of, positive, rounded
from approxifer.benchmarks.datasets import FILES, kept_beside, trained
from approxifer.benchmarks.pool import process_pool
from approxifer.coding.order import ORDERS

#: What ``--quick`` puts for what is left out.
QUICK = {
    "rows": 2000,
    "ks": (2, 8),
    "stragglers": (1,),
    "only": ("digits", "MNIST"),
    "parity": (2,),
    "parity_queries": 60_000,
}


def run(
    data: Path,
    *,
    ks: Sequence[int],
    stragglers: Sequence[int],
    orders: Sequence[str],
    only: Sequence[str],
    parity: Sequence[int],
    parity_cifar: Sequence[int],
    parity_queries: int,
    parity_queries_cifar: int,
    rows: int | None,
    epochs: int | None,
    seed: int,
    processes: int,
    out: str | None,
    report: Path | None,
    **models: Path | None,
) -> dict[str, Any]:
    """Measure all cases, print a summary, return the figures; models by their network's name."""
    with kept_beside(out) as kept:
        began = time.perf_counter()
        found = list(
            cases(
                data, models, partial(trained, kept=kept, epochs=epochs, seed=seed),
                rows=rows, ks=ks, stragglers=stragglers, orders=orders, only=only,
            )
        )  # fmt: skip
        spent = time.perf_counter() - began
        for case in found:
            cifar = case.data_name == "CIFAR-10"
            wanted = parity_cifar if cifar else parity
            queries = parity_queries_cifar if cifar else parity_queries
            if case.network in ("LeNet-5", "ResNet"):
                add_parity(
                    case, [k for k in wanted if k in case.ks], kept, queries, seed, processes
                )
        trainings = {"models": spent, "parity": time.perf_counter() - began - spent}
        began = time.perf_counter()
        measured = [_measure_case(case, seed, processes) for case in found]
    results: dict[str, Any] = {
        "benchmark": "accuracy",
        "seed": seed,
        "chances": list(CHANCES),
        "training_seconds": {name: round(seconds, 1) for name, seconds in trainings.items()},
        "seconds": round(time.perf_counter() - began, 1),
        "cases": measured,
    }
    results = rounded(results)
    print(summary(results))
    if report is not None:
        write_report(results, report)
    return results


def _measure_case(case: Case, seed: int, processes: int) -> dict[str, Any]:
    tasks = [(case, k, order, seed) for k in case.ks for order in case.orders]
    steps = Steps(len(tasks) + 1)
    settings: list[dict[str, Any]] = []
    with process_pool(None, min(processes, len(tasks))) as each:
        for (_, k, order, _), part in zip(tasks, each(measure, tasks), strict=True):
            steps.begin(f"{case.name}: K={k}, {order} order")
            settings += part
        ordered = []
        if case.network == "ResNet" and FEATURES_K in case.ks:
            steps.begin(f"{case.name}: ordered by features")
            (ordered,) = each(by_features, [(case, seed)])
    loaded = load(case)
    return {
        "data": case.data_name,
        "network": case.network,
        "rows": len(loaded.rows),
        "uncoded": uncoded_figures(loaded, case),
        "settings": settings,
        "features": ordered,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = parser_of("accuracy")
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist.npz")
    for name, arch, of in (
        ("mnist", "lenet5", "a LeNet-5: (n, 28, 28)"),
        ("mnist-mlp", "mlp", "an MLP: (n, 28, 28)"),
        ("cifar", "resnet", "a ResNet: (n, 32, 32, 3)"),
        ("cifar-vgg", "vgg", "a VGG: (n, 32, 32, 3)"),
        ("cifar-depthwise", "depthwise", "a MobileNet: (n, 32, 32, 3)"),
        ("era5", "forecaster", "a forecaster: (n, latitude, longitude)"),
    ):
        parser.add_argument(f"--model-{name}", dest=arch, type=Path, metavar="PT2", help=of)
    parser.add_argument("--k", dest="ks", nargs="+", type=positive, default=(2, 4, 8, 10, 12))
    parser.add_argument("--stragglers", nargs="+", type=positive, default=(1, 2, 3))
    parser.add_argument("--orders", nargs="+", choices=ORDERS, default=ORDERS)
    parser.add_argument("--only", nargs="+", choices=tuple(FILES), default=tuple(FILES))
    parser.add_argument(
        "--parity", nargs="*", type=positive, default=(2, 4, 8, 10, 12),
        help="K for which parity models are trained, S=1",
    )  # fmt: skip
    parser.add_argument("--parity-cifar", nargs="*", type=positive, default=(2, 4))
    parser.add_argument(
        "--parity-queries", type=positive, default=300_000, help="that each of them learns from"
    )
    parser.add_argument("--parity-queries-cifar", type=positive, default=60_000)
    parser.add_argument("--rows", type=positive, help="only so many test rows")
    parser.add_argument("--epochs", type=positive, help="of the networks' training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=positive, default=os.cpu_count() or 1)
    parser.add_argument("--report", type=Path, help="Markdown file to write, pictures beside it")
    return command(parser, arguments, run, quick=QUICK, passed=("out",))


if __name__ == "__main__":
    sys.exit(main())
