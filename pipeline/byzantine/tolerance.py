"""The largest difference between two honest runs of one row, which `noise` measures."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from approxifer.packing import Packing

#: How many times further than the client's own runs an honest machine may be off: another kind of
#: processor rounds in another order.
MARGIN = 32.0


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
            allowed = np.minimum(self.relative * sizes_of(expected, self.usual), most)
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


@dataclass(frozen=True, eq=False)
class TolerancePerOutput:
    """The same of several outputs, packed: each has its own sizes, precision and noise."""

    packing: Packing
    each: tuple[Tolerance, ...]

    @property
    def relative(self) -> float:
        """The largest of any output."""
        return max(float(np.max(one.relative)) for one in self.each)

    def differs(
        self,
        found: np.ndarray,
        expected: np.ndarray,
        *,
        times: float = 1.0,
        noise: np.ndarray | None = None,
    ) -> np.ndarray:
        """The rows of which any output differs: bool (B,)."""
        differ = np.zeros(len(found), bool)
        for one, a, b, off in self._outputs(found, expected, noise):
            differ |= one.differs(a, b, times=times, noise=off)
        return differ

    def worst(self, found: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
        """The largest difference of any output, measured against what is allowed there."""
        each = [one.worst(a, b) for one, a, b, _ in self._outputs(found, expected, None)]
        return max(each, key=lambda worst: worst[0] / max(worst[1], 1e-300))

    def _outputs(
        self, found: np.ndarray, expected: np.ndarray, noise: np.ndarray | None
    ) -> Iterator[tuple[Tolerance, np.ndarray, np.ndarray, np.ndarray | None]]:
        each = zip(
            self.each,
            self.packing.parts,
            self.packing.unpack(found),
            self.packing.unpack(expected),
            itertools.repeat(None) if noise is None else self.packing.columns(noise),
            strict=False,
        )
        for one, part, a, b, off in each:
            known = off is not None and not part.exact
            yield one, a, b, off.reshape(a.shape) if off is not None and known else None


def magnitude(outputs: np.ndarray) -> np.ndarray:
    """Absolute values, 0 where they are not finite: float64."""
    with np.errstate(all="ignore"):
        size = np.abs(outputs.astype(np.complex128 if outputs.dtype.kind == "c" else np.float64))
    return np.where(np.isfinite(size), size, 0.0)


def sizes_of(outputs: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """The sizes that differences are relative to: (B, *out)."""
    value = magnitude(outputs)
    row = value.max(axis=tuple(range(1, value.ndim)), keepdims=True, initial=0.0)
    return np.asarray(np.maximum(value, np.minimum(usual, row)))


def usual_of(outputs: np.ndarray) -> np.ndarray:
    """The usual size of each output over some rows: (*out).

    An output that is zero in most of them is as large as the others are.
    """
    size = np.where(np.isfinite(outputs), magnitude(outputs), np.nan)
    usual = quantile_of(size, 0.5)
    there = usual[usual > 0]
    return np.where(usual > 0, usual, np.median(there) if there.size else np.inf)


def quantile_of(values: np.ndarray, q: float) -> np.ndarray:
    """A quantile over rows of what is finite, the higher of two; 0 where nothing is: (*out)."""
    ranked = np.sort(np.where(np.isfinite(values), values, np.nan), axis=0)  # NaN last
    count = np.isfinite(ranked).sum(axis=0)
    place = np.ceil(q * np.maximum(count - 1, 0)).astype(int)
    found: np.ndarray = np.nan_to_num(np.take_along_axis(ranked, place[None], axis=0)[0])
    return found
