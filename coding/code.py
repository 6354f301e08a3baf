"""What every code can do, and what it hands back."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from approxifer.coding.spec import CodeSpec

Array: TypeAlias = NDArray[Any]
"""An array of any dtype."""

Reals: TypeAlias = NDArray[np.float64]
"""Nodes and weights: always double precision."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """The outputs of the K blocks of a group.

    Attributes
    ----------
    blocks : array (k, B, *out)
        Row b of block j is the output of query j of codeword b. A new array, of the outputs' dtype.
    exact : bool array (k,)
        Whether the model ran on that very block: its rows then are, bit by bit, what a share
        returned. The others are interpolated.
    """

    blocks: Array
    exact: NDArray[np.bool_]


class Code(Protocol):
    """K blocks of queries become N shares; enough outputs of shares become K blocks of outputs.

    A *block* is an array (B, *feature); row b of the K blocks of a group is one codeword. A *share*
    has a block's shape and is given to one worker. It either carries a block unchanged or is a
    mixture of all K.

    Codes are immutable, picklable, and may be used by many threads at once. Nothing that is passed
    in is ever modified, and nothing that is handed back shares its memory.
    """

    @property
    def spec(self) -> "CodeSpec":
        """What this code was built from."""

    @property
    def k(self) -> int:
        """Blocks of a group, that is queries of a codeword: K."""

    @property
    def n(self) -> int:
        """Shares of a group: N."""

    @property
    def carries(self) -> tuple[int | None, ...]:
        """For each of the n shares the block that it carries unchanged; None for a mixture."""

    @property
    def models(self) -> tuple[int, ...]:
        """For each of the n shares the model that runs it: 0 is the user's, r + 1 is parity model
        r, which only ``"parm"`` has."""

    @property
    def conflicts(self) -> tuple[frozenset[int], ...]:
        """Sets of shares that must not share a worker: it would take down too much at once."""

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

    def decodable(self, present: Collection[int]) -> bool:
        """Whether the outputs of the shares `present` are enough for an output of every block.

        Enough, that is, when up to E of them may be wrong and are to be left out.
        """

    def exact(self, present: Collection[int]) -> NDArray[np.bool_]:
        """Which of the k blocks would be exact with the outputs of the shares `present`."""

    def weights(self, present: Collection[int]) -> tuple[NDArray[np.intp], Reals]:
        """Say what decoding mixes.

        Parameters
        ----------
        present : shares that came back

        Returns
        -------
        missing : int array (m,)
            The blocks that are not exact, ascending.
        weights : array (m, len(present))
            How they follow from the outputs of the shares present, in ascending order.
        """

    def decode(self, outputs: Mapping[int, Array]) -> Decoded:
        """Recover the outputs of all k blocks.

        Parameters
        ----------
        outputs : mapping of share to array (B, *out)
            What came back, all of one shape and dtype. With E > 0 leave out the `suspects`: up to E
            shares (of each block, where shares are copies) fewer will do than `decodable` asks
            for. Whatever is given is used; of several copies of a block, the first of those on
            which most agree.

        Raises
        ------
        DecodeError
            If these are too few, or of different shapes or dtypes.
        ConfigError
            If a share does not exist, or integers would have to be interpolated.
        """

    def suspects(self, outputs: Mapping[int, Array]) -> frozenset[int]:
        """Name the shares to be left out, by the scheme's own way to live with E > 0.

        A suspicion, never a proof: honest shares are named too, if seldom, and lies are missed.

        Parameters
        ----------
        outputs : mapping of share to array (B, *out)
            What came back, all of one shape and dtype; at least one.

        Returns
        -------
        frozenset of int
            None if E = 0. At most E where every output is decoded; at most E of each block where
            shares are copies, but all of a block of which no E + 1 agree. Codes that have no such
            way, ``"uncoded"``, ``"parm"`` and ``"systematic"``, name none.

        Raises
        ------
        DecodeError
            If no share came back, or they are of different shapes or dtypes.
        """

    def residual(self, outputs: Mapping[int, Array]) -> NDArray[np.float32]:
        """How far the shares that were not needed are from what the others foretell.

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
