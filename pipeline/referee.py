"""Who is right when two runs of one share differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from approxifer.pipeline.tolerance import Tolerance

#: Rows of a disputed share that the client runs itself.
REFEREE_ROWS = 16

Outputs = np.ndarray


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
