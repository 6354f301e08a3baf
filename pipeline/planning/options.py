"""Arguments of `score` and `submit`, checked before anything is opened or started."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from dask.utils import parse_bytes

from approxifer.coding import CodeSpec
from approxifer.coding.order import ORDERS
from approxifer.errors import ConfigError
from approxifer.pipeline.byzantine.membership import QUARANTINES, Quarantine
from approxifer.pipeline.byzantine.spot_checks import DEFAULT_CHECK
from approxifer.pipeline.planning.partition import IN_FLIGHT
from approxifer.pipeline.scheduler.hedging import Hedge
from approxifer.pipeline.scheduler.policy import Policy

if TYPE_CHECKING:
    import xarray as xr
    from distributed import Client

REPAIRS = ("none", "doubtful", "exact")
DECODERS = ("berrut", "fitted")
REFEREES = ("client", "quorum")
#: Schemes whose shares may be hedged.
HEDGED = ("uncoded", "replication")
#: Default of ``late`` in medians; with ``hedge`` it is the last resort, so many times its multiple.
LATE, LAST_RESORT = 2.0, 3.0
#: Schemes that can tell a wrong share from the others' outputs.
VOTING = ("replication", "berrut")

#: Arguments that are texts of any kind, true or false, or paths.
_TEXTS = ("variable", "sample_dim", "dtype", "device", "scheme")
_FLAGS = ("trust_model", "adaptive", "retry_failed", "accept_code_change")
_PATHS = ("state", "parity")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The arguments of one run, as given; None: chosen by the run."""

    data: str | os.PathLike[str] | xr.DataArray
    model: Any
    out: str | os.PathLike[str]
    state: str | os.PathLike[str] | None = None
    preprocess: str | Callable[..., Any] | None = None
    dtype: str = "float32"
    device: str = "auto"
    trust_model: bool = False
    variable: str | None = None
    sample_dim: str | None = None
    cluster: str | os.PathLike[str] | Mapping[str, Any] | None = None
    client: Client | None = None
    scheme: str = "systematic"
    k: int | None = None
    stragglers: int = 1
    byzantine: int = 0
    adaptive: bool = False
    order: str | None = None
    features: str | Callable[..., Any] | None = None
    parity: str | os.PathLike[str] | None = None
    window: int | None = None
    block: int | None = None
    memory: str | int = "1GB"
    decoder: str = "berrut"
    repair: str = "exact"
    agreement: float = 0.995
    redundancy: str | None = None
    patience: float | None = None
    late: float | None = None
    hedge: str | Mapping[str, float] | Sequence[float] | None = None
    check: int | None = None
    assurance: float | None = None
    referee: str = "client"
    quarantine: Quarantine | None = None
    forgive: Sequence[str] = ()
    in_flight: float = IN_FLIGHT
    heal: str | None = None
    hang_after: float = 30.0
    stall_after: float = 300.0
    retry_failed: bool = False
    accept_code_change: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_types()
        if self.cluster is not None and self.client is not None:
            raise ConfigError("cluster= and client= are both given: give one of the two")
        self._check_trust()
        self.code_for(self.k or 1)
        _one_of("order", self.order, (None, *ORDERS))
        if self.features is not None and not (
            isinstance(self.features, str) or callable(self.features)
        ):
            raise ConfigError(
                f"features={self.features!r}: give a function of rows, or 'module:function'"
            )
        if self.features is not None and self.resolved_order != "similar":
            raise ConfigError(
                f"features={self.features!r} is what rows are compared by with order='similar', "
                f"and the order is {self.resolved_order!r}: give order='similar', or leave "
                "features out"
            )
        self._check_parity()
        _one_of("repair", self.repair, REPAIRS)
        _one_of("decoder", self.decoder, DECODERS)
        fit = self.scheme in ("systematic", "berrut") and not self.byzantine
        if self.decoder == "fitted" and not fit:
            raise ConfigError(
                f"decoder='fitted' with scheme={self.scheme!r} and byzantine={self.byzantine}: it "
                "is for 'systematic' and 'berrut', and learns from workers that are believed, so "
                "only with byzantine=0; leave it out"
            )
        _one_of("redundancy", self.redundancy, (None, "eager", "lazy"))
        _one_of("heal", self.heal, (None, "restart", "avoid"))
        _one_of("referee", self.referee, REFEREES)
        _one_of("quarantine", self.quarantine, (None, *QUARANTINES))
        self._fraction("assurance", most=0.999, least=0.001)
        self._fraction("agreement", most=0.9999, least=0.5)
        if isinstance(self.forgive, str):
            object.__setattr__(self, "forgive", (self.forgive,))
        if not all(isinstance(host, str) for host in self.forgive):
            raise ConfigError(f"forgive={self.forgive!r}: give the names of hosts")
        for name in ("window", "block", "k"):
            if getattr(self, name) is not None:
                self._whole(name, least=1)
        least_of = {
            "patience": 0.0, "late": 1.0, "in_flight": 1.0, "hang_after": 0.1, "stall_after": 1.0,
        }  # fmt: skip
        for name, least in least_of.items():
            value = getattr(self, name)
            if value is not None and not (isinstance(value, (int, float)) and value >= least):
                raise ConfigError(f"{name}={value!r}: give a number, at least {least:g}")
        self._check_hedge()
        self._whole("seed", least=0)
        _ = self.memory_bytes

    def _check_types(self) -> None:
        """A text that says no is no False; and a job file can hold anything anywhere."""
        for name in _TEXTS:
            if not isinstance(value := getattr(self, name), str | None):
                raise ConfigError(f"{name}={value!r}: give a text")
        for name in _FLAGS:
            if not isinstance(value := getattr(self, name), bool | np.bool_):
                raise ConfigError(f"{name}={value!r}: give True or False")
        for name in _PATHS:
            if not isinstance(value := getattr(self, name), str | os.PathLike | None):
                raise ConfigError(f"{name}={value!r}: give a path")
        if not isinstance(self.cluster, str | os.PathLike | Mapping | None):
            raise ConfigError(
                f"cluster={self.cluster!r}: give the path of a cluster file, or for a cluster that "
                "runs client=distributed.Client(cluster)"
            )
        if not isinstance(self.forgive, str | Collection):
            raise ConfigError(f"forgive={self.forgive!r}: give the names of hosts")

    def _check_parity(self) -> None:
        if (self.scheme == "parm") != (self.parity is not None):
            raise ConfigError(
                f"scheme={self.scheme!r} and parity={self.parity!r}: scheme='parm' needs the "
                "folder of its parity models (approxifer train-parity), no other scheme takes one"
            )

    def _check_trust(self) -> None:
        self._whole("byzantine", least=0)
        if self.check is not None:
            self._whole("check", least=0)
        rows, byzantine = self.rows_checked, self.byzantine
        if byzantine and not rows and self.scheme not in VOTING:
            raise ConfigError(
                f"check=0 with byzantine={byzantine} and scheme={self.scheme!r}: nothing there "
                f"tells a wrong share from a right one. Take check= of at least 1 (the default is "
                f"{DEFAULT_CHECK}), or scheme={' or '.join(map(repr, VOTING))}"
            )
        if self.adaptive and rows:
            raise ConfigError(
                f"adaptive=True with check={rows}: it compares whole copies instead of checking "
                "rows; leave one of the two out"
            )
        if rows and not byzantine and self.referee == "quorum":
            raise ConfigError(
                f"check={rows} with byzantine=0 and referee='quorum': where two workers differ, a "
                "quorum cannot tell who is wrong unless some are known to be right. Take "
                "referee='client', or byzantine= of at least 1"
            )
        if self.assurance is not None and not rows:
            raise ConfigError(
                f"assurance={self.assurance!r} with check=0: it is what checks prove; leave check= "
                "out"
            )
        if self.assurance is not None and self.repair != "exact":
            raise ConfigError(
                f"assurance={self.assurance!r} with repair={self.repair!r}: rows that stay decoded "
                "are no one worker's, and cannot be run again; take repair='exact'"
            )

    def _check_hedge(self) -> None:
        hedge = self.resolved_hedging
        if hedge is not None and self.scheme not in HEDGED:
            raise ConfigError(
                f"hedge={self.hedge!r} sends second copies, and scheme={self.scheme!r} has parity "
                f"for that: take scheme={' or '.join(map(repr, HEDGED))}, or leave hedge= out "
                "(late= says when a share that parity cannot replace is submitted again)"
            )
        if hedge is not None and self.late is not None and self.late <= hedge.multiple:
            raise ConfigError(
                f"late={self.late}: with hedge={self.hedge!r} it is the last resort; give more "
                f"than the {hedge.multiple:g} medians of the hedge, or leave it out"
            )

    def _whole(self, name: str, *, least: int) -> None:
        """Check a whole number, and keep it as Python's own."""
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ConfigError(f"{name}={value!r}: give a whole number, at least {least}")
        object.__setattr__(self, name, int(value))

    def _fraction(self, name: str, *, least: float, most: float) -> None:
        value = getattr(self, name)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (number and least <= value <= most):
            raise ConfigError(f"{name}={value!r}: give a fraction from {least:g} to {most:g}")

    def code_for(self, k: int) -> CodeSpec:
        """The code with this K."""
        return CodeSpec(
            scheme=self.scheme,
            k=k,
            stragglers=self.stragglers,
            byzantine=self.byzantine if self.votes else 0,
            adaptive=self.adaptive,
        )

    @property
    def rows_checked(self) -> int:
        """``check``, or its default: rows of each share that are run again elsewhere."""
        if self.check is not None:
            return self.check
        trusted = not self.byzantine and self.assurance is None
        return 0 if trusted or self.adaptive else DEFAULT_CHECK

    @property
    def votes(self) -> bool:
        """True where only other shares' outputs tell wrong ones, which takes more shares."""
        return self.byzantine > 0 and not self.rows_checked

    @property
    def memory_bytes(self) -> int:
        """``memory`` in bytes."""
        try:
            size = int(parse_bytes(self.memory))
        except (ValueError, TypeError, AttributeError, OverflowError):
            size = 0
        if size < 1:
            raise ConfigError(f"memory={self.memory!r}: give a size such as '1GB'")
        return size

    @property
    def resolved_hedging(self) -> Hedge | None:
        """``hedge`` in numbers."""
        return None if self.hedge is None else Hedge.of(self.hedge)

    @property
    def resolved_order(self) -> str:
        """``order``, or its default: only where rows are to stay decoded does likeness pay."""
        plain = self.repair == "exact" and not self.votes
        return self.order or ("none" if plain else "similar")

    @property
    def policy(self) -> Policy:
        """The scheduler's part of the options, with their defaults."""
        exact = self.repair == "exact" and not self.votes
        default = 0.0 if self.repair == "none" else 1.0
        patience = default if self.patience is None else self.patience
        hedge = self.resolved_hedging
        # A third copy, or a second one where too few of the others are back, is the last resort.
        default_late = LAST_RESORT * hedge.multiple if hedge else LATE
        late = default_late if self.late is None else self.late
        return Policy(
            patience=float(patience),
            late=float(late),
            hedge=hedge,
            hang_after=float(self.hang_after),
            stall_after=float(self.stall_after),
            lazy=exact if self.redundancy is None else self.redundancy == "lazy",
            exact=exact,
            reuse=not self.votes,
            max_failures=max(Policy.max_failures, self.byzantine + 1),  # E of them may lie
        )


def _one_of(name: str, value: Any, allowed: tuple[str | None, ...]) -> None:
    if value not in allowed:
        names = [a for a in allowed if a is not None]
        near = difflib.get_close_matches(str(value), names, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ": not one of those known."
        raise ConfigError(f"{name}={value!r}{hint} Allowed: {', '.join(map(repr, names))}")
