"""Spot checks: a few rows of every share that is used are run again elsewhere. Pure.

Which rows, and by whom, is drawn by the client once the output is in its hands, so a worker can
foresee neither. For a share of B rows of which w are wrong, m random ones miss all of them with
probability C(B - w, m) / C(B, m), at most (1 - m/B)^w. Whole shares checked at the same cost, a
fraction m/B of them, miss it with probability 1 - m/B, whatever w is. Of several rows one is not
random but that whose output is furthest from the others (`outliers`): no bound rests on it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, inf, log, log1p
from typing import TYPE_CHECKING, Any

import numpy as np

from approxifer.pipeline.byzantine.membership import CLIENT
from approxifer.pipeline.share_rows import ShareRows

if TYPE_CHECKING:
    from approxifer.pipeline.client.window import Window

#: Rows of a share that are checked unless the user gives another number.
DEFAULT_CHECK = 3
#: Confidence of the bound that clean checks give.
CONFIDENCE = 0.95
#: Rows that are not finite, though their input is, which are checked besides.
ODD = 16


#: Why rows are checked: the share is used; an earlier check of them is void; `assurance` asks for
#: more of what a member has written.
USED, AGAIN, ASSURANCE = "used", "again", "assurance"
#: The event that written rows are scored again, because they could not be checked again.
RESCORED = "rescored"


@dataclass(eq=False)
class Checked:
    """Rows of one share, or of all that a member has written, that are checked together."""

    member: int  #: index of who returned them
    group: int  #: -1 for rows of several shares, as ``share``
    share: int
    of: int = 0  #: rows out of which they were drawn
    #: The part of these that was drawn at random, times the part of the checkers that E - 1
    #: accomplices leave honest.
    rate: float = 0.0
    why: str = AGAIN
    window: Window | None = None  #: that waits for it; None: it is written
    asked: frozenset[int] = frozenset()  #: incarnations that ran the share, and check none of it
    left: int = 0  #: checks that are not back
    rows: list[tuple[int, ...]] = field(default_factory=list)  #: the queries of each checked row
    checkers: list[int] = field(default_factory=list)  #: index of who has checked each of them
    drawn: set[int] = field(default_factory=set)  #: incarnations of all checkers so far

    def event(self) -> dict[str, Any]:
        """As the journal keeps it."""
        names = ("member", "group", "share", "of", "rate", "why", "rows", "checkers")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, eq=False)
class Check:
    """One row to be run again."""

    of: Checked
    rows: tuple[int, ...]  #: queries of the input that it is made of: one, or its codeword's K
    query: ShareRows  #: one row, as the model takes it
    output: np.ndarray | None  #: (*out), as returned or stored; None: that was no output
    model: int = 0  #: that ran it: 0 is the user's, r + 1 is parity model r
    tried: frozenset[int] = frozenset()  #: incarnations that were to check it, and have not
    raised: frozenset[str] = frozenset()  #: names of workers on which the model raised
    alone: bool = False  #: to be run in a batch of its own


def random_rows(check: int, rows: int) -> int:
    """The number of a share's rows that are drawn at random: all that are checked, but for the one
    of the furthest output."""
    return rows if check >= rows else max(1, check - 1)


def choose_rows(
    distances: np.ndarray, odd: np.ndarray, check: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw the rows of a share that are checked.

    Parameters
    ----------
    distances : (n,)
        Of the output of each row that will be written or decoded from, from what is usual.
    odd : int (o,)
        Those of them that are not finite though their input is: checked besides, up to `ODD`.
    check : int
        Rows to check: m. The last of at least two is the furthest of those that are not drawn.
    """
    rows = len(distances)
    drawn = rng.choice(rows, random_rows(check, rows), replace=False)
    found = [drawn, rng.permutation(odd)[:ODD]]
    rest = np.setdiff1d(np.arange(rows), np.concatenate([drawn, odd]))
    if len(rest) and len(drawn) < check:
        found.append(rest[[np.argmax(distances[rest])]])
    return np.unique(np.concatenate(found)).astype(int)


