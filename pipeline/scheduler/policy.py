"""Decisions on a group, from records alone.

Nothing here knows of Dask, sleeps, or reads a clock: ``now`` comes in, a `Decision` goes out. The
scheduler plugin asks `decide` whenever a share of a group starts, returns or is lost, and at every
tick of its clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from approxifer.coding import Code
from approxifer.pipeline.records import AttemptOutcome
from approxifer.pipeline.scheduler.hedging import Hedge
from approxifer.pipeline.scheduler.state import AttemptState, GroupState, WorkerState


@dataclass(frozen=True)
class Policy:
    """The knobs of one run. Multiples are of the run's median share time."""

    #: How long a decodable group waits for the rest: until each has run for 1 + patience medians;
    #: 0 waits for nothing (the paper).
    patience: float = 1.0
    #: A group below its threshold submits a share again that has run for this many medians.
    late: float = 2.0
    #: When a second copy goes out before that, of a share of which one is out.
    hedge: Hedge | None = None
    #: Seconds below which no share is late: shares of a few ms jitter by more than their length.
    floor: float = 0.25
    #: Seconds (but at least 10 medians) after which a running share, or a silent worker, is hung.
    hang_after: float = 30.0
    #: Seconds (but at least 3 hang limits) without any share coming back: the run gives up.
    stall_after: float = 300.0
    #: Parity shares go to idle time only.
    lazy: bool = False
    #: Every block is wanted as its own share brings it (``repair="exact"``, byzantine = 0): one
    #: that is late is sent again while its group is open, for it would be repaired in the end.
    exact: bool = False
    #: A share may go to a worker that has returned another share of the same group (byzantine = 0).
    reuse: bool = True
    #: A share on which the model raised this often is not tried again.
    max_failures: int = 3

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Policy:
        """From ``dataclasses.asdict`` of one."""
        hedge = fields["hedge"]
        return cls(**{**fields, "hedge": None if hedge is None else Hedge(**hedge)})

    def patience_limit(self, typical: float | None) -> float:
        """Seconds from a share's start after which a decodable group stops waiting for it."""
        return inf if typical is None else max((1 + self.patience) * typical, self.floor)

    def late_limit(self, typical: float | None) -> float:
        """Seconds from a share's start after which it is submitted again."""
        return inf if typical is None else max(self.late * typical, self.floor)

    def slow_limit(self, typical: float | None) -> float:
        """Seconds from a share's start after which its worker is slow: other work passes it by."""
        if typical is None or self.hedge is None:
            return self.late_limit(typical)
        return max(self.hedge.multiple * typical, self.floor)

    def stall_limit(self, typical: float | None) -> float:
        """Seconds without a share that comes back after which the run gives up."""
        return max(self.stall_after, 3 * self.hang_limit(typical))

    def hang_limit(self, typical: float | None) -> float:
        """Seconds after which a running share is given up, and its worker with it."""
        return max(self.hang_after, 10 * (typical or 0.0))


@dataclass(frozen=True)
class Decision:
    """An action. ``complete``: stop, drop the rest. ``submit``: shares to send (again)."""

    complete: bool = False
    #: Complete without an output for every block: its shares failed too often.
    broken: bool = False
    submit: tuple[int, ...] = ()


WAIT = Decision()
COMPLETE = Decision(complete=True)
BROKEN = Decision(complete=True, broken=True)


def wanted(code: Code, present: Collection[int], outstanding: set[int]) -> set[int]:
    """The outstanding shares that would still make the output better.

    Where every block can be had unchanged, these are the shares that carry a missing block;
    otherwise (``berrut``) each further share helps the interpolation.
    """
    exact = code.exact(present)
    if code.exact(range(code.n)).all():
        return {
            s for s in outstanding if (block := code.carries[s]) is not None and not exact[block]
        }
    return outstanding


