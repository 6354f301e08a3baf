"""Real outputs of shares, recorded once, to be played against faults without a cluster.

::

    rows = split.rows[split.test].astype(np.float32)
    spec = CodeSpec("systematic", k=8, stragglers=0, byzantine=1)
    recording = record("MNIST", rows, forward, spec, block=8, order="similar")
    for g, outputs in enumerate(recording.outputs):  # (N, B, *out): what honest workers return
        ...
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from approxifer.coding import Code, CodeSpec, gather, groups, order_rows

#: Rows (n, *feature) to outputs (n, *out).
Forward = Callable[[np.ndarray], np.ndarray]

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
    block: int | None,
    order: str,
    seed: int = 0,
    plain: np.ndarray | None = None,
    features: np.ndarray | None = None,
    parity: Sequence[Forward] = (),
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
    block : int, optional
        Rows per share; None: one group for all.
    order : str
        As `approxifer.coding.order_rows` takes it.
    seed : int
        Of the order.
    plain : array (n, *out), optional
        The rows' outputs, where they are known from another recording.
    features : array (n, d), optional
        What rows are compared by, instead of themselves, in order ``"similar"``.
    parity : sequence of callables
        The code's parity models, where it has any.
    """
    code = spec.build()
    perm = order_rows(
        rows if features is None else features, code.k, how=order, block=block, seed=seed
    )
    forwards = (forward, *parity)
    members = [perm[one.start : one.stop] for one in groups(len(rows), code.k, block)]
    if plain is None:
        plain = np.concatenate(
            [forward(rows[start : start + AT_ONCE]) for start in range(0, len(rows), AT_ONCE)]
        )
    mixtures = [share for share, carried in enumerate(code.carries) if carried is None]
    together = max(1, AT_ONCE // max(1, len(members[0]) // code.k * len(mixtures)))
    outputs: list[np.ndarray] = []
    for first in range(0, len(members), together):
        some = members[first : first + together]
        mixed = [code.encode(gather(rows, one, code.k))[mixtures] for one in some]
        blocks = [gather(plain, one, code.k) for one in some]
        made = [np.empty((code.n, *one.shape[1:]), plain.dtype) for one in blocks]
        for share, carried in enumerate(code.carries):
            if carried is not None:
                for one, exact in zip(made, blocks, strict=True):
                    one[share] = exact[carried]
        for place, share in enumerate(mixtures):
            found = forwards[code.models[share]](np.concatenate([one[place] for one in mixed]))
            ends = np.cumsum([one.shape[1] for one in mixed])[:-1]
            for one, part in zip(made, np.split(found, ends), strict=True):
                one[share] = part
        outputs += made
    return Recording(name, code, made[0].shape[1], order, rows, members, outputs, plain)
