"""One run on the scheduler: its groups, the shares to send and to drop, the events for its client.

Free of Dask: every method takes the time ``now`` (monotonic seconds) and keys, so that the same
code is driven by the scheduler's plugin, by tests, and by simulations. Records go by a worker's
name (names survive a nanny's restart), placement by its address.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Any

import numpy as np

from approxifer.coding import Code
from approxifer.pipeline.keys import Key, new_key, run_of
from approxifer.pipeline.protocol import (
    Attempt,
    Complete,
    Ready,
    Returned,
    RunEvent,
    Send,
    Sent,
    Unready,
)
from approxifer.pipeline.records import AttemptOutcome
from approxifer.pipeline.scheduler.attempts import Attempts
from approxifer.pipeline.scheduler.ledger import Ledger
from approxifer.pipeline.scheduler.placement import Candidate, place
from approxifer.pipeline.scheduler.policy import (
    BROKEN,
    Decision,
    Policy,
    beyond_help,
    decide,
    decide_bound,
)
from approxifer.pipeline.scheduler.stall import StallWatch
from approxifer.pipeline.scheduler.state import AttemptState, Bar, GroupState, WorkerState
from approxifer.pipeline.scheduler.times import ShareTimes


@dataclass
class RunState:
    """One run."""

    run: str
    client: str
    codes: dict[str, Code]
    policy: Policy
    fingerprint: str  #: of the client's models
    seed: int
    restart: bool  #: whether workers that hang are restarted
    began: float
    workers: dict[str, WorkerState]  #: by address, shared by all runs
    block: int  #: rows of a full share
    micro_batch: int
    barred: InitVar[Iterable[Bar]] = ()  #: workers that other runs have convicted
    groups: dict[int, GroupState] = field(default_factory=dict)
    events: list[RunEvent] = field(default_factory=list)  #: for the client
    served: float = 0.0  #: seconds of shares that it has asked for: its place in the queues
    _waves: int = 0  #: how often shares were sent

    def __post_init__(self, barred: Iterable[Bar]) -> None:
        self.times = ShareTimes(self.block, self.micro_batch)
        self.ledger = Ledger(self.run, self.fingerprint, self.workers, barred)
        self.attempts = Attempts(self.workers, self.ledger, self.times)
        self.stall = StallWatch()

    # ---- groups and shares ----------------------------------------------------------------------

    def rank(self, shares: int, *, first: bool, others: Sequence[RunState]) -> float:
        """The priority of a group of so many shares that is opened now, before the others' lower
        ones. One that goes ``first`` (repairs and checks, so that the oldest windows close) has the
        highest of those in flight, and no higher: to a worker it looks like a share that is sent a
        second time.

        Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): what each run has asked for
        is counted in seconds, and the one that had least goes first. A run without work meanwhile
        saves up nothing, and one that begins starts level.
        """
        busy = [run.served for run in others if run.groups]
        if not self.groups and busy:
            self.served = max(self.served, min(busy))
        rank = -self.served
        self.served += shares * (self.times.typical or 0.0)
        if not first:
            return rank
        in_flight = (group for run in (self, *others) for group in run.groups.values())
        return max([rank, *(group.priority for group in in_flight)])

    def open_group(self, group: GroupState) -> None:
        """Take in a group; its shares are sent at the next `advance`."""
        self.groups[group.group] = group

    def settle(self, number: int) -> None:
        """The client has all that it needs of a group."""
        group = self.groups.pop(number, None)
        if group is not None:
            self.attempts.settle(group)

    def returned(self, key: Key, now: float, *, nbytes: int = 0) -> GroupState | None:
        """A share's output, of so many bytes, is on its worker. The group to look at, if that
        changes anything."""
        group = self.attempts.returned(key, now)
        if group is not None:
            self.stall.progressed(now)
            _, attempt = self.attempts.by_key[key]
            self.events.append(Returned(group.group, key, nbytes, attempt.output))
            attempt.output = None
        return group

    def advance(self, group: GroupState, now: float) -> list[Key]:
        """Act on the policy's decision for one group. The keys to drop, if any."""
        if group.complete or group.settled:
            return []
        if group.only is None and not group.attempts:
            self._send(group, range(group.code.n), now)
            return []
        decision = self._decide(group, now)
        if decision.submit:
            self._send(group, decision.submit, now)
            able = [worker for worker in self.workers.values() if self.ledger.serves(worker)]
            if beyond_help(group, able, self.policy):
                decision = BROKEN
        present = () if decision.complete else group.present()
        # Of several copies the first to return wins: the others leave the race at once.
        dropped = [
            a for a in group.attempts if a.live and (decision.complete or a.share in present)
        ]
        for attempt in dropped:
            self.attempts.drop(attempt, now)
        if decision.complete:
            self._complete(group, broken=decision.broken)
        return [attempt.key for attempt in dropped]

    def _decide(self, group: GroupState, now: float) -> Decision:
        policy, typical = self.policy, self.times.typical
        if group.only is not None:
            worker = self._bound_to(group, group.only, now)
            return decide_bound(group, now, policy=policy, typical=typical, worker=worker)
        out = self.attempts.awaited
        return decide(group, now, policy=policy, typical=typical, workers=self.workers, out=out)

    def _bound_to(self, group: GroupState, only: int, now: float) -> WorkerState | None:
        """The one worker that may run a group, which is sent to it whatever that is busy with;
        None where it can be given nothing."""
        worker = next((w for w in self.workers.values() if w.incarnation == only), None)
        if worker is None or worker.closed or worker.hung or not self.ledger.serves(worker):
            return None
        if not group.attempts:
            self._give(group, dict.fromkeys(range(group.code.n), worker.address), now)
        return worker

    def _send(self, group: GroupState, shares: Iterable[int], now: float) -> None:
        held, live, raised = defaultdict(set), defaultdict(set), defaultdict(set)
        for attempt in group.attempts:
            held[attempt.share].add(attempt.address)
            if attempt.fate is AttemptOutcome.FAILED:
                raised[attempt.share].add(attempt.name)
            if attempt.live:
                live[attempt.share].add(attempt.address)
        placed = place(
            list(shares),
            group.code,
            self.candidates(now, forbid=group.forbid),
            rng=np.random.default_rng([self.seed, group.group, len(group.attempts)]),
            held=held,
            live=live,
            raised=raised,
            avoid=group.avoid,
            reuse=self.policy.reuse and bool(group.attempts),
        )
        self._give(group, placed, now)

    def candidates(self, now: float, *, forbid: Collection[int] = ()) -> list[Candidate]:
        """The workers that may be given this run's shares, but for incarnations to ``forbid``."""
        limit = self.policy.slow_limit(self.times.typical)
        found = []
        for worker in self.workers.values():
            if not self.ledger.serves(worker) or worker.incarnation in forbid:
                continue
            if worker.closed or worker.hung or worker.stuck(now, limit):
                continue
            pace = self.times.pace_of(worker.name)
            ahead = (worker.queued + len(worker.running)) / worker.slots
            found.append(Candidate(worker.address, worker.name, ahead * pace, pace, worker.where))
        return found

    def _give(self, group: GroupState, placed: Mapping[int, str], now: float) -> None:
        """Send shares to the addresses at which they are placed."""
        if not placed:
            return
        tries = Counter(attempt.share for attempt in group.attempts)
        # Parity can wait for idle time where the blocks themselves are under way (not: berrut).
        first = not group.attempts and bool(group.code.exact(range(group.code.n)).all())
        self._waves += 1
        sent = []
        for share, address in placed.items():
            worker = self.workers[address]
            attempt = AttemptState(
                share,
                tries[share],
                address,
                worker.name,
                now,
                key=new_key(self.run),
                incarnation=worker.incarnation,
                lazy=first and self.policy.lazy and group.code.carries[share] is None,
                wave=self._waves,
            )
            self.attempts.add(group, attempt)
            sent.append(attempt)
        if self.policy.hedge is not None:
            flight = self.attempts.awaited(sent[0])
            for attempt in sent:
                attempt.flight = flight
        to = tuple(Sent(a.share, a.attempt, a.name, a.address, a.key) for a in sent)
        self.events.append(Send(group.group, to))

    def _complete(self, group: GroupState, *, broken: bool) -> None:
        group.complete = True
        present = group.present()
        exact = group.code.exact(present)
        for attempt in group.attempts:
            if attempt.returned:
                needed = not exact.all() or group.code.carries[attempt.share] is not None
                first = present[attempt.share] is attempt
                attempt.fate = AttemptOutcome.USED if needed and first else AttemptOutcome.SPARE
        used = tuple((share, a.attempt) for share, a in present.items())
        attempts = tuple(self._end_of(a) for a in group.attempts)
        self.events.append(Complete(group.group, broken, used, attempts))

    def _end_of(self, attempt: AttemptState) -> Attempt:
        assert attempt.fate is not None, "its group is complete"
        start, stop = (None if t is None else self._since(t) for t in (attempt.start, attempt.stop))
        member, fate = attempt.incarnation, attempt.fate
        return Attempt(
            attempt.share, attempt.attempt, attempt.name, member, fate, start, stop, attempt.error
        )

    def _since(self, time: float) -> float:
        """The seconds since the run began."""
        return round(time - self.began, 4)

    # ---- workers --------------------------------------------------------------------------------

    def notify(self, worker: WorkerState, what: str, now: float) -> None:
        """Notify the client of what a worker becomes: see `Ledger.change`."""
        self.events.append(self.ledger.change(worker, what, self._since(now)))

    def model_loaded(self, worker: WorkerState, report: Ready | Unready, now: float) -> None:
        """A worker reports that it has loaded the run's model, or could not."""
        self.events += self.ledger.model_loaded(worker, report, self._since(now))

    def bar(self, bars: Iterable[Bar], now: float) -> list[Key]:
        """Give convicted workers no more shares. The keys of those that they still have."""
        self.events += self.ledger.bar(bars, self._since(now))
        barred = {w.address for w in self.workers.values() if self.ledger.is_barred(w)}
        return self.attempts.live_at(barred)

    def hung_workers(self, now: float) -> Iterator[WorkerState]:
        """Workers that have just been found to hang, by this run's limits."""
        limit = self.policy.hang_limit(self.times.typical)
        for worker in self.workers.values():
            if worker.hung or not self.ledger.serves(worker):
                continue
            ours = [since for key, since in worker.running.items() if run_of(key) == self.run]
            if any(now - since > limit for since in ours) or worker.silent(now, limit):
                yield worker

    def look_for_stall(self, now: float) -> None:
        """Notify the client when nothing has come back for long."""
        notice = self.stall.look(
            self.groups.values(),
            now,
            limit=self.policy.stall_limit(self.times.typical),
            ready=self.ledger.ready_workers(),
            present=len(self.workers),
        )
        if notice is not None:
            self.events.append(notice)

    def summary(self) -> dict[str, Any]:
        """The ledger, for the client."""
        return self.ledger.summary(self.attempts.open_rows(), self.times)