def decide(
    group: GroupState,
    now: float,
    *,
    policy: Policy,
    typical: float | None,
    workers: Mapping[str, WorkerState],
    out: Callable[[AttemptState], int] = lambda attempt: attempt.flight,
) -> Decision:
    """Decide on a group that is not complete.

    It is complete when it is decodable, and every block is exact or each share that would better
    it has run out of patience. (With Byzantine workers no code is decodable before N - S shares are
    in: the wrong ones must be found among the others.) Until then shares that are late or lost are
    submitted again, as few as make an output possible, and with `Policy.exact` all that carry a
    block that is missing. With `Policy.hedge` a share counts as late from its limit on, once
    ``out``, how many of an attempt's flight are still awaited, is low enough; then two copies are
    in the race, and only `Policy.late` would send a third.
    """
    code = group.code
    present = set(group.present())
    live = [a for a in group.attempts if a.live and a.share not in present]
    if code.decodable(present):
        if not _patient(group, present, live, now, policy, typical, workers):
            return COMPLETE
        if not policy.exact:
            return WAIT
    hopeful = present | _in_time(live, now, policy, typical, workers, out)
    candidates = [
        s for s in range(code.n) if s not in hopeful and group.failures(s) < policy.max_failures
    ]
    candidates.sort(key=lambda s: code.carries[s] is None)
    submit = set(fewest(code.decodable, hopeful, candidates))
    if policy.exact:
        submit.update(fewest(lambda shares: bool(code.exact(shares).all()), hopeful, candidates))
    if submit or live:
        return Decision(submit=tuple(sorted(submit)))
    return BROKEN


def decide_bound(
    group: GroupState,
    now: float,
    *,
    policy: Policy,
    typical: float | None,
    worker: WorkerState | None,
) -> Decision:
    """Decide on a group that only one worker may run, once it is sent or cannot be.

    It is complete as soon as its share is back or is late: then without an output. Nobody else is
    sent it, nor that worker a second time.

    Parameters
    ----------
    worker
        None where it can be given nothing.
    """
    if group.code.decodable(group.present()):
        return COMPLETE
    live = [attempt for attempt in group.attempts if attempt.live]
    limit = min(policy.late_limit(typical), policy.hang_limit(typical))
    if worker is None or not live or any(a.overdue(now, limit, worker) for a in live):
        return BROKEN
    return WAIT


def beyond_help(group: GroupState, workers: Collection[WorkerState], policy: Policy) -> bool:
    """True if the model raised on shares of a group, nothing of it is under way, and each of the
    workers that have the model, busy or not, holds or held another share of it: where outputs may
    be wrong it would not be given a second one. One that hangs is waited for only until the
    model has raised as often as is enough for a share."""
    raised = sum(attempt.fate is AttemptOutcome.FAILED for attempt in group.attempts)
    if policy.reuse or not raised or any(attempt.live for attempt in group.attempts):
        return False
    wait = raised < policy.max_failures
    ever = {attempt.address for attempt in group.attempts}
    able = [worker for worker in workers if wait or not worker.hung]
    return len(able) > 0 and all(
        worker.address in ever or worker.incarnation in group.forbid for worker in able
    )


def _patient(
    group: GroupState,
    present: set[int],
    live: list[AttemptState],
    now: float,
    policy: Policy,
    typical: float | None,
    workers: Mapping[str, WorkerState],
) -> bool:
    """True if a decodable group waits for a share that would better it."""
    code = group.code
    if policy.patience == 0 or code.exact(present).all():
        return False
    limit = policy.patience_limit(typical)
    helpful = wanted(code, present, {a.share for a in live})
    return any(
        a.share in helpful and not a.overdue(now, limit, workers.get(a.address)) for a in live
    )


def _in_time(
    live: list[AttemptState],
    now: float,
    policy: Policy,
    typical: float | None,
    workers: Mapping[str, WorkerState],
    out: Callable[[AttemptState], int],
) -> set[int]:
    """The shares that need not be sent again yet."""
    late, slow, hedge = policy.late_limit(typical), policy.slow_limit(typical), policy.hedge
    copies = Counter(a.share for a in live)

    def overdue(attempt: AttemptState) -> bool:
        worker = workers.get(attempt.address)
        return (
            (attempt.lazy and attempt.start is None)  # idle time may never come
            or attempt.overdue(now, late, worker)
            or (
                hedge is not None
                and copies[attempt.share] == 1
                and attempt.overdue(now, slow, worker)
                and hedge.ready(attempt.flight, out(attempt))
            )
        )

    return {attempt.share for attempt in live if not overdue(attempt)}


def fewest(
    enough: Callable[[Collection[int]], bool], have: set[int], candidates: list[int]
) -> tuple[int, ...]:
    """The candidates, preferring the early ones, without which ``have`` is not ``enough``.

    Empty where all of them together do not suffice.
    """
    chosen = list(candidates)
    if not enough(have | set(chosen)):
        return ()
    for share in reversed(candidates):
        if enough(have | (set(chosen) - {share})):
            chosen.remove(share)
    return tuple(chosen)
