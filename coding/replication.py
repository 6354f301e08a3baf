"""Replication: S + 1 copies of every block."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from approxifer.coding.base import BaseCode, root_mean_square
from approxifer.coding.protocol import Array

if TYPE_CHECKING:
    from approxifer.coding.spec import CodeSpec


class ReplicationCode(BaseCode):
    """Share c*K + j is copy c of block j, for c = 0 .. S; one copy of each block is enough.

    N = K(S+1): what ApproxIFER (Soleymani et al., AAAI 2022, arXiv 2109.09868) is
    measured against. Copies of one block conflict. Any dtype; all is copied bit by bit.
    """

    def __init__(self, spec: "CodeSpec") -> None:
        k, copies = spec.k, spec.stragglers + 1
        conflicts = (frozenset(range(j, k * copies, k)) for j in range(k))
        super().__init__(
            spec,
            carries=tuple(range(k)) * copies,
            conflicts=tuple(conflicts) if copies > 1 else (),
        )

    def encode(self, blocks: Array) -> Array:
        """See `Code.encode`."""
        return np.concatenate([self._blocks(blocks)] * (self.n // self.k))

    def residual(self, outputs: Mapping[int, Array]) -> NDArray[np.float32]:
        """See `Code.residual`: the copies that decoding passed over against those it took."""
        received = self._received(outputs)
        found, expected = [], []
        for share, output in received.items():
            taken = self._carrier(share % self.k, received)
            if share != taken:
                found.append(output)
                expected.append(received[taken])
        shape = (len(found), *next(iter(received.values())).shape)
        return root_mean_square(np.reshape(found, shape), np.reshape(expected, shape))
