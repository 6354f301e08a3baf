"""ApproxIFER as published: every share is a mixture, every output is decoded."""

from typing import TYPE_CHECKING

from approxifer.coding.interpolating import InterpolatingCode
from approxifer.coding.nodes import berrut_nodes

if TYPE_CHECKING:
    from approxifer.coding.spec import CodeSpec


class BerrutCode(InterpolatingCode):
    """Queries on Chebyshev points of the first kind, K + S shares on points of the second kind.

    Soleymani et al., "ApproxIFER: A Model-Agnostic Approach to Resilient and Robust Prediction
    Serving Systems", AAAI 2022, arXiv 2109.09868. ``spec.grid`` chooses between the two share grids
    that are in circulation; see `berrut_nodes`. Shares that happen to coincide with a query (some
    do on the textbook grid, all do at k = 1) carry it unchanged.
    """

    def __init__(self, spec: "CodeSpec") -> None:
        super().__init__(spec, *berrut_nodes(spec.k, spec.n, spec.grid))
