"""``approxifer demo``: real data, real worker processes; one is slow, one hung, one Byzantine.

Every worker also sleeps `SERVICE` seconds per micro-batch: a stated stand-in for a model large
enough that waiting for a straggler hurts. The network, its outputs and the faults are real.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from approxifer.datasets import Journal
from approxifer.datasets.journal import journal_path
from approxifer.datasets.samples import digits
from approxifer.models.samples import Split, digits_split
from approxifer.pipeline import faults
from approxifer.pipeline.api import score
from approxifer.pipeline.cluster.connect import load_cluster, open_cluster
from approxifer.pipeline.reporting.report import Report, as_text, percent, table
from approxifer.pipeline.reporting.timeline import draw_timeline
from approxifer.text import say

WORKERS = 7
SERVICE = 0.06
SLOW, HUNG = "worker-2", "worker-5"
HANG_AFTER = 1.5
CORRUPT = "worker-3"

#: What is wrong with each worker.
Armed = Mapping[str, faults.Fault | Sequence[faults.Fault]]

#: K = 4, S = 2: six shares on seven workers.
CODE: dict[str, Any] = {
    "k": 4,
    "stragglers": 2,
    "block": 8,
    "window": 600,
    "hang_after": HANG_AFTER,
}
#: K = 2, E = 1: four shares, and two workers to spare.
BYZANTINE: dict[str, Any] = {"k": 2, "stragglers": 1, "byzantine": 1}


def run_demo(directory: str | os.PathLike[str], *, seed: int = 0) -> Report:
    """Score scikit-learn's digits without faults, with stragglers, and with a Byzantine worker;
    compare them, and draw the workers.

    Parameters
    ----------
    directory
        Gets the network, the input, the outputs and ``timeline.png``. Outputs of an earlier demo
        there are replaced; the network and the input are used again.
    seed
        Of the runs and the faults.

    Returns
    -------
    Report
        Of the run with a slow and a hung worker, and exact repair.
    """
    folder = Path(directory)
    split = digits_split(0)
    model, data = folder / "lenet5.pt2", folder / "digits.zarr"
    folder.mkdir(parents=True, exist_ok=True)
    if not model.exists():
        say("training LeNet-5 on 1,258 digits", err=True)
        _train(split, model)
    if not data.exists():
        digits(data)

    say(
        f"starting {WORKERS} worker processes; each sleeps {SERVICE * 1000:.0f} ms per micro-batch",
        err=True,
    )
    healthy: dict[str, faults.Fault] = {
        f"worker-{i}": faults.Slow(factor=1, seconds=SERVICE) for i in range(WORKERS)
    }
    faulty = healthy | {
        SLOW: faults.Slow(factor=1, seconds=10 * SERVICE),
        HUNG: faults.Hang(),
    }
    spec = load_cluster({"kind": "local", "workers": WORKERS, "threads": 1})
    with open_cluster(spec, needed=WORKERS) as cluster:

        def run(name: str, armed: Armed, **options: Any) -> Report:
            out = folder / f"{name}.zarr"
            _remove(out)
            cluster.client.wait_for_workers(WORKERS, timeout=60)  # one may be restarting
            faults.install(cluster.client, armed, seed=seed)
            return score(
                data,
                model=model,
                variable="image",
                out=out,
                client=cluster.client,
                heal="restart",
                seed=seed,
                **CODE | options,
            )

        say("1. uncoded, no faults", err=True)
        plain = run("uncoded", healthy, scheme="uncoded")
        say(f"2. systematic, repair='exact'; {SLOW} 10x slower, {HUNG} hangs for good", err=True)
        exact = run("exact", faulty)
        say("3. the same faults, repair='none': decoded rows stay as they are", err=True)
        decoded = run("decoded", faulty, repair="none")
        say(f"4. byzantine=1; {CORRUPT} swaps the two highest scores of 1 row in 4", err=True)
        corruption = faults.SwapTopTwo(rows=0.25)
        armed: Armed = {**healthy, CORRUPT: [healthy[CORRUPT], corruption]}
        checked = run("byzantine", armed, **BYZANTINE)

    picture = folder / "timeline.png"
    draw_timeline(Journal.read(exact.out), picture)
    runs = {
        "uncoded, no faults": plain,
        "systematic, faults, repair='exact'": exact,
        "systematic, faults, repair='none'": decoded,
        "systematic, a wrong worker, byzantine=1": checked,
    }
    say(_compare(runs, split))
    for conviction in checked.convicted:
        say(f"\nConvicted in run 4: {conviction}")
    say(f"\nWhat the workers did in run 2: {picture}\n")
    return exact


def _compare(runs: dict[str, Report], split: Split) -> str:
    first = next(iter(runs.values()))
    truth = first.predictions.prediction.to_numpy()
    made = table(
        "Side by side", "run", "exact", "repaired", "decoded", "evaluations/query",
        "test accuracy", "same class as run 1", "bitwise as run 1", "wall s",
    )  # fmt: skip
    for name, report in runs.items():
        found = report.predictions.prediction.to_numpy()
        same = found.argmax(1) == truth.argmax(1)
        right = found[split.test].argmax(1) == split.labels[split.test]
        bitwise = (found == truth).all(axis=1)
        made.add_row(
            name,
            *(f"{report.counts[status]:,}" for status in ("exact", "repaired", "decoded")),
            f"{report.evaluations_per_query:.3f}",
            f"{right.mean():.4f}",
            *(percent(int(rows.sum()), len(rows)) + " %" for rows in (same, bitwise)),
            f"{report.wall_seconds:.1f}",
        )
    return as_text([made])


def _train(split: Split, path: Path) -> None:
    import torch

    from approxifer.models import zoo
    from approxifer.models.export import export_program
    from approxifer.models.train import train

    torch.manual_seed(0)
    module = zoo.lenet5(8)
    train(module, split.rows[split.train], split.labels[split.train], epochs=12)
    export_program(module, split.rows[:2], path)


def _remove(out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    journal_path(out).unlink(missing_ok=True)
