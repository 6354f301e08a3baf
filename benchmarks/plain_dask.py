"""Plain Dask as a user would write it: ``map_blocks`` over a Zarr array, nothing tuned.

The model is loaded once per worker process, by a cache in this module, and run on whole chunks.
"""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
from distributed import Client, LocalCluster


@cache
def _load(model: str) -> Any:
    import torch

    return torch.export.load(model).module()


def predict(block: np.ndarray, model: str) -> np.ndarray:
    """One chunk of pixels (n, *feature) to logits (n, classes)."""
    import torch

    with torch.inference_mode():
        rows = torch.from_numpy(block.astype(np.float32))
        scores: np.ndarray = _load(model)(rows).numpy()
        return scores


def score(data: Path, variable: str, *, model: Path, out: Path) -> tuple[float, int]:
    """Score a Zarr store and write the predictions to another one.

    `LocalCluster` chooses workers and threads. Clock: from the opening of the input to the written
    output, on workers that have imported torch and run the model on a few rows before.

    Returns
    -------
    seconds : float
    workers : int
    """
    with LocalCluster(dashboard_address=":0") as cluster, Client(cluster) as client:
        few = np.asarray(da.from_zarr(str(data), component=variable)[:8])
        warmed = client.run(predict, few, str(model))
        classes = next(iter(warmed.values())).shape[1]

        begin = time.perf_counter()
        rows = da.from_zarr(str(data), component=variable)
        scores = rows.map_blocks(
            predict,
            str(model),
            dtype=np.float32,
            drop_axis=list(range(1, rows.ndim)),
            new_axis=1,
            chunks=(rows.chunks[0], (classes,)),
            meta=np.empty((0, 0), np.float32),
        )
        scores.to_zarr(str(out))
        return time.perf_counter() - begin, len(warmed)
