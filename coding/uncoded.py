"""No code at all: the baseline."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from approxifer.coding.base import BaseCode
from approxifer.coding.code import Array

if TYPE_CHECKING:
    from approxifer.coding.spec import CodeSpec


class UncodedCode(BaseCode):
    """Share j is block j, and all K must come back, whatever ``spec.stragglers`` says.

    Any dtype; blocks and outputs are copied bit by bit.
    """

    def __init__(self, spec: "CodeSpec") -> None:
        super().__init__(spec, carries=tuple(range(spec.k)), conflicts=())

    def encode(self, blocks: Array) -> Array:
        """See `Code.encode`."""
        return self._blocks(blocks).copy()

    def residual(self, outputs: Mapping[int, Array]) -> NDArray[np.float32]:
        """See `Code.residual`: all NaN, for no share is ever surplus."""
        received = self._received(outputs)
        return np.full(len(next(iter(received.values()))), np.nan, np.float32)
