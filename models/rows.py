"""Running any number of rows at one fixed micro-batch shape.

A network's last bits change with the shape of its batch (batch 1 against 1,024 changes every row),
because libraries pick other kernels for other shapes. So every forward pass of a run has exactly M
rows, whatever asked for it: first try, repair, check or resume.

Within that shape, a row's place may still count for small M: on CPUs, matrix products of 2, 3, 5 or
7 rows gave the last rows other last bits, while every multiple of 8 gave all places the same bits.
Choose M as a multiple of 8 where bitwise equal results matter; `approxifer.models.probe` finds what
holds for a model.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from approxifer.checks import array, told, whole_number
from approxifer.errors import ConfigError, ModelError

Forward = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]

#: Rows of a micro-batch, which is held in memory several times over.
MOST_ROWS = 2**24


class Stopped(Exception):  # noqa: N818 (a request, not an error)
    """Raised out of `before_batch` to stop between two micro-batches."""


def run_rows(
    runner: Forward,
    rows: np.ndarray[Any, Any],
    micro_batch: int,
    before_batch: Callable[[int], None] | None = None,
) -> np.ndarray[Any, Any]:
    """Run rows through a model in micro-batches of exactly `micro_batch` rows.

    Parameters
    ----------
    runner : callable
        (M, *feature) -> (M, *out).
    rows : ndarray, (B, *feature)
    micro_batch : int
        M. The last micro-batch is filled up by repeating its last row; what that yields is cut off.
    before_batch : callable, optional
        Called before every micro-batch with the number of rows of `rows` that it starts (without
        the filling). Whatever it raises, `Stopped` for instance, ends the run.

    Returns
    -------
    ndarray, (B, *out)
        In the model's output type.

    Raises
    ------
    ConfigError
        No rows, or `micro_batch` < 1.
    ModelError
        The model returned another number of rows than it got, or changed its output's shape. What
        `runner` itself raises passes as it is.
    """
    micro_batch = whole_number("micro_batch", micro_batch, least=1, most=MOST_ROWS)
    rows = array("rows", rows)
    if not len(rows):
        raise ConfigError(f"rows of shape {rows.shape}: give at least one row.")
    if not callable(runner):
        raise ConfigError(f"runner={told(runner)} cannot be called; give a model's Runner.")
    total = len(rows)
    result: np.ndarray[Any, Any] | None = None
    for start in range(0, total, micro_batch):
        batch = rows[start : start + micro_batch]
        real = len(batch)
        if before_batch is not None:
            before_batch(real)
        if real < micro_batch:
            batch = np.concatenate([batch, np.repeat(batch[-1:], micro_batch - real, axis=0)])
        out = np.asarray(runner(batch))
        if out.shape[:1] != (micro_batch,):
            raise ModelError(
                f"the model returned an array of shape {out.shape} for {micro_batch} rows. The"
                " first dimension of its output must be the batch."
            )
        if result is None:
            result = np.empty((total, *out.shape[1:]), out.dtype)
        elif out.shape[1:] != result.shape[1:] or out.dtype != result.dtype:
            raise ModelError(
                f"the model returned {out.dtype} rows of shape {out.shape[1:]} after {result.dtype}"
                f" rows of shape {result.shape[1:]}. Every row must have the same shape and type."
            )
        result[start : start + real] = out[:real]
    assert result is not None
    return result
