"""The systematic code: exact while nobody straggles."""

from typing import TYPE_CHECKING

from approxifer.coding.interpolating import InterpolatingCode
from approxifer.coding.nodes import systematic_nodes

if TYPE_CHECKING:
    from approxifer.coding.spec import CodeSpec


class SystematicCode(InterpolatingCode):
    """Berrut's interpolation with K shares that are the queries themselves, and S parity shares.

    Share j is block j for j < K; shares K .. K+S-1 are parity: the interpolant through the queries,
    evaluated between them (see `systematic_nodes`). A block whose data share came back is exact,
    whatever became of the others. With S = 0 there is no parity, and all K shares are needed.
    """

    def __init__(self, spec: "CodeSpec") -> None:
        super().__init__(spec, *systematic_nodes(spec.k, spec.n))
