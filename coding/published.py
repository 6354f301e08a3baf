"""ApproxIFER's error locator, with a test added by which no share may be wrong.

Soleymani et al., AAAI 2022, arXiv 2109.09868: error-locating polynomials vote for the E shares of a
codeword to be left out, also where none is wrong. `suspects` has the whole group vote, since one
worker ran all rows of a share, and leaves out those of the voted that the others confirm.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from approxifer.coding.code import Array, Reals, as_reals
from approxifer.coding.interpolation import COINCIDENT, berrut_matrix
from approxifer.errors import ConfigError

#: A share left out is a suspect if it misses its interpolation from the others by more than
#: `margin` times what any of the others misses its own by: `MARGIN` for many rows, `FEW_ROWS` more
#: for a single one.
MARGIN = 1.25
FEW_ROWS = 0.5

#: Residuals below this fraction of the outputs' root mean square are rounding errors.
ROUNDING = 1e-6

#: Outputs of a group that vote, at most, since each takes a singular value decomposition.
VOTERS = 1024

#: Outputs of a share converted to double precision at a time.
CHUNK = 1 << 16

#: Numbers above this are as good as infinite: squares and products of them would be.
LARGEST = 1e100


def suspects(
    outputs: Mapping[int, Array], nodes: Sequence[float], k: int, byzantine: int
) -> frozenset[int]:
    """Name the shares of a group that look wrong: none, or up to E.

    Shares that are not finite are the first. Of the others, the rows and outputs of the group vote
    (`published_votes`; `VOTERS` of them, drawn with a fixed seed), and the E most voted for are
    left out. Each share that remains is predicted by Berrut's interpolant through the others, and
    so are those left out: by as many nodes, for an even number can do far better than the next
    odd one. A share left out is a suspect if it is further off all these interpolants than `margin`
    times the furthest of those that remain is off its own (root mean squares over rows and outputs,
    each divided by what the weights would make of white noise). A wrong share that was not voted
    for is among those that remain, and the furthest of them: then there is no suspect.

    The votes cannot name a share at node 0 (there is one where N is even): if fewer
    than E are suspects, all is done again with that share left out too.

    Parameters
    ----------
    outputs : mapping of share to array (B, *out)
        What came back, all of one shape and dtype. Nothing is compared but floating point and
        complex numbers.
    nodes : N numbers
        Where all shares lie: the b_i.
    k, byzantine : int
        K and E.
    """
    shares = sorted(outputs)
    outputs = {share: as_reals(outputs[share]) for share in shares}
    if not byzantine or outputs[shares[0]].dtype.kind != "f" or not outputs[shares[0]].size:
        return frozenset()
    broken = [share for share in shares if not _finite(outputs[share])]
    named = broken[:byzantine]
    whole = [share for share in shares if share not in broken]
    errors = byzantine - len(named)
    # It takes two others to predict each other.
    if not errors or len(whole) < errors + 2:
        return frozenset(named)
    samples = {share: np.ravel(outputs[share]) for share in whole}
    voted = _voted(samples, nodes, k, errors)
    limit = margin(len(outputs[shares[0]]))
    odd = _odd(samples, nodes, voted, limit)
    blind = {share for share in whole if abs(nodes[share]) <= COINCIDENT} - voted
    if len(odd) < errors and blind and len(whole) >= errors + 3:
        odd = max(odd, _odd(samples, nodes, voted | blind, limit)[:errors], key=len)
    return frozenset(named + odd)


def margin(rows: int) -> float:
    """Return how many times further than all others a share of so many rows has to be."""
    return MARGIN + FEW_ROWS / math.sqrt(max(rows, 1))


def _finite(output: Array) -> bool:
    with np.errstate(all="ignore"):
        return float(np.abs(output).max()) <= LARGEST


def _voted(
    samples: Mapping[int, Array], nodes: Sequence[float], k: int, errors: int
) -> frozenset[int]:
    """Name as many shares as there may be errors: those with most votes of the group."""
    shares, at = list(samples), [nodes[share] for share in samples]
    size = len(samples[shares[0]])
    voters = np.arange(size)
    if size > VOTERS:
        voters = np.random.default_rng(0).choice(size, VOTERS, replace=False)
    picked = np.stack([samples[share][voters] for share in shares])
    votes = published_votes(picked[:, None], at, k, errors)[0]
    most = np.argsort(-votes, kind="stable")[:errors]
    return frozenset(shares[place] for place in most)


def _odd(
    samples: Mapping[int, Array], nodes: Sequence[float], left_out: frozenset[int], limit: float
) -> list[int]:
    """List those left out that the others do not confirm, the furthest first."""
    judged, rest = sorted(left_out), sorted(samples.keys() - left_out)
    contrasts = _contrasts(*(np.array([nodes[share] for share in some]) for some in (judged, rest)))
    squares = np.zeros(contrasts.shape[:2])
    size = np.zeros(len(rest))
    values = [samples[share] for share in (*judged, *rest)]
    for start in range(0, len(values[0]), CHUNK):
        part = np.stack([value[start : start + CHUNK] for value in values]).astype(np.float64)
        squares += np.square(contrasts @ part).sum(axis=2)
        size += np.square(part[len(judged) :]).sum(axis=1)
    misses = np.sqrt(squares)
    usual = max(misses[:, -1].max(), ROUNDING * np.sqrt(np.median(size)))
    missed = misses[:, :-1].min(axis=0)
    order = np.argsort(-missed, kind="stable")
    return [judged[i] for i in order if missed[i] > limit * usual]


def _contrasts(judged: Reals, rest: Reals) -> Reals:
    """Subtract interpolations from values, in such measure that white noise would keep its size.

    Weights (r, j + 1, j + r) of the values at all the nodes, ``judged`` (j,) and ``rest`` (r,).
    Entry i is about the interpolant through all of the rest but i: what the j values, and that at
    node i, are off it.
    """
    at = np.concatenate([judged, rest])
    found = np.zeros((len(rest), len(judged) + 1, len(at)))
    for i in range(len(rest)):
        predicted = np.append(np.arange(len(judged)), len(judged) + i)
        others = np.delete(np.arange(len(judged), len(at)), i)
        found[i, np.arange(len(predicted)), predicted] = 1
        found[i][:, others] = -berrut_matrix(at[predicted], at[others])
    found /= np.linalg.norm(found, axis=2, keepdims=True)
    return found


def published_votes(
    outputs: Array, nodes: Sequence[float], k: int, byzantine: int
) -> NDArray[np.int64]:
    """Count, per codeword, in how many outputs each share looks wrong, as ApproxIFER does.

    For each output coordinate, two polynomials P and Q of degree below K + E with Q(0) = 1 are
    fitted, by least squares, to P(b_i) = y_i Q(b_i) over the shares that came back. Q locates
    errors: it vanishes where y_i does not lie on P / Q. The E shares with the smallest |Q(b_i)| get
    a vote. In monomials, and the solution of least norm, as published (arXiv 2109.09868, and the
    authors' scripts). Theory promises nothing for a share at node 0, where Q is always 1; there is
    one where N is even.

    Parameters
    ----------
    outputs : array (M, B, *out)
        Finite real numbers.
    nodes : M numbers
        Where those shares lie: the b_i.
    k, byzantine : int
        K and E.

    Returns
    -------
    int array (B, M)
    """
    at = np.asarray(nodes, np.float64)
    if at.shape != outputs.shape[:1]:
        raise ConfigError(f"{len(outputs)} shares' outputs need as many nodes, not {len(at)}")
    values = outputs.reshape(*outputs.shape[:2], -1).transpose(1, 2, 0).astype(np.float64)
    if not np.isfinite(values).all():
        raise ConfigError(
            "some outputs are not finite; leave those shares out, their fault is known"
        )
    terms = k + byzantine
    powers = np.vander(at, terms, increasing=True)
    y = values[..., None]
    of_p = np.broadcast_to(powers, (*values.shape, terms))
    system = np.concatenate([of_p, -y * powers[:, 1:]], axis=-1)
    solution = np.linalg.pinv(system) @ y
    q = 1 + (powers[:, 1:] @ solution[..., terms:, :])[..., 0]
    smallest = np.argsort(np.abs(q), axis=-1, kind="stable")[..., :byzantine]
    votes: NDArray[np.int64] = (smallest[..., None] == np.arange(len(at))).sum(axis=(1, 2))
    return votes
