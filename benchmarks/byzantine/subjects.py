"""Data sets and models for fault injection, and their recordings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from approxifer.benchmarks.byzantine.replay import rerun
from approxifer.benchmarks.datasets import MICRO_BATCH, forward
from approxifer.benchmarks.recording import Recording, record
from approxifer.coding import CodeSpec
from approxifer.models import Runner, open_model
from approxifer.models.samples import Split, era5_split, npz_split
from approxifer.pipeline.byzantine.noise import measure_tolerance
from approxifer.pipeline.byzantine.tolerance import Tolerance
from approxifer.pipeline.faults.execution import StuckWeight


@dataclass(frozen=True, eq=False)
class Source:
    """A data set and its model, and how its rows travel.

    Attributes
    ----------
    name : str
    split : Split
    chosen : int (n,)
        Rows of a run.
    runner : Runner
    k, block
        As `approxifer.score` takes them.
    order
        Of the rows of the published code, which decodes better between rows that are alike.
    classes : bool
        Whether the labels are classes.
    """

    name: str
    split: Split
    chosen: np.ndarray
    runner: Runner
    k: int = 8
    block: int = 64
    order: str = "similar"
    classes: bool = True

    @property
    def rows(self) -> np.ndarray:
        """The chosen rows."""
        rows: np.ndarray = self.split.rows[self.chosen].astype(np.float32)
        return rows

    @property
    def labels(self) -> np.ndarray | None:
        """Their classes."""
        return self.split.labels[self.chosen] if self.classes else None

    def forward(self, rows: np.ndarray) -> np.ndarray:
        """Run the model."""
        return forward(self.runner)(rows)

    def some(self, seed: int) -> np.ndarray:
        """Rows of a clean run: any of the data set, as many as there are of the chosen ones."""
        rng = np.random.default_rng(seed)
        some = rng.choice(len(self.split.rows), len(self.chosen), replace=False)
        return self.split.rows[some].astype(np.float32)


def sources(data: Path, models: Mapping[str, Path], rows: int) -> Iterator[Source]:
    """Those whose model is given: test images, of CIFAR-10 a quarter as many, and all hours."""
    split = npz_split(data / "mnist.npz")
    yield Source("MNIST", split, split.test[:rows], _load(models["MNIST"]))
    if "CIFAR-10" in models:
        split = npz_split(data / "cifar10.npz")
        yield Source("CIFAR-10", split, split.test[: rows // 4], _load(models["CIFAR-10"]))
    if "ERA5" in models:
        split = era5_split(data / "era5_uk_t2m.zarr")
        yield Source(
            "ERA5", split, np.arange(len(split.rows)), _load(models["ERA5"]),
            block=8, order="natural", classes=False,
        )  # fmt: skip


def _load(model: Path) -> Runner:
    """With one thread: several wait for each other wherever something else runs."""
    return open_model(model).load(threads=1)


@dataclass(frozen=True, eq=False)
class Subject:
    """A model on a data set, recorded.

    Attributes
    ----------
    name : str
    recording : Recording
        Uncoded.
    published : Recording
        Of the published code, the same rows.
    labels : int (n,), optional
    tolerance : Tolerance
        The referee's.
    weight : StuckWeight
    stuck, stuck_published : arrays
        What a worker with that stuck weight returns, see `rerun`.
    """

    name: str
    recording: Recording
    published: Recording
    labels: np.ndarray | None
    tolerance: Tolerance
    weight: StuckWeight
    stuck: np.ndarray
    stuck_published: np.ndarray


def record_subject(source: Source, *, seed: int = 0) -> Subject:
    """Record a model, healthy and with a stuck weight, for both codes; E=1, S=0."""
    rows = source.rows
    coded = partial(record, source.name, rows, source.forward, block=source.block, seed=seed)
    ours = coded(CodeSpec("uncoded", source.k), order="none")
    published = coded(CodeSpec("berrut", source.k, 0, 1), order=source.order, plain=ours.plain)
    rng = np.random.default_rng(seed)
    sample = some_of(rows)
    tolerance = measure_tolerance(source.runner, sample, MICRO_BATCH, rng=rng)
    weight = stuck_weight(source.runner, sample, tolerance, rng)
    stuck = forward(weight.bind(rng)(source.runner))
    return Subject(
        source.name,
        ours,
        published,
        source.labels,
        tolerance,
        weight,
        rerun(ours, stuck),
        rerun(published, stuck),
    )


def repeated(recording: Recording, rows: int, *, block: int, seed: int) -> Recording:
    """Rows of an uncoded recording again and again, shuffled: so many."""
    numbers = np.random.default_rng(seed).permutation(rows) % len(recording.plain)
    return record(
        recording.name, numbers[:, None], lambda some: recording.plain[some[:, 0]],
        CodeSpec("uncoded", recording.code.k), block=block, order="none",
    )  # fmt: skip


def some_of(rows: np.ndarray) -> np.ndarray:
    """Rows to measure the tolerance on, two micro-batches from everywhere."""
    where = np.linspace(0, len(rows) - 1, 2 * MICRO_BATCH).astype(int)
    some: np.ndarray = rows[np.unique(where)]
    return some


def stuck_weight(
    runner: Runner, sample: np.ndarray, tolerance: Tolerance, rng: np.random.Generator
) -> StuckWeight:
    """Draw a weight of the last layer, one that matters to most of some sample rows."""
    module: Any = runner.forward.module  # type: ignore[attr-defined]
    name, last = [(n, p) for n, p in module.named_parameters() if p.ndim > 1][-1]
    right = forward(runner)(sample)
    for index in rng.permutation(last.numel()).tolist():
        weight = StuckWeight(parameter=name, index=index)
        if tolerance.differs(forward(weight.bind(rng)(runner))(sample), right).mean() > 0.5:
            break
    return weight
