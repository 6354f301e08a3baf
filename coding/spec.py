"""A checked, immutable description of a code, and the table of schemes that it is checked against.

No code is known here: `approxifer.coding.registry` fills the table.
"""

from collections.abc import Callable
from dataclasses import dataclass

from approxifer.checks import instance, one_of, whole_number
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
        A registered one: "uncoded", "replication", "replication-adaptive", "parm", "berrut" or
        "systematic".
    k : int
        Queries per codeword, K >= 1.
    stragglers : int
        Stragglers tolerated, S >= 0. ``"uncoded"`` tolerates none, whatever is given here.
    byzantine : int
        Byzantine workers tolerated, E >= 0: workers whose outputs may be anything. ``"uncoded"``
        cannot detect any; there only spot checks protect. ``"parm"`` takes none.
    encoder : "addition" or "concatenation"
        How ``"parm"`` makes a parity query; see `approxifer.coding.parm.ParmCode`.

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
        if self.n > MAX_SHARES:
            raise ConfigError(
                f"k={self.k}, stragglers={self.stragglers} and byzantine={self.byzantine} make "
                f"{self.n} shares; at most {MAX_SHARES} are allowed. Take a smaller k, fewer "
                "stragglers or fewer byzantine workers"
            )

    @property
    def adaptive(self) -> bool:
        """True where further shares are asked for if those of a group differ."""
        return SCHEMES[self.scheme].adaptive

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
    mixes : bool
        A share may be a mixture of queries, which then must be real numbers. Where none is, a share
        may be copied to a second worker instead.
    interpolates : bool
        Missing outputs are weighted sums of the others, so that the weights can be fitted.
    trained : bool
        It needs parity models.
    votes : bool
        With E > 0, a group's outputs tell which of them are wrong.
    adaptive : bool
        Where the outputs of a group differ, further shares are asked for.
    """

    name: str
    shares: Callable[[CodeSpec], int]
    build: Callable[[CodeSpec], Code]
    check: Callable[[CodeSpec], None] | None = None
    encoders: tuple[str, ...] = ENCODERS[:1]
    mixes: bool = True
    interpolates: bool = False
    trained: bool = False
    votes: bool = False
    adaptive: bool = False


#: Every registered scheme by its name.
SCHEMES: dict[str, Scheme] = {}


def register(scheme: Scheme) -> None:
    """Add a scheme to the table, in this process: a `CodeSpec` may then name it.

    Raises
    ------
    ConfigError
        If there is one of that name, or it is no `Scheme`.
    """
    instance("scheme", scheme, Scheme, "a Scheme")
    instance("scheme.name", scheme.name, str, "a text")
    if scheme.name in SCHEMES:
        raise ConfigError(f"scheme {scheme.name!r} is registered already; take another name")
    SCHEMES[scheme.name] = scheme
