"""Which code: a checked, immutable description of it."""

from dataclasses import dataclass, field
from typing import Literal

from approxifer.coding.berrut import BerrutCode
from approxifer.coding.checks import one_of, whole_number
from approxifer.coding.protocol import Code
from approxifer.coding.replication import ReplicationCode
from approxifer.coding.systematic import SystematicCode
from approxifer.coding.uncoded import UncodedCode
from approxifer.errors import ConfigError

SCHEMES = ("uncoded", "replication", "berrut", "systematic")
GRIDS = ("authors", "textbook")

#: A codeword's shares run on as many workers, and its nodes crowd as the square of their number.
MAX_SHARES = 1024


@dataclass(frozen=True)
class CodeSpec:
    """A code by name and size.

    Parameters
    ----------
    scheme : "uncoded", "replication", "berrut" or "systematic"
    k : int
        Queries per codeword, K >= 1.
    stragglers : int
        Stragglers tolerated, S >= 0. ``"uncoded"`` tolerates none, whatever is said here.
    byzantine : int
        Byzantine workers tolerated, E. Only 0 in this version.
    grid : "authors" or "textbook"
        The share nodes of ``"berrut"``; see `approxifer.coding.nodes.berrut_nodes`.

    Raises
    ------
    ConfigError
        If one of these is not what it should be.
    """

    scheme: str
    k: int
    stragglers: int = 1
    byzantine: int = 0
    grid: Literal["authors", "textbook"] = field(default="authors", kw_only=True)

    def __post_init__(self) -> None:
        if self.scheme == "parm":
            raise ConfigError(
                "scheme='parm' is not available in this version; take one of "
                f"{', '.join(SCHEMES)} ('systematic' also keeps the queries as they are)"
            )
        one_of("scheme", self.scheme, SCHEMES)
        one_of("grid", self.grid, GRIDS)
        if self.grid != "authors" and self.scheme != "berrut":
            raise ConfigError(
                f"grid={self.grid!r} only has a meaning for scheme='berrut', not for "
                f"{self.scheme!r}; leave it out"
            )
        for name, least in (("k", 1), ("stragglers", 0), ("byzantine", 0)):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), least=least))
        if self.byzantine:
            raise ConfigError(
                f"byzantine={self.byzantine} is not available in this version; "
                "only byzantine=0 is allowed"
            )
        if self.n > MAX_SHARES:
            raise ConfigError(
                f"k={self.k} and stragglers={self.stragglers} make {self.n} shares; at most "
                f"{MAX_SHARES} are allowed. Take a smaller k or fewer stragglers"
            )

    @property
    def n(self) -> int:
        """Shares of a codeword: N."""
        match self.scheme:
            case "uncoded":
                return self.k
            case "replication":
                return self.k * (self.stragglers + 1)
            case _:
                return self.k + self.stragglers

    def build(self) -> Code:
        """Make the code."""
        match self.scheme:
            case "uncoded":
                return UncodedCode(self)
            case "replication":
                return ReplicationCode(self)
            case "berrut":
                return BerrutCode(self)
            case _:
                return SystematicCode(self)
