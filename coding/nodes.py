"""Where queries and shares lie on the line: the node grids."""

import numpy as np

from approxifer.coding.code import Reals


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
