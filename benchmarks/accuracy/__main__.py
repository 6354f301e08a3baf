"""What decoding keeps where shares are lost and nothing is repaired: all schemes side by side.

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

import argparse
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from approxifer.benchmarks.accuracy.cases import (
    FILES,
    Case,
    Loaded,
    cases,
    forward,
    kept_beside,
    load,
    split_of,
    trained,
)
from approxifer.benchmarks.accuracy.features import first_layers, places
from approxifer.benchmarks.accuracy.metrics import Judge
from approxifer.benchmarks.accuracy.report import summary, write_report
from approxifer.benchmarks.common import Steps, command, parse, positive, rounded
from approxifer.benchmarks.erasures import Decode, always, now_and_then, recover
from approxifer.benchmarks.pool import crew
from approxifer.benchmarks.recording import Recording, record
from approxifer.coding import CodeSpec, gather, order_rows
from approxifer.coding.fitted import FittedDecoder
from approxifer.coding.interpolating import InterpolatingCode
from approxifer.coding.order import ORDERS
from approxifer.coding.parm import ENCODERS, TILES
from approxifer.models import open_model
from approxifer.models.parity import load_parity
from approxifer.models.parity_training import ParityEpoch, train_parity
from approxifer.pipeline.engine import LEARNT
from approxifer.pipeline.progress import duration

#: Chances with which each share is lost.
CHANCES = (0.01, 0.05)
#: What ``--quick`` puts for what is left out.
QUICK = {
    "rows": 2000,
    "ks": (2, 8),
    "stragglers": (1,),
    "only": ("digits", "MNIST"),
    "parity": (2,),
    "parity_queries": 60_000,
}
FEATURES_K = 8
#: Passes of a parity model over a small data set.
MOST_EPOCHS = 40


def judged(
    recording: Recording,
    judge: Judge,
    *,
    lost: int,
    seed: int,
    chances: Sequence[float] = CHANCES,
    decode: Decode | None = None,
) -> dict[str, Any]:
    """Lose shares of one recording, in all ways."""
    code, codewords = recording.code, recording.block
    rng = np.random.default_rng([seed, code.k, code.n, lost])
    whole = recover(recording, np.ones((codewords, code.n), bool), decode=decode)
    left = [recover(recording, k, decode=decode) for k in always(code, lost, codewords, rng)]
    found: dict[str, Any] = {
        "decoded": float(np.mean([~one.exact for one in left])),
        "evaluations": code.n / code.k,
        **judge.figures(recording, whole, left),
        "chance": {},
    }
    for chance in chances:
        kept, run = now_and_then(code, chance, codewords, rng)
        after = recover(recording, kept, decode=decode)
        found["chance"][str(chance)] = {
            "decoded": float((~after.exact).mean()),
            "evaluations": run / (code.k * codewords),
            **judge.overall(recording, after),
        }
    return found


def specs(case: Case, k: int, order: str) -> Iterator[tuple[CodeSpec, Path | None]]:
    """The codes to measure, with their parity models; plain ones in the first order, which does not
    matter to them."""
    for s in case.stragglers:
        if order == case.orders[0]:
            yield CodeSpec("replication", k, s), None
        yield CodeSpec("berrut", k, s), None
        yield CodeSpec("systematic", k, s), None
    if order == case.orders[0]:
        yield CodeSpec("uncoded", k, 0), None
    for (of, encoder), folder in case.parity.items():
        if of == k:
            yield CodeSpec("parm", k, 1, encoder=encoder), folder  # type: ignore[arg-type]


def measure(_: None, case: Case, k: int, order: str, seed: int) -> list[dict[str, Any]]:
    """Measure all codes of one K in one order."""
    loaded, found = load(case), []
    for spec, folder in specs(case, k, order):
        recording = record(
            case.name, loaded.rows, loaded.forward, spec,
            block=None, order=order, seed=seed, plain=loaded.plain,
            parity=_parity(folder, loaded, spec),
        )  # fmt: skip
        head = {"scheme": spec.scheme, "k": k, "stragglers": spec.stragglers, "order": order}
        if spec.scheme == "parm":
            head["encoder"] = spec.encoder
        lost = 0 if spec.scheme == "uncoded" else spec.stragglers
        found.append(head | judged(recording, loaded.judge, lost=lost, seed=seed))
        if isinstance(recording.code, InterpolatingCode):
            decode = fitted(loaded, recording.code, order, seed).decode
            some = judged(recording, loaded.judge, lost=lost, seed=seed, decode=decode)
            found.append(head | {"decoder": "fitted"} | some)
    return found


def fitted(loaded: Loaded, code: InterpolatingCode, order: str, seed: int) -> FittedDecoder:
    """A decoder that has learnt from codewords of other rows, evenly spread over their order."""
    rows = loaded.others
    perm = order_rows(rows, code.k, how=order, seed=seed)
    whole = perm[: len(perm) // code.k * code.k].reshape(-1, code.k)
    chosen = whole[np.linspace(0, len(whole) - 1, LEARNT).astype(int)]
    made = record(
        "lessons", rows[chosen.ravel()], loaded.forward, code.spec, block=None, order="natural"
    )
    decoder = FittedDecoder(code)
    decoder.learn(made.outputs[0], gather(made.plain, made.members[0], code.k))
    return decoder


def _parity(folder: Path | None, loaded: Loaded, spec: CodeSpec) -> list[Any]:
    if folder is None:
        return []
    parity = load_parity(folder, loaded.handle, k=spec.k, stragglers=spec.stragglers)
    return [forward(handle.load(threads=1)) for handle in parity.handles]


def by_features(_: None, case: Case, seed: int) -> list[dict[str, Any]]:
    """Order by outputs of the model's first layers instead of pixels: what it brings and costs.

    Costs are the first layers' time, as a fraction of a whole forward pass of the same rows.
    """
    loaded, found = load(case), []
    for label, place in [("pixels", None), *places(loaded.runner)]:
        features, cost = None, 0.0
        if place is not None:
            features, cost = first_layers(loaded.runner, place, loaded.rows)
        for s in case.stragglers:
            recording = record(
                case.name, loaded.rows, loaded.forward, CodeSpec("systematic", FEATURES_K, s),
                block=None, order="similar", seed=seed, plain=loaded.plain, features=features,
            )  # fmt: skip
            head = {"features": label, "cost": cost, "stragglers": s}
            found.append(head | judged(recording, loaded.judge, lost=s, seed=seed, chances=()))
    return found


def uncoded_figures(loaded: Loaded, case: Case) -> dict[str, Any]:
    """The uncoded model itself."""
    if not case.classes:
        return {"rms": float(np.sqrt(np.square(loaded.plain, dtype=np.float64).mean()))}
    labels = loaded.judge.labels  # type: ignore[attr-defined]
    return {"accuracy": float((loaded.plain.argmax(axis=1) == labels).mean())}


def run(
    data: Path,
    *,
    given: Mapping[str, Path | None],
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
) -> dict[str, Any]:
    """Measure all cases, print a summary, return the figures."""
    with kept_beside(out) as kept:
        began = time.perf_counter()
        found = list(
            cases(
                data, given, partial(trained, kept=kept, epochs=epochs, seed=seed),
                rows=rows, ks=ks, stragglers=stragglers, orders=orders, only=only,
            )
        )  # fmt: skip
        models = time.perf_counter() - began
        for case in found:
            cifar = case.data_name == "CIFAR-10"
            wanted = parity_cifar if cifar else parity
            queries = parity_queries_cifar if cifar else parity_queries
            if case.network in ("LeNet-5", "ResNet"):
                _add_parity(
                    case, [k for k in wanted if k in case.ks], kept, queries, seed, processes
                )
        trainings = {"models": models, "parity": time.perf_counter() - began - models}
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
    with crew(None, min(processes, len(tasks))) as each:
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


def _add_parity(
    case: Case, ks: Sequence[int], kept: Path, queries: int, seed: int, processes: int
) -> None:
    """Train the parity models of a case, side by side, or find them."""
    codes = [(k, encoder) for k in ks for encoder in (ENCODERS if k in TILES else ENCODERS[:1])]
    tasks = [(case, k, encoder, kept, queries, seed) for k, encoder in codes]
    with crew(None, max(1, min(processes, len(tasks)))) as each:
        for code, folder in zip(codes, each(_train_parity, tasks), strict=True):
            case.parity[code] = folder  # type: ignore[index]


def _train_parity(
    _: None, case: Case, k: int, encoder: str, kept: Path, queries: int, seed: int
) -> Path:
    split = split_of(case.data)
    rows = split.rows[split.train].astype(np.float32)
    handle = open_model(case.model)
    epochs = min(-(-queries // len(rows)), MOST_EPOCHS)
    name = f"parity-{Path(case.data).stem}-{handle.fingerprint[:8]}-{k}-{encoder}-{epochs}"
    return train_parity(
        handle, rows, k=k, out=kept / name, encoder=encoder, epochs=epochs, seed=seed, threads=1,
        on_epoch=partial(_told, f"{case.name}, K={k}, {encoder}"),
    )  # fmt: skip


def _told(what: str, epoch: ParityEpoch) -> None:
    left = duration(epoch.seconds * (epoch.of - epoch.number))
    print(
        f"parity model for {what}: epoch {epoch.number}/{epoch.of}, held out "
        f"{epoch.held_out:.3f} of the mean's, {left} left",
        file=sys.stderr,
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m approxifer.benchmarks.accuracy",
        description="Accuracy and agreement when shares of codewords are lost.",
    )
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
    parser.add_argument("--out", help="JSON file to write")
    parser.add_argument("--report", type=Path, help="Markdown file to write, pictures beside it")
    options = parse(parser, arguments, quick=QUICK)
    quick = options.pop("quick")
    archs = ("lenet5", "mlp", "resnet", "vgg", "depthwise", "forecaster")
    given = {arch: options.pop(arch) for arch in archs}
    return command(lambda: run(**options, given=given), options["out"], quick=quick)


if __name__ == "__main__":
    sys.exit(main())
