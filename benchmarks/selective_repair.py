"""Repair of doubtful rows: agreement with the uncoded model against evaluations per query.

::

    python -m approxifer.benchmarks selective_repair --data DIR [--model lenet5.pt2]
        [--model-cifar resnet.pt2] [--rows 8000] [--scheme systematic] [--stragglers 1]
        [--runs 200] [--seed 0] [--quick] [--out X.json] [--picture X.png]

Test images of ``DIR/mnist.npz`` and ``DIR/cifar10.npz`` (a quarter as many), K=8, in similar order,
each in one window; S shares always lost. The shares are run once; all is decoded for every set of
lost shares.

- The curve: of all decoded rows those less sure than a threshold are run again, for every
  threshold: from no repair to exact repair. Beside it the same with the margin between the two
  highest decoded outputs alone.
- Runs as the engine has them, with losses drawn anew, for several values of ``repair=``: what it
  costs to learn and to check is in their evaluations, and what they learn from is not what they
  keep. The default is 0.995.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from approxifer.benchmarks.common import Steps, command, parser_of, positive, save_picture
from approxifer.benchmarks.datasets import FILES, forward
from approxifer.benchmarks.erasures import draw_losses
from approxifer.benchmarks.recording import Recording, record
from approxifer.coding import Code, CodeSpec, gather
from approxifer.coding.confidence import confidence
from approxifer.errors import ConfigError
from approxifer.models import open_model
from approxifer.models.samples import npz_split
from approxifer.pipeline.client.calibration import SelectiveRepair
from approxifer.pipeline.records import Status
from approxifer.pipeline.reporting.report import as_text, table

K = 8
TARGETS = (0.98, 0.99, 0.995, 0.998, 0.999)
DEFAULT = 0.995  #: as the guide has it
#: Points of a curve that are kept.
POINTS = 200


@dataclass(frozen=True, eq=False)
class Decodes:
    """All codewords, decoded for each set of lost shares.

    Attributes
    ----------
    code : Code
    blocks : (k, B, C)
        The uncoded model's outputs.
    lost : int (P, S)
    rows : (P, k, B, C)
        Exact where nothing was lost.
    sure, margin : (P, k, B)
        Infinite where exact.
    """

    code: Code
    blocks: np.ndarray
    lost: np.ndarray
    rows: np.ndarray
    sure: np.ndarray
    margin: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """Of another class than the uncoded model's: bool (P, k, B)."""
        differs: np.ndarray = self.rows.argmax(axis=3) != self.blocks.argmax(axis=2)
        return differs


