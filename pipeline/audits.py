"""Which shares are run again elsewhere, and what the clean audits prove. Pure.

An audit cannot be foreseen by the worker: whether a share is audited is decided when it is back.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from math import ceil, log
from typing import Generic, TypeVar

import numpy as np

#: Why a share is audited that is not suspicious.
FIRST, RANDOM = "its worker's first", "random"
DRAWN = (FIRST, RANDOM)

#: Confidence of the bound that clean audits give.
CONFIDENCE = 0.95

Ref = TypeVar("Ref")


def bound(clean: int) -> float:
    """The fraction of lies that ``clean`` random audits rule out with 95 % probability.

    A worker that lies in a fraction f of its shares passes m random audits with probability
    (1 - f)^m; that is below .05 where f > 1 - .05^(1/m).
    """
    return 1.0 - (1.0 - CONFIDENCE) ** (1.0 / clean) if clean else 1.0


def audits_for(assurance: float) -> int:
    """Clean audits after which `bound` is at most ``assurance``."""
    return ceil(log(1.0 - CONFIDENCE) / log(1.0 - assurance))


@dataclass(frozen=True)
class AuditRule:
    """How much is audited.

    Attributes
    ----------
    rate : float
        The fraction of shares drawn at random.
    first : bool
        Whether each worker's first share is audited as well.
    least : int
        Random audits that each worker has had at the end.
    assurance : float, optional
        The bound that each worker is to reach.
    """

    rate: float
    first: bool = True
    least: int = 3
    assurance: float | None = None

    @property
    def any(self) -> bool:
        """Whether anything is audited at all."""
        return self.rate > 0 or self.assurance is not None or self.first

    @property
    def needed(self) -> int:
        """Clean random audits that each worker is to have at the end."""
        return max(self.least, audits_for(self.assurance) if self.assurance else 0)


class AuditBook(Generic[Ref]):
    """The audits of a run, by worker.

    Only audits that no suspicion and no rule singled out count for the bound: those drawn at
    random. An audit is worth nothing if the auditor is convicted later.

    Attributes
    ----------
    audited : Counter
        Shares audited, for whatever reason, by worker.
    """

    def __init__(self, rule: AuditRule, rng: np.random.Generator) -> None:
        self.rule = rule
        self.audited: Counter[str] = Counter()
        self._rng = rng
        self._shares: Counter[str] = Counter()
        self._pending: Counter[str] = Counter()  #: random audits under way
        self._random: dict[str, list[str]] = defaultdict(list)  #: auditors of clean random audits
        self._all: dict[str, list[str]] = defaultdict(list)  #: auditors of all clean audits
        self._kept: dict[str, list[Ref]] = defaultdict(list)
        self._passed: Counter[str] = Counter()  #: shares that no audit was drawn for
        self._convicted: set[str] = set()
        self._room = max(2 * rule.least, 0 if rule.assurance is None else 64)

    def draw(self, worker: str, *, to_come: float = 0.0) -> str | None:
        """Decide on a share that has come back: why it is to be audited, or None.

        Parameters
        ----------
        worker
            Who ran it.
        to_come
            Shares that the worker is still expected to run.
        """
        self._shares[worker] += 1
        if self.rule.first and self._shares[worker] == 1:
            return FIRST
        rate = self.rule.rate
        if self.rule.assurance is not None:
            rate = max(rate, self.missing(worker) / max(1.0, to_come))
        return RANDOM if self._rng.random() < rate else None

    def keep(self, worker: str, ref: Ref) -> None:
        """Keep a share that was not drawn, so that it may still be audited at the end: a uniform
        sample of a few for each worker (Vitter's reservoir)."""
        self._passed[worker] += 1
        kept = self._kept[worker]
        if len(kept) < self._room:
            kept.append(ref)
        elif (place := int(self._rng.integers(self._passed[worker]))) < self._room:
            kept[place] = ref

    def discard(self, worker: str, ref: Ref) -> None:
        """A share that may have been kept is audited for another reason."""
        kept = self._kept[worker]
        self._kept[worker] = [one for one in kept if one is not ref]

    def began(self, worker: str, why: str) -> None:
        """An audit of a share of this worker is under way."""
        self.audited[worker] += 1
        self._pending[worker] += why == RANDOM

    def clean(self, worker: str, auditor: str, why: str) -> None:
        """It came out clean."""
        self._all[worker].append(auditor)
        if why == RANDOM:
            self._pending[worker] -= 1
            self._random[worker].append(auditor)

    def void(self, worker: str, why: str) -> None:
        """It came to nothing: its auditor, or the worker, is convicted."""
        self._pending[worker] -= why == RANDOM

    def convict(self, worker: str) -> None:
        """A worker is convicted: what it audited counts no longer."""
        self._convicted.add(worker)
        self._kept.pop(worker, None)

    def counted(self, worker: str) -> int:
        """Clean random audits by workers that are not convicted."""
        return self._valid(self._random[worker])

    def bound(self, worker: str) -> float | None:
        """See `bound`; 0 where each of its shares was audited, None where it ran none."""
        shares = self._shares[worker]
        if shares and self._valid(self._all[worker]) >= shares:
            return 0.0
        return bound(self.counted(worker)) if shares else None

    def _valid(self, auditors: list[str]) -> int:
        return sum(auditor not in self._convicted for auditor in auditors)

    def missing(self, worker: str) -> int:
        """Random audits that it has yet to have, those under way taken for clean."""
        return max(0, self.rule.needed - self.counted(worker) - self._pending[worker])

    def due(self) -> list[Ref]:
        """Shares to audit now, at the end of a run, so that each worker has had enough; as far as
        there are any."""
        found: list[Ref] = []
        for worker, kept in self._kept.items():
            for _ in range(min(self.missing(worker), len(kept))):
                found.append(kept.pop(int(self._rng.integers(len(kept)))))
        return found
