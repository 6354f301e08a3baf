"""What the codes have in common: checks, and blocks that a share carries unchanged."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from operator import index
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from approxifer.coding.code import Array, Decoded, Reals
from approxifer.errors import ConfigError, DecodeError

if TYPE_CHECKING:
    from approxifer.coding.spec import CodeSpec


class BaseCode(ABC):
    """A code whose shares each carry a block unchanged or, in subclasses that say how, mix them.

    Parameters
    ----------
    spec : CodeSpec
    carries : one entry per share
        The block that it carries, or None for a mixture.
    conflicts : sets of shares
    wanted : int
        What `_supply` has to reach for an output while up to `evictable` shares may be wrong.
    evictable : int
        By how much less will do once the wrong ones are left out.
    """

    def __init__(
        self,
        spec: "CodeSpec",
        carries: tuple[int | None, ...],
        conflicts: tuple[frozenset[int], ...],
        *,
        wanted: int = 1,
        evictable: int = 0,
    ) -> None:
        self.spec = spec
        self.k = spec.k
        self.n = len(carries)
        self.carries = carries
        self.conflicts = conflicts
        self.models: tuple[int, ...] = (0,) * self.n
        self._carriers = tuple(
            tuple(share for share, block in enumerate(carries) if block == j) for j in range(self.k)
        )
        self._wanted = wanted
        self._fewest = wanted - evictable

    def __repr__(self) -> str:
        return f"<{type(self).__name__} k={self.k} n={self.n} of {self.spec}>"

    @abstractmethod
    def encode(self, blocks: Array) -> Array:
        """See `Code.encode`."""

    @abstractmethod
    def residual(self, outputs: Mapping[int, Array]) -> NDArray[np.float32]:
        """See `Code.residual`."""

    def suspects(self, outputs: Mapping[int, Array]) -> frozenset[int]:
        """See `Code.suspects`: none."""
        self._received(outputs)
        return frozenset()

    def decodable(self, present: Collection[int]) -> bool:
        """See `Code.decodable`."""
        return self._supply(self._known(present)) >= self._wanted

    def exact(self, present: Collection[int]) -> NDArray[np.bool_]:
        """See `Code.exact`."""
        shares = self._known(present)
        return np.array([not shares.isdisjoint(carriers) for carriers in self._carriers])

    def weights(self, present: Collection[int]) -> tuple[NDArray[np.intp], Reals]:
        """See `Code.weights`; nothing is mixed."""
        missing = np.flatnonzero(~self.exact(present))
        return missing, np.zeros((len(missing), len(present)))

    def decode(self, outputs: Mapping[int, Array]) -> Decoded:
        """See `Code.decode`."""
        return self._copied(self._received(outputs))

    def _supply(self, present: Collection[int]) -> int:
        """Count what came back: the copies of the block that has fewest."""
        return min(sum(share in present for share in carriers) for carriers in self._carriers)

    def _known(self, present: Collection[int]) -> frozenset[int]:
        shares = frozenset(index(share) for share in present)
        if strange := sorted(share for share in shares if not 0 <= share < self.n):
            raise ConfigError(f"shares {strange} do not exist; this code has 0 to {self.n - 1}")
        return shares

    def _blocks(self, blocks: Array) -> Array:
        """Check what is to be encoded."""
        blocks = np.asarray(blocks)
        if blocks.ndim < 2 or blocks.shape[0] != self.k:
            raise ConfigError(
                f"blocks have shape {blocks.shape}; give ({self.k}, B, *feature): "
                f"{self.k} blocks of B queries"
            )
        return blocks

    def _received(self, outputs: Mapping[int, Array]) -> dict[int, Array]:
        """Check outputs, and sort them by share."""
        self._known(outputs)
        received = {index(share): np.asarray(outputs[share]) for share in sorted(outputs)}
        if not received:
            raise DecodeError(f"no share came back; {self._needs()}")
        first, model = next(iter(received.items()))
        for share, output in received.items():
            if output.ndim == 0 or (output.shape, output.dtype) != (model.shape, model.dtype):
                raise DecodeError(
                    f"share {share} returned {output.dtype} {output.shape}, share {first} "
                    f"{model.dtype} {model.shape}; all must be (B, *out) of one shape and dtype. "
                    "Leave out the shares that are wrong"
                )
        return received

    def _copied(self, received: dict[int, Array]) -> Decoded:
        """Copy the exact blocks, and leave room for the others.

        Raises
        ------
        DecodeError
            If the shares received are too few to fill that room.
        """
        if self._supply(received) < self._fewest:
            raise DecodeError(f"only shares {sorted(received)} came back; {self._needs()}")
        exact = self.exact(received)
        model = next(iter(received.values()))
        blocks = np.empty((self.k, *model.shape), model.dtype)
        for j in np.flatnonzero(exact):
            blocks[j] = received[self._carrier(int(j), received)]
        return Decoded(blocks, exact)

    def _carrier(self, block: int, received: Mapping[int, Array]) -> int:
        """Return the share which stands for an exact block: the first received that carries it."""
        return next(share for share in self._carriers[block] if share in received)

    def _needs(self) -> str:
        """Say in words what an output needs."""
        return (
            f"scheme {self.spec.scheme!r} with k={self.k} needs, for each of the {self.k} blocks, "
            f"{self._fewest if self._fewest > 1 else 'one'} of its shares {list(self._carriers)}"
        )


def root_mean_square(found: Array, expected: Array) -> NDArray[np.float32]:
    """Root mean square difference per codeword.

    Parameters
    ----------
    found, expected : arrays (m, B, *out)
        Any numbers, NaN and infinity included.

    Returns
    -------
    float32 array (B,)
        NaN if there is nothing to compare.
    """
    if not found.size:
        return np.full(found.shape[1], np.nan, np.float32)
    with np.errstate(all="ignore"):
        squares = np.square(found.astype(np.float64) - expected.astype(np.float64))
        mean = squares.reshape(*found.shape[:2], -1).mean(axis=(0, 2))
        result: NDArray[np.float32] = np.sqrt(mean).astype(np.float32)
    return result