class CheckerOrder:
    """The order in which workers are asked to check: random, and kept until a batch is full.

    No worker may foresee it. Drawn for each row by itself, rows wait for as many batches as there
    are workers, of which few are full. With one order for a while the first one allowed has them
    all, and is still as likely to be any other.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._places: dict[int, float] = {}

    def order(self, allowed: Iterable[int]) -> list[int]:
        """Arrange incarnations as they are asked."""
        return sorted(allowed, key=lambda one: self._places.setdefault(one, self._rng.random()))

    def draw_again(self) -> None:
        """Have another order from now on."""
        self._places.clear()


def choose_checkers(
    rows: int, allowed: Sequence[int], byzantine: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Give each row a checker: the first of those allowed, in the order of `CheckerOrder`.

    With E of at least 2 the checkers of a share are at least E + 1 different ones, a row having
    two where there are fewer rows: E - 1 of them may be accomplices. Which of them has which row
    is drawn. Where fewer than E are allowed, so that all might be accomplices, or none is, the
    client is asked too (`CLIENT`). The pairs are (row, checker).
    """
    if byzantine <= 1:
        return [(row, allowed[0] if allowed else CLIENT) for row in range(rows)]
    needed = max(rows, byzantine + 1)
    chosen = list(allowed[:needed]) + [CLIENT] * (len(allowed) < byzantine)
    chosen = rng.permutation(chosen).tolist()
    needed = max(needed, len(chosen))
    return [(i % rows, chosen[i % len(chosen)]) for i in range(needed)]


def honest_part(checkers: Sequence[int], byzantine: int) -> float:
    """The least part of a share's checkers that E - 1 accomplices leave honest."""
    workers = len(set(checkers) - {CLIENT})
    accomplices = min(byzantine - 1, workers) if byzantine > 1 else 0
    return 1.0 - accomplices / max(1, len(set(checkers)))


# ---- rows wait for their checker -----------------------------------------------------------------


@dataclass
class Queues:
    """Rows of many shares wait for their checker, to fill its micro-batch."""

    size: int  #: rows of a full batch
    most: int = 2**26  #: bytes of rows that wait; beyond them the largest queue goes out
    #: For each checker and model: the checks, and when the first came.
    _queues: dict[tuple[int, int], tuple[list[Check], float]] = field(default_factory=dict)
    _nbytes: int = 0

    def add(self, checker: int, check: Check, now: float) -> list[tuple[int, list[Check]]]:
        """Add a check. The batches (checker, checks) that go out."""
        if check.alone:
            return [(checker, [check])]
        key = (checker, check.model)
        checks, _ = self._queues.setdefault(key, ([], now))
        checks.append(check)
        self._nbytes += check.query.nbytes
        out = [self._take(key)] if len(checks) >= self.size else []
        while self._nbytes > self.most:
            out.append(self._take(max(self._queues, key=lambda k: _nbytes(self._queues[k][0]))))
        return out

    def older(self, limit: float) -> list[tuple[int, list[Check]]]:
        """Take the queues that were begun before ``limit``."""
        return [self._take(k) for k, (_, since) in list(self._queues.items()) if since < limit]

    def of_window(self, window: Window) -> list[tuple[int, list[Check]]]:
        """Take the queues in which a check of this window waits."""
        return [
            self._take(key)
            for key, (checks, _) in list(self._queues.items())
            if any(check.of.window is window for check in checks)
        ]

    def everything(self) -> list[tuple[int, list[Check]]]:
        """Take all queues."""
        return self.older(inf)

    def _take(self, key: tuple[int, int]) -> tuple[int, list[Check]]:
        checks, _ = self._queues.pop(key)
        self._nbytes -= _nbytes(checks)
        return key[0], checks


def _nbytes(checks: Iterable[Check]) -> int:
    return sum(check.query.nbytes for check in checks)


# ---- what checks prove ---------------------------------------------------------------------------


