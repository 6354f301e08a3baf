"""The books of the runs on one scheduler: workers, groups, attempts, and what to tell the clients.

Free of Dask: every method takes the time ``now`` (monotonic seconds) and keys, so that the same
code is driven by the scheduler's plugin, by tests, and by simulations. Work is told by name (names
survive a nanny's restart), placement goes by address.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import ceil, inf
from statistics import median
from typing import Any

import numpy as np

from approxifer.coding import Code
from approxifer.pipeline.keys import Key, new_key, run_of
from approxifer.pipeline.protocol import (
    Attempt,
    Complete,
    Contradiction,
    Ready,
    Returned,
    RunEvent,
    Send,
    Sent,
    Stalled,
    Unready,
    WorkerChange,
)
from approxifer.pipeline.records import AttemptOutcome, WorkerRecord
from approxifer.pipeline.scheduler.placement import Candidate, place
from approxifer.pipeline.scheduler.policy import (
    BROKEN,
    AttemptState,
    Decision,
    GroupState,
    Policy,
    ShareTimes,
    decide,
    decide_bound,
)
from approxifer.pipeline.scheduler.stall import held
from approxifer.pipeline.scheduler.state import Bar, WorkerState, unfit

#: How often one worker (by name) is restarted in one run before it is left alone.
MAX_RESTARTS = 3


@dataclass
class RunState:
    """One run: its groups, its share times, its ledger of workers, its news for the client."""

    run: str
    client: str
    codes: dict[str, Code]
    policy: Policy
    fingerprint: str
    seed: int
    restart: bool
    began: float
    workers: dict[str, WorkerState]  #: by address, shared by all runs
    block: int  #: rows of a full share: what share times are of
    micro_batch: int
    groups: dict[int, GroupState] = field(default_factory=dict)
    by_key: dict[Key, tuple[GroupState, AttemptState]] = field(default_factory=dict)
    times: ShareTimes = field(default_factory=ShareTimes)
    pace: dict[str, float] = field(default_factory=dict)  #: seconds of a full share, by worker name
    latencies: dict[str, deque[float]] = field(
        default_factory=lambda: defaultdict(lambda: deque(maxlen=1000))
    )
    records: dict[str, WorkerRecord] = field(default_factory=dict)
    unreported: dict[Key, tuple[str, int]] = field(default_factory=dict)  #: started, rows not told
    unready: dict[str, str] = field(default_factory=dict)  #: worker name to why it has no model
    changed: set[int] = field(default_factory=set)  #: incarnations that contradicted themselves
    events: list[RunEvent] = field(default_factory=list)
    barred: set[Bar] = field(default_factory=set)  #: convicted workers: given no more shares
    shut_out: set[int] = field(default_factory=set)  #: incarnations told of as such
    waves: int = 0  #: how often shares were sent
    served: float = 0.0  #: seconds of shares that it has asked for: its place in the queues
    moved: float = inf  #: when a share came back last, or there was nothing to wait for
    warned: bool = False  #: since then, that nothing comes back

    # ---- what happens -------------------------------------------------------------------------

    def rank(self, shares: int, *, first: bool, others: Sequence[RunState]) -> float:
        """The priority of a group of so many shares that is opened now, before the others' lower
        ones. One that goes ``first`` (repairs and checks, so that the oldest windows close) has the
        highest of those in flight, and no higher: a worker cannot tell it from a share that is sent
        a second time.

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

    def started(self, key: Key, address: str, now: float) -> None:
        """A worker reports that it has begun a share: once, and only from where it was sent."""
        found, worker = self.by_key.get(key), self.workers.get(address)
        if found is None or worker is None:
            return
        group, attempt = found
        wanted = (
            attempt.live or attempt.fate is AttemptOutcome.UNSTARTED
        )  # while it is being dropped
        if attempt.address != address or attempt.start is not None or not wanted:
            return
        attempt.start = worker.running[key] = now
        worker.waiting.discard(key)
        self.unreported[key] = (attempt.name, group.rows)

    def ended(self, key: Key, address: str, now: float, *, rows: int, whole: bool) -> None:
        """A worker reports that it has left a share which it had begun: ``whole``, or stopped, or
        failed, after starting ``rows``. It counts once, and only from where it was sent.

        The report frees it of a share that is dropped; of one that is awaited only the output does.
        """
        if key not in self.unreported:
            return
        group, attempt = self.by_key[key]
        if attempt.address != address:
            return
        assert attempt.start is not None, "it has been begun"
        del self.unreported[key]
        self.record(attempt.name).evaluations += min(max(rows, 0), group.rows)
        if not group.check:
            self._time(group, attempt, now - attempt.start, whole=whole)
        if not attempt.live:
            self._left_queue(attempt)
        settled = group.group not in self.groups
        if settled or (attempt.fate is not None and not attempt.returned):
            self._forget(key)

    def returned(self, key: Key, now: float, *, nbytes: int = 0) -> GroupState | None:
        """A share's output, of so many bytes, lies on its worker. The group to look at, if that
        changes anything."""
        found = self.by_key.get(key)
        if found is None or not found[1].live:
            return None
        group, attempt = found
        attempt.returned, attempt.stop = True, now
        self.moved, self.warned = now, False
        self._left_queue(attempt)
        if attempt.seconds is not None:
            self._learn(attempt, attempt.seconds)
        self.record(attempt.name).run += 1
        self.events.append(Returned(group.group, key, nbytes))
        return group

    def lost(
        self,
        key: Key,
        now: float,
        *,
        fate: AttemptOutcome = AttemptOutcome.LOST,
        error: str | None = None,
    ) -> GroupState | None:
        """A share will not come back, or what came back could not be fetched."""
        found = self.by_key.get(key)
        if found is None or found[1].fate in (
            AttemptOutcome.LOST,
            AttemptOutcome.FAILED,
            AttemptOutcome.DROPPED,
            AttemptOutcome.UNSTARTED,
        ):
            return None
        group, attempt = found
        if attempt.returned:
            self.record(attempt.name).run -= 1
        attempt.returned, attempt.fate, attempt.stop, attempt.error = False, fate, now, error
        self.record(attempt.name).erased += 1
        self._left_queue(attempt)
        group.complete = False
        return group

    def died_at_it(self, key: Key) -> bool:
        """True if a share that is lost with its worker had been begun by it, and the worker was not
        asked to leave. A share that asks for more memory than there is kills every worker that it
        is given to: it counts as one on which the model raises."""
        _, attempt = self.by_key[key]
        worker = self.workers.get(attempt.address)
        return attempt.start is not None and worker is not None and not worker.retiring

    def worker_gone(self, address: str, now: float) -> set[int]:
        """A worker has left: its shares are erasures. The groups to look at."""
        touched = set()
        for key, (state, attempt) in list(self.by_key.items()):
            if attempt.address != address:
                continue
            if key in self.unreported:  # how far it came is not known: count the whole share
                name, rows = self.unreported.pop(key)
                self.record(name).evaluations += rows
            # A share that came back may have been fetched already; the client will tell.
            group = None if attempt.returned else self.lost(key, now)
            if group is not None:
                touched.add(group.group)
            if (
                attempt.fate in (AttemptOutcome.DROPPED, AttemptOutcome.UNSTARTED)
                or state.group not in self.groups
            ):
                self._forget(key)
        return touched

    def settle(self, group: int) -> None:
        """The client has all it needs of a group."""
        state = self.groups.pop(group, None)
        for attempt in state.attempts if state else ():
            if attempt.key not in self.unreported:  # a zombie still has to say what it did
                self._forget(attempt.key)

    def close(self) -> list[Key]:
        """The run ends. The keys to drop; what runs stays with its worker until it says its end."""
        for _, attempt in self.by_key.values():
            self._left_queue(attempt)
        return [key for key, (_, attempt) in self.by_key.items() if attempt.live]

    # ---- what to do ---------------------------------------------------------------------------

    def advance(self, group: GroupState, now: float) -> list[Key]:
        """Act on the policy's decision for one group. The keys to drop, if any."""
        if group.complete or group.group not in self.groups:
            return []
        if group.only is not None:
            decision = self._bound(group, group.only, now)
        elif not group.attempts:
            self._send(group, range(group.code.n), now)
            return []
        else:
            decision = decide(
                group,
                now,
                policy=self.policy,
                typical=self.times.typical,
                workers=self.workers,
                out=self._out,
            )
        if decision.submit:
            self._send(group, decision.submit, now)
            if self._beyond_help(group):
                decision = BROKEN
        present = () if decision.complete else group.present()
        # Of several copies the first to return wins: the others leave the race at once.
        dropped = [
            a for a in group.attempts if a.live and (decision.complete or a.share in present)
        ]
        for attempt in dropped:
            self._drop(attempt, now)
        if decision.complete:
            self._complete(group, broken=decision.broken)
        return [attempt.key for attempt in dropped]

    def _bound(self, group: GroupState, only: int, now: float) -> Decision:
        """Send a group to the one worker that may run it, whatever that is busy with; then decide
        on it."""
        worker = next((w for w in self.workers.values() if w.incarnation == only), None)
        if worker is not None and (worker.closed or worker.hung or not self._may_serve(worker)):
            worker = None
        if worker is not None and not group.attempts:
            self._give(group, dict.fromkeys(range(group.code.n), worker.address), now)
        typical = self.times.typical
        return decide_bound(group, now, policy=self.policy, typical=typical, worker=worker)

    def _beyond_help(self, group: GroupState) -> bool:
        """True if the model raised on shares of a group, nothing of it is under way, and each
        worker that has the model, busy or not, holds or held another share of it: where outputs may
        be wrong it would not be given a second one. One that hangs is waited for only until the
        model has raised as often as is enough for a share."""
        raised = sum(attempt.fate is AttemptOutcome.FAILED for attempt in group.attempts)
        if self.policy.reuse or not raised or any(attempt.live for attempt in group.attempts):
            return False
        wait = raised < self.policy.max_failures
        ever = {attempt.address for attempt in group.attempts}
        able = [
            worker
            for worker in self.workers.values()
            if self._may_serve(worker) and (wait or not worker.hung)
        ]
        barred = group.forbid
        return len(able) > 0 and all(w.address in ever or w.incarnation in barred for w in able)

    def _out(self, attempt: AttemptState) -> int:
        """The number of an attempt's flight are still awaited, itself included."""
        return sum(other.live and other.wave <= attempt.wave for _, other in self.by_key.values())

    def hung_workers(self, now: float) -> Iterator[WorkerState]:
        """Workers that have just been found to hang, by this run's limits."""
        limit = self.policy.hang_limit(self.times.typical)
        for worker in self.workers.values():
            if worker.hung or not self._may_serve(worker):
                continue
            ours = [since for key, since in worker.running.items() if run_of(key) == self.run]
            if any(now - since > limit for since in ours) or worker.silent(now, limit):
                yield worker

    def look_for_stall(self, now: float) -> None:
        """Notify the client when nothing has come back for half of the limit, and for all of it."""
        if all(group.complete for group in self.groups.values()):
            self.moved, self.warned = now, False
            return
        self.moved = min(self.moved, now)
        limit = self.policy.stall_limit(self.times.typical)
        seconds = now - self.moved
        if seconds < (limit if self.warned else limit / 2):
            return
        final, self.warned = self.warned, True
        if final:
            self.moved = now
        shares, unplaced = held(self.groups.values(), now)
        ready, present = self.ready_workers(), len(self.workers)
        self.events.append(Stalled(round(seconds, 1), final, ready, present, shares, unplaced))

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

    def _give(self, group: GroupState, placed: Mapping[int, str], now: float) -> None:
        """Send shares to the addresses at which they are placed."""
        tries = Counter(attempt.share for attempt in group.attempts)
        # Parity can wait for idle time where the blocks themselves are under way (not: berrut).
        first = not group.attempts and bool(group.code.exact(range(group.code.n)).all())
        self.waves += 1
        for share, address in placed.items():
            worker = self.workers[address]
            lazy = first and self.policy.lazy and group.code.carries[share] is None
            attempt = AttemptState(
                share,
                tries[share],
                address,
                worker.name,
                now,
                key=new_key(self.run),
                incarnation=worker.incarnation,
                lazy=lazy,
                wave=self.waves,
            )
            group.attempts.append(attempt)
            self.by_key[attempt.key] = (group, attempt)
            if not lazy:
                worker.waiting.add(attempt.key)
            if worker.name in self.pace and self.times.typical and not group.check:
                # A slow record fades.
                self.pace[worker.name] += 0.02 * (self.times.typical - self.pace[worker.name])
        if placed:
            sent = group.attempts[-len(placed) :]
            if self.policy.hedge is not None:
                flight = self._out(sent[0])
                for attempt in sent:
                    attempt.flight = flight
            to = tuple(Sent(a.share, a.attempt, a.address, a.key) for a in sent)
            self.events.append(Send(group.group, to))

    def candidates(self, now: float, *, forbid: Collection[int] = ()) -> list[Candidate]:
        """The workers that may be given this run's shares, but for incarnations to ``forbid``."""
        typical = self.times.typical
        limit = self.policy.slow_limit(typical)
        found = []
        for worker in self.workers.values():
            if not self._may_serve(worker) or worker.incarnation in forbid:
                continue
            if worker.closed or worker.hung or worker.stuck(now, limit):
                continue
            pace = self.pace.get(worker.name, typical or 1.0)
            ahead = (worker.queued + len(worker.running)) / worker.slots
            found.append(Candidate(worker.address, worker.name, ahead * pace, pace, worker.where))
        return found

    def _drop(self, attempt: AttemptState, now: float) -> None:
        attempt.fate = AttemptOutcome.UNSTARTED if attempt.start is None else AttemptOutcome.DROPPED
        attempt.stop = now
        record = self.record(attempt.name)
        record.dropped += attempt.fate is AttemptOutcome.DROPPED
        record.unstarted += attempt.fate is AttemptOutcome.UNSTARTED
        self._left_queue(attempt)

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
        attempts = tuple(self._ended(a) for a in group.attempts)
        self.events.append(Complete(group.group, broken, used, attempts))

    def _ended(self, attempt: AttemptState) -> Attempt:
        def since(t: float | None) -> float | None:
            return None if t is None else round(t - self.began, 4)

        assert attempt.fate is not None
        return Attempt(
            attempt.share,
            attempt.attempt,
            attempt.name,
            attempt.incarnation,
            attempt.fate,
            since(attempt.start),
            since(attempt.stop),
            attempt.error,
        )

    # ---- bookkeeping --------------------------------------------------------------------------

    def record(self, name: str) -> WorkerRecord:
        """The run's record of a worker."""
        return self.records.setdefault(name, WorkerRecord(name))

    def notify(self, worker: WorkerState, what: str, now: float) -> None:
        """Notify the client that a worker became ``ready`` (or, where it is barred,
        ``convicted``), ``hung``, ``restarting``, ``convicted`` or ``gone``."""
        if what in ("ready", "convicted") and self.is_barred(worker):
            what = "convicted"
            self.shut_out.add(worker.incarnation)
        record = self.record(worker.name)
        record.host = worker.place.node or worker.host
        record.restarts += what == "restarting"
        if record.state != "convicted":  # for good
            record.state = what
        time, incarnation = round(now - self.began, 4), worker.incarnation
        self.events.append(
            WorkerChange(worker.name, what, time, incarnation, worker.host, worker.place)
        )

    def model_loaded(self, worker: WorkerState, report: Ready | Unready, now: float) -> None:
        """A worker reports that it has loaded the run's model, or could not, and its place.

        The place that it states first holds: of another one the client is notified, once.
        """
        why = unfit(report, self.fingerprint)
        if why or isinstance(report, Unready):
            if self.run not in worker.ready:
                self.unready[worker.name] = why
            return
        stated, incarnation = report.place, worker.incarnation
        if not worker.introduce(stated) and incarnation not in self.changed:
            self.changed.add(incarnation)
            self.events.append(Contradiction(worker.name, incarnation, stated, worker.place))
        if self.run not in worker.ready:
            worker.ready.add(self.run)
            self.unready.pop(worker.name, None)
            self.notify(worker, "ready", now)

    def bar(self, bars: Iterable[Bar], now: float) -> list[Key]:
        """Give convicted workers no more shares. The keys of those that they still have."""
        self.barred.update(bars)
        for worker in self.workers.values():
            if self.is_barred(worker) and worker.incarnation not in self.shut_out:
                self.notify(worker, "convicted", now)
        addresses = {w.address for w in self.workers.values() if self.is_barred(w)}
        return [key for key, (_, a) in self.by_key.items() if a.live and a.address in addresses]

    def _may_serve(self, worker: WorkerState) -> bool:
        """True if it has this run's model, and is not convicted."""
        return self.run in worker.ready and not self.is_barred(worker)

    def is_barred(self, worker: WorkerState) -> bool:
        """True if it, or the node that it runs on, is convicted."""
        return any(bar.holds(worker) for bar in self.barred)

    def ready_workers(self) -> int:
        """Workers that have this run's model, are not hung, and may be given shares."""
        return sum(self._may_serve(w) and not w.hung for w in self.workers.values())

    def summary(self) -> dict[str, Any]:
        """The ledger: a record for each worker."""
        open_rows: dict[str, int] = defaultdict(int)
        for name, rows in self.unreported.values():
            open_rows[name] += rows
        workers = []
        for name, record in self.records.items():
            times = self.latencies.get(name)
            workers.append(
                asdict(record)
                | {
                    "latency": median(times) if times else None,
                    # Shares that never came to an end are counted whole.
                    "evaluations": record.evaluations + open_rows[name],
                }
            )
        return {"workers": workers, "typical": self.times.typical, "unready": self.unready}

    def _of_full_share(self, seconds: float, rows: int) -> float:
        """The time of a full share at the pace of one of so many rows: by micro-batches."""
        return seconds * ceil(self.block / self.micro_batch) / ceil(rows / self.micro_batch)

    def _time(
        self, group: GroupState, attempt: AttemptState, seconds: float, *, whole: bool
    ) -> None:
        """A share was left so long after it was begun: that counts once its output is there."""
        seconds = self._of_full_share(seconds, group.rows)
        if whole and (attempt.live or attempt.returned):
            attempt.seconds = seconds
            if attempt.returned:
                self._learn(attempt, seconds)
        elif seconds > self.pace.get(attempt.name, self.times.typical or inf):
            self._set_pace(attempt.name, seconds)  # it shows only that a share takes longer

    def _learn(self, attempt: AttemptState, seconds: float) -> None:
        """Take in the time of a share that is back."""
        self.times.add(seconds)
        self.latencies[attempt.name].append(seconds)
        self._set_pace(attempt.name, seconds)

    def _set_pace(self, name: str, seconds: float) -> None:
        known = self.pace.get(name)
        self.pace[name] = seconds if known is None else 0.7 * known + 0.3 * seconds

    def _left_queue(self, attempt: AttemptState) -> None:
        """A share is out of its worker's way, unless it is dropped and still runs there."""
        worker = self.workers.get(attempt.address)
        if worker is not None:
            worker.waiting.discard(attempt.key)
            if attempt.key not in self.unreported:
                worker.running.pop(attempt.key, None)

    def _forget(self, key: Key) -> None:
        self.by_key.pop(key, None)
