"""Lost shares: which ones, and what decoding makes of the rest. Pure.

A codeword decodes by itself, so losses are drawn codeword by codeword: the same as groups of one
row per block, at the price of one large group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np

from approxifer.benchmarks.recording import Recording
from approxifer.coding import Code, Decoded, block_rows
from approxifer.pipeline.scheduler.policy import fewest

#: How often each set of losses is to occur.
OFTEN = 3
#: Outputs by share to blocks.
Decode = Callable[[Mapping[int, np.ndarray]], Decoded]


@dataclass(frozen=True)
class Recovered:
    """The outputs of a window, in the order of its rows.

    Attributes
    ----------
    outputs : (n, *out)
        Decoded from the shares that were kept.
    exact : bool (n,)
        Whether the model ran on that very row, and what it returned was not lost.
    """

    outputs: np.ndarray
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


def always(code: Code, lost: int, codewords: int, rng: np.random.Generator) -> np.ndarray:
    """The shares that come back where each codeword loses as many: bool (rounds, codewords, N).

    One round, or as many as it takes for each set of losses to occur about `OFTEN` times.
    """
    rounds = -(-OFTEN * comb(code.n, lost) // codewords)
    kept = np.ones((rounds * codewords, code.n), bool)
    np.put_along_axis(kept, draw_losses(code.n, lost, len(kept), rng), False, axis=1)
    return kept.reshape(rounds, codewords, code.n)


def now_and_then(
    code: Code, chance: float, codewords: int, rng: np.random.Generator
) -> tuple[np.ndarray, int]:
    """Each share is lost with the same chance, whatever becomes of the others.

    Where what comes back is not decodable, as few of the lost shares as make it so are submitted
    again, by the engine's own rule, until it is.

    Returns
    -------
    kept : bool (codewords, N)
        The shares that come back.
    run : int
        Shares that were run.
    """
    kept = rng.random((codewords, code.n)) >= chance
    run = kept.size
    for codeword in np.flatnonzero(~_decodable(code, kept)):
        have = set(np.flatnonzero(kept[codeword]).tolist())
        while not code.decodable(have):
            lost = [share for share in range(code.n) if share not in have]
            again = fewest(
                code.decodable, have, sorted(lost, key=lambda s: code.carries[s] is None)
            )
            run += len(again)
            have |= {share for share in again if rng.random() >= chance}
        kept[codeword, sorted(have)] = True
    return kept, run


def _decodable(code: Code, kept: np.ndarray) -> np.ndarray:
    patterns, which = np.unique(kept, axis=0, return_inverse=True)
    enough = np.array([code.decodable(np.flatnonzero(one).tolist()) for one in patterns])
    return enough[which.ravel()]


def recover(recording: Recording, kept: np.ndarray, *, decode: Decode | None = None) -> Recovered:
    """Decode a window of one group, together the codewords of which the same shares were kept.

    Parameters
    ----------
    recording : Recording
        Of one group.
    kept : bool (codewords, N)
    decode : callable, optional
        As `Code.decode`; None: the code's.
    """
    code, (outputs,), (members,) = recording.code, recording.outputs, recording.members
    decode = decode or code.decode
    found = Recovered(np.full_like(recording.plain, np.nan), np.zeros(len(recording.plain), bool))
    carried = block_rows(members, code.k)
    patterns, which = np.unique(kept, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        codewords = np.flatnonzero(which.ravel() == number)
        decoded = decode({i: outputs[i][codewords] for i in np.flatnonzero(pattern).tolist()})
        for j, of in enumerate(carried):
            real = codewords[codewords < len(of)]  # the last codeword may be padded
            found.outputs[of[real]] = decoded.blocks[j][: len(real)]
            found.exact[of[real]] = decoded.exact[j]
    return found
