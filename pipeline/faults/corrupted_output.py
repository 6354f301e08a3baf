"""How a Byzantine worker lies: about which shares, which rows, and by what seed. Pure.

A lie changes the output of a whole share; nothing here knows of Dask, so that a simulation tells
the same lies on recorded outputs as `approxifer.pipeline.faults.injection` has real workers tell::

    liar = Noise(sigma=10.0, shares=0.05).arm(np.random.default_rng(seed))
    returned = liar.lie(output)  # (B, *out) in, (B, *out) out

What a liar makes of an output follows from its seed and that output alone: not from what came
before, nor from how often it is asked (`Replay`, which has a memory, is the exception).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np

from approxifer.errors import ConfigError

Array = np.ndarray[Any, Any]
#: Honest output (B, *out), chosen rows (n,), generator -> what is said for those rows (n, *out).
Tell = Callable[[Array, Array, np.random.Generator], Array]


@dataclass(frozen=True, kw_only=True)
class Lie:
    """What all lies have in common; see `approxifer.pipeline.faults.corruption` for them.

    Attributes
    ----------
    shares : float
        The fraction of shares that are lied about, each drawn on its own.
    rows : float
        The fraction of rows that are wrong in such a share: rounded, at least one, drawn for each
        share.
    """

    shares: float = 1.0
    rows: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is no fraction."""
        check_shares(self.shares)
        if not 0 < self.rows <= 1:
            raise ConfigError(f"rows={self.rows!r}: give a fraction above 0 and up to 1.")

    def arm(self, rng: np.random.Generator) -> Liar:
        """A worker that tells this lie; one number is drawn, as its seed."""
        return Liar(self, rng)

    def tell(self, output: Array, chosen: Array, rng: np.random.Generator) -> Array:
        """Make up rows, without a change to `output`.

        Parameters
        ----------
        output : (B, *out)
            The honest output of the share.
        chosen : (n,) int
            The rows that are lied about, in ascending order.
        rng : numpy.random.Generator
            For this share.

        Returns
        -------
        ndarray (n, *out)
        """
        raise NotImplementedError


class Liar:
    """One worker that lies. Made by `Lie.arm`; any number of threads may ask it."""

    def __init__(self, lie: Lie, rng: np.random.Generator) -> None:
        self._lie = lie
        self._seed = int(rng.integers(2**63))

    def lie(self, output: Array) -> Array:
        """What it returns for a share.

        Parameters
        ----------
        output : (B, *out)
            The honest output; not modified, but returned as it is where nothing is changed.

        Raises
        ------
        ConfigError
            A lie that makes no sense for such outputs.
        """
        return self.spread(output, self._lie.tell)

    def spread(self, output: Array, tell: Tell) -> Array:
        """Lie in the asked fraction of shares and rows, by `tell`."""
        rng = np.random.default_rng([self._seed, crc32(output.tobytes())])
        if rng.random() >= self._lie.shares:
            return output
        total = len(output)
        if self._lie.rows == 1:
            return tell(output, np.arange(total), rng)
        count = max(1, round(self._lie.rows * total))
        chosen = np.sort(rng.permutation(total)[:count])
        said = output.copy()
        said[chosen] = tell(output, chosen, rng)
        return said


def check_shares(shares: float) -> None:
    """Refuse a fraction of shares that is none (`ConfigError`)."""
    if not 0 <= shares <= 1:
        raise ConfigError(f"shares={shares!r}: give a fraction from 0 to 1.")


def check_count(name: str, value: int) -> None:
    """Refuse a count that is none (`ConfigError`)."""
    if not (isinstance(value, int) and value >= 1):
        raise ConfigError(f"{name}={value!r}: give a whole number from 1 up.")
