"""Data sets with their models, as the accuracy benchmark takes them: found, or made and kept.

A `Case` names files only, so that processes can be given it; `load` opens them in each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from approxifer.benchmarks.accuracy.metrics import ClassMetric, Metric, ValueMetric
from approxifer.benchmarks.datasets import FILES, forward, split_of
from approxifer.benchmarks.recording import AT_ONCE, Forward
from approxifer.errors import ConfigError
from approxifer.models import ModelHandle, Runner, open_model


@dataclass(frozen=True)
class Case:
    """A model on test rows, and what is measured of it.

    Attributes
    ----------
    data_name, network : str
        For people: "MNIST", "LeNet-5".
    data : str
        "digits", an ``.npz`` or a Zarr store.
    model : Path
        A ``.pt2``.
    rows : int, optional
        Only so many test rows.
    ks, stragglers, orders
        Measured with each other.
    parity : mapping
        By (K, encoder): folders of parity models.
    """

    data_name: str
    network: str
    data: str
    model: Path
    rows: int | None
    ks: tuple[int, ...]
    stragglers: tuple[int, ...]
    orders: tuple[str, ...]
    parity: Mapping[tuple[int, str], Path] = field(default_factory=dict, hash=False)

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.data_name}, {self.network}"

    @property
    def classes(self) -> bool:
        """True if the labels are classes."""
        return not self.data.endswith(".zarr")


@dataclass(frozen=True, eq=False)
class Loaded:
    """A case in this process.

    Attributes
    ----------
    rows : floating-point array (n, *feature)
        The test rows.
    metric : Metric
    handle : ModelHandle
    forward : callable
    plain : array (n, *out)
        The uncoded model's outputs.
    others : floating-point array (m, *feature)
        Rows that are not measured, to learn decoders from.
    """

    rows: np.ndarray
    metric: Metric
    handle: ModelHandle
    runner: Runner
    plain: np.ndarray
    others: np.ndarray

    @property
    def forward(self) -> Forward:
        """The model."""
        return forward(self.runner)


@lru_cache(maxsize=1)
def load(case: Case) -> Loaded:
    """Open a case, and run its model on all test rows."""
    split = split_of(case.data)
    chosen = split.test[: case.rows]
    rows = split.rows[chosen].astype(np.float32)
    handle = open_model(case.model)
    runner = handle.load(threads=1)  # several wait for each other wherever something else runs
    run = forward(runner)
    plain = np.concatenate(
        [run(rows[start : start + AT_ONCE]) for start in range(0, len(rows), AT_ONCE)]
    )
    metric = ClassMetric(split.labels[chosen]) if case.classes else ValueMetric()
    others = split.rows[split.train[: len(rows) if case.classes else None]].astype(np.float32)
    return Loaded(rows, metric, handle, runner, plain, others)


def cases(
    data: Path,
    given: Mapping[str, Path | None],
    make: Callable[[str, str], Path],
    *,
    rows: int | None,
    ks: Sequence[int],
    stragglers: Sequence[int],
    orders: Sequence[str],
    only: Sequence[str],
) -> Iterator[Case]:
    """The cases whose data is there.

    Parameters
    ----------
    data : Path
        Folder with ``mnist.npz``; ``fashion.npz``, ``cifar10.npz``, ``era5_uk_t2m.zarr``.
    given : mapping
        By a network's name: a ``.pt2`` to take instead of a trained one.
    make : callable
        Network and data to a ``.pt2``.
    rows, ks, stragglers, orders
        Of the whole table.
    only
        Names of data sets to take.

    Raises
    ------
    ConfigError
        None of their files is there.
    """
    files = [file for name in only if (file := FILES[name])]
    if files and not any((data / file).exists() for file in files):
        raise ConfigError(f"--data {data}: there is none of {', '.join(files)}")
    whole = {"rows": rows, "ks": tuple(ks), "stragglers": tuple(stragglers)}
    # Test images come in no order: what random is to them, so is any but similar. MNIST shows it.
    some = {"rows": rows, "ks": tuple(k for k in ks if k in (8, 12)), "stragglers": (1,)}
    every, two = tuple(orders), tuple(o for o in orders if o in ("random", "similar"))
    plan = (
        ("digits", "LeNet-5", "lenet5", whole, every),
        ("MNIST", "LeNet-5", "lenet5", whole, every),
        ("MNIST", "MLP", "mlp", whole, every),
        ("Fashion-MNIST", "LeNet-5", "lenet5", whole, every),
        ("CIFAR-10", "ResNet", "resnet", whole, two),
        ("CIFAR-10", "VGG-like", "vgg", some, two),
        ("CIFAR-10", "depthwise", "depthwise", some, two),
        ("ERA5", "forecaster", "forecaster", whole, every),
    )
    for data_name, network, arch, extent, order in plan:
        file = FILES[data_name]
        source = data_name if file is None else str(data / file)
        if data_name not in only or not (file is None or Path(source).exists()):
            continue
        model = None if data_name in ("digits", "Fashion-MNIST") else given.get(arch)
        yield Case(data_name, network, source, model or make(arch, source), orders=order, **extent)  # type: ignore[arg-type]
