"""ApproxIFER's error locator as published: it evicts E shares of every codeword."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from approxifer.coding.published import published_votes


def published_locator(
    outputs: np.ndarray, nodes: Sequence[float], k: int, byzantine: int
) -> NDArray[np.intp]:
    """Name, per codeword, the E shares with the most `published_votes`: E, even if none is wrong.

    Returns
    -------
    int array (B, E)
        Positions in `outputs`, the most voted for first; of equal ones the lower.
    """
    votes = published_votes(outputs, nodes, k, byzantine)
    return np.argsort(-votes, axis=1, kind="stable")[:, :byzantine]
