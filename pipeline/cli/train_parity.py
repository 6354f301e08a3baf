"""``approxifer train-parity``: reads rows, trains, and says how it goes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from approxifer.datasets import open_source
from approxifer.models import open_model, resolve_callable
from approxifer.models.parity_training import ParityEpoch, train_parity
from approxifer.models.samples import npz_split
from approxifer.models.user_code.exits import NoExit
from approxifer.text import duration, say

#: Places of a store that rows are read from: the first ones alone may be all alike.
PLACES = 16


def train(
    model: str,
    data: str,
    out: Path,
    *,
    model_options: Mapping[str, Any],
    variable: str | None,
    rows: int,
    **training: Any,
) -> None:
    """Train parity models and print where they are; see `approxifer.models.parity_training`."""
    handle = open_model(model, **model_options)
    found = read_rows(data, variable, rows)
    if handle.preprocess is not None:
        with NoExit("preprocess"):
            found = np.asarray(resolve_callable(handle.preprocess)(found))
    if found.dtype != np.float64 or handle.dtype != "float64":
        found = found.astype(np.float32)
    epochs: list[ParityEpoch] = []

    def told(epoch: ParityEpoch) -> None:
        epochs.append(epoch)
        pace = sum(one.seconds for one in epochs) / len(epochs)
        to_come = (training["stragglers"] - epoch.parity) * epoch.of - epoch.number
        say(
            f"parity model {epoch.parity + 1}/{training['stragglers']}, epoch "
            f"{epoch.number}/{epoch.of}: loss {epoch.loss:.4f}, held out {epoch.held_out:.4f} of "
            f"the mean's; {duration(pace * to_come)} left",
        )

    say(f"training on {len(found):,} rows, k={training['k']}: {out}")
    train_parity(handle, found, out=out, on_epoch=told, **training)
    said = "trained" if epochs else "trained already"
    say(f"{said}: {out}; give it as --parity, with --scheme parm")


def read_rows(data: str, variable: str | None, most: int) -> np.ndarray:
    """Rows of a Zarr store, from several places; or the training rows of an ``.npz``."""
    if data.endswith(".npz"):
        split = npz_split(data)
        rows: np.ndarray = split.rows[split.train][:most]
        return rows
    source = open_source(data, variable=variable)
    if source.rows <= most:
        return source.read(0, source.rows)
    part = max(1, most // PLACES)
    starts = np.linspace(0, source.rows - part, min(PLACES, most)).astype(int).tolist()
    return np.concatenate([source.read(start, start + part) for start in starts])
