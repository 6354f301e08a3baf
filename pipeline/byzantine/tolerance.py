"""The largest difference between two honest runs of one row.

Measured by the client on its own runs of the model, never on what workers returned, and from
statistics that a few odd rows, of fill values for instance, cannot move.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from approxifer.models import Runner, run_rows
from approxifer.models.runner import DTYPES

#: Sample rows that are run in smaller batches too.
FEW_ROWS = 16
#: Rows in those.
SMALLER = (1, 3)
#: How many times further than the client's own runs an honest machine may be off: another kind of
#: processor rounds in another order. And the least tolerance, in steps of the least precise number
#: that is involved. Both for 32 bits and more, and for 16 bits, where a step is much already.
MARGIN, MARGIN_16 = 32.0, 4.0
LEAST_STEPS, LEAST_STEPS_16 = 64.0, 4.0
#: The quantile, over sample rows, of the noise between the client's runs.
QUANTILE = 0.9
#: The noise relative to an output's size that counts where fewer than half of the sample rows show
#: it, for else the odd ones among them would widen the tolerance of all; or where only rows a step
#: away do, for a model may jump there. About what the probe of a model lets pass, or a few steps.
MOST, MOST_STEPS = 1e-4, 4.0
#: Times that rows in question are run with inputs a step away.
NUDGES = 4


@dataclass(frozen=True, eq=False)
class Tolerance:
    """The largest difference between two honest runs of one row.

    An output may be off by ``relative`` times its size: its absolute value or, if larger, the usual
    one of that output. The latter is limited by the size of the row, the largest absolute value
    among its outputs, so that no corruption of a row of small outputs passes for the rounding of
    larger ones.
    """

    #: (*out) or one number, as a fraction of the output's size; 0: outputs are compared exactly.
    relative: np.ndarray | float
    #: (*out): the usual size of each output, its median absolute value over sample rows. Infinite
    #: where it is not known: then it is the row's.
    usual: np.ndarray
    margin: float = MARGIN  #: times the noise of the very row, where that is given

    def allowed(self, expected: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
        """The largest difference from ``expected`` (B, *out); ``noise``, of the same shape, is that
        between the client's own runs of these rows (`own_noise`)."""
        most = np.finfo(np.float64).max  # no infinite distance is within it
        with np.errstate(over="ignore"):
            allowed = np.minimum(self.relative * _sizes(expected, self.usual), most)
            return allowed if noise is None else np.maximum(allowed, self.margin * noise)

    def differs(
        self,
        found: np.ndarray,
        expected: np.ndarray,
        *,
        times: float = 1.0,
        noise: np.ndarray | None = None,
    ) -> np.ndarray:
        """The rows that differ by more than ``times`` the tolerance: bool (B,).

        The tolerance is that of the smaller of the two outputs, so that nobody gains by a huge
        number. NaN equals NaN, and an infinity itself. Integers are compared exactly.
        """
        if found.dtype.kind in "fc":
            allowed = np.minimum(self.allowed(found, noise), self.allowed(expected, noise))
            far = distance(found, expected) / times > allowed
        else:
            far = np.not_equal(found, expected)
        rows: np.ndarray = far.any(axis=tuple(range(1, far.ndim)))
        return rows

    def worst(self, found: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
        """The largest difference, measured against what is allowed there, and that; infinite where
        one is not finite and the other is another."""
        off, allowed = distance(found, expected), self.allowed(expected)
        with np.errstate(all="ignore"):
            place = np.unravel_index(int(np.argmax(off / np.maximum(allowed, 1e-300))), off.shape)
        return float(off[place]), float(allowed[place])


def distance(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Absolute differences, of complex numbers the modulus: 0 between two NaNs and between equal
    infinities; infinite between what is not finite and anything else."""
    if found.dtype.kind == "c":
        # Each for itself: a NaN in one part is to hide nothing in the other.
        real, imaginary = distance(found.real, expected.real), distance(found.imag, expected.imag)
        with np.errstate(over="ignore"):
            modulus: np.ndarray = np.hypot(real, imaginary)
        return modulus
    with np.errstate(all="ignore"):
        a, b = found.astype(np.float64), expected.astype(np.float64)
        off = np.abs(a - b)
    off[(a == b) | (np.isnan(a) & np.isnan(b))] = 0.0
    off[np.isnan(off)] = np.inf
    return off


def measure_tolerance(
    run: Runner, rows: np.ndarray, micro_batch: int, *, rng: np.random.Generator
) -> Tolerance:
    """Run sample rows among other rows, in smaller batches, and with inputs a step away, and see
    how far they move."""
    base = run_rows(run, rows, micro_batch)
    usual = _usual(base)
    if base.dtype.kind not in "fc":
        return Tolerance(0.0, usual)
    size = _sizes(base, usual)

    def moved(again: np.ndarray, where: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):  # of a row of zeros, or one that is not finite
            off: np.ndarray = distance(again, base[where]) / size[where]
        return off

    order, everything = rng.permutation(len(rows)), np.arange(len(rows))
    few = order[:FEW_ROWS]
    repeats = [moved(run_rows(run, rows[order], micro_batch), order)]
    repeats += [moved(again, few) for again in _in_smaller(run, rows[few])]
    nudged = [moved(again, everything) for again in _nudged(run, rows, micro_batch, 1, rng)]
    typical = np.max([_quantile(off, 0.5) for off in repeats], axis=0)
    rare = np.max([_quantile(off, QUANTILE) for off in repeats + nudged], axis=0)
    step = _step(run, base.dtype)
    noise = np.maximum(typical, np.minimum(rare, _most(step)))
    margin, least = (MARGIN, LEAST_STEPS) if step < 1e-4 else (MARGIN_16, LEAST_STEPS_16)
    return Tolerance(np.maximum(margin * noise, least * step), usual, margin)


def own_noise(
    run: Runner, rows: np.ndarray, micro_batch: int, others: np.ndarray, rng: np.random.Generator
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
    most = _most(_step(run, right.dtype)) * _usual(among[count:])
    for again in _nudged(run, rows, micro_batch, NUDGES, rng):
        noise = np.maximum(noise, np.minimum(distance(again, right), most))
    return right, noise


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


def magnitude(outputs: np.ndarray) -> np.ndarray:
    """Absolute values, 0 where they are not finite: float64."""
    with np.errstate(all="ignore"):
        size = np.abs(outputs.astype(np.complex128 if outputs.dtype.kind == "c" else np.float64))
    return np.where(np.isfinite(size), size, 0.0)


def _sizes(outputs: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """The sizes that differences are relative to: (B, *out)."""
    value = magnitude(outputs)
    row = value.max(axis=tuple(range(1, value.ndim)), keepdims=True, initial=0.0)
    return np.asarray(np.maximum(value, np.minimum(usual, row)))


def _usual(outputs: np.ndarray) -> np.ndarray:
    """The usual size of each output over some rows: (*out).

    An output that is zero in most of them is as large as the others are.
    """
    size = np.where(np.isfinite(outputs), magnitude(outputs), np.nan)
    usual = _quantile(size, 0.5)
    there = usual[usual > 0]
    return np.where(usual > 0, usual, np.median(there) if there.size else np.inf)


def _quantile(values: np.ndarray, q: float) -> np.ndarray:
    """A quantile over rows of what is finite, the higher of two; 0 where nothing is: (*out)."""
    ranked = np.sort(np.where(np.isfinite(values), values, np.nan), axis=0)  # NaN last
    count = np.isfinite(ranked).sum(axis=0)
    place = np.ceil(q * np.maximum(count - 1, 0)).astype(int)
    found: np.ndarray = np.nan_to_num(np.take_along_axis(ranked, place[None], axis=0)[0])
    return found
