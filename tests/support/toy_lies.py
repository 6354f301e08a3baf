"""A worker that is honest for a while."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from approxifer.pipeline.liar import Array, Liar, Lie


@dataclass(frozen=True)
class Later(Lie):
    """Every output is one too large, from the ``after``-th share on."""

    after: int = 6

    def arm(self, rng: np.random.Generator) -> Liar:
        """A worker that counts its shares."""
        return _Counting(self, rng)


class _Counting(Liar):
    def __init__(self, lie: Later, rng: np.random.Generator) -> None:
        super().__init__(lie, rng)
        self._left = lie.after

    def lie(self, output: Array) -> Array:
        self._left -= 1
        return output if self._left >= 0 else output + 1
