"""Three other ways to tolerate one Byzantine worker, played from the same recordings.

None of them convicts a worker: what one worker costs, it costs in every group to the end.

- published: ApproxIFER as published, N = 2(K+E)+S workers; every codeword loses the E shares that
  `published_locator` names;
- majority: 2E+1 copies of every block, on different workers; the most of which agree;
- two, then three: two copies, and where they differ a third one that decides: what `score` does
  with ``scheme="replication-adaptive", byzantine=1``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from approxifer.benchmarks.byzantine.published_locator import published_locator
from approxifer.benchmarks.byzantine.replay import Answer, Fault, Replay
from approxifer.benchmarks.byzantine.simulation import BYZANTINE
from approxifer.benchmarks.recording import Recording
from approxifer.coding import Code, CodeSpec, block_rows, gather
from approxifer.coding.berrut import InterpolatingCode
from approxifer.pipeline.byzantine.tolerance import Tolerance
from approxifer.pipeline.scheduler.placement import Candidate, place


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Figures of a rival over all rows.

    Attributes
    ----------
    evaluations_per_query : float
    wrong_rows : int
        Rows that are further than the tolerance from the uncoded model's output.
    changed_rows : int or None
        Rows whose class is another than the uncoded model's. None: no classes.
    error : float
        Root mean square of the difference from the uncoded outputs, over that of these.
    accuracy : float, optional
        Against the labels.
    """

    evaluations_per_query: float
    wrong_rows: int
    changed_rows: int | None
    error: float
    accuracy: float | None


def decode_without(code: Code, outputs: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """Decode codewords each of which leaves other shares out.

    Parameters
    ----------
    code : Code
    outputs : (N, B, *out)
    left_out : int (B, m)
        The shares that each codeword does without.

    Returns
    -------
    ndarray (K, B, *out)
    """
    blocks = np.empty((code.k, *outputs.shape[1:]), outputs.dtype)
    patterns, which = np.unique(np.sort(left_out, axis=1), axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        some = np.flatnonzero(which.ravel() == number)
        kept = {share: outputs[share, some] for share in range(code.n) if share not in pattern}
        blocks[:, some] = code.decode(kept).blocks
    return blocks


def published(recording: Recording, fault: Fault, rng: np.random.Generator) -> np.ndarray:
    """Decode a recording of the published code, any one of its N workers being faulty.

    A share with an output that is not finite is left out, and no other.

    Returns
    -------
    ndarray (n, *out)
    """
    code, replay = recording.code, Replay(recording)
    assert isinstance(code, InterpolatingCode)
    answer = replay.answer(fault, rng)
    found = np.empty_like(recording.plain)
    for group, members in enumerate(recording.members):
        outputs = recording.outputs[group].copy()
        faulty = int(rng.integers(code.n))
        outputs[faulty] = answer(replay.share(group, faulty))
        if np.isfinite(outputs[faulty]).all():
            evicted = published_locator(outputs, code.nodes, code.k, code.spec.byzantine)
        else:
            evicted = np.full((outputs.shape[1], 1), faulty)
        _put(found, decode_without(code, outputs, evicted), members, code.k)
    return found


def majority(
    recording: Recording, fault: Fault, rng: np.random.Generator, workers: int
) -> np.ndarray:
    """Take, of 2E+1 copies of every block of a recording, the one with which most agree."""
    k = recording.code.k
    code = CodeSpec("replication", k, 0, BYZANTINE).build()
    asked = _Workers(recording, fault, rng, workers)
    candidates = [Candidate(name, name, 0.0, 1.0) for name in asked.names]
    found = np.empty_like(recording.plain)
    for members in recording.members:
        blocks = _padded(members, k)
        names = place(range(code.n), code, candidates, rng=rng)
        outputs = {share: asked.ask(names[share], blocks[share % k]) for share in range(code.n)}
        _put(found, code.decode(outputs).blocks, members, k)
    return found


def two_then_three(
    recording: Recording,
    fault: Fault,
    rng: np.random.Generator,
    workers: int,
    tolerance: Tolerance,
) -> tuple[np.ndarray, int]:
    """Run each block on two workers, and where they differ on a third.

    Returns
    -------
    ndarray (n, *out)
    int
        Evaluations.
    """
    asked = _Workers(recording, fault, rng, workers)
    found = np.empty_like(recording.plain)
    for members in recording.members:
        blocks = []
        for rows in _padded(members, recording.code.k):
            first, second, third = rng.permutation(asked.names)[:3]
            output, other = asked.ask(first, rows), asked.ask(second, rows)
            if tolerance.differs(output, other, times=2.0).any():
                output = asked.ask(third, rows)  # it agrees with the honest one
            blocks.append(output)
        _put(found, np.stack(blocks), members, recording.code.k)
    return found, asked.evaluations


def compare(
    found: np.ndarray,
    evaluations: float,
    plain: np.ndarray,
    tolerance: Tolerance,
    labels: np.ndarray | None,
) -> Scored:
    """Compare outputs with the uncoded model's, and its classes against the labels."""
    off = found.astype(np.float64) - plain
    return Scored(
        evaluations_per_query=evaluations / len(plain),
        wrong_rows=int(tolerance.differs(found, plain).sum()),
        changed_rows=changed(found, plain),
        error=float(np.sqrt(np.mean(off**2) / np.mean(plain.astype(np.float64) ** 2))),
        accuracy=None if labels is None else float((found.argmax(axis=1) == labels).mean()),
    )


def changed(prediction: np.ndarray, plain: np.ndarray) -> int | None:
    """Rows whose class is another; None where there are no classes."""
    if plain.ndim != 2:
        return None
    return int((prediction.argmax(axis=1) != plain.argmax(axis=1)).sum())


class _Workers:
    """Workers of which the first is faulty, asked for uncoded rows."""

    def __init__(
        self, recording: Recording, fault: Fault, rng: np.random.Generator, workers: int
    ) -> None:
        self.names = [f"w{number}" for number in range(workers)]
        self.evaluations = 0
        self._replay = Replay(recording)
        self._answer: Answer = self._replay.answer(fault, rng)

    def ask(self, name: str, rows: np.ndarray) -> np.ndarray:
        self.evaluations += len(rows)
        numbers = self._replay.plain(rows)
        return self._answer(numbers) if name == self.names[0] else self._replay.honest[numbers]


def _padded(members: np.ndarray, k: int) -> np.ndarray:
    """The rows of each block, (K, B)."""
    return gather(np.arange(members.max() + 1), members, k)


def _put(found: np.ndarray, blocks: np.ndarray, members: np.ndarray, k: int) -> None:
    """Put the outputs of a group where its rows are; its padding is left out."""
    for rows, block in zip(block_rows(members, k), blocks, strict=True):
        found[rows] = block[: len(rows)]
