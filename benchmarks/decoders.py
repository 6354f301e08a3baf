"""Decoders side by side, on the same outputs of shares.

::

    approxifer bench decoders --data DIR [--model lenet5.pt2] [--model-cifar resnet.pt2]
        [--model-era5 era5.pt2] [--rows 8000] [--stragglers 1 2 3] [--seed 0] [--quick] [--out X]

Test images of ``DIR/mnist.npz`` and ``DIR/cifar10.npz`` (a quarter as many), each in one window,
and the fields of ``DIR/era5_uk_t2m.zarr``, K=8, for each model that is given. All shares are run
once; then every set of S shares is lost, of every codeword.

What a decoder learns, it learns from codewords on which it is not judged: of images a random half
of the window, then the halves change places; of ERA5 the hours before 590, on which the model was
trained, the later ones are judged. It sees outputs of the uncoded model, never labels.

- classes: agreement with the uncoded model's class, of all rows and of those that were lost;
- values: RMS(decoded - uncoded) / RMS(uncoded) over all rows, in brackets the 95 % bootstrap
  interval by codeword;
- how many codewords the fitted decoder needs: the same from few of them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import RenderableType

from approxifer.benchmarks.common import Steps, command, parse, positive
from approxifer.benchmarks.interpolants import DECODERS, Learn, fitted
from approxifer.benchmarks.recorded import Forward, record
from approxifer.benchmarks.subjects import MICRO_BATCH
from approxifer.coding import CodeSpec, gather
from approxifer.coding.berrut import InterpolatingCode
from approxifer.errors import ConfigError
from approxifer.models import open_model, run_rows
from approxifer.models.samples import era5_split, npz_split
from approxifer.pipeline.report import as_text, table

K = 8
SCHEMES = ("systematic", "berrut")
ORDERS = {
    "MNIST": ("random", "similar"),
    "CIFAR-10": ("random", "similar"),
    "ERA5": ("natural", "similar"),
}
#: First hour that is judged: the forecaster was trained on those before it.
TEST_HOUR = 590
#: Codewords that the fitted decoder may learn from.
FEW = (5, 10, 25, 50, 100, 250)
RESAMPLES = 2000


@dataclass(frozen=True, eq=False)
class Known:
    """Codewords of which all outputs are known, and what may be learnt where.

    Attributes
    ----------
    outputs : (n, B, *out)
    blocks : (k, B, *out)
    splits : list of (learn, judge)
        Codewords, as int arrays.
    classes : bool
    """

    name: str
    order: str
    code: InterpolatingCode
    outputs: np.ndarray
    blocks: np.ndarray
    splits: list[tuple[np.ndarray, np.ndarray]]
    classes: bool


def known(
    name: str,
    windows: Sequence[np.ndarray],
    forward: Forward,
    spec: CodeSpec,
    *,
    order: str,
    seed: int,
    plain: list[np.ndarray],
) -> Known:
    """Run the shares of one window, whose halves learn and are judged in turn; or of two, of which
    the first learns and the second is judged.

    Parameters
    ----------
    windows : arrays (n, *feature)
        n a multiple of K.
    plain : list
        Their uncoded outputs, if known; else they are put there.
    """
    code = spec.build()
    assert isinstance(code, InterpolatingCode)
    outputs, blocks = [], []
    for number, rows in enumerate(windows):
        known = plain[number] if number < len(plain) else None
        one = record(
            name, rows, forward, spec, block=len(rows) // K, order=order, seed=seed, plain=known
        )
        if known is None:
            plain.append(one.plain)
        outputs.append(one.outputs[0])
        blocks.append(gather(one.plain, one.members[0], K))
    sizes = [part.shape[1] for part in outputs]
    if len(sizes) == 1:
        mixed = np.random.default_rng(seed).permutation(sizes[0])
        first, second = mixed[: sizes[0] // 2], mixed[sizes[0] // 2 :]
        splits = [(first, second), (second, first)]
    else:
        splits = [(np.arange(sizes[0]), sizes[0] + np.arange(sizes[1]))]
    together = np.concatenate(blocks, axis=1)
    classes = name != "ERA5"
    return Known(name, order, code, np.concatenate(outputs, axis=1), together, splits, classes)


def judge(of: Known, learn: Learn, *, few: int | None = None) -> dict[str, Any]:
    """Lose every set of S shares of every judged codeword, and decode.

    Parameters
    ----------
    few : int, optional
        Codewords to learn from, the last ones (of a time series the nearest); None: all.

    Returns
    -------
    dict
        ``all`` and its interval, for classes ``lost``.
    """
    code, found = of.code, []
    for learnt, judged in of.splits:
        taught = learnt[-few:] if few else learnt
        truth = of.blocks[:, judged]
        wrong, size, lost_wrong, lost = np.zeros((4, len(judged)))
        for pattern in combinations(range(code.n), code.spec.stragglers):
            present = [share for share in range(code.n) if share not in pattern]
            missing, _ = code.weights(present)
            size += K if of.classes else _power(truth)
            if not len(missing):
                continue
            decode = learn(code, present, of.outputs[:, taught], of.blocks[:, taught])
            made, right = decode(of.outputs[present][:, judged]), truth[missing]
            if of.classes:
                differs = (made.argmax(axis=2) != right.argmax(axis=2)).sum(axis=0)
                lost_wrong += differs
                lost += len(missing)
            else:
                differs = _power(made - right)
            wrong += differs
        found.append(np.stack([wrong, size, lost_wrong, lost]))
    wrong, size, lost_wrong, lost = np.concatenate(found, axis=1)
    drawn = np.random.default_rng(0).integers(len(wrong), size=(RESAMPLES, len(wrong)))
    parts = wrong[drawn].sum(axis=1) / size[drawn].sum(axis=1)
    figure = (lambda part: 1 - part) if of.classes else np.sqrt
    measured = {
        "all": float(figure(wrong.sum() / size.sum())),
        "interval": np.quantile(figure(parts), [0.025, 0.975]).tolist(),
    }
    if of.classes:
        measured["lost"] = float(1 - lost_wrong.sum() / lost.sum())
    return measured


def _power(values: np.ndarray) -> np.ndarray:
    """Sum of squares of each codeword, (m, B, *out) to (B,)."""
    squares = np.square(values, dtype=np.float64)
    summed: np.ndarray = squares.sum(axis=(0, *range(2, squares.ndim)))
    return summed


def subjects(
    data: Path, models: dict[str, Path], rows: int
) -> Iterator[tuple[str, list[np.ndarray], Forward]]:
    """Name, windows and model of what is measured."""
    for name, path in models.items():
        forward = partial(run_rows, open_model(path).load(threads=1), micro_batch=MICRO_BATCH)
        if name == "ERA5":
            fields = era5_split(data / "era5_uk_t2m.zarr").rows.astype(np.float32)
            parts = [fields[:TEST_HOUR], fields[TEST_HOUR:]]
        else:
            split = npz_split(data / ("mnist.npz" if name == "MNIST" else "cifar10.npz"))
            some = split.test[: rows if name == "MNIST" else rows // 4]
            parts = [split.rows[some].astype(np.float32)]
        yield name, [part[: len(part) // K * K] for part in parts], forward


def run(
    data: Path,
    *,
    model: Path | None,
    model_cifar: Path | None,
    model_era5: Path | None,
    rows: int,
    stragglers: Sequence[int],
    seed: int,
) -> dict[str, Any]:
    """Measure, print the tables, return the figures."""
    given = {"MNIST": model, "CIFAR-10": model_cifar, "ERA5": model_era5}
    models = {name: path for name, path in given.items() if path is not None}
    if not models:
        raise ConfigError(
            "no model was given; give at least one of --model, --model-cifar, --model-era5"
        )
    if max(stragglers) > K - 5 or min(stragglers) < 1:
        raise ConfigError(f"--stragglers {stragglers}: give numbers from 1 to {K - 5}")
    total = sum(len(ORDERS[name]) for name in models) * len(SCHEMES) * len(stragglers)
    steps, begin, settings = Steps(total), time.perf_counter(), []
    for name, windows, forward in subjects(data, models, rows):
        plain: list[np.ndarray] = []
        for order, scheme, s in product(ORDERS[name], SCHEMES, stragglers):
            steps.begin(f"{name}, {order} order, {scheme}, S={s}")
            spec = CodeSpec(scheme, K, s)
            of = known(name, windows, forward, spec, order=order, seed=seed, plain=plain)
            # A number of its own for each pixel of a field is more than the hours could teach.
            fit = {d: learn for d, learn in DECODERS.items() if of.classes or d != "fitted, full"}
            most = min(len(learn) for learn, _ in of.splits)
            settings.append(
                {
                    "dataset": name,
                    "order": order,
                    "scheme": scheme,
                    "stragglers": s,
                    "codewords_learnt": most,
                    "decoders": {d: judge(of, learn) for d, learn in fit.items()},
                    "few": {str(n): judge(of, fitted, few=n)["all"] for n in FEW if n < most},
                }
            )
    results = {
        "benchmark": "decoders",
        "k": K,
        "rows": rows,
        "seed": seed,
        "seconds": round(time.perf_counter() - begin, 1),
        "settings": settings,
    }
    print(describe(results))
    return results


def describe(results: dict[str, Any]) -> str:
    """The tables."""
    parts: list[RenderableType] = []
    for classes in (True, False):
        some = [s for s in results["settings"] if ("lost" in s["decoders"]["berrut"]) == classes]
        if not some:
            continue
        names = list(some[0]["decoders"])
        made = table(
            f"K={results['k']}, S shares always lost: "
            + ("agreement of all rows / of lost rows" if classes else "relative error"),
            "data", "order", "scheme", "S", *names,
        )  # fmt: skip
        few = table(
            "The fitted decoder after so many codewords: "
            + ("agreement of all rows" if classes else "relative error"),
            "data", "order", "scheme", "S", "none", *map(str, FEW), "all",
        )  # fmt: skip
        for setting in some:
            head = (setting["dataset"], setting["order"], setting["scheme"])
            found = setting["decoders"]
            made.add_row(*head, str(setting["stragglers"]), *(_cell(found[n]) for n in names))
            few_of = setting["few"]
            curve = (f"{few_of[n]:.3f}" if n in few_of else "" for n in map(str, FEW))
            ends = (f"{found[name]['all']:.3f}" for name in ("berrut", "fitted"))
            few.add_row(*head, str(setting["stragglers"]), next(ends), *curve, next(ends))
        parts += [made, few]
    text = as_text(parts, width=200)
    return f"{text}\nmeasured in {results['seconds']:.1f} s"


def _cell(found: dict[str, Any]) -> str:
    if "lost" in found:
        return f"{found['all']:.3f}/{found['lost']:.3f}"
    low, high = found["interval"]
    return f"{found['all']:.3f} ({low:.3f}-{high:.3f})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m approxifer.benchmarks.decoders",
        description="Decoders side by side, on the same outputs of shares.",
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with mnist.npz, cifar10.npz, ERA5's Zarr"
    )
    parser.add_argument("--model", type=Path, help="a .pt2 for MNIST: (n, 28, 28) float32")
    parser.add_argument("--model-cifar", type=Path, help="for CIFAR-10: (n, 32, 32, 3) float32")
    parser.add_argument("--model-era5", type=Path, help="for ERA5: (n, lat, lon) float32")
    parser.add_argument("--rows", type=positive, default=8000, help="test images of MNIST")
    parser.add_argument("--stragglers", type=positive, nargs="+", default=(1, 2, 3))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="JSON file to write")
    given = parse(parser, arguments, quick={"rows": 2000, "stragglers": (1,)})
    out, quick = given.pop("out"), given.pop("quick")
    return command(lambda: run(**given), out, quick=quick)


if __name__ == "__main__":
    sys.exit(main())
