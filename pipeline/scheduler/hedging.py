"""Hedging: when a second copy of a slow share goes out, as cubed and Spark decide it. Pure.

Both send a copy of a task that has run for a multiple of the finished tasks' median, once a part of
its stage is done: before, the median is that of the fastest ones, and all may be slow alike. Their
stages begin at once; here shares flow, and what stands for the stage is a share's *flight*: the
others that were in flight when it was sent, from whatever group. Not its group: a repair has no
other share, and two slow shares of four would keep each other waiting. Nor the run: of that, half
is done when half of the windows are written, and each of them has waited for its slowest share.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from approxifer.checks import told
from approxifer.errors import ConfigError

NUMBER = r"\s*\d*\.?\d+\s*"


@dataclass(frozen=True)
class Hedge:
    """A hedging policy.

    Attributes
    ----------
    multiple : float
        In medians of the share time: how long a share runs before its copy goes out; at least 1.
    after : float
        The part of its flight that must be back by then, from 0 to 1.

    Raises
    ------
    ConfigError
    """

    multiple: float
    after: float

    def __post_init__(self) -> None:
        for name, least, most in (("multiple", 1.0, 1e6), ("after", 0.0, 1.0)):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not least <= value <= most:
                raise ConfigError(
                    f"hedge's {name}={told(value)}: give a number from {least:g} to {most:g}"
                )
            object.__setattr__(self, name, float(value))

    @classmethod
    def of(cls, given: Any) -> Hedge:
        """A policy by name, or as two numbers.

        Raises
        ------
        ConfigError
        """
        match given:
            case Hedge():
                return given
            case str() if given in POLICIES:
                return POLICIES[given]
            case str() if re.fullmatch(rf"{NUMBER},{NUMBER}", given):
                return cls(*map(float, given.split(",")))
            case (multiple, after):
                return cls(multiple, after)
        raise ConfigError(
            f"hedge={told(given)}: give {' or '.join(map(repr, POLICIES))}, or two numbers, a "
            "multiple of the median and the part that must be back: hedge=(2.0, 0.5), "
            "--hedge 2.0,0.5"
        )

    def ready(self, sent: int, out: int) -> bool:
        """True if enough of a share's flight is back.

        Parameters
        ----------
        sent
            Shares that were in flight when it was sent, itself included.
        out
            Those of them that are still awaited, itself included.
        """
        return sent - out >= self.after * (sent - 1)


#: cubed: ``cubed/runtime/backup.py``. Spark: ``spark.speculation.multiplier`` and ``.quantile``, as
#: they were before version 4.
POLICIES = {"cubed": Hedge(3.0, 0.5), "spark": Hedge(1.5, 0.75)}
