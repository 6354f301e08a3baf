"""Accuracy, agreement and relative error of recovered outputs.

Classes are measured by accuracy (the largest output is at the label) and agreement (it is where the
uncoded model has it); values by their relative error, RMS(decoded - uncoded) / RMS(uncoded).
Each over the outputs with nothing lost (available), over the rows that had to be decoded (degraded)
and over all rows (overall).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from approxifer.benchmarks.erasures import Recovered
from approxifer.benchmarks.recording import Recording

#: Of the bootstrap.
RESAMPLES = 1000


class Metric(Protocol):
    """One kind of measure of outputs."""

    def figures(
        self, recording: Recording, whole: Recovered, lost: Sequence[Recovered]
    ) -> dict[str, Any]:
        """Measure what was decoded from all shares, and, in each round, from what was left."""

    def overall(self, recording: Recording, found: Recovered) -> dict[str, float]:
        """Measure all rows."""


@dataclass(frozen=True, eq=False)
class ClassMetric:
    """Accuracy and agreement.

    Attributes
    ----------
    labels : int (n,)
    """

    labels: np.ndarray

    def figures(
        self, recording: Recording, whole: Recovered, lost: Sequence[Recovered]
    ) -> dict[str, Any]:
        """See `Metric.figures`."""
        return {name: three(whole, lost, truth) for name, truth in self._truths(recording).items()}

    def overall(self, recording: Recording, found: Recovered) -> dict[str, float]:
        """See `Metric.overall`."""
        classes = found.outputs.argmax(axis=1)
        return {
            name: float((classes == truth).mean())
            for name, truth in self._truths(recording).items()
        }

    def _truths(self, recording: Recording) -> dict[str, np.ndarray]:
        return {"accuracy": self.labels, "agreement": recording.plain.argmax(axis=1)}


def three(
    whole: Recovered, lost: Sequence[Recovered], truth: np.ndarray
) -> dict[str, float | None]:
    """The share of rows whose class is the true one: three figures, None where there are no rows.

    Parameters
    ----------
    whole : Recovered
        From all shares.
    lost : sequence of Recovered
        From what was left, round by round.
    truth : int (n,)
        The labels, or the classes that the uncoded model gives.
    """
    right = np.stack([one.outputs.argmax(axis=1) == truth for one in lost])
    decoded = np.stack([~one.exact for one in lost])
    return {
        "available": float((whole.outputs.argmax(axis=1) == truth).mean()),
        "degraded": float(right[decoded].mean()) if decoded.any() else None,
        "overall": float(right.mean()),
    }


@dataclass(frozen=True)
class ValueMetric:
    """Relative error, with a 95 % bootstrap interval by codeword: its rows are not
    independent.

    Attributes
    ----------
    seed : int
    """

    seed: int = 0

    def figures(
        self, recording: Recording, whole: Recovered, lost: Sequence[Recovered]
    ) -> dict[str, Any]:
        """See `Metric.figures`."""
        decoded = np.stack([~one.exact for one in lost])
        squares = [_squares(recording, one) for one in lost]
        error, size = (np.stack(each) for each in zip(*squares, strict=True))
        low, high = _interval(recording, error.mean(axis=0), size[0], self.seed)
        return {
            "error": {
                "available": _ratio(*_squares(recording, whole)),
                "degraded": _ratio(error[decoded], size[decoded]) if decoded.any() else None,
                "overall": _ratio(error, size),
            },
            "interval": [low, high],
        }

    def overall(self, recording: Recording, found: Recovered) -> dict[str, float]:
        """See `Metric.overall`."""
        return {"error": _ratio(*_squares(recording, found))}


def _squares(recording: Recording, found: Recovered) -> tuple[np.ndarray, np.ndarray]:
    """Sums of squares by row, of the error and of the true outputs: (n,) each."""
    plain = recording.plain.reshape(len(recording.plain), -1).astype(np.float64)
    error = found.outputs.reshape(plain.shape).astype(np.float64) - plain
    return np.square(error).sum(axis=1), np.square(plain).sum(axis=1)


def _ratio(error: np.ndarray, size: np.ndarray) -> float:
    return float(np.sqrt(error.sum() / size.sum()))


def _interval(
    recording: Recording, error: np.ndarray, size: np.ndarray, seed: int
) -> tuple[float, float]:
    (members,) = recording.members
    codeword = np.empty(len(members), np.int64)
    codeword[members] = np.arange(len(members)) // recording.code.k
    errors, sizes = (np.bincount(codeword, weights=values) for values in (error, size))
    drawn = np.random.default_rng(seed).integers(len(errors), size=(RESAMPLES, len(errors)))
    ratios = np.sqrt(errors[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)
