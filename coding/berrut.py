"""ApproxIFER as published: every share is a mixture, every output is decoded."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from approxifer.coding.code import Array
from approxifer.coding.interpolating import InterpolatingCode
from approxifer.coding.nodes import berrut_nodes
from approxifer.coding.published import suspects

if TYPE_CHECKING:
    from approxifer.coding.spec import CodeSpec


class BerrutCode(InterpolatingCode):
    """Queries on Chebyshev points of the first kind, shares on points of the second kind.

    N = K + S shares; 2(K+E) + S if E of them may be wrong.

    Soleymani et al., "ApproxIFER: A Model-Agnostic Approach to Resilient and Robust Prediction
    Serving Systems", AAAI 2022, arXiv 2109.09868. Shares that happen to coincide with a query (all
    do at k = 1; see `berrut_nodes`) carry it unchanged.
    """

    def __init__(self, spec: "CodeSpec") -> None:
        super().__init__(spec, *berrut_nodes(spec.k, spec.n))

    def suspects(self, outputs: Mapping[int, Array]) -> frozenset[int]:
        """See `Code.suspects`; how is in `approxifer.coding.published.suspects`."""
        return suspects(self._received(outputs), self.nodes, self.k, self.spec.byzantine)
