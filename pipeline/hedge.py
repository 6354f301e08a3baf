"""Hedging: a second copy of a share that takes long, the slower one dropped. Pure.

Which is what MapReduce calls backup tasks and Spark speculative execution (Dean & Barroso, "The
Tail at Scale", CACM 2013).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from approxifer.coding.checks import one_of
from approxifer.errors import ConfigError

#: Medians after which a share is copied however few others are back.
LAST_RESORT = 10.0


@dataclass(frozen=True)
class Hedge:
    """When a second copy of a share goes out.

    Attributes
    ----------
    multiple : float
        Of the run's median share time, counted from the share's start.
    after : float
        The fraction of its group's other shares that have to be back before. A group is what is
        waited for, as a stage is in Spark and an operation in cubed. Where too few are back,
        `LAST_RESORT` takes the place of `multiple`.
    """

    multiple: float
    after: float

    def limit(self, typical: float, back: int, others: int) -> float:
        """Seconds from a share's start after which it is copied.

        Parameters
        ----------
        typical
            The run's median share time.
        back, others
            How many shares of its group are back, and how many there are besides it.
        """
        enough = back >= self.after * others
        return typical * (self.multiple if enough else max(LAST_RESORT, self.multiple))


#: As cubed has it (backup tasks of its executors), and Spark (``spark.speculation`` before 4.0).
NAMED = {"cubed": Hedge(3.0, 0.5), "spark": Hedge(1.5, 0.75)}


def parse_hedge(given: Any) -> Hedge | None:
    """The policy that a user names, or describes: ``{"multiple": 2.0, "after": 0.5}``.

    Raises
    ------
    ConfigError
    """
    if given is None or isinstance(given, Hedge):
        return given
    if isinstance(given, str):
        return NAMED[one_of("hedge", given, tuple(NAMED))]
    if not isinstance(given, Mapping) or given.keys() != {"multiple", "after"}:
        raise ConfigError(
            f"hedge={given!r}: give one of {', '.join(map(repr, NAMED))}, or both numbers, "
            "{'multiple': 2.0, 'after': 0.5}"
        )
    numbers = [given["multiple"], given["after"]]
    real = all(isinstance(n, (int, float)) and math.isfinite(n) for n in numbers)
    if not real or numbers[0] < 1 or not 0 <= numbers[1] <= 1:
        raise ConfigError(
            f"hedge={given!r}: 'multiple' of the median is at least 1, 'after' a fraction from 0 "
            "to 1"
        )
    return Hedge(float(numbers[0]), float(numbers[1]))
