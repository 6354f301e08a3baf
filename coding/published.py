"""ApproxIFER's own error locator: E shares of every codeword, also where none is wrong.

Soleymani et al., AAAI 2022, arXiv 2109.09868.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from approxifer.coding.protocol import Array
from approxifer.errors import ConfigError


def published_votes(
    outputs: Array, nodes: Sequence[float], k: int, byzantine: int
) -> NDArray[np.int64]:
    """Count, per codeword, in how many outputs each share looks wrong, as ApproxIFER does.

    For each output coordinate, two polynomials P and Q of degree below K + E with Q(0) = 1 are
    fitted, by least squares, to P(b_i) = y_i Q(b_i) over the shares that came back. Q locates
    errors: it vanishes where y_i does not lie on P / Q. The E shares with the smallest |Q(b_i)| get
    a vote. In monomials, and the solution of least norm, as published (arXiv 2109.09868, and the
    authors' scripts). Theory promises nothing for a share at node 0, where Q is 1 whatever it says:
    the authors' grid has one where N is even.

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

    Raises
    ------
    ConfigError
        If an output is not finite, or there are not as many nodes as outputs.
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


def published_locator(
    outputs: Array, nodes: Sequence[float], k: int, byzantine: int
) -> NDArray[np.intp]:
    """Name, per codeword, the E shares with the most `published_votes`: E, even if none is wrong.

    Returns
    -------
    int array (B, E)
        Positions in `outputs`, the most voted for first; of equal ones the lower.
    """
    votes = published_votes(outputs, nodes, k, byzantine)
    return np.argsort(-votes, axis=1, kind="stable")[:, :byzantine]
