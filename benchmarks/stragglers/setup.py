"""Schemes, constants, rows, model and parity model of all runs."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

from approxifer.benchmarks.datasets import split_of
from approxifer.coding import CodeSpec
from approxifer.models import open_model, run_rows
from approxifer.models.export import write_whole
from approxifer.models.parity import FORMAT, META, program
from approxifer.pipeline.planning.options import Options
from approxifer.quiet import quiet

#: Seconds after which a share that runs is given up, and its worker with it.
HANG_AFTER = 5.0
#: The section ``hung``: workers, seconds of sleep in a share, groups (two minutes' work), and the
#: seconds after which plain Dask is cut.
HUNG_WORKERS, HUNG_SLEEP, HUNG_GROUPS, HUNG_LIMIT = 10, 0.1, 1500, 300.0


@dataclass(frozen=True)
class Scheme:
    """A way to score. ``options`` as `approxifer.score` has them; None: plain Dask."""

    label: str
    options: Mapping[str, Any] | None = None

    def checked(self, k: int) -> Options:
        """The options, with defaults for the others."""
        stand_in = {"parity": "-"} if self.options and self.options["scheme"] == "parm" else {}
        given = {**(self.options or {"scheme": "uncoded"}), **stand_in}
        return Options(data="-", model="-", out="-", k=k, hang_after=HANG_AFTER, **given)

    def spec(self, k: int) -> CodeSpec:
        """The code."""
        return self.checked(k).code_for(k)

    @property
    def finals(self) -> bool:
        """True if every row ends exact or repaired."""
        return (self.options or {}).get("repair") != "none"


def _ours(stragglers: int, repair: str, **options: float) -> Scheme:
    others = "".join(f", {name}={value:g}" for name, value in options.items())
    return Scheme(
        f'systematic S={stragglers}, repair="{repair}"{others}',
        {"scheme": "systematic", "stragglers": stragglers, "repair": repair, **options},
    )


SCHEMES: Mapping[str, Scheme] = {
    "dask": Scheme("uncoded, plain Dask"),
    "hedged": Scheme("uncoded, hedged", {"scheme": "uncoded", "hedge": "spark"}),
    "replication": Scheme("replication x2", {"scheme": "replication", "stragglers": 1}),
    "parm": Scheme("ParM, one parity", {"scheme": "parm", "stragglers": 1, "repair": "none"}),
    "none": _ours(2, "none"),
    "prompt": _ours(2, "none", in_flight=1.5),
    "exact": _ours(2, "exact"),
    "none-1": _ours(1, "none"),
    "exact-1": _ours(1, "exact"),
}


@dataclass(frozen=True)
class Shape:
    """Partition of a run: rows of a share and of a micro-batch, groups of a window; the workers."""

    block: int
    micro_batch: int
    window: int
    workers: int


@dataclass(frozen=True)
class Site:
    """Common settings and files of all runs.

    Attributes
    ----------
    folder : Path
        For the runs' outputs.
    data : Path
        A Zarr store with ``image (sample, *feature)``: the same rows over and over, a window each
        time, so that no row is like another of its window.
    model : Path or str
        As `approxifer.score` takes it.
    parity : Path
    labels : array (rows of a window,)
        The uncoded model's classes.
    k : int
    shape : Shape
    sleep : float
        Seconds before each micro-batch.
    seed : int
        Of the schedules and the runs.
    """

    folder: Path
    data: Path
    model: Path | str
    parity: Path
    labels: np.ndarray
    k: int
    shape: Shape
    sleep: float
    seed: int

    @property
    def group_rows(self) -> int:
        """Rows of a group."""
        return self.k * self.shape.block


def build(
    folder: Path,
    source: str,
    model: Path,
    *,
    k: int,
    block: int,
    micro_batch: int,
    workers: int,
    sleep: float,
    groups: int,
    seed: int,
) -> Site:
    """Prepare what all runs have in common.

    Parameters
    ----------
    folder : Path
        For all that is written.
    source : str
        As `split_of` takes it: digits are taken whole, of others the test rows. As many as make
        whole groups are a window.
    model : Path
        A ``.pt2``.
    k, block, micro_batch, workers, sleep, seed
        See `Site`.
    groups : int
        For which there are to be rows.
    """
    split = split_of(source)
    rows = split.rows if source == "digits" else split.rows[split.test]
    window = len(rows) // (k * block)
    chosen = np.random.default_rng(seed).permutation(len(rows))[: window * k * block]
    rows = rows[chosen].astype(np.float32)
    fixed = _with_micro_batch(model, rows[:micro_batch], folder / "model.pt2")
    handle = open_model(fixed)
    labels = run_rows(handle.load(), rows, micro_batch).argmax(axis=1)
    return Site(
        folder,
        write_rows(folder / "data.zarr", rows, groups * k * block, chunk=k * block),
        fixed,
        _stand_in(folder / "parity", model, handle.fingerprint, k),
        labels,
        k,
        Shape(block, micro_batch, window, workers),
        sleep,
        seed,
    )


def write_rows(path: Path, rows: np.ndarray, total: int, *, chunk: int) -> Path:
    """Write the rows over and over, ``total`` of them, as ``image`` of a Zarr store."""
    group = zarr.open_group(str(path), mode="w")
    image = group.create_array(
        "image",
        shape=(total, *rows.shape[1:]),
        chunks=(chunk, *rows.shape[1:]),
        dtype=rows.dtype,
        dimension_names=["sample", "y", "x"],
    )
    for start in range(0, total, len(rows)):
        image[start : start + len(rows)] = rows[: total - start]
    return path


def _with_micro_batch(model: Path, rows: np.ndarray, target: Path) -> Path:
    """The same program for exactly so many rows: a short share then has several micro-batches, and
    can stop between them."""
    module = torch.export.load(model).module()
    buffer = io.BytesIO()
    with quiet():
        torch.export.save(torch.export.export(module, (torch.from_numpy(rows),)), buffer)
    write_whole(target, buffer.getvalue())
    return target


def _stand_in(folder: Path, model: Path, fingerprint: str, k: int) -> Path:
    """A parity model that costs what the model costs, since it is the model; it has learned
    nothing, and what is decoded with it is worthless."""
    folder.mkdir()
    write_whole(program(folder, 0), model.read_bytes())
    meta = {
        "format": FORMAT,
        "model": fingerprint,
        "k": k,
        "stragglers": 1,
        "encoder": "addition",
        "parities": [{"fingerprint": open_model(program(folder, 0)).fingerprint}],
    }
    (folder / META).write_text(json.dumps(meta), encoding="utf-8")
    return folder
