"""Lost shares: which ones, and what decoding makes of the rest. Pure, but for the model passed in.

A codeword decodes by itself, so losses are drawn codeword by codeword: the same as groups of one
row per block, at the price of one large group.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from approxifer.coding import Code, block_rows, gather, groups, order_rows

#: Rows (n, *feature) to outputs (n, classes).
Forward = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Recovered:
    """The outputs of a window, in the order of its rows.

    Attributes
    ----------
    available : (n, classes)
        Decoded from all N shares.
    degraded : (n, classes)
        Decoded from what was left.
    exact : bool (n,)
        Whether the model ran on that very row, and what it returned was not lost.
    """

    available: np.ndarray
    degraded: np.ndarray
    exact: np.ndarray


def draw_losses(n: int, lost: int, codewords: int, rng: np.random.Generator) -> np.ndarray:
    """Choose the lost shares of each codeword; all sets of them occur equally often, give or take
    one.

    Parameters
    ----------
    n : int
        Shares of a codeword.
    lost : int
        Shares that each codeword loses.
    codewords : int
    rng : numpy.random.Generator

    Returns
    -------
    int array (codewords, lost)
    """
    sets = list(combinations(range(n), lost))
    patterns = np.array(sets, np.int64).reshape(len(sets), lost)
    rounds = [rng.permutation(len(patterns)) for _ in range(-(-codewords // len(patterns)))]
    chosen = np.concatenate([*rounds, np.empty(0, np.int64)])[:codewords].astype(np.int64)
    drawn: np.ndarray = patterns[rng.permutation(chosen)]
    return drawn


def recover(
    rows: np.ndarray,
    code: Code,
    forward: Forward,
    *,
    order: str,
    lost: int,
    seed: int,
    block: int | None = None,
) -> Recovered:
    """Score one window while every codeword loses shares.

    Parameters
    ----------
    rows : (n, *feature)
        Floating point.
    code : Code
    forward : callable
        The model. Every share is run once, whatever is lost of it later.
    order : str
        As `approxifer.coding.order_rows` takes it.
    lost : int
        Shares that each codeword loses.
    seed : int
        Of the order and the losses.
    block : int, optional
        Rows of a block; None: one group for the window.
    """
    perm = order_rows(rows, code.k, how=order, block=block, seed=seed)
    rng = np.random.default_rng([seed, code.n, lost])
    found: Recovered | None = None
    for group in groups(len(rows), code.k, block):
        members = perm[group.start : group.stop]
        shares = code.encode(gather(rows, members, code.k))
        outputs = forward(shares.reshape(-1, *rows.shape[1:])).reshape(code.n, group.block, -1)
        if found is None:
            blank = np.full((len(rows), outputs.shape[-1]), np.nan, outputs.dtype)
            found = Recovered(blank, blank.copy(), np.zeros(len(rows), bool))
        whole = code.decode(dict(enumerate(outputs)))
        for of, values in zip(block_rows(members, code.k), whole.blocks, strict=True):
            found.available[of] = values[: len(of)]
        _degrade(found, code, outputs, members, draw_losses(code.n, lost, group.block, rng))
    assert found is not None, "a window has rows"
    return found


def _degrade(
    found: Recovered, code: Code, outputs: np.ndarray, members: np.ndarray, losses: np.ndarray
) -> None:
    """Decode the codewords of one group, together those that lost the same shares."""
    carried = block_rows(members, code.k)
    patterns, which = np.unique(losses, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        codewords = np.flatnonzero(which.ravel() == number)
        left = {i: outputs[i][codewords] for i in range(code.n) if i not in pattern}
        decoded = code.decode(left)
        for j, of in enumerate(carried):
            real = codewords[codewords < len(of)]  # the last codeword may be padded
            found.degraded[of[real]] = decoded.blocks[j][: len(real)]
            found.exact[of[real]] = decoded.exact[j]
