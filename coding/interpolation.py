"""Berrut's rational interpolant, as a matrix, and its nodes.

Through the values X_j at the nodes x_j, in node order, it is (Berrut, "Rational functions for
guaranteed and experimentally well-conditioned global interpolation", 1988; Berrut & Trefethen,
"Barycentric Lagrange Interpolation", SIAM Review 46(3), 2004; ApproxIFER, arXiv 2109.09868)::

    u(z) = sum_j X_j l_j(z),    l_j(z) = [(-1)^j / (z - x_j)] / sum_i [(-1)^i / (z - x_i)]

It has no pole on the line and reproduces constants.
"""

from functools import lru_cache

import numpy as np

from approxifer.coding.code import Reals

#: Nodes within [-1, 1] nearer than this are one node: they coincide in exact arithmetic, and their
#: cosines were rounded differently. Nodes that differ lie many orders of magnitude further apart.
COINCIDENT = 16 * float(np.finfo(np.float64).eps)


def chebyshev_first(count: int) -> Reals:
    """Chebyshev points of the first kind, cos((2j+1) pi / 2 count), j = 0 .. count-1.

    Berrut & Trefethen, "Barycentric Lagrange Interpolation", SIAM Review 46(3), 2004.
    """
    return np.cos((2 * np.arange(count) + 1) * np.pi / (2 * count))


def berrut_nodes(k: int, n: int) -> tuple[Reals, Reals]:
    """Compute the nodes of ApproxIFER (Soleymani et al., AAAI 2022, arXiv 2109.09868).

    The shares are at b_i = cos(i pi / n), i = 0 .. n-1, as in the authors' scripts: the published
    accuracies are reproduced with it. (The points of the second kind proper, cos(i pi / (n-1)), at
    n = k + 1 interleave exactly with the queries, and the accuracy is far worse.)

    Returns
    -------
    queries : array (k,), descending
    shares : array (n,), descending
        Share i coincides with query j, up to rounding, where i = (2j+1)n/2k.
    """
    return chebyshev_first(k), np.cos(np.arange(n) * np.pi / n)


def systematic_nodes(k: int, n: int) -> tuple[Reals, Reals]:
    """Nodes of the systematic code: K of the N shares are the queries themselves.

    N points of the first kind; N - K of them, evenly spread in the inside, go to the parity shares,
    the others, in order, to the queries.

    Returns
    -------
    queries : array (k,), descending
    shares : array (n,)
        The k queries, then the n - k parity nodes, descending.
    """
    points = chebyshev_first(n)
    if k == 1:  # there is no inside; every share is the one query anyway
        return points[:1], points
    parity = np.rint(np.linspace(0, n - 1, n - k + 2)[1:-1]).astype(np.intp)
    queries = np.delete(points, parity)
    return queries, np.concatenate([queries, points[parity]])


def berrut_matrix(at: Reals, nodes: Reals) -> Reals:
    """Evaluate Berrut's basis: entry (m, j) is l_j(at[m]).

    The signs alternate over the nodes that are given, in node order, whatever the order in which
    they are given. (With the signs of a larger set of nodes, of which some were lost, the
    interpolant would have poles on the line.)

    Parameters
    ----------
    at : array (m,)
    nodes : array (p,)
        Distinct, at least one, in any order.

    Returns
    -------
    array (m, p)
        Rows sum to 1. Where ``at[m]`` is a node the row is a unit vector, exactly.
    """
    signs = np.empty(len(nodes))
    signs[np.argsort(nodes)] = (-1.0) ** np.arange(len(nodes))
    distance = at[:, None] - nodes[None, :]
    hit = np.abs(distance) <= COINCIDENT
    terms = signs / np.where(hit, 1.0, distance)
    terms[hit.any(axis=1)] = hit[hit.any(axis=1)]
    weights: Reals = terms / terms.sum(axis=1, keepdims=True)
    return weights


@lru_cache(maxsize=1024)
def interpolation(at: tuple[float, ...], nodes: tuple[float, ...], used: frozenset[int]) -> Reals:
    """`berrut_matrix` over the nodes in `used` alone, in ascending index; read-only and cached.

    Returns
    -------
    array (len(at), len(used))
    """
    weights = berrut_matrix(np.array(at), np.array(nodes)[sorted(used)])
    weights.setflags(write=False)
    return weights


@lru_cache(maxsize=1024)
def leave_one_out(nodes: tuple[float, ...], used: frozenset[int]) -> Reals:
    """Interpolate each node in `used` from the others in `used`; read-only and cached.

    Returns
    -------
    array (len(used), len(used))
        In ascending index; zero on the diagonal.
    """
    chosen = np.array(nodes)[sorted(used)]
    weights = np.zeros((len(chosen), len(chosen)))
    for i in range(len(chosen)):
        others = np.arange(len(chosen)) != i
        weights[i, others] = berrut_matrix(chosen[i : i + 1], chosen[others])
    weights.setflags(write=False)
    return weights
