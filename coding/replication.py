"""Replication: copies of every block, the most of which agree."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from approxifer.coding.code import Array, Code, root_mean_square
from approxifer.coding.spec import CodeSpec, Scheme
from approxifer.errors import ConfigError

#: Copies agree if no number differs by more than this times the block's root mean square. On one
#: kind of machine correct copies are bitwise equal; on several they differ in their last bits.
AGREE = 1e-4


class ReplicationCode(Code):
    """Share c*K + j is copy c of block j, for c = 0 .. S + 2E; all is copied bit by bit.

    N = K(S+1), or K(2E+1+S) with E Byzantine workers: what ApproxIFER (Soleymani et al., AAAI 2022,
    arXiv 2109.09868) is measured against. One copy of each block is enough with E = 0; else the
    first member of the largest set of copies that agree is taken, whatever their order, and of
    2E + 1 copies the correct ones are that set. Copies of one block conflict. Any dtype.

    Adaptive, with N = K(E+1): where E + 1 copies agree one of them is correct, and so all are.
    Where they differ, decoding needs a copy with which others, made besides, agree: the wrong
    ones, E at most, are to be left out.
    """

    def __init__(self, spec: CodeSpec) -> None:
        k, copies, byzantine = spec.k, spec.n // spec.k, spec.byzantine
        conflicts = (frozenset(range(j, spec.n, k)) for j in range(k))
        super().__init__(
            spec,
            carries=tuple(range(k)) * copies,
            conflicts=tuple(conflicts) if copies > 1 else (),
            wanted=(1 if spec.adaptive else 2) * byzantine + 1,
            evictable=byzantine,
        )
        self.adaptive = spec.adaptive

    def encode(self, blocks: Array) -> Array:
        return np.concatenate([self._blocks(blocks)] * (self.n // self.k))

    def suspects(self, outputs: Mapping[int, Array]) -> frozenset[int]:
        """Name the copies outside the largest set that agrees, at most E a block.

        Where no E + 1 copies of a block agree, it is unknown which are right: all of them are
        suspects, and without them the group will not decode.
        """
        received, byzantine = self._received(outputs), self.spec.byzantine
        named: set[int] = set()
        for copies in self._copies(received) if byzantine else ():
            agreed = agreeing(copies, received)
            named.update(set(copies).difference(agreed if len(agreed) > byzantine else ()))
        return frozenset(named)

    def residual(self, outputs: Mapping[int, Array]) -> NDArray[np.float32]:
        """Compare the copies that decoding passed over with those it took."""
        received = self._received(outputs)
        found, expected = [], []
        for copies in self._copies(received):
            taken = self._carrier(copies[0] % self.k, received)
            found += [received[share] for share in copies if share != taken]
            expected += [received[taken]] * (len(copies) - 1)
        shape = (len(found), *next(iter(received.values())).shape)
        return root_mean_square(np.reshape(found, shape), np.reshape(expected, shape))

    def _carrier(self, block: int, received: Mapping[int, Array]) -> int:
        if not self.spec.byzantine:
            return super()._carrier(block, received)
        copies = [share for share in self._carriers[block] if share in received]
        return agreeing(copies, received)[0]

    def _copies(self, received: Mapping[int, Array]) -> list[list[int]]:
        """List the copies of each block that came back at all."""
        copies = ([share for share in held if share in received] for held in self._carriers)
        return [shares for shares in copies if shares]


def _check_adaptive(spec: CodeSpec) -> None:
    if not spec.byzantine:
        raise ConfigError(
            "scheme='replication-adaptive' with byzantine=0: it compares E + 1 copies; give "
            "byzantine= of at least 1, or take scheme='replication'"
        )


REPLICATION = Scheme(
    "replication",
    shares=lambda spec: spec.k * (2 * spec.byzantine + 1 + spec.stragglers),
    build=ReplicationCode,
    mixes=False,
    votes=True,
)
ADAPTIVE = Scheme(
    "replication-adaptive",
    shares=lambda spec: spec.k * (spec.byzantine + 1),
    build=ReplicationCode,
    check=_check_adaptive,
    mixes=False,
    votes=True,
    adaptive=True,
)


def agreeing(copies: Sequence[int], outputs: Mapping[int, Array]) -> list[int]:
    """Return the largest set of copies that agree with one of them; of equal ones the first."""
    sets = (
        [copy for copy in copies if distance(outputs[copy], outputs[center]) <= AGREE]
        for center in copies
    )
    return max(sets, key=len)


def distance(found: Array, expected: Array) -> float:
    """Largest difference of two copies, as a multiple of the root mean square of the second.

    Parameters
    ----------
    found, expected : arrays of one shape and dtype
        NaN equals NaN, and an infinity itself.

    Returns
    -------
    float
        0 for equal copies; infinite if labels differ, one of the copies alone is not finite
        somewhere, or the second is zero.
    """
    differ = found != expected
    if found.dtype.kind in "fc":
        differ &= ~(np.isnan(found) & np.isnan(expected))
    if not differ.any():
        return 0.0
    if found.dtype.kind not in "fc":
        return math.inf
    wide = np.promote_types(found.dtype, np.float64)
    size = np.abs(expected[np.isfinite(expected)]).astype(np.float64)
    peak = size.max(initial=0.0)
    if not peak:
        return math.inf
    with np.errstate(all="ignore"):
        gap = np.abs(np.subtract(found, expected, dtype=wide)[differ]).max()
        # Divided by the peak first: squares of large numbers would overflow, and a copy of infinite
        # size would agree with all others.
        ratio = float(gap / (peak * np.sqrt(np.mean(np.square(size / peak)))))
    return math.inf if math.isnan(ratio) else ratio
