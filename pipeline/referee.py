"""Who is right when two runs of one share differ.

How far two honest runs may differ is measured by the client on its own runs of the model, never on
what workers returned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from approxifer.models import Runner, run_rows

#: Rows of a disputed share that the client runs itself.
REFEREE_ROWS = 16
#: How many times further than the client's own runs an honest machine may be off: another kind of
#: processor rounds in another order. And the least tolerance, in steps of the least precise number
#: that is involved. Both for 32 bits and more, and for 16 bits, where a step is much already.
MARGIN, MARGIN_16 = 32.0, 4.0
LEAST_STEPS, LEAST_STEPS_16 = 64.0, 4.0

Outputs = np.ndarray


@dataclass(frozen=True, eq=False)
class Tolerance:
    """The largest difference between two honest runs of one row.

    Attributes
    ----------
    relative : (*out) or one number
        As a fraction of the output's value or of its usual size, whichever is larger; 0: outputs
        are compared exactly.
    scale : (*out)
        The usual size of each output: its root mean square over sample rows.
    """

    relative: np.ndarray | float
    scale: np.ndarray

    def allowed(self, expected: Outputs) -> np.ndarray:
        """The largest difference from ``expected`` (B, *out), of the same shape."""
        with np.errstate(all="ignore"):
            size = np.maximum(np.abs(expected.astype(np.complex128)), self.scale)
            return self.relative * np.where(np.isfinite(size), size, self.scale)

    def differs(self, found: Outputs, expected: Outputs, *, times: float = 1.0) -> np.ndarray:
        """Which rows differ by more than ``times`` the tolerance: bool (B,).

        The tolerance is that of the smaller of the two, so that nobody gains by a huge number. NaN
        equals NaN, and an infinity itself.
        """
        far = np.not_equal(found, expected)
        if found.dtype.kind in "fc":
            with np.errstate(all="ignore"):
                a, b = found.astype(np.complex128), expected.astype(np.complex128)
                allowed = times * np.minimum(self.allowed(a), self.allowed(b))
                far &= ~((np.abs(a - b) <= allowed) | (np.isnan(a) & np.isnan(b)))
        rows: np.ndarray = far.reshape(len(far), -1).any(axis=1)
        return rows

    def worst(self, found: Outputs, expected: Outputs) -> tuple[float, float]:
        """The largest difference, and what is allowed where it is; infinite where one is not
        finite and the other is another."""
        with np.errstate(all="ignore"):
            a, b = found.astype(np.complex128), expected.astype(np.complex128)
            off = np.abs(a - b)
            off[(a == b) | (np.isnan(a) & np.isnan(b))] = 0.0
            off[np.isnan(off)] = np.inf
            allowed = self.allowed(expected)
            place = np.unravel_index(int(np.argmax(off / np.maximum(allowed, 1e-300))), off.shape)
        return float(off[place]), float(allowed[place])


def measure_tolerance(
    run: Runner, rows: np.ndarray, micro_batch: int, *, rng: np.random.Generator
) -> Tolerance:
    """Run sample rows among other rows, and in smaller batches, and see how far they move.

    Parameters
    ----------
    run : Runner
        The model on the client.
    rows : (n, *feature)
        Sample rows.
    micro_batch : int
        M.
    rng : numpy.random.Generator
        Of the other arrangement.
    """
    base = run_rows(run, rows, micro_batch)
    wide = base.astype(np.complex128)
    wide[~np.isfinite(wide)] = 0
    scale = np.sqrt(np.mean(np.square(np.abs(wide)), axis=0))
    # An output that is zero in every sample row is as large as the others are.
    scale = np.where(scale > 0, scale, np.sqrt(np.mean(np.square(scale))) or 1.0)
    if base.dtype.kind not in "fc":
        return Tolerance(0.0, scale)
    order = rng.permutation(len(rows))
    moved = np.empty_like(base)
    moved[order] = run_rows(run, rows[order], micro_batch)
    others = [moved]
    if run.static_batch is None:
        others += [run_rows(run, rows[:REFEREE_ROWS], size) for size in (1, 3)]
    noise = np.zeros(base.shape[1:])
    for other in others:
        with np.errstate(all="ignore"):
            off = np.abs(other.astype(np.complex128) - wide[: len(other)])
        size = np.maximum(np.abs(wide[: len(other)]), scale)
        noise = np.maximum(noise, np.max(np.where(np.isfinite(off), off, 0) / size, axis=0))
    coarse = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23}
    step = max(float(np.finfo(base.dtype).eps), coarse.get(run.dtype, 0.0))
    margin, least = (MARGIN, LEAST_STEPS) if step < 1e-4 else (MARGIN_16, LEAST_STEPS_16)
    return Tolerance(np.maximum(margin * noise, least * step), scale)


@dataclass(frozen=True)
class Fault:
    """How far a worker's output is from the referee's."""

    rows: int  #: that are wrong
    of: int  #: that were looked at
    deviation: float
    allowed: float


def against(tolerance: Tolerance, found: Outputs, right: Outputs) -> Fault | None:
    """How an output differs from the right one; None if it does not."""
    wrong = tolerance.differs(found, right)
    if not wrong.any():
        return None
    return Fault(int(wrong.sum()), len(wrong), *tolerance.worst(found[wrong], right[wrong]))


class ClientReferee:
    """Runs rows of the disputed share on the client.

    Parameters
    ----------
    run : callable
        Rows (m, *feature) to outputs (m, *out), on the client.
    tolerance : Tolerance
    rng : numpy.random.Generator
        Chooses the rows.
    """

    def __init__(
        self,
        run: Callable[[np.ndarray], Outputs],
        tolerance: Tolerance,
        rng: np.random.Generator,
    ) -> None:
        self._run = run
        self._tolerance = tolerance
        self._rng = rng

    def liars(
        self, rows: np.ndarray, outputs: Mapping[str, Outputs], disputed: np.ndarray
    ) -> dict[str, Fault]:
        """Tell who returned wrong rows.

        Parameters
        ----------
        rows : (B, *feature)
            The share's input.
        outputs
            What each worker returned for it, (B, *out).
        disputed : bool (B,)
            The rows in which they differ; at most `REFEREE_ROWS` of them, drawn at random, are run.
        """
        where = np.flatnonzero(disputed)
        chosen = np.sort(self._rng.permutation(where)[:REFEREE_ROWS])
        right = self._run(rows[chosen])
        found = {
            name: against(self._tolerance, output[chosen], right)
            for name, output in outputs.items()
        }
        return {name: fault for name, fault in found.items() if fault is not None}


def agreement(
    outputs: Sequence[Outputs], needed: int, tolerance: Tolerance
) -> tuple[int, frozenset[int]] | None:
    """The output with which most others agree, and those that do, itself included; None where they
    are fewer than ``needed``.

    Two honest runs may be a tolerance away from the truth in either direction, hence twice that.
    """
    found = [
        frozenset(
            j
            for j, other in enumerate(outputs)
            if not tolerance.differs(other, center, times=2.0).any()
        )
        for center in outputs
    ]
    best = max(range(len(found)), key=lambda i: len(found[i]), default=None)
    return None if best is None or len(found[best]) < needed else (best, found[best])
