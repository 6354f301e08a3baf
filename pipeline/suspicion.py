"""Which shares, and which workers, look as if somebody lied. Pure.

A share is suspected when it is odd by itself; a worker is watched when the oddness of its shares
adds up over groups. Every worker may be the liar, and suspicion is never a proof: an audit tells.

What is not seen: lies that are as likely as the truth. A replay of an older share, or rows and
classes that changed places, leave all plain statistics as they were and show in the residual alone,
as far as the group's other shares foretell that share at all.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10

import numpy as np

from approxifer.coding import Code
from approxifer.coding.protocol import Array
from approxifer.errors import ConfigError
from approxifer.pipeline.usual import WHAT, History, Seen, Usual, Verdict

#: Of an honest worker's shares, at most so many begin a watch.
FALSE_WATCH = 1e-4
#: How the test over groups bets: 0 all on small p-values, 1 nothing.
BET = 0.5


@dataclass(frozen=True)
class Suspect:
    """A share that looks wrong.

    Attributes
    ----------
    group, share : int
    worker : str
        Who returned it.
    reason : str
        One line for the journal.
    score : float
        Minus the decimal logarithm of the chance that an honest share looks as odd.
    """

    group: int
    share: int
    worker: str
    reason: str
    score: float


class Stakes:
    """Adds up, for each worker, how odd its shares are: a sequential test.

    On every p-value p of a worker a gambler stakes part of his capital, which is thereby multiplied
    by BET * p^(BET-1), the mean of these for several p-values; who has less than 1 starts again
    with 1 (a CUSUM). For honest workers this is a fair game, p being uniform: until the capital
    reaches 1 / FALSE_WATCH it takes at least that many shares on average (Lorden, "Procedures for
    reacting to a change in distribution", Annals of Mathematical Statistics 42(6), 1971; with
    p-values by rank: Vovk et al., "Retrain or not retrain: conformal test martingales for
    change-point detection", COPA 2021). In fact it takes several times as many, as the capital
    mostly jumps over the line. The worker is then watched until `drop`.
    """

    def __init__(self) -> None:
        self._capital: dict[str, float] = {}

    def add(self, worker: str, chances: Sequence[float]) -> None:
        """Take the p-values of a share in."""
        if (capital := self._capital.get(worker, 1.0)) < 1 / FALSE_WATCH:
            gain = sum(BET * p ** (BET - 1) for p in chances) / len(chances)
            self._capital[worker] = max(1.0, capital * gain)

    def drop(self, worker: str) -> None:
        """Start again."""
        self._capital.pop(worker, None)

    @property
    def watched(self) -> frozenset[str]:
        """Workers on whom enough has been won."""
        return frozenset(w for w, capital in self._capital.items() if capital >= 1 / FALSE_WATCH)


class Suspicion:
    """The suspicion of one run. May be used from several threads.

    Parameters
    ----------
    code : Code
    rate : float
        Of clean groups, at most so many have a suspect. So have plain shares, divided by N.
    burn_in : int
        Groups that are needed before any is tested; then these are tested too.

    Attributes
    ----------
    suspected : Counter
        Shares suspected, by worker.

    Raises
    ------
    ConfigError
        A rate that is none, or a burn-in of fewer than 5 groups.
    """

    def __init__(self, code: Code, *, rate: float = 0.01, burn_in: int = 20) -> None:
        if not 0 < rate < 1:
            raise ConfigError(f"rate={rate}: give a fraction of groups, above 0 and below 1")
        if burn_in < 5:
            raise ConfigError(f"burn_in={burn_in}: give at least 5 groups to learn from")
        self.suspected: Counter[str] = Counter()
        self._n = code.n
        self._at_once = max(1, code.spec.byzantine)
        self._level = rate / (2 * code.n)  # residual and statistics of n shares
        self._coded = History(code.n, burn_in)
        self._plain = History(1, burn_in)
        self._stakes = Stakes()
        self._forgotten: set[str] = set()
        self._lock = threading.Lock()

    def add(
        self, group: int, outputs: Mapping[int, Array], workers: Mapping[int, str]
    ) -> list[Suspect]:
        """Take a complete group in.

        Parameters
        ----------
        group : int
        outputs : mapping of share to array (B, *out)
            What came back: finite real numbers, all of one shape and dtype.
        workers : mapping of share to str

        Returns
        -------
        list of Suspect
            Of this group; when the burn-in ends, of the earlier ones too.
        """
        with self._lock:
            known = {i: out for i, out in outputs.items() if workers[i] not in self._forgotten}
            return self._add(self._coded, Seen.of(group, known, workers, self._n))

    def add_plain(self, group: int, output: Array, worker: str) -> list[Suspect]:
        """Take in a share outside any codeword; only its statistics can be looked at.

        It is held against other such shares; its number is 0.
        """
        with self._lock:
            if worker in self._forgotten:
                return []
            return self._add(self._plain, Seen.of(group, {0: output}, {0: worker}, 1))

    @property
    def watched(self) -> frozenset[str]:
        """Workers on whom suspicion has added up: each of their shares is to be audited.

        Of an honest worker's shares at most `FALSE_WATCH` begin that; see `Stakes`.
        """
        with self._lock:
            return self._stakes.watched

    def cleared(self, worker: str) -> None:
        """An audit of a share of a watched worker came out clean: its sum starts again."""
        with self._lock:
            self._stakes.drop(worker)

    def forget(self, worker: str) -> None:
        """It is convicted: its shares leave the history, later ones are not looked at."""
        with self._lock:
            self._forgotten.add(worker)
            self._stakes.drop(worker)
            self._coded.forget(worker)
            self._plain.forget(worker)

    def _add(self, history: History, seen: Seen) -> list[Suspect]:
        found = []
        for one, usual in history.add(seen):
            verdict = usual.judge(one)
            for share, owner in enumerate(one.owners):
                if owner is not None:
                    self._stakes.add(owner, verdict.ranks[share].tolist())
            found += self._suspects(one, usual, verdict)
        self.suspected.update(one.worker for one in found)
        return found

    def _suspects(self, seen: Seen, usual: Usual, verdict: Verdict) -> list[Suspect]:
        """Name the oddest share, look again without it, and so up to E times."""
        found: list[Suspect] = []
        while True:
            share, kind = map(int, np.unravel_index(verdict.chances.argmin(), (seen.n, 2)))
            chance = float(verdict.chances[share, kind])
            owner = seen.owners[share]
            if owner is None or chance >= self._level or len(found) == self._at_once:
                return found
            reason = _reason(verdict, share, kind)
            found.append(Suspect(seen.group, share, owner, reason, -log10(max(chance, 1e-300))))
            seen = seen.without(share)
            verdict = usual.judge(seen)


def _reason(verdict: Verdict, share: int, kind: int) -> str:
    """Say what is odd."""
    spreads, chance = verdict.spreads[share], verdict.chances[share, kind]
    what = 0 if kind == 0 else 1 + int(np.abs(spreads[1:]).argmax())
    side = "above" if spreads[what] > 0 else "below"
    return (
        f"its {WHAT[what]} is {abs(spreads[what]):.1f} spreads {side} the usual, "
        f"as of one in {1 / max(chance, 1e-300):.2g} honest shares"
    )
