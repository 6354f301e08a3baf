"""What `score` and `submit` take, checked before anything is opened or started."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from dask.utils import parse_bytes

from approxifer.coding import CodeSpec
from approxifer.coding.order import ORDERS
from approxifer.errors import ConfigError
from approxifer.pipeline.policy import Policy

if TYPE_CHECKING:
    import xarray as xr
    from distributed import Client

REPAIRS = ("none", "exact")


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
    order: str | None = None
    window: int | None = None
    block: int | None = None
    memory: str | int = "1GB"
    repair: str = "exact"
    redundancy: str | None = None
    patience: float | None = None
    late: float = 3.0
    hedge: str | None = None
    audit: float | None = None
    assurance: float | None = None
    referee: str = "client"
    quarantine: str | None = None
    heal: str | None = None
    hang_after: float = 30.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.cluster is not None and self.client is not None:
            raise ConfigError("cluster= and client= are both given: give one of the two")
        self.code_for(self.k or 1)
        _one_of("order", self.order, (None, *ORDERS))
        _one_of("repair", self.repair, REPAIRS)
        _one_of("redundancy", self.redundancy, (None, "eager", "lazy"))
        _one_of("heal", self.heal, (None, "restart", "avoid"))
        for name in ("hedge", "audit", "assurance", "quarantine"):
            if getattr(self, name) is not None:
                raise ConfigError(
                    f"{name}={getattr(self, name)!r} is not available in this version: leave it out"
                )
        if self.referee != "client":
            raise ConfigError(f"referee={self.referee!r}: this version has only 'client'")
        for name in ("window", "block", "k"):
            if getattr(self, name) is not None:
                self._whole(name, least=1)
        for name, least in (("patience", 0.0), ("late", 1.0), ("hang_after", 0.1)):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, (int, float)) and value >= least):
                raise ConfigError(f"{name}={value!r}: give a number, at least {least:g}")
        self._whole("seed", least=0)
        _ = self.memory_bytes

    def _whole(self, name: str, *, least: int) -> None:
        """Check a whole number, and keep it as Python's own."""
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ConfigError(f"{name}={value!r}: give a whole number, at least {least}")
        object.__setattr__(self, name, int(value))

    def code_for(self, k: int) -> CodeSpec:
        """The code with this K."""
        return CodeSpec(
            scheme=self.scheme, k=k, stragglers=self.stragglers, byzantine=self.byzantine
        )

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
    def the_order(self) -> str:
        """``order``, or its default: only where rows are to stay decoded does likeness pay."""
        plain = self.repair == "exact" and self.byzantine == 0
        return self.order or ("none" if plain else "similar")

    @property
    def policy(self) -> Policy:
        """The scheduler's part of the options, with their defaults."""
        exact = self.repair == "exact"
        lazy = exact and self.byzantine == 0
        patience = self.patience if self.patience is not None else (1.0 if exact else 0.0)
        return Policy(
            patience=float(patience),
            late=float(self.late),
            hang_after=float(self.hang_after),
            lazy=lazy if self.redundancy is None else self.redundancy == "lazy",
            reuse=self.byzantine == 0,
        )


def _one_of(name: str, value: Any, allowed: tuple[str | None, ...]) -> None:
    if value not in allowed:
        names = [a for a in allowed if a is not None]
        near = difflib.get_close_matches(str(value), names, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ": not one of those known."
        raise ConfigError(f"{name}={value!r}{hint} Allowed: {', '.join(map(repr, names))}")
