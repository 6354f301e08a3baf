"""Which code: a checked, immutable description of it."""

from dataclasses import dataclass, field
from typing import Literal

from approxifer.checks import one_of, whole_number
from approxifer.coding.berrut import BerrutCode
from approxifer.coding.code import Code
from approxifer.coding.parm import ENCODERS, TILES, ParmCode
from approxifer.coding.replication import ReplicationCode
from approxifer.coding.systematic import SystematicCode
from approxifer.coding.uncoded import UncodedCode
from approxifer.errors import ConfigError

SCHEMES = ("uncoded", "replication", "parm", "berrut", "systematic")

#: A codeword's shares run on as many workers, and its nodes crowd as the square of their number.
MAX_SHARES = 1024


@dataclass(frozen=True)
class CodeSpec:
    """A code by name and size.

    Parameters
    ----------
    scheme : "uncoded", "replication", "parm", "berrut" or "systematic"
    k : int
        Queries per codeword, K >= 1.
    stragglers : int
        Stragglers tolerated, S >= 0. ``"uncoded"`` tolerates none, whatever is said here.
    byzantine : int
        Byzantine workers tolerated, E >= 0: workers whose outputs may be anything. ``"uncoded"``
        cannot tell any; there only spot checks protect. ``"parm"`` takes none.
    encoder : "addition" or "concatenation"
        How ``"parm"`` makes a parity query; see `approxifer.coding.parm.ParmCode`.
    adaptive : bool
        ``"replication"`` with E > 0: E + 1 copies, whatever S is. Where they differ, more have to
        be asked for.

    Raises
    ------
    ConfigError
        If one of these is not what it should be.
    """

    scheme: str
    k: int
    stragglers: int = 1
    byzantine: int = 0
    encoder: Literal["addition", "concatenation"] = field(default="addition", kw_only=True)
    adaptive: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        one_of("scheme", self.scheme, SCHEMES)
        for name, least in (("k", 1), ("stragglers", 0), ("byzantine", 0)):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), least=least))
        self._check_parm()
        if not isinstance(self.adaptive, bool):
            raise ConfigError(f"adaptive={self.adaptive!r}: give True or False")
        if self.adaptive and not (self.scheme == "replication" and self.byzantine):
            raise ConfigError(
                "adaptive=True only has a meaning for scheme='replication' with byzantine of at "
                f"least 1, not for {self.scheme!r} with byzantine={self.byzantine}; leave it out"
            )
        if self.n > MAX_SHARES:
            raise ConfigError(
                f"k={self.k}, stragglers={self.stragglers} and byzantine={self.byzantine} make "
                f"{self.n} shares; at most {MAX_SHARES} are allowed. Take a smaller k, fewer "
                "stragglers or fewer byzantine workers"
            )

    def _check_parm(self) -> None:
        one_of("encoder", self.encoder, ENCODERS)
        if self.encoder != "addition":
            if self.scheme != "parm":
                raise ConfigError(
                    f"encoder={self.encoder!r} only has a meaning for scheme='parm', not for "
                    f"{self.scheme!r}; leave it out"
                )
            if self.k not in TILES or self.stragglers != 1:
                raise ConfigError(
                    f"encoder={self.encoder!r} tiles {' or '.join(map(str, TILES))} images into one"
                    f" parity query: k={self.k} and stragglers={self.stragglers} are none of that; "
                    "take stragglers=1 and such a k, or encoder='addition'"
                )
        if self.scheme == "parm" and self.byzantine:
            raise ConfigError(
                f"byzantine={self.byzantine}: parity models approximate, and cannot tell who lies; "
                "take scheme 'systematic', or byzantine=0"
            )

    @property
    def n(self) -> int:
        """Shares of a codeword: N."""
        k, stragglers, byzantine = self.k, self.stragglers, self.byzantine
        match self.scheme:
            case "uncoded":
                return k
            case "replication" if self.adaptive:
                return k * (byzantine + 1)
            case "replication":
                return k * (2 * byzantine + 1 + stragglers)
            case "berrut" if byzantine:
                return 2 * (k + byzantine) + stragglers
            case _:
                return k + stragglers + 2 * byzantine

    def build(self) -> Code:
        """Make the code."""
        match self.scheme:
            case "uncoded":
                return UncodedCode(self)
            case "replication":
                return ReplicationCode(self)
            case "parm":
                return ParmCode(self)
            case "berrut":
                return BerrutCode(self)
            case _:
                return SystematicCode(self)
