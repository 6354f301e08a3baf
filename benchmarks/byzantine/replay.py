"""Outputs of honest and of faulty workers for all rows that they may be sent."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from approxifer.benchmarks.recording import AT_ONCE, Forward, Recording
from approxifer.pipeline.faults.corruption import Corruption

#: Numbers of rows (n,) to what a worker returns for them (n, *out).
Answer = Callable[[np.ndarray], np.ndarray]
#: How a worker corrupts its outputs; or, its model being broken, what it returns for each row of a
#: `Replay`.
Fault = Corruption | np.ndarray


class Replay:
    """All rows that a worker may be asked for, by number: those of the shares, then the uncoded.

    Attributes
    ----------
    honest : array (m, *out)
        What the model returns for each.
    """

    def __init__(self, recording: Recording) -> None:
        shares = [one.reshape(-1, *one.shape[2:]) for one in recording.outputs]
        self.honest = np.concatenate([*shares, recording.plain])
        self._blocks = [one.shape[1] for one in recording.outputs]
        self._starts = np.cumsum([0, *map(len, shares)])

    def share(self, group: int, share: int) -> np.ndarray:
        """The rows of a share."""
        block = self._blocks[group]
        start = self._starts[group] + share * block
        return np.arange(start, start + block)

    def plain(self, rows: np.ndarray) -> np.ndarray:
        """Rows as they are, uncoded."""
        numbers: np.ndarray = self._starts[-1] + rows
        return numbers

    def answer(self, fault: Fault, rng: np.random.Generator) -> Answer:
        """Arm a fault."""
        if isinstance(fault, np.ndarray):
            return fault.__getitem__
        corrupted = fault.bind(rng)
        return lambda rows: corrupted.corrupt(self.honest[rows])


def rerun(recording: Recording, forward: Forward) -> np.ndarray:
    """Outputs of another model for all rows of a recording's `Replay`: (m, *out)."""
    feature = recording.rows.shape[1:]
    groups = range(len(recording.members))
    shares = (recording.inputs(group).reshape(-1, *feature) for group in groups)
    rows = np.concatenate([*shares, recording.rows])
    starts = range(0, len(rows), AT_ONCE)
    return np.concatenate([forward(rows[start : start + AT_ONCE]) for start in starts])
