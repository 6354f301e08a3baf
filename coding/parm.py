"""Parity models: K shares that are the queries themselves, S parity shares for trained models.

Kosaian, Rashmi and Venkataraman, "Parity Models: Erasure-Coded Resilience for Prediction Serving
Systems", SOSP 2019. Parity query r is P_r = sum_j c[r, j] X_j, and parity model r is trained to
return F_r(P_r) = sum_j c[r, j] f(X_j); lost outputs follow by subtraction.
"""

from collections.abc import Collection, Mapping
from functools import lru_cache

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
from approxifer.coding.spec import ENCODERS, CodeSpec, Scheme
from approxifer.errors import ConfigError

#: By the number of images that can be tiled into one: rows and columns of the tiling.
TILES = {2: (2, 1), 4: (2, 2)}
#: Channels that an image may have.
CHANNELS = (1, 3, 4)


@lru_cache(maxsize=256)
def coefficients(k: int, parities: int) -> Reals:
    """The c[r, j] of the parity queries, read-only.

    Row 0 is all ones, the published code. Row r holds x_j^r, for K points x_j from 1/2 to 2: where
    all points are positive, every square part of such a matrix can be inverted (a generalised
    Vandermonde matrix), so that whichever blocks and parities are lost, as many parities as lost
    blocks are enough. Points a constant ratio apart keep low what inversion multiplies errors by.

    Returns
    -------
    array (parities, k)
    """
    found: Reals = np.geomspace(0.5, 2.0, k) ** np.arange(parities)[:, None]
    found.setflags(write=False)
    return found


@lru_cache(maxsize=1024)
def recovery(k: int, parities: int, present: frozenset[int]) -> Reals:
    """Weights of the outputs that came back, ascending, for each lost block: (lost, present).

    Least squares where more parities came back than blocks are lost.
    """
    shares = sorted(present)
    known = [share for share in shares if share < k]
    lost = [block for block in range(k) if block not in present]
    rows = [share - k for share in shares if share >= k]
    c = coefficients(k, parities)[rows]
    solve = np.linalg.pinv(c[:, lost])
    weights = np.empty((len(lost), len(shares)))
    weights[:, : len(known)] = -solve @ c[:, known]
    weights[:, len(known) :] = solve
    weights.setflags(write=False)
    return weights


class ParmCode(Code):
    """Share j is block j for j < K; share K+r is parity query r, run by parity model r.

    Any K outputs are enough. All shares conflict: two on one worker would be lost together.
    ``spec.encoder`` is how the parity query is made: by ``"addition"``, of anything; or, of
    images, by ``"concatenation"``: K = 2 or 4 of them, shrunk and tiled into one.
    """

    def __init__(self, spec: CodeSpec) -> None:
        k, parities = spec.k, spec.n - spec.k
        super().__init__(
            spec,
            carries=(*range(k), *[None] * parities),
            conflicts=(frozenset(range(spec.n)),),
            wanted=k,
        )
        self.models = (*[0] * k, *range(1, parities + 1))
        self._parities = parities
        if spec.encoder == "addition":
            sums = enumerate(coefficients(k, parities).tolist(), start=k)
            self.mixtures = {share: tuple(weights) for share, weights in sums}

    def encode(self, blocks: Array) -> Array:
        blocks = self._mixable(blocks)
        if self.mixtures is not None:
            return encode_sums(self, blocks)
        return np.concatenate([blocks, tile(blocks)[None]])

    def weights(self, present: Collection[int]) -> tuple[NDArray[np.intp], Reals]:
        shares = self._known(present)
        missing = np.flatnonzero(~self.exact(shares))
        return missing, recovery(self.k, self._parities, shares)

    def residual(self, outputs: Mapping[int, Array]) -> NDArray[np.float32]:
        """Compare parity outputs with the sums that they stand for.

        Where blocks were lost, the sums of the decoded ones: then there is something to compare
        only if more parities came back than blocks are lost.
        """
        received = self._received(outputs)
        decoded = self.decode(received).blocks
        decoded = decoded.astype(np.promote_types(decoded.dtype, np.float32), copy=False)
        rows = [share - self.k for share in received if share >= self.k]
        if len(received) == self.k:  # no more than it took to decode
            rows = []
        expected = combine(coefficients(self.k, self._parities)[rows], decoded)
        found = [received[self.k + row] for row in rows]
        return root_mean_square(np.reshape(found, expected.shape), expected)

    def _supply(self, present: Collection[int]) -> int:
        return len(present)

    def _needs(self) -> str:
        return f"scheme 'parm' with k={self.k} needs any {self.k} of its {self.n} shares"


def _check(spec: CodeSpec) -> None:
    if spec.encoder != "addition" and (spec.k not in TILES or spec.stragglers != 1):
        raise ConfigError(
            f"encoder={spec.encoder!r} tiles {' or '.join(map(str, TILES))} images into one"
            f" parity query: k={spec.k} and stragglers={spec.stragglers} are none of that; "
            "take stragglers=1 and such a k, or encoder='addition'"
        )
    if spec.byzantine:
        raise ConfigError(
            f"byzantine={spec.byzantine}: parity models approximate, and cannot show which share "
            "is wrong; take scheme 'systematic', or byzantine=0"
        )


PARM = Scheme(
    "parm",
    shares=lambda spec: spec.k + spec.stragglers,
    build=ParmCode,
    check=_check,
    encoders=ENCODERS,
    trained=True,
)


def tile(blocks: Array) -> Array:
    """Shrink K images by averaging, and tile them into one of the same shape.

    Parameters
    ----------
    blocks : array (k, B, *image)
        K = 2: one above the other; K = 4: two by two. Images (height, width), with channels last
        or first.

    Returns
    -------
    array (B, *image)

    Raises
    ------
    ConfigError
        No such tiling, or no such images.
    """
    k, count, *shape = blocks.shape
    down, across = TILES[k]
    if len(shape) == 3 and shape[2] in CHANNELS:
        height, width = shape[0], shape[1]
    elif len(shape) == 3 and shape[0] in CHANNELS:
        return np.moveaxis(tile(np.moveaxis(blocks, 2, 4)), 3, 1)
    elif len(shape) == 2:
        height, width = shape
    else:
        height = width = 1
    if height % down or width % across:
        raise ConfigError(
            f"queries of shape {tuple(shape)}: encoder='concatenation' with k={k} takes images "
            f"(height, width[, channels]) with a height that is a multiple of {down} and a width "
            f"that is one of {across}; take encoder='addition'"
        )
    parts = blocks.reshape(
        down, across, count, height // down, down, width // across, across, *shape[2:]
    )
    small = parts.mean(axis=(4, 6), dtype=np.float64 if blocks.dtype == np.float64 else np.float32)
    rows = np.moveaxis(small, 2, 0)  # (B, down, across, height/down, width/across, ...)
    tiled: Array = np.moveaxis(rows, 2, 3).reshape(count, *shape).astype(blocks.dtype, copy=False)
    return tiled
