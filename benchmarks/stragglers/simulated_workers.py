"""Simulated workers: queues, shares that take as long as a schedule has it, and Dask's delays."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from math import inf

import numpy as np

from approxifer.benchmarks.stragglers.schedules import Schedule
from approxifer.pipeline.keys import Key
from approxifer.pipeline.scheduler.plugin import IDLE
from approxifer.pipeline.scheduler.run_state import RunState
from approxifer.pipeline.scheduler.state import GroupState, WorkerState


@dataclass(frozen=True)
class Delays:
    """Seconds, measured in a real run without faults.

    Attributes
    ----------
    sleep : float
        Before each micro-batch; a schedule makes a multiple of it.
    forward : tuple of float
        What the whole of a share takes beyond its sleeps: drawn from these.
    gap : float
        From a share's end to the start of the next one that waits on the worker.
    send : float
        From the decision to send a share until it waits on its worker.
    """

    sleep: float
    forward: tuple[float, ...]
    gap: float
    send: float


class Clock:
    """A virtual clock with what is to happen."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Have something called."""
        heapq.heappush(self._heap, (self.now + seconds, next(self._order), call))

    def step(self) -> bool:
        """Go on to what happens next; false where nothing does."""
        if not self._heap:
            return False
        self.now, _, call = heapq.heappop(self._heap)
        call()
        return True


class Service:
    """The time that each micro-batch of each share takes on each worker."""

    def __init__(self, schedule: Schedule, seed: int, delays: Delays, batches: int) -> None:
        self._schedule, self._seed = schedule, seed
        self._delays, self._batches = delays, batches
        self._rng = np.random.default_rng(seed)
        self._begun: dict[int, Iterator[int]] = {}
        self._since: dict[int, float] = {}

    def begin(self, worker: int, now: float) -> Callable[[float], float]:
        """A worker begins a share. From the time of a micro-batch's start to its length."""
        self._since.setdefault(worker, now)
        number = next(self._begun.setdefault(worker, itertools.count()))
        slow = self._schedule.slow(self._seed, worker, number)
        forward = float(self._rng.choice(self._delays.forward)) / self._batches

        def length(now: float) -> float:
            stretch = self._schedule.stretch(slow, worker, now - self._since[worker])
            return self._delays.sleep * stretch + forward

        return length


class Workers:
    """The workers of one run, and the drops that reach them."""

    def __init__(
        self,
        clock: Clock,
        run: RunState,
        schedule: Schedule,
        seed: int,
        block: int,
        micro_batch: int,
        delays: Delays,
    ) -> None:
        self._clock, self._run, self._delays = clock, run, delays
        self._micro_batch = micro_batch
        self._batches = -(-block // micro_batch)
        self._block = block
        self._service = Service(schedule, seed, delays, self._batches)
        self._numbers = {address: number for number, address in enumerate(run.workers)}
        self._queues: dict[str, list[tuple[float, int, Key]]] = {a: [] for a in run.workers}
        self._busy: set[str] = set()
        self._order = itertools.count()

    def advance(self, group: GroupState) -> None:
        """Ask the policy about a group. What it drops stops at its next micro-batch."""
        self._run.advance(group, self._clock.now)

    def give_up(self, worker: WorkerState) -> None:
        """A worker hangs: its shares are lost, and it gets no more."""
        worker.hung = True
        for key, (group, attempt) in list(self._run.attempts.by_key.items()):
            if attempt.address == worker.address and attempt.live:
                self._run.attempts.lost(key, self._clock.now)
                self.advance(group)

    def send(self, keys: Iterable[Key]) -> None:
        """Send shares to their workers."""
        for key in keys:
            group, attempt = self._run.attempts.by_key[key]
            rank = group.priority - (IDLE if attempt.lazy else 0)
            item = (-rank, next(self._order), key)
            self._clock.after(self._delays.send, partial(self._arrive, attempt.address, item))

    def _arrive(self, address: str, item: tuple[float, int, Key]) -> None:
        if self._live(item[2]):
            heapq.heappush(self._queues[address], item)
            self._next(address)

    def _live(self, key: Key) -> bool:
        found = self._run.attempts.by_key.get(key)
        return found is not None and found[1].live

    def _next(self, address: str) -> None:
        queue = self._queues[address]
        while address not in self._busy and queue:
            key = heapq.heappop(queue)[2]
            if self._live(key):  # else it was dropped unstarted
                self._busy.add(address)
                self._run.attempts.started(key, address, self._clock.now)
                length = self._service.begin(self._numbers[address], self._clock.now)
                self._batch(address, key, 0, length)

    def _batch(self, address: str, key: Key, done: int, length: Callable[[float], float]) -> None:
        """Begin the micro-batch after so many: or stop, if the share is dropped; or end it."""
        now = self._clock.now
        whole = done == self._batches
        if whole or not self._live(key):
            rows = min(done * self._micro_batch, self._block)
            self._run.attempts.ended(key, address, now, rows=rows, whole=whole)
            group = self._run.returned(key, now) if whole else None
            if group is not None:
                self.advance(group)
            self._clock.after(self._delays.gap, lambda: self._free(address))
            return
        seconds = length(now)
        if seconds < inf:
            self._clock.after(seconds, lambda: self._batch(address, key, done + 1, length))

    def _free(self, address: str) -> None:
        self._busy.discard(address)
        self._next(address)