@dataclass
class Proof:
    """The checked rows of one member."""

    rows: int = 0  #: of its shares that were used
    checked: int = 0
    rate: float = 1.0  #: the lowest `Checked.rate` of its shares
    extra: float = 0.0  #: rows drawn besides from all that it has written, honestly checked
    whole: bool = False  #: all its rows were

    @property
    def bound(self) -> float:
        """The fraction of its rows that may be wrong: more would have been seen with 95 %
        probability.

        W wrong rows pass checks at a rate q with probability (1 - q)^W at most, however they are
        spread over the shares, and n rows drawn from all T with (1 - W/T)^n: together less than
        exp(-(W/T) R) with R = -log(1 - q) T + n. So W/T < 3/R. A lower rate for one share counts
        for all: honesty where the rate is high does not pay for corruption where it is low.
        """
        if not self.rows or self.whole or self.rate >= 1.0:
            return 0.0
        evidence = self._evidence
        return min(1.0, -log(1.0 - CONFIDENCE) / evidence) if evidence > 0 else 1.0

    @property
    def _evidence(self) -> float:
        return -log1p(-self.rate) * self.rows + self.extra

    def missing(self, assurance: float) -> int:
        """Rows to draw besides until the bound is at most ``assurance``."""
        if self.bound <= assurance:
            return 0
        return ceil(-log(1.0 - CONFIDENCE) / assurance - self._evidence)


#: A share, as the journal names it: member, group, share.
Share = tuple[int, int, int]


def proofs(events: Iterable[Mapping[str, Any]], void: Collection[int]) -> dict[int, Proof]:
    """Sum up the checks of a journal, by the index of the member; those that ``void`` members made
    do not count."""
    checks = [event for event in events if event.get("event") == "check"]
    good, _ = _sorted(checks, void)
    found: dict[int, Proof] = defaultdict(Proof)
    besides: Counter[int] = Counter()
    for event in checks:
        proof, rows = found[event["member"]], {tuple(rows) for rows in event["rows"]}
        counted = len(rows & good[_share(event)])
        match event["why"]:
            case "used":
                proof.rows += event["of"]
                proof.checked += counted
                if event["of"]:  # else nothing of it stays
                    proof.rate = min(proof.rate, event["rate"] * counted / max(1, len(rows)))
            case "assurance":
                proof.checked += counted
                proof.extra += counted * event["rate"]
                besides[event["member"]] += counted
                proof.whole |= event["of"] <= besides[event["member"]]
    return dict(found)


def owed(
    events: Iterable[Mapping[str, Any]], void: Collection[int]
) -> dict[Share, set[tuple[int, ...]]]:
    """The checks of a journal that are to be made again: for each share, the queries of each row.
    The checks of ``void`` members do not count, and their shares need none, nor do rows that were
    scored again since."""
    checks: list[Mapping[str, Any]] = []
    for event in events:
        if event.get("event") == "check":
            checks.append(event)
        elif event.get("event") == RESCORED:
            checks = [_without(check, set(event["rows"])) for check in checks]
    good, bad = _sorted(checks, void)
    left = {share: rows - good[share] for share, rows in bad.items() if share[0] not in void}
    return {share: rows for share, rows in left.items() if rows}


def _without(check: Mapping[str, Any], gone: set[int]) -> Mapping[str, Any]:
    """A check without that of rows that are not there any more."""
    pairs = zip(check["rows"], check["checkers"], strict=True)
    left = [(rows, checker) for rows, checker in pairs if gone.isdisjoint(rows)]
    return {**check, "rows": [rows for rows, _ in left], "checkers": [one for _, one in left]}


def _sorted(
    checks: Iterable[Mapping[str, Any]], void: Collection[int]
) -> tuple[dict[Share, set[tuple[int, ...]]], dict[Share, set[tuple[int, ...]]]]:
    """The rows that were checked by members that count, and by those that do not."""
    good: dict[Share, set[tuple[int, ...]]] = defaultdict(set)
    bad: dict[Share, set[tuple[int, ...]]] = defaultdict(set)
    for event in checks:
        for rows, checker in zip(event["rows"], event["checkers"], strict=True):
            (bad if checker in void else good)[_share(event)].add(tuple(rows))
    return good, bad


def _share(event: Mapping[str, Any]) -> Share:
    return (event["member"], event["group"], event["share"])
