"""No code at all: the baseline."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from approxifer.coding.code import Array, Code
from approxifer.coding.spec import CodeSpec, Scheme


class UncodedCode(Code):
    """Share j is block j, and all K must come back, whatever ``spec.stragglers`` is.

    Any dtype; blocks and outputs are copied bit by bit.
    """

    def __init__(self, spec: CodeSpec) -> None:
        super().__init__(spec, carries=tuple(range(spec.k)), conflicts=())

    def encode(self, blocks: Array) -> Array:
        return self._blocks(blocks).copy()

    def residual(self, outputs: Mapping[int, Array]) -> NDArray[np.float32]:
        """Return NaN for every codeword, for no share is ever surplus."""
        received = self._received(outputs)
        return np.full(len(next(iter(received.values()))), np.nan, np.float32)


UNCODED = Scheme("uncoded", shares=lambda spec: spec.k, build=UncodedCode, mixes=False)
