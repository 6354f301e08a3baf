"""The noise of a model: how far honest runs of one row differ.

Measured by the client on its own runs of the model, never on what workers returned, and from
statistics that a few odd rows, of fill values for instance, cannot move.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np

from approxifer.models import Runner, run_rows
from approxifer.models.runner import DTYPES
from approxifer.packing import Packing
from approxifer.pipeline.byzantine.tolerance import (
    MARGIN,
    Tolerance,
    TolerancePerOutput,
    distance,
    quantile_of,
    sizes_of,
    usual_of,
)

#: Sample rows that are run in smaller batches too.
FEW_ROWS = 16
#: Rows in those.
SMALLER = (1, 3)
#: `MARGIN` for 16 bits, where a step is much already. And the least tolerance, in steps of the
#: least precise number that is involved, for 32 bits and more, and for 16.
MARGIN_16 = 4.0
LEAST_STEPS, LEAST_STEPS_16 = 64.0, 4.0
#: The quantile, over sample rows, of the noise between the client's runs.
QUANTILE = 0.9
#: The noise relative to an output's size that counts where fewer than half of the sample rows show
#: it, for else the odd ones among them would widen the tolerance of all; or where only rows a step
#: away do, for a model may jump there. About what the probe of a model lets pass, or a few steps.
MOST, MOST_STEPS = 1e-4, 4.0
#: Times that rows in question are run with inputs a step away.
NUDGES = 4

#: Outputs of some sample rows, run again, and which rows these are.
Moved = tuple[np.ndarray, np.ndarray]


@overload
def measure_tolerance(
    run: Runner, rows: np.ndarray, micro_batch: int, *, rng: np.random.Generator
) -> Tolerance: ...


@overload
def measure_tolerance(
    run: Runner,
    rows: np.ndarray,
    micro_batch: int,
    *,
    rng: np.random.Generator,
    packing: Packing | None,
) -> Tolerance | TolerancePerOutput: ...


def measure_tolerance(
    run: Runner,
    rows: np.ndarray,
    micro_batch: int,
    *,
    rng: np.random.Generator,
    packing: Packing | None = None,
) -> Tolerance | TolerancePerOutput:
    """Run sample rows among other rows, in smaller batches, and with inputs a step away, and see
    how far they move; of several outputs, by their ``packing``, each for itself."""
    base = run_rows(run, rows, micro_batch)
    packing = packing or Packing.single(base)
    repeats, nudged = list[Moved](), list[Moved]()
    if not all(part.exact for part in packing.parts):
        order, everything = rng.permutation(len(rows)), np.arange(len(rows))
        few = order[:FEW_ROWS]
        repeats.append((run_rows(run, rows[order], micro_batch), order))
        repeats += [(again, few) for again in _in_smaller(run, rows[few])]
        nudged += [(again, everything) for again in _nudged(run, rows, micro_batch, 1, rng)]
    each = []
    for index, output in enumerate(packing.unpack(base)):
        once, twice = (
            [(packing.unpack(again)[index], where) for again, where in runs]
            for runs in (repeats, nudged)
        )
        each.append(_measured(output, once, twice, _step(run, output.dtype)))
    return each[0] if packing.alone else TolerancePerOutput(packing, tuple(each))


def _measured(
    base: np.ndarray, repeats: Sequence[Moved], nudged: Sequence[Moved], step: float
) -> Tolerance:
    """The tolerance of one output, of sample rows and of runs of some of them again."""
    usual = usual_of(base)
    if base.dtype.kind not in "fc":
        return Tolerance(0.0, usual)
    size = sizes_of(base, usual)

    def moved(again: np.ndarray, where: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):  # of a row of zeros, or one that is not finite
            off: np.ndarray = distance(again, base[where]) / size[where]
        return off

    once, twice = ([moved(*one) for one in runs] for runs in (repeats, nudged))
    typical = np.max([quantile_of(off, 0.5) for off in once], axis=0)
    rare = np.max([quantile_of(off, QUANTILE) for off in once + twice], axis=0)
    noise = np.maximum(typical, np.minimum(rare, _most(step)))
    margin, least = (MARGIN, LEAST_STEPS) if step < 1e-4 else (MARGIN_16, LEAST_STEPS_16)
    return Tolerance(np.maximum(margin * noise, least * step), usual, margin)


def own_noise(
    run: Runner,
    rows: np.ndarray,
    micro_batch: int,
    others: np.ndarray,
    rng: np.random.Generator,
    packing: Packing | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Run a few rows among sample rows, in smaller batches, and with inputs a step away: the
    outputs as they are without the others, and the largest absolute difference from them.

    An output whose terms cancel is off by the rounding of the terms, many times its own size. Most
    kernels round a row alike in every arrangement, and another machine does not: the steps of the
    inputs stand for what it may do.
    """
    right, count = run_rows(run, rows, micro_batch), len(rows)
    whole = -(-(count + max(count, FEW_ROWS)) // micro_batch) * micro_batch
    mixed = np.concatenate([rows, others[rng.integers(len(others), size=whole - count)]])
    order = rng.permutation(whole)
    among = np.empty((whole, *right.shape[1:]), right.dtype)
    among[order] = run_rows(run, mixed[order], micro_batch)
    noise = distance(among[:count], right)
    for again in _in_smaller(run, rows):
        noise = np.maximum(noise, distance(again, right))
    most = _most_of(run, among[count:], packing or Packing.single(right))
    for again in _nudged(run, rows, micro_batch, NUDGES, rng):
        noise = np.maximum(noise, np.minimum(distance(again, right), most))
    return right, noise


def _most_of(run: Runner, outputs: np.ndarray, packing: Packing) -> np.ndarray:
    """The difference that counts where only rows a step away show it, as outputs travel: (*out)."""
    each = [_most(_step(run, one.dtype)) * usual_of(one) for one in packing.unpack(outputs)]
    if packing.alone:
        return each[0]
    most = np.zeros(packing.shape)
    for part, columns, one in zip(packing.parts, packing.columns(most[None]), each, strict=True):
        columns[:] = 0.0 if part.exact else one.ravel()
    return most


def _in_smaller(run: Runner, rows: np.ndarray) -> list[np.ndarray]:
    """Outputs of the rows in smaller batches."""
    return [again for size in SMALLER for again in _try(run, rows, size)]


def _nudged(
    run: Runner, rows: np.ndarray, micro_batch: int, times: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Outputs of real rows in which each number is moved up or down by a step of the model's."""
    dtype = DTYPES[run.dtype] or rows.dtype
    for _ in range(times if rows.dtype.kind == "f" else 0):
        with np.errstate(over="ignore"):
            moved = rows.astype(dtype) * (1 + _step(run, dtype) * rng.choice([-1, 1], rows.shape))
            moved = moved.astype(dtype)
        yield from _try(run, moved, micro_batch)


def _try(run: Runner, rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Outputs, if the model takes such rows: a program may have been exported for one size of batch
    or for larger ones, and a function may look whether its rows are within bounds."""
    try:
        return [run_rows(run, rows, size)]
    except Exception:
        return []


def _step(run: Runner, dtype: np.dtype[Any]) -> float:
    """The step of the least precise number that is involved, relative to it: the model's own or
    one of the given type."""
    coarse = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23}
    own = float(np.finfo(dtype).eps) if dtype.kind in "fc" else 0.0
    return max(own, coarse.get(run.dtype, 0.0))


def _most(step: float) -> float:
    """The noise that counts where few rows, or only rows a step away, show it."""
    return max(MOST, MOST_STEPS * step)
