"""Rows, model and parity model for the benchmark ``stragglers``."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import torch
import zarr

from approxifer.benchmarks.accuracy.cases import split_of
from approxifer.benchmarks.stragglers.live import Site
from approxifer.benchmarks.stragglers.simulation import Shape
from approxifer.models import open_model, run_rows
from approxifer.models.export import write_whole
from approxifer.models.parity import FORMAT, META, program
from approxifer.quiet import quiet


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
