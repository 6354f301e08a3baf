"""The abstract base class of all codes, and what decoding returns."""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import index
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from approxifer.checks import array, told
from approxifer.errors import ConfigError, DecodeError

Array: TypeAlias = NDArray[Any]
"""An array of any dtype."""

Reals: TypeAlias = NDArray[np.float64]
"""Nodes and weights: always double precision."""


@dataclass(frozen=True)
class CodeParameters:
    """Name and sizes of a code, unchecked: the fields of `CodeSpec`, which documents them."""

    scheme: str
    k: int
    stragglers: int = 1
    byzantine: int = 0
    encoder: Literal["addition", "concatenation"] = field(default="addition", kw_only=True)


@dataclass(frozen=True, eq=False)
class Decoded:
    """The outputs of the K blocks of a group.

    Attributes
    ----------
    blocks : array (k, B, *out)
        Row b of block j is the output of query j of codeword b. A new array, of the outputs' dtype.
    exact : bool array (k,)
        True for a block on which the model itself ran: its rows then are, bit by bit, what a share
        returned. The others are interpolated.
    """

    blocks: Array
    exact: NDArray[np.bool_]


class Code(ABC):
    """K blocks of queries become N shares; enough outputs of shares become K blocks of outputs.

    A *block* is an array (B, *feature); row b of the K blocks of a group is one codeword. A *share*
    has a block's shape and is given to one worker. It either carries a block unchanged or is a
    mixture of all K; a subclass that mixes overrides `weights`.

    Codes are immutable, picklable, and may be used by many threads at once. Nothing that is passed
    in is ever modified, and nothing that is returned shares its memory.

    Parameters
    ----------
    spec : CodeSpec
    carries : one entry per share
        The block that it carries, or None for a mixture.
    conflicts : sets of shares
    wanted : int
        What `_supply` has to reach for an output while up to `evictable` shares may be wrong.
    evictable : int
        By how much less is enough once the wrong ones are left out.

    Attributes
    ----------
    spec : CodeSpec
        What this code was built from.
    k : int
        Blocks of a group, that is queries of a codeword: K.
    n : int
        Shares of a group: N.
    carries : n entries
        For each share the block that it carries unchanged; None for a mixture.
    models : n int
        For each share the model that runs it: 0 is the user's, r + 1 is parity model r, which only
        ``"parm"`` has.
    conflicts : sets of shares
        Shares that must not share a worker: it would take down too much at once.
    adaptive : bool
        Where the outputs of a group differ, further shares are to be asked for.
    """

    adaptive = False
    #: Weights (k,) of each share that is a weighted sum of the blocks, row by row; None: its
    #: mixtures are something else. What it holds can be made from the weights alone: see `mix`.
    mixtures: Mapping[int, tuple[float, ...]] | None = None

    def __init__(
        self,
        spec: CodeParameters,
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
        """Make the shares of a group.

        Parameters
        ----------
        blocks : array (k, B, *feature)
            Floating point where the code mixes queries, else anything.

        Returns
        -------
        array (n, B, *feature)
            Of the same dtype. Shares that carry a block are bitwise that block.

        Raises
        ------
        ConfigError
            If the shape is another, or integers would have to be mixed.
        """

    @abstractmethod
    def residual(self, outputs: Mapping[int, Array]) -> NDArray[np.float32]:
        """Measure how far the shares that were not needed are from what the others predict.

        Parameters
        ----------
        outputs : mapping of share to array (B, *out)
            What came back, all of one shape and dtype; at least one.

        Returns
        -------
        float32 array (B,)
            Per codeword the root mean square, over the surplus shares and the outputs, of the
            surplus share's output minus its interpolation from the shares that decoding used. NaN
            where no share is surplus (and where an output is NaN).
        """

    @property
    def describable(self) -> bool:
        """True if each share follows from queries and weights: it carries a block, or is a sum."""
        sums = self.mixtures or {}
        return all(block is not None or share in sums for share, block in enumerate(self.carries))

    def decodable(self, present: Collection[int]) -> bool:
        """Return True if the outputs of the shares `present` give an output of every block.

        Also when up to E of them may be wrong and are to be left out.
        """
        return self._supply(self._known(present)) >= self._wanted

    def exact(self, present: Collection[int]) -> NDArray[np.bool_]:
        """Mark the blocks, of k, that would be exact with the outputs of the shares `present`."""
        shares = self._known(present)
        return np.array([not shares.isdisjoint(carriers) for carriers in self._carriers])

    def weights(self, present: Collection[int]) -> tuple[NDArray[np.intp], Reals]:
        """Return what decoding mixes, as a matrix that may be read-only.

        Parameters
        ----------
        present : shares that came back

        Returns
        -------
        missing : int array (m,)
            The blocks that are not exact, ascending.
        weights : array (m, len(present))
            How they follow from the outputs of the shares present, in ascending order. Zero where
            nothing is mixed.
        """
        missing = np.flatnonzero(~self.exact(present))
        return missing, np.zeros((len(missing), len(present)))

    def decode(self, outputs: Mapping[int, Array]) -> Decoded:
        """Recover the outputs of all k blocks.

        Parameters
        ----------
        outputs : mapping of share to array (B, *out)
            What came back, all of one shape and dtype. With E > 0 leave out the `suspects`: up to E
            shares (of each block, where shares are copies) fewer are enough than for `decodable`.
            Whatever is given is used; of several copies of a block, the first of those on which
            most agree.

        Raises
        ------
        DecodeError
            If these are too few, or of different shapes or dtypes.
        ConfigError
            If a share does not exist, or integers would have to be interpolated.
        """
        received = self._received(outputs)
        decoded = self._copied(received)
        missing, weights = self.weights(received)
        if len(missing):
            samples = np.stack(list(received.values()))
            if samples.dtype.kind not in "fc":
                raise ConfigError(
                    f"outputs are {samples.dtype}, and those of blocks {missing.tolist()} must be "
                    "computed from others; let the model return real or complex numbers, or take "
                    "scheme 'uncoded' or 'replication'"
                )
            decoded.blocks[missing] = combine(weights, samples)
        return decoded

    def suspects(self, outputs: Mapping[int, Array]) -> frozenset[int]:
        """Name the shares to be left out, by the scheme's own way to handle E > 0.

        A suspicion, never a proof: correct shares are named too, if seldom, and wrong ones missed.

        Parameters
        ----------
        outputs : mapping of share to array (B, *out)
            What came back, all of one shape and dtype; at least one.

        Returns
        -------
        frozenset of int
            Empty if E = 0. At most E where every output is decoded; at most E of each block where
            shares are copies, but all of a block of which no E + 1 agree. Codes that have no such
            way, ``"uncoded"``, ``"parm"`` and ``"systematic"``, name none.

        Raises
        ------
        DecodeError
            If no share came back, or they are of different shapes or dtypes.
        """
        self._received(outputs)
        return frozenset()

    def _supply(self, present: Collection[int]) -> int:
        """Count what came back: the copies of the block that has fewest."""
        return min(sum(share in present for share in carriers) for carriers in self._carriers)

    def _known(self, present: Collection[int]) -> frozenset[int]:
        try:
            shares = frozenset(map(index, present))
        except TypeError as error:
            raise ConfigError(f"shares {told(present)}: give their numbers, from 0 on") from error
        if strange := sorted(share for share in shares if not 0 <= share < self.n):
            raise ConfigError(f"shares {strange} do not exist; this code has 0 to {self.n - 1}")
        return shares

    def _blocks(self, blocks: Array) -> Array:
        """Check what is to be encoded."""
        blocks = array("blocks", blocks, single=True, numbers=False)
        if blocks.ndim < 2 or blocks.shape[0] != self.k:
            raise ConfigError(
                f"blocks have shape {blocks.shape}; give ({self.k}, B, *feature): "
                f"{self.k} blocks of B queries"
            )
        return blocks

    def _mixable(self, blocks: Array) -> Array:
        """Check what is to be encoded by mixing."""
        blocks = self._blocks(blocks)
        if blocks.dtype.kind != "f":
            raise ConfigError(
                f"blocks are {blocks.dtype}; scheme {self.spec.scheme!r} mixes queries, so give "
                "floating point: blocks.astype(np.float32)"
            )
        return blocks

    def _received(self, outputs: Mapping[int, Array]) -> dict[int, Array]:
        """Check outputs, and sort them by share."""
        if not isinstance(outputs, Mapping):
            raise ConfigError(f"outputs={told(outputs)}: give a mapping of shares to arrays")
        self._known(outputs)
        received = {
            index(share): array("outputs", outputs[share], single=True, numbers=False)
            for share in sorted(outputs)
        }
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
        """Describe in words what an output needs."""
        return (
            f"scheme {self.spec.scheme!r} with k={self.k} needs, for each of the {self.k} blocks, "
            f"{self._fewest if self._fewest > 1 else 'one'} of its shares {list(self._carriers)}"
        )


def as_reals(values: Array) -> Array:
    """Return complex numbers as pairs along a further dimension, others as they are."""
    if values.dtype.kind != "c":
        return values
    return np.stack([values.real, values.imag], axis=-1)


def combine(weights: Reals, samples: Array, out: Array | None = None) -> Array:
    """Mix arrays: result m is sum_j weights[m, j] * samples[j].

    One matrix product over the flattened samples, in their own precision (float16 in float32). It
    takes any numbers without a warning: NaN and infinity reach the elements mixed from them.

    Parameters
    ----------
    weights : array (m, p)
    samples : floating-point or complex array (p, *shape)
    out : array (m, *shape), optional
        Contiguous; where to write.

    Returns
    -------
    array (m, *shape)
        `out`, or a new array of the samples' dtype.
    """
    precision = np.promote_types(samples.dtype, np.float32)
    if out is None:
        out = np.empty((len(weights), *samples.shape[1:]), samples.dtype)
    width = math.prod(samples.shape[1:])
    flat = samples.reshape(len(samples), width).astype(precision, copy=False)
    with np.errstate(all="ignore"):
        np.matmul(weights.astype(precision), flat, out=out.reshape(len(out), width))
    return out


def mix(weights: Sequence[float], blocks: Iterable[Array]) -> Array:
    """Mix blocks one after the other: sum_j weights[j] * blocks[j].

    Number by number and in this order: the bits of a row do not depend on which rows are mixed
    beside it, as they may in a matrix product.

    Parameters
    ----------
    weights
        One for each block.
    blocks : floating-point arrays (B, *feature)
        Two of them are in use at a time. Float16 is summed in float32.

    Returns
    -------
    array (B, *feature)
        Of the blocks' dtype.
    """
    total = np.empty(0)
    for j, (weight, block) in enumerate(zip(weights, blocks, strict=True)):
        precision = np.promote_types(block.dtype, np.float32).type
        with np.errstate(all="ignore"):
            term = np.multiply(block, precision(weight), dtype=precision)
            total = term if j == 0 else np.add(total, term, out=total)
    return total.astype(block.dtype, copy=False)


def encode_sums(code: Code, blocks: Array) -> Array:
    """Make the shares (n, B, *feature) of a code whose mixtures are all weighted sums."""
    assert code.mixtures is not None, "a code of sums"
    shares = np.empty((code.n, *blocks.shape[1:]), blocks.dtype)
    for share, block in enumerate(code.carries):
        shares[share] = blocks[block] if block is not None else mix(code.mixtures[share], blocks)
    return shares


def root_mean_square(found: Array, expected: Array) -> NDArray[np.float32]:
    """Root mean square difference per codeword, of complex numbers the modulus.

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
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    with np.errstate(all="ignore"):
        squares = np.square(np.abs(found.astype(wide) - expected.astype(wide)))
        mean = squares.reshape(*found.shape[:2], -1).mean(axis=(0, 2))
        result: NDArray[np.float32] = np.sqrt(mean).astype(np.float32)
    return result
