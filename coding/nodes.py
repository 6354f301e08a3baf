"""Where queries and shares lie on the line: the node grids."""

import numpy as np

from approxifer.coding.protocol import Reals


def chebyshev_first(count: int) -> Reals:
    """Chebyshev points of the first kind, cos((2j+1) pi / 2 count), j = 0 .. count-1.

    Berrut & Trefethen, "Barycentric Lagrange Interpolation", SIAM Review 46(3), 2004.
    """
    return np.cos((2 * np.arange(count) + 1) * np.pi / (2 * count))


def berrut_nodes(k: int, n: int, grid: str) -> tuple[Reals, Reals]:
    """Nodes of ApproxIFER as published: queries on the first kind, shares on the second.

    Soleymani et al., "ApproxIFER", AAAI 2022, arXiv 2109.09868. Two grids for the
    shares are in circulation:

    - ``"authors"``: b_i = cos(i pi / n), i = 0 .. n-1, as in the authors' scripts. The published
      accuracies are reproduced with it.
    - ``"textbook"``: b_i = cos(i pi / (n-1)), i = 0 .. n-1, the points of the second kind. At
      n = k + 1 they interleave exactly with the queries, and the accuracy is far worse. A single
      share lies at 1.

    Returns
    -------
    queries : array (k,), descending
    shares : array (n,), descending
        Some of them coincide with queries up to rounding where (2j+1)(n-1)/2k (textbook) or
        (2j+1)n/2k (authors) is a whole number below n.
    """
    intervals = n if grid == "authors" else max(n - 1, 1)
    return chebyshev_first(k), np.cos(np.arange(n) * np.pi / intervals)


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
