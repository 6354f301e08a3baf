"""A checked, immutable description of a code, and the table of schemes that it is checked against.

No code is known here: `approxifer.coding.registry` fills the table.
"""

from collections.abc import Callable
from dataclasses import dataclass

from approxifer.checks import one_of, whole_number
from approxifer.coding.code import Code, CodeParameters
from approxifer.errors import ConfigError

#: Ways to make a parity query of K queries.
ENCODERS = ("addition", "concatenation")

#: A codeword's shares run on as many workers, and its nodes crowd as the square of their number.
MAX_SHARES = 1024


@dataclass(frozen=True)
class CodeSpec(CodeParameters):
    """A code by name and size.

    Parameters
    ----------
    scheme : str
        A registered one: "uncoded", "replication", "parm", "berrut" or "systematic".
    k : int
        Queries per codeword, K >= 1.
    stragglers : int
        Stragglers tolerated, S >= 0. ``"uncoded"`` tolerates none, whatever is given here.
    byzantine : int
        Byzantine workers tolerated, E >= 0: workers whose outputs may be anything. ``"uncoded"``
        cannot detect any; there only spot checks protect. ``"parm"`` takes none.
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

    def __post_init__(self) -> None:
        scheme = SCHEMES[one_of("scheme", self.scheme, tuple(SCHEMES))]
        for name, least in (("k", 1), ("stragglers", 0), ("byzantine", 0)):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), least=least))
        if one_of("encoder", self.encoder, ENCODERS) not in scheme.encoders:
            able = " or ".join(repr(s.name) for s in SCHEMES.values() if self.encoder in s.encoders)
            raise ConfigError(
                f"encoder={self.encoder!r} only has a meaning for scheme={able}, not for "
                f"{self.scheme!r}; leave it out"
            )
        if scheme.check is not None:
            scheme.check(self)
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

    @property
    def n(self) -> int:
        """Shares of a codeword: N. Nothing is built for it."""
        return SCHEMES[self.scheme].shares(self)

    def build(self) -> Code:
        """Make the code."""
        return SCHEMES[self.scheme].build(self)


@dataclass(frozen=True)
class Scheme:
    """A kind of code, for `register`.

    Attributes
    ----------
    name : str
        As in ``CodeSpec.scheme``.
    shares : callable
        The number of shares, N, of K, S and E.
    build : callable
        Makes the code; it has as many shares.
    check : callable, optional
        Raises `ConfigError` where the scheme does not take such K, S, E or encoder.
    encoders : tuple of str
        The values of ``CodeSpec.encoder`` that have a meaning for it.
    """

    name: str
    shares: Callable[[CodeSpec], int]
    build: Callable[[CodeSpec], Code]
    check: Callable[[CodeSpec], None] | None = None
    encoders: tuple[str, ...] = ENCODERS[:1]


#: Every registered scheme by its name.
SCHEMES: dict[str, Scheme] = {}


def register(scheme: Scheme) -> None:
    """Add a scheme to the table, in this process: a `CodeSpec` may then name it.

    Raises
    ------
    ConfigError
        If there is one of that name.
    """
    if scheme.name in SCHEMES:
        raise ConfigError(f"scheme {scheme.name!r} is registered already; take another name")
    SCHEMES[scheme.name] = scheme
