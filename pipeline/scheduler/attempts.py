"""Attempts at the shares of one run, from when they are sent until nothing of them is left. Pure.

An attempt ends in two ways that need not come together: its output is back, or it is given up; and
its worker has left it, which a dropped one (a zombie) does later.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from approxifer.pipeline.keys import Key
from approxifer.pipeline.protocol import SmallOutput
from approxifer.pipeline.records import AttemptOutcome
from approxifer.pipeline.scheduler.ledger import Ledger
from approxifer.pipeline.scheduler.state import AttemptState, GroupState, WorkerState
from approxifer.pipeline.scheduler.times import ShareTimes

#: Given up before it came back.
DROPPED = (AttemptOutcome.DROPPED, AttemptOutcome.UNSTARTED)
GIVEN_UP = (AttemptOutcome.LOST, AttemptOutcome.FAILED, *DROPPED)


class Attempts:
    """The attempts of one run, by key.

    Attributes
    ----------
    by_key : dict
        Each with its group.
    unreported : dict
        Worker (by name) and rows of those that have begun and are not left yet.
    """

    def __init__(
        self, workers: Mapping[str, WorkerState], ledger: Ledger, times: ShareTimes
    ) -> None:
        self.by_key: dict[Key, tuple[GroupState, AttemptState]] = {}
        self.unreported: dict[Key, tuple[str, int]] = {}
        self._workers, self._ledger, self._times = workers, ledger, times

    def add(self, group: GroupState, attempt: AttemptState) -> None:
        """An attempt is sent to its worker."""
        group.attempts.append(attempt)
        self.by_key[attempt.key] = (group, attempt)
        if not attempt.lazy:
            self._workers[attempt.address].waiting.add(attempt.key)
        if not group.check:
            self._times.sent(attempt.name)

    def live(self) -> list[AttemptState]:
        """Those that may still come back."""
        return [attempt for _, attempt in self.by_key.values() if attempt.live]

    def awaited(self, attempt: AttemptState) -> int:
        """The number of an attempt's flight that are still awaited, itself included."""
        return sum(other.wave <= attempt.wave for other in self.live())

    def open_rows(self) -> dict[str, int]:
        """The rows of attempts that have begun and are not left yet, by worker."""
        found: dict[str, int] = defaultdict(int)
        for name, rows in self.unreported.values():
            found[name] += rows
        return found

    # ---- reports of workers ---------------------------------------------------------------------

    def started(self, key: Key, address: str, now: float) -> None:
        """A worker reports that it has begun a share: once, and only from where it was sent."""
        found, worker = self.by_key.get(key), self._workers.get(address)
        if found is None or worker is None:
            return
        group, attempt = found
        dropping = attempt.fate is AttemptOutcome.UNSTARTED
        if attempt.address != address or attempt.start is not None:
            return
        if attempt.live or dropping:
            attempt.start = worker.running[key] = now
            worker.waiting.discard(key)
            self.unreported[key] = (attempt.name, group.rows)

    def ended(
        self,
        key: Key,
        address: str,
        now: float,
        *,
        rows: int,
        whole: bool,
        output: SmallOutput | None = None,
    ) -> None:
        """A worker reports that it has left a share which it had begun: ``whole``, or stopped, or
        failed, after starting ``rows``. It counts once, and only from where it was sent.

        The report frees it of a share that is dropped; of one that is awaited only the output does,
        though it may come with the report.
        """
        if key not in self.unreported:
            return
        group, attempt = self.by_key[key]
        if attempt.address != address:
            return
        assert attempt.start is not None, "it has been begun"
        del self.unreported[key]
        self._ledger.record(attempt.name).evaluations += min(max(rows, 0), group.rows)
        if not group.check:
            self._time(group, attempt, now - attempt.start, whole=whole)
        if whole and attempt.live:
            attempt.output = output
        if not attempt.live:
            self._left_queue(attempt)
        if group.settled or attempt.fate in GIVEN_UP:
            self._forget(key)

    def _time(
        self, group: GroupState, attempt: AttemptState, seconds: float, *, whole: bool
    ) -> None:
        """A share was left so long after it was begun: that counts once its output is there."""
        seconds = self._times.full(seconds, group.rows)
        if whole and (attempt.live or attempt.returned):
            attempt.seconds = seconds
            if attempt.returned:
                self._times.returned(attempt.name, seconds)
        else:
            self._times.stopped(attempt.name, seconds)

    # ---- their ends -----------------------------------------------------------------------------

    def returned(self, key: Key, now: float) -> GroupState | None:
        """An output is on its worker. The group to look at, if that changes anything."""
        found = self.by_key.get(key)
        if found is None or not found[1].live:
            return None
        group, attempt = found
        attempt.returned, attempt.stop = True, now
        self._left_queue(attempt)
        if attempt.seconds is not None:
            self._times.returned(attempt.name, attempt.seconds)
        self._ledger.record(attempt.name).run += 1
        return group

    def lost(
        self,
        key: Key,
        now: float,
        *,
        fate: AttemptOutcome = AttemptOutcome.LOST,
        error: str | None = None,
    ) -> GroupState | None:
        """A share will not come back, or what came back could not be fetched. The group to look
        at, if that changes anything."""
        found = self.by_key.get(key)
        if found is None or found[1].fate in GIVEN_UP:
            return None
        group, attempt = found
        if attempt.returned:
            self._ledger.record(attempt.name).run -= 1
        attempt.returned, attempt.fate, attempt.stop, attempt.error = False, fate, now, error
        self._ledger.record(attempt.name).erased += 1
        self._left_queue(attempt)
        group.complete = False
        return group

    def drop(self, attempt: AttemptState, now: float) -> None:
        """A share is not needed any more."""
        attempt.fate = AttemptOutcome.UNSTARTED if attempt.start is None else AttemptOutcome.DROPPED
        attempt.stop = now
        record = self._ledger.record(attempt.name)
        record.dropped += attempt.fate is AttemptOutcome.DROPPED
        record.unstarted += attempt.fate is AttemptOutcome.UNSTARTED
        self._left_queue(attempt)

    def died_while_running(self, key: Key) -> bool:
        """True if a share that is lost with its worker had been begun by it, and the worker was not
        asked to leave. A share that asks for more memory than there is kills every worker that it
        is given to: it counts as one on which the model raises."""
        _, attempt = self.by_key[key]
        worker = self._workers.get(attempt.address)
        return attempt.start is not None and worker is not None and not worker.retiring

    def worker_gone(self, address: str, now: float) -> set[int]:
        """A worker has left: its shares are erasures. The groups to look at."""
        touched = set()
        for key, (group, attempt) in list(self.by_key.items()):
            if attempt.address != address:
                continue
            if key in self.unreported:  # how far it came is not known: count the whole share
                name, rows = self.unreported.pop(key)
                self._ledger.record(name).evaluations += rows
            # A share that came back may have been fetched already; the client will report.
            if not attempt.returned and self.lost(key, now) is not None:
                touched.add(group.group)
            if attempt.fate in DROPPED or group.settled:
                self._forget(key)
        return touched

    def settle(self, group: GroupState) -> None:
        """The client has all that it needs of a group. Its zombies stay until they end."""
        group.settled = True
        for attempt in group.attempts:
            if attempt.key not in self.unreported:
                self._forget(attempt.key)

    def close(self) -> list[Key]:
        """The run ends. The keys to drop; what runs stays with its worker until it ends there."""
        for _, attempt in self.by_key.values():
            self._left_queue(attempt)
        return [attempt.key for attempt in self.live()]

    def live_at(self, addresses: Collection[str]) -> list[Key]:
        """The keys of what some workers still have."""
        return [attempt.key for attempt in self.live() if attempt.address in addresses]

    def _left_queue(self, attempt: AttemptState) -> None:
        """A share is out of its worker's way, unless it is dropped and still runs there."""
        worker = self._workers.get(attempt.address)
        if worker is not None:
            worker.waiting.discard(attempt.key)
            if attempt.key not in self.unreported:
                worker.running.pop(attempt.key, None)

    def _forget(self, key: Key) -> None:
        self.by_key.pop(key, None)
