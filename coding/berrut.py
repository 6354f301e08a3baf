"""Codes whose shares are values of Berrut's interpolant: as published, and systematic."""

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from approxifer.coding.code import (
    Array,
    Code,
    Reals,
    combine,
    encode_sums,
    root_mean_square,
)
from approxifer.coding.interpolation import (
    berrut_matrix,
    berrut_nodes,
    interpolation,
    leave_one_out,
    systematic_nodes,
)
from approxifer.coding.published import suspects
from approxifer.coding.spec import CodeSpec, Scheme


class InterpolatingCode(Code):
    """Berrut's interpolant through the queries gives the shares; through outputs, the outputs.

    Encoding puts block j at the node a_j and lets share i be the interpolant u at its node b_i.
    Decoding puts the outputs that came back at their b_i and evaluates at the a_j: since the model
    f is smooth in patches, f(u(.)) is interpolated (ApproxIFER, Soleymani et al., AAAI 2022, arXiv
    2109.09868). Any N - S outputs are enough, and all are used that are given.
    Between unlike queries each more makes the interpolant better; along smooth ones an even number
    of nodes serves it better than the next odd one.

    Where b_i is a_j, share i *is* block j, and is copied bit by bit both ways. Two shares of one
    group on one worker would be lost together, so all shares conflict.

    Parameters
    ----------
    spec : CodeSpec
    queries : array (k,)
        The nodes a_j.
    shares : array (n,)
        The nodes b_i.
    """

    def __init__(self, spec: CodeSpec, queries: Reals, shares: Reals) -> None:
        weights = berrut_matrix(shares, queries)
        # A unit row is a share that carries a block: at a coincident node, and always at k = 1.
        carries = tuple(
            int(row.argmax()) if np.count_nonzero(row) == 1 else None for row in weights
        )
        super().__init__(
            spec,
            carries,
            conflicts=(frozenset(range(len(shares))),),
            wanted=spec.n - spec.stragglers,
            evictable=spec.byzantine,
        )
        self._queries = tuple(queries.tolist())
        self._shares = tuple(shares.tolist())
        mixed = [i for i, block in enumerate(carries) if block is None]
        self._mixed = slice(mixed[0], mixed[-1] + 1) if mixed else slice(0)
        self._weights = weights[self._mixed]

    @property
    def nodes(self) -> tuple[float, ...]:
        """The nodes of the n shares on the line: the b_i."""
        return self._shares

    @property
    def queries(self) -> tuple[float, ...]:
        """The nodes of the k blocks on the line: the a_j."""
        return self._queries

    def encode(self, blocks: Array) -> Array:
        blocks = self._mixable(blocks)
        shares = np.empty((self.n, *blocks.shape[1:]), blocks.dtype)
        # The few carriers that lie between mixtures are computed too, then overwritten.
        combine(self._weights, blocks, out=shares[self._mixed])
        for share, block in enumerate(self.carries):
            if block is not None:
                shares[share] = blocks[block]
        return shares

    def weights(self, present: Collection[int]) -> tuple[NDArray[np.intp], Reals]:
        shares = self._known(present)
        missing = np.flatnonzero(~self.exact(shares))
        at = tuple(self._queries[j] for j in missing)
        return missing, interpolation(at, self._shares, shares)

    def residual(self, outputs: Mapping[int, Array]) -> NDArray[np.float32]:
        """Compare shares with the interpolant through others.

        If every block is exact, decoding used one carrier of each, and the other shares are
        compared with the interpolant through those. Otherwise it used all shares, and if these are
        more than K, each is compared with the interpolant through the others.
        """
        received = self._received(outputs)
        present = frozenset(received)
        if self.exact(present).all():
            used = frozenset(self._carrier(j, received) for j in range(self.k))
            surplus = sorted(present - used)
            at = tuple(self._shares[i] for i in surplus)
            weights = interpolation(at, self._shares, used)
        elif len(present) > self.k:
            used = present
            surplus = sorted(present)
            weights = leave_one_out(self._shares, used)
        else:
            used, surplus, weights = present, [], np.empty((0, len(present)))
        samples = np.stack([received[i] for i in sorted(used)])
        samples = samples.astype(np.promote_types(samples.dtype, np.float32), copy=False)
        expected = combine(weights, samples)
        found = [received[i] for i in surplus]
        return root_mean_square(np.reshape(found, expected.shape), expected)

    def _supply(self, present: Collection[int]) -> int:
        return len(present)

    def _needs(self) -> str:
        return (
            f"scheme {self.spec.scheme!r} with k={self.k}, stragglers={self.spec.stragglers} and "
            f"byzantine={self.spec.byzantine} needs any {self._fewest} of its {self.n} shares"
        )


class SystematicCode(InterpolatingCode):
    """Berrut's interpolation with K shares that are the queries themselves, and S parity shares.

    Share j is block j for j < K; shares K .. K+S-1 are parity: the interpolant through the queries,
    evaluated between them (see `systematic_nodes`). A block whose data share came back is exact,
    whatever became of the others. With S = 0 there is no parity, and all K shares are needed.
    """

    def __init__(self, spec: CodeSpec) -> None:
        super().__init__(spec, *systematic_nodes(spec.k, spec.n))
        matrix = berrut_matrix(np.array(self.nodes), np.array(self.queries))
        mixed = (i for i, block in enumerate(self.carries) if block is None)
        self.mixtures = {share: tuple(matrix[share].tolist()) for share in mixed}

    def encode(self, blocks: Array) -> Array:
        return encode_sums(self, self._mixable(blocks))


class BerrutCode(InterpolatingCode):
    """Queries on Chebyshev points of the first kind, shares on points of the second kind.

    N = K + S shares; 2(K+E) + S if E of them may be wrong.

    Soleymani et al., "ApproxIFER: A Model-Agnostic Approach to Resilient and Robust Prediction
    Serving Systems", AAAI 2022, arXiv 2109.09868. Shares that happen to coincide with a query (all
    do at k = 1; see `berrut_nodes`) carry it unchanged.
    """

    def __init__(self, spec: CodeSpec) -> None:
        super().__init__(spec, *berrut_nodes(spec.k, spec.n))

    def suspects(self, outputs: Mapping[int, Array]) -> frozenset[int]:
        """Name at most E shares, by the paper's locator; see `approxifer.coding.published`."""
        return suspects(self._received(outputs), self.nodes, self.k, self.spec.byzantine)


def _shares_of_berrut(spec: CodeSpec) -> int:
    if spec.byzantine:
        return 2 * (spec.k + spec.byzantine) + spec.stragglers
    return spec.k + spec.stragglers


BERRUT = Scheme("berrut", shares=_shares_of_berrut, build=BerrutCode, interpolates=True, votes=True)
SYSTEMATIC = Scheme(
    "systematic",
    shares=lambda spec: spec.k + spec.stragglers + 2 * spec.byzantine,
    build=SystematicCode,
    interpolates=True,
)
