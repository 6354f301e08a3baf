"""Mutated stores: inputs of Zarr v2 and v3, output stores, CIFAR-10's pickles."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from mutate import spoil_bytes, spoil_text

from approxifer.datasets import OutputStore, open_source
from approxifer.datasets.convert import convert
from approxifer.datasets.ownership import claim_journal
from approxifer.pipeline.reporting.inspect import inspect_store


def make_corpus(folder: Path) -> None:
    """One whole store of each kind."""
    rows = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    data = xr.Dataset(
        {"x": (("n", "f"), rows), "name": ("n", np.array([f"r{i}" for i in range(12)], object))},
        coords={"n": np.arange(12)},
    )
    for version in (2, 3):
        data.to_zarr(folder / f"in{version}.zarr", zarr_format=version, consolidated=version == 2)
    source = open_source(data["x"])
    with OutputStore.create(
        folder / "out.zarr", source=source, output_shape=(2,), output_dtype="f4", chunk=4,
        attrs={"code": {"scheme": "systematic", "k": 2}, "layout": {}, "model": "m"},
    ) as store:  # fmt: skip
        store.write_window(0, 8, prediction=np.ones((8, 2), np.float32), status=1)
    (folder / "cifar").mkdir()
    batch = {"data": np.zeros((2, 3072), np.uint8), "labels": [1, 2]}
    (folder / "cifar" / "test_batch").write_bytes(pickle.dumps(batch, protocol=2))


def mutate(rng: random.Random, store: Path) -> None:
    """Change one to three of its files."""
    files = sorted(path for path in store.rglob("*") if path.is_file())
    for path in rng.sample(files, min(len(files), rng.randint(1, 3))):
        content = path.read_bytes()
        text = path.name in ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
        if text and rng.random() < 0.3 and path.name in (".zarray", ".zmetadata"):
            path.write_bytes(_with_pickle(rng, content))
        elif rng.random() < 0.05:
            path.unlink()
        else:
            path.write_bytes((spoil_text if text else spoil_bytes)(rng, content))


def _with_pickle(rng: random.Random, content: bytes) -> bytes:
    """A filter that unpickles, before or behind those that are there."""
    whole: dict[str, Any] = json.loads(content)
    arrays = [v for k, v in whole.get("metadata", {}).items() if k.endswith(".zarray")] or [whole]
    for array in arrays:
        filters = list(array.get("filters") or [])
        filters.insert(rng.randint(0, len(filters)), {"id": "pickle", "protocol": 5})
        array["filters"] = filters
    return json.dumps(whole).encode()


def open_mutated(rng: random.Random, corpus: Path, folder: Path) -> None:
    """Copy a store, change it, and do with it what a run would."""
    kind = rng.choice(["in2.zarr", "in3.zarr", "out.zarr", "cifar"])
    store = folder / kind
    shutil.copytree(corpus / kind, store)
    mutate(rng, store)
    if kind == "cifar":
        convert(store, folder / "made.zarr")
    elif kind == "out.zarr":
        inspect_store(store, timeline=None)
        with OutputStore.open(store) as opened:
            claim_journal(opened)
            opened.read_window(0, 4)
    else:
        source = open_source(store, variable="x")
        source.read(0, min(source.rows, 12))
        source.fingerprint()
        _ = source.unstored
