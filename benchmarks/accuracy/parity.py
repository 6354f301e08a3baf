"""Parity models of a case, trained side by side, or those that are kept."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from approxifer.benchmarks.accuracy.cases import Case
from approxifer.benchmarks.datasets import split_of
from approxifer.benchmarks.pool import process_pool
from approxifer.coding.parm import TILES
from approxifer.coding.spec import ENCODERS
from approxifer.models import open_model
from approxifer.models.parity_training import ParityEpoch, train_parity
from approxifer.text import duration

#: Passes of a parity model over a small data set.
MOST_EPOCHS = 40


def add_parity(
    case: Case, ks: Sequence[int], kept: Path, queries: int, seed: int, processes: int
) -> None:
    """Train the parity models of a case, side by side, or find them."""
    codes = [(k, encoder) for k in ks for encoder in (ENCODERS if k in TILES else ENCODERS[:1])]
    tasks = [(case, k, encoder, kept, queries, seed) for k, encoder in codes]
    with process_pool(None, max(1, min(processes, len(tasks)))) as each:
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
        on_epoch=partial(_print_epoch, f"{case.name}, K={k}, {encoder}"),
    )  # fmt: skip


def _print_epoch(what: str, epoch: ParityEpoch) -> None:
    left = duration(epoch.seconds * (epoch.of - epoch.number))
    print(
        f"parity model for {what}: epoch {epoch.number}/{epoch.of}, held out "
        f"{epoch.held_out:.3f} of the mean's, {left} left",
        file=sys.stderr,
        flush=True,
    )
