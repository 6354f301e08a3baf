"""Real outputs of shares, recorded once, to be played against faults without a cluster.

::

    rows = split.rows[split.test].astype(np.float32)
    spec = CodeSpec("systematic", k=8, stragglers=0, byzantine=1)
    recording = record("MNIST", rows, forward, spec, block=8, order="similar")
    for g, outputs in enumerate(recording.outputs):  # (N, B, *out): what honest workers return
        ...
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from approxifer.benchmarks.losses import Forward
from approxifer.coding import Code, CodeSpec, gather, groups, order_rows

#: Rows that are run in one call of the model: some seconds of work, and little memory.
AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class Recording:
    """One window of rows, cut into groups as the engine does, and what honest workers return.

    Attributes
    ----------
    name : str
        For people.
    code : Code
    block : int
        Rows per share, B; in the last group it may be smaller.
    order : str
    rows : floating-point array (n, *feature)
    members : list of int arrays, one per group
        Its rows, codeword by codeword; see `approxifer.coding.block_rows`.
    outputs : list of arrays (N, B, *out), one per group
    plain : array (n, *out)
        The uncoded model's outputs.
    """

    name: str
    code: Code
    block: int
    order: str
    rows: np.ndarray
    members: list[np.ndarray]
    outputs: list[np.ndarray]
    plain: np.ndarray

    def inputs(self, group: int) -> np.ndarray:
        """The shares of a group before the model: (N, B, *feature)."""
        return self.code.encode(gather(self.rows, self.members[group], self.code.k))


def record(
    name: str,
    rows: np.ndarray,
    forward: Forward,
    spec: CodeSpec,
    *,
    block: int,
    order: str,
    seed: int = 0,
    plain: np.ndarray | None = None,
) -> Recording:
    """Order rows, code them, and run every share.

    A share that carries a block unchanged is not run again: at one micro-batch shape its outputs
    are, bit by bit, the uncoded model's (see `approxifer.models.rows`).

    Parameters
    ----------
    name : str
    rows : floating-point array (n, *feature)
        One window.
    forward : callable
        Rows (m, *feature) to outputs (m, *out), for any m, at one micro-batch shape.
    spec : CodeSpec
    block : int
        Rows per share.
    order : str
        As `approxifer.coding.order_rows` takes it.
    seed : int
        Of the order.
    plain : array (n, *out), optional
        The rows' outputs, where they are known from another recording.
    """
    code = spec.build()
    perm = order_rows(rows, code.k, how=order, block=block, seed=seed)
    members = [perm[one.start : one.stop] for one in groups(len(rows), code.k, block)]
    if plain is None:
        plain = np.concatenate(
            [forward(rows[start : start + AT_ONCE]) for start in range(0, len(rows), AT_ONCE)]
        )
    mixtures = [share for share, carried in enumerate(code.carries) if carried is None]
    together = max(1, AT_ONCE // max(1, block * len(mixtures)))
    outputs: list[np.ndarray] = []
    for first in range(0, len(members), together):
        some = members[first : first + together]
        mixed = [code.encode(gather(rows, one, code.k))[mixtures] for one in some]
        if mixtures:
            flat = forward(np.concatenate([one.reshape(-1, *rows.shape[1:]) for one in mixed]))
            ends = np.cumsum([one.shape[0] * one.shape[1] for one in mixed])[:-1]
            parts = np.split(flat, ends)
        for number, one in enumerate(some):
            blocks = gather(plain, one, code.k)
            made = np.empty((code.n, *blocks.shape[1:]), plain.dtype)
            for share, carried in enumerate(code.carries):
                if carried is not None:
                    made[share] = blocks[carried]
            if mixtures:
                made[mixtures] = parts[number].reshape(len(mixtures), *blocks.shape[1:])
            outputs.append(made)
    return Recording(name, code, block, order, rows, members, outputs, plain)