def record_shares(
    data: Path, name: str, model: Path, rows: int, spec: CodeSpec, seed: int
) -> Recording:
    """Run all shares of a data set's test images, in one window."""
    split = npz_split(data / str(FILES[name]))
    some = split.test[: rows if name == "MNIST" else rows // 4]
    images = split.rows[some[: len(some) // K * K]].astype(np.float32)
    run = forward(open_model(model).load(threads=1))
    return record(name, images, run, spec, block=None, order="similar", seed=seed)


def decode_all(recording: Recording) -> Decodes:
    """Lose every set of S shares of every codeword."""
    code, (outputs,), (members,) = recording.code, recording.outputs, recording.members
    lost = list(combinations(range(code.n), code.spec.stragglers))
    rows, sure, margin = [], [], []
    for pattern in lost:
        left = {share: outputs[share] for share in range(code.n) if share not in pattern}
        decoded = code.decode(left)
        second, first = np.moveaxis(np.partition(decoded.blocks, -2, axis=2)[..., -2:], 2, 0)
        rows.append(decoded.blocks)
        sure.append(confidence(code, left, decoded))
        margin.append(np.where(decoded.exact[:, None], np.inf, first - second))
    return Decodes(
        code=code,
        blocks=gather(recording.plain, members, code.k),
        lost=np.array(lost),
        rows=np.stack(rows),
        sure=np.stack(sure),
        margin=np.stack(margin),
    )


def curve(of: Decodes, score: np.ndarray) -> dict[str, list[float]]:
    """Sweep the threshold: evaluations per query and agreement, from no repair to exact repair."""
    decoded = np.isfinite(of.sure)
    order = np.argsort(score[decoded])
    wrong = of.wrong[decoded][order]
    left = np.append(wrong[::-1].cumsum()[::-1], 0) / of.sure.size  # once the first i are repaired
    at = np.unique(np.linspace(0, len(order), POINTS + 1).astype(int))
    base = of.code.n / K
    return {
        "evaluations": (base + at / of.sure.size).tolist(),
        "agreement": (1 - left[at]).tolist(),
    }


def play(
    of: Decodes, agreement: float, rng: np.random.Generator
) -> tuple[float, float, SelectiveRepair]:
    """One run: draw what is lost, then repair as the engine does.

    Returns
    -------
    agreement, evaluations per query, doubts
    """
    codewords = of.rows.shape[2]
    drawn = draw_losses(of.code.n, of.lost.shape[1], codewords, rng)
    which = (drawn[:, None, :] == of.lost[None]).all(axis=2).argmax(axis=1)
    each = np.arange(codewords)
    sure = of.sure[which, :, each].ravel()  # codeword by codeword
    prediction = of.rows[which, :, each].reshape(len(sure), -1)
    truth = of.blocks.swapaxes(0, 1).reshape(len(sure), -1)
    status = np.where(np.isfinite(sure), Status.PENDING, Status.EXACT).astype(np.uint8)
    decoded = np.flatnonzero(status == Status.PENDING)
    doubts = SelectiveRepair(agreement, rng)
    doubts.wait(0, decoded, prediction[decoded].argmax(axis=1), sure[decoded])
    while (status == Status.PENDING).any():
        keep, repair = doubts.look(0, status, prediction.argmax(axis=1))
        status[keep], status[repair] = Status.DECODED, Status.REPAIRED
        prediction[repair] = truth[repair]
    doubts.look(0, status, prediction.argmax(axis=1))  # what was checked is back
    agrees = float((prediction.argmax(axis=1) == truth.argmax(axis=1)).mean())
    repaired = float((status == Status.REPAIRED).mean())
    return agrees, of.code.n / K + repaired, doubts


def runs(of: Decodes, target: float, count: int, seed: int) -> dict[str, Any]:
    """Many runs: agreement, evaluations, and the expected agreement that they reported."""
    agrees, cost, stated, measured = [], [], [], []
    for number in range(count):
        agreed, evaluations, doubts = play(of, target, np.random.default_rng([seed, number]))
        agrees.append(agreed)
        cost.append(evaluations)
        stated.append(1 - doubts.found.stated)
        if (found := doubts.found.measured()) is not None:
            measured.append(found[1] <= 1 - agreed <= found[2])
    return {
        "target": target,
        "agreement": float(np.mean(agrees)),
        "agreement_5_percent": float(np.quantile(agrees, 0.05)),
        "runs_at_target": float(np.mean(np.array(agrees) >= target)),
        "stated": float(np.mean(stated)),
        "interval_holds": float(np.mean(measured)) if measured else None,
        "evaluations": float(np.mean(cost)),
    }


def run(
    data: Path,
    *,
    model: Path | None,
    model_cifar: Path | None,
    rows: int,
    scheme: str,
    stragglers: int,
    runs_each: int,
    seed: int,
    picture: Path | None,
) -> dict[str, Any]:
    """Measure, print the table, return the figures."""
    given = {"MNIST": model, "CIFAR-10": model_cifar}
    models = {name: path for name, path in given.items() if path is not None}
    if not models:
        raise ConfigError("no model was given; give at least one of --model, --model-cifar")
    spec = CodeSpec(scheme, K, stragglers)
    steps, begin, settings = Steps(2 * len(models)), time.perf_counter(), []
    for name, path in models.items():
        steps.begin(f"{name}: shares")
        of = decode_all(record_shares(data, name, path, rows, spec, seed))
        steps.begin(f"{name}: {runs_each} runs for each of {len(TARGETS)} targets")
        settings.append(
            {
                "dataset": name,
                "rows": of.blocks.shape[0] * of.blocks.shape[1],
                "curve": curve(of, of.sure),
                "margin_alone": curve(of, of.margin),
                "runs": [runs(of, target, runs_each, seed) for target in TARGETS],
            }
        )
    results = {
        "benchmark": "selective_repair",
        "scheme": scheme,
        "k": K,
        "stragglers": stragglers,
        "runs": runs_each,
        "seed": seed,
        "default": DEFAULT,
        "seconds": round(time.perf_counter() - begin, 1),
        "settings": settings,
    }
    print(describe(results))
    if picture is not None:
        draw(results, picture)
    return results


def describe(results: Mapping[str, Any]) -> str:
    """The tables."""
    parts = []
    for setting in results["settings"]:
        swept = setting["curve"]
        made = table(
            f"{setting['dataset']}, {setting['rows']:,} rows, {results['scheme']} K={results['k']} "
            f"S={results['stragglers']}, always lost; {results['runs']} runs each",
            "repair", "evaluations per query", "agreement", "5 % of runs below", "at target",
            "expected", "interval holds it",
        )  # fmt: skip
        ends = [(swept["evaluations"][i], swept["agreement"][i]) for i in (0, -1)]
        made.add_row("none", *(f"{value:.4f}" for value in ends[0]))
        for found in setting["runs"]:
            mark = " (default)" if found["target"] == results["default"] else ""
            held = found["interval_holds"]
            made.add_row(
                f"{found['target']}{mark}",
                f"{found['evaluations']:.4f}",
                f"{found['agreement']:.4f}",
                f"{found['agreement_5_percent']:.4f}",
                f"{found['runs_at_target']:.0%}",
                f"{found['stated']:.4f}",
                "-" if held is None else f"{held:.0%}",
            )
        made.add_row("exact", *(f"{value:.4f}" for value in ends[1]))
        parts.append(made)
    return f"{as_text(parts)}\nmeasured in {results['seconds']:.1f} s"


def draw(results: Mapping[str, Any], target: Path) -> None:
    """Draw the curves, a panel for each data set, into a PNG file."""
    from matplotlib.figure import Figure

    found = results["settings"]
    figure = Figure(figsize=(7 * len(found), 5), layout="constrained")
    for axes, setting in zip(figure.subplots(1, len(found), squeeze=False)[0], found, strict=True):
        for name, label, style in (
            ("curve", "support² · margin / spread", "-"),
            ("margin_alone", "margin alone", ":"),
        ):
            swept = setting[name]
            axes.plot(swept["evaluations"], swept["agreement"], style, label=label)
        for one in setting["runs"]:
            chosen = one["target"] == results["default"]
            face = "black" if chosen else "white"
            axes.plot(
                one["evaluations"], one["agreement"], "o", markeredgecolor="black",
                markerfacecolor=face, label="runs, learning included" if chosen else None,
            )  # fmt: skip
            axes.annotate(
                f" {one['target']}", (one["evaluations"], one["agreement"]), fontsize=8, va="top"
            )
        axes.set_title(f"{setting['dataset']}, K={results['k']}, S={results['stragglers']} lost")
        axes.set_xlabel("evaluations per query")
        axes.set_ylabel("agreement with the uncoded model")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
    save_picture(figure, target)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = parser_of("selective_repair")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with mnist.npz, cifar10.npz"
    )
    parser.add_argument("--model", type=Path, help="a .pt2 for MNIST: (n, 28, 28) float32")
    parser.add_argument("--model-cifar", type=Path, help="for CIFAR-10: (n, 32, 32, 3) float32")
    parser.add_argument("--rows", type=positive, default=8000, help="test images of MNIST")
    parser.add_argument("--scheme", choices=("systematic", "berrut"), default="systematic")
    parser.add_argument("--stragglers", type=positive, default=1)
    parser.add_argument("--runs", type=positive, default=200, dest="runs_each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, help="PNG file to write")
    return command(parser, arguments, run, quick={"rows": 2000, "runs_each": 20})


if __name__ == "__main__":
    sys.exit(main())
