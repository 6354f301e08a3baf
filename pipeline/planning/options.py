"""Arguments of `score` and `submit`, checked before anything is opened or started."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from approxifer.checks import one_of
from approxifer.coding import SCHEMES, CodeSpec, Scheme
from approxifer.errors import ConfigError
from approxifer.pipeline.byzantine.spot_checks import DEFAULT_CHECK
from approxifer.pipeline.planning.arguments import (
    FORMER,
    Arguments,
    declared,
    described,
    required,
)
from approxifer.pipeline.planning.kinds import bytes_of
from approxifer.pipeline.scheduler.hedging import Hedge
from approxifer.pipeline.scheduler.policy import Policy
from approxifer.text import did_you_mean

#: Default of ``late`` in medians; with ``hedge`` it is the last resort, so many times its multiple.
LATE, LAST_RESORT = 2.0, 3.0


#: Names that other tools have for arguments of ours.
OTHERS_NAMES = {"input": "data", "in": "data", "batch_size": "block"}


def check_names(
    given: Mapping[str, Any], *, further: tuple[str, ...] = (), where: str = ""
) -> None:
    """Refuse arguments that there are not, and say which there are.

    Parameters
    ----------
    given
        Arguments by their names.
    further
        Names that are allowed besides.
    where
        Before the message: a file.

    Raises
    ------
    ConfigError
    """
    allowed = (*declared(), *further)
    for name in given:
        if name in FORMER:
            raise ConfigError(f"{where}{name}= is of an earlier version; give {FORMER[name]}")
        if name not in allowed:
            hint = did_you_mean(name, allowed, OTHERS_NAMES) or "."
            raise ConfigError(
                f"{where}unknown argument {name!r}{hint} Allowed: {', '.join(allowed)}"
            )


@dataclass(frozen=True, kw_only=True)
class Options(Arguments):
    """The arguments of one run, checked, each for itself and with the others.

    Raises
    ------
    ConfigError
    """

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """The options of arguments by their names.

        Raises
        ------
        ConfigError
            Also where one is unknown, of an earlier version, or missing.
        """
        check_names(given)
        needed = [name for name, one in declared().items() if required(one)]
        for name in needed:
            if given.get(name) is None:
                raise ConfigError(f"{name}= is missing: every run needs {', '.join(needed)}")
        return cls(**given)

    def __post_init__(self) -> None:
        self._check_former_values()
        one_of("scheme", self.scheme, tuple(SCHEMES))
        for name, argument in declared().items():
            value = getattr(self, name)
            if value is not None or argument.default is not None:
                checked = described(argument).kind.check(name, value)
                object.__setattr__(self, name, checked)
        if self.cluster is not None and self.client is not None:
            raise ConfigError("cluster= and client= are both given: give one of the two")
        if not isinstance(self.cluster, str | os.PathLike | Mapping | None):
            raise ConfigError(
                f"cluster={type(self.cluster).__name__}: give a cluster file, or "
                "client=distributed.Client(cluster)"
            )
        self._check_trust()
        self.code_for(self.k or 1)
        self._check_parity()
        if self.decoder == "fitted" and (self.byzantine or not self._scheme.interpolates):
            able = [repr(name) for name, scheme in SCHEMES.items() if scheme.interpolates]
            raise ConfigError(
                f"decoder='fitted' with scheme={self.scheme!r} and byzantine={self.byzantine}: it "
                f"is for {' and '.join(able)}, and learns from workers that are trusted, so only "
                "with byzantine=0; leave it out"
            )
        self._check_hedge()
        self._check_input()
        if self.keep and self.postprocess is None:
            raise ConfigError(
                "keep=True without postprocess=: the model's outputs are stored anyway; leave it "
                "out, or say what they are made into"
            )

    def _check_former_values(self) -> None:
        """Refuse values of earlier versions."""
        if isinstance(self.repair, str) and self.repair == "doubtful":
            raise ConfigError(
                "repair='doubtful' is of an earlier version; give the fraction itself: repair=0.995"
            )
        if isinstance(self.hedge, Mapping):
            raise ConfigError(
                f"hedge={dict(self.hedge)!r} is of an earlier version; give a pair, a multiple of "
                "the median and the part that must be back: hedge=(2.0, 0.5)"
            )

    @property
    def _scheme(self) -> Scheme:
        return SCHEMES[self.scheme]

    def _check_parity(self) -> None:
        if self._scheme.trained != (self.parity is not None):
            raise ConfigError(
                f"scheme={self.scheme!r} and parity={self.parity!r}: scheme='parm' needs the "
                "folder of its parity models (approxifer train-parity), no other scheme takes one"
            )

    def _check_trust(self) -> None:
        rows, byzantine = self.rows_checked, self.byzantine
        if byzantine and not rows and not self._scheme.votes:
            able = [repr(name) for name, scheme in SCHEMES.items() if scheme.votes]
            raise ConfigError(
                f"check=0 with byzantine={byzantine} and scheme={self.scheme!r}: nothing there "
                f"tells a wrong share from a right one. Take check= of at least 1 (the default is "
                f"{DEFAULT_CHECK}), or scheme={' or '.join(able)}"
            )
        if self._scheme.adaptive and rows:
            raise ConfigError(
                f"scheme={self.scheme!r} with check={rows}: it compares whole copies instead of "
                "checking rows; leave check= out, or take scheme='replication'"
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
        if self.assurance is not None and self.postprocess is not None and not self.keep:
            raise ConfigError(
                f"assurance={self.assurance!r} with postprocess=: rows that are stored are checked "
                "against the model's outputs, which are not stored; give keep=True, too"
            )

    def _check_input(self) -> None:
        if self.variable is not None and self.variables is not None:
            raise ConfigError("variable= and variables= are both given: give one of the two")
        if self.tile is None and self.halo:
            raise ConfigError(f"halo={self.halo!r} without tile=: it is the border of tiles")
        if self.tile is not None and self._scheme.trained:
            raise ConfigError(
                f"tile= with scheme={self.scheme!r}: its parity models are trained on whole rows; "
                "take another scheme"
            )

    def _check_hedge(self) -> None:
        hedge = self.resolved_hedging
        if hedge is not None and self._scheme.mixes:
            able = [repr(name) for name, scheme in SCHEMES.items() if not scheme.mixes]
            raise ConfigError(
                f"hedge={self.hedge!r} sends second copies, and scheme={self.scheme!r} has parity "
                f"for that: take scheme={' or '.join(able)}, or leave hedge= out "
                "(late= says when a share that parity cannot replace is submitted again)"
            )
        if hedge is not None and self.late is not None and self.late <= hedge.multiple:
            raise ConfigError(
                f"late={self.late:g}: with hedge={self.hedge!r} it is the last resort; give more "
                f"than the {hedge.multiple:g} medians of the hedge, or leave it out"
            )

    def code_for(self, k: int) -> CodeSpec:
        """The code with this K."""
        return CodeSpec(
            scheme=self.scheme,
            k=k,
            stragglers=self.stragglers,
            byzantine=self.byzantine if self.votes else 0,
        )

    def in_words(self, spec: CodeSpec) -> str:
        """A code, for people: ``systematic K=8 S=2, 10 shares``."""
        byzantine = f" E={self.byzantine}" if self.byzantine else ""
        return f"{spec.scheme} K={spec.k} S={self.stragglers}{byzantine}, {spec.n} shares"

    @property
    def rows_checked(self) -> int:
        """``check``, or its default: rows of each share that are run again elsewhere."""
        if self.check is not None:
            return self.check
        trusted = not self.byzantine and self.assurance is None
        return 0 if trusted or self._scheme.adaptive else DEFAULT_CHECK

    @property
    def votes(self) -> bool:
        """True where only other shares' outputs tell wrong ones, which takes more shares."""
        return self.byzantine > 0 and not self.rows_checked

    @property
    def memory_bytes(self) -> int:
        """``memory`` in bytes."""
        return bytes_of("memory", self.memory)

    @property
    def agreement(self) -> float | None:
        """Under repair of doubtful rows, the part of all rows whose class is to be the model's."""
        return self.repair if isinstance(self.repair, float) else None

    @property
    def resolved_repair(self) -> str:
        """``"exact"``, ``"none"`` or, for a fraction, ``"doubtful"``, as stores keep it."""
        return self.repair if isinstance(self.repair, str) else "doubtful"

    @property
    def resolved_hedging(self) -> Hedge | None:
        """``hedge`` in numbers."""
        return None if self.hedge is None else Hedge.of(self.hedge)

    @property
    def resolved_order(self) -> str:
        """``order``, or its default: only where rows are to stay decoded does likeness pay."""
        if callable(self.order) or ":" in (self.order or ""):
            return "similar"
        plain = self.repair == "exact" and not self.votes
        return self.order or ("none" if plain else "similar")

    @property
    def compared_by(self) -> str | Callable[..., Any] | None:
        """The user's function of rows in ``order``; None where there is none."""
        named = self.order is None or (isinstance(self.order, str) and ":" not in self.order)
        return None if named else self.order

    @property
    def policy(self) -> Policy:
        """The scheduler's part of the options, with their defaults."""
        exact = self.repair == "exact" and not self.votes
        hedge = self.resolved_hedging
        # A third copy, or a second one where too few of the others are back, is the last resort.
        default_late = LAST_RESORT * hedge.multiple if hedge else LATE
        late = default_late if self.late is None else self.late
        return Policy(
            patience=0.0 if self.repair == "none" else 1.0,
            late=float(late),
            hedge=hedge,
            hang_after=float(self.hang_after),
            stall_after=float(self.stall_after),
            lazy=exact,
            exact=exact,
            reuse=not self.votes,
            max_failures=max(Policy.max_failures, self.byzantine + 1),  # E of them may be Byzantine
        )
