"""Runs on simulated workers: slow, hung and dead ones."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice
from typing import Any

import numpy as np
import pytest
from scheduling import (
    ROWS,
    make,
    totals,
)

from approxifer.pipeline.keys import Key
from approxifer.pipeline.protocol import (
    Complete,
    Send,
)
from approxifer.pipeline.scheduler.hedging import Hedge
from approxifer.pipeline.scheduler.run_state import RunState
from approxifer.pipeline.scheduler.state import GroupState


@dataclass
class Simulation:
    """Workers that run shares, one at a time, in a time of the test's own."""

    run: RunState
    rng: np.random.Generator
    slow: dict[str, float] = field(default_factory=dict)  #: by address: how many times
    hangs: set[str] = field(default_factory=set)
    now: float = 0.0
    evaluated: int = 0  #: rows whose forward pass has started
    queues: dict[str, list[tuple[bool, int, Key]]] = field(default_factory=dict)
    busy: dict[str, Key] = field(default_factory=dict)
    stopped: set[Key] = field(default_factory=set)
    completed: Counter[int] = field(default_factory=Counter)
    most_keys: int = 0
    ended: float = 0.0  #: when the last group was complete
    _heap: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _order: Any = field(default_factory=count)

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now + seconds, next(self._order), call))

    def play(self, groups: int, *, in_flight: int = 4) -> None:
        """Score so many groups, then let what still runs come to its end."""
        waiting = iter(range(groups))
        for number in list(islice(waiting, in_flight)):
            self._open(number)
        self._tick(waiting)
        while self._heap and self.now < 1e4:
            self.now, _, call = heapq.heappop(self._heap)
            call()
            self._hear(waiting)
            self.most_keys = max(self.most_keys, len(self.run.attempts.by_key))

    def kill(self, address: str) -> None:
        self.run.workers.pop(address)
        key = self.busy.pop(address, None)
        if key is not None:
            self.evaluated += ROWS  # the ledger cannot know better
        self.queues.pop(address, None)
        self.run.attempts.worker_gone(address, self.now)

    def _open(self, number: int) -> None:
        code = self.run.codes["coded"]
        group = GroupState(group=number, code=code, rows=ROWS, priority=-number)
        self.run.open_group(group)
        self._advance(group)

    def _advance(self, group: GroupState) -> None:
        for key in self.run.advance(group, self.now):
            self.stopped.add(key)
            for queue in self.queues.values():
                queue[:] = [item for item in queue if item[2] != key]

    def _tick(self, waiting: Any) -> None:
        for other in self.run.workers.values():
            other.seen = self.now
        for other in list(self.run.hung_workers(self.now)):
            other.hung = True
            for key, (group, attempt) in list(self.run.attempts.by_key.items()):
                if attempt.address == other.address and attempt.live:
                    self.run.attempts.lost(key, self.now)
                    self.queues[other.address] = []
                    self._advance(group)
        for group in list(self.run.groups.values()):
            self._advance(group)
        if self.run.groups:
            self.after(0.05, lambda: self._tick(waiting))

    def _hear(self, waiting: Any) -> None:
        news, self.run.events = self.run.events, []
        for event in news:
            if isinstance(event, Send):
                for one in event.to:
                    item = (self.run.attempts.by_key[one.key][1].lazy, next(self._order), one.key)
                    self.after(0.01, partial(self._arrive, one.address, item))
            elif isinstance(event, Complete):
                assert not event.broken
                self.completed[event.group] += 1
                self.ended = self.now
                self.after(0.01, partial(self._settle, event.group, waiting))

    def _settle(self, group: int, waiting: Any) -> None:
        self.run.settle(group)
        number = next(waiting, None)
        if number is not None:
            self._open(number)

    def _arrive(self, address: str, item: tuple[bool, int, Key]) -> None:
        found = self.run.attempts.by_key.get(item[2])
        if address in self.run.workers and found is not None and found[1].live:
            heapq.heappush(self.queues.setdefault(address, []), item)
            self._next(address)

    def _next(self, address: str) -> None:
        if address in self.busy or not self.queues.get(address):
            return
        key = heapq.heappop(self.queues[address])[2]
        self.busy[address] = key
        self.run.attempts.started(key, address, self.now)
        if address in self.hangs:
            self.evaluated += ROWS
            return
        took = float(self.rng.lognormal(0, 0.2)) * self.slow.get(address, 1.0) * 0.1
        for row in range(1, ROWS + 1):
            call = lambda row=row: self._row(address, key, row)  # noqa: E731
            self.after(took * row / ROWS, call)

    def _row(self, address: str, key: Key, row: int) -> None:
        if self.busy.get(address) != key:
            return
        if row == ROWS or key in self.stopped:
            self.busy.pop(address)
            self.evaluated += row
            self.run.attempts.ended(key, address, self.now, rows=row, whole=row == ROWS)
            group = self.run.returned(key, self.now) if row == ROWS else None
            if group is not None:
                self._advance(group)
            self._next(address)


def simulate(scheme: str = "systematic", *, workers: int = 7, **policy: Any) -> Simulation:
    run = make(scheme, 4, 1, workers=workers, **policy)
    return Simulation(run, np.random.default_rng(1))


def check_whole(simulation: Simulation, groups: int) -> None:
    run = simulation.run
    assert sorted(simulation.completed) == list(range(groups))
    assert not run.groups
    hanging = [key for address, key in simulation.busy.items() if address in simulation.hangs]
    assert set(run.attempts.by_key) == set(run.attempts.unreported) == set(hanging)
    for other in run.workers.values():
        assert other.queued == 0
        assert list(other.running) == [k for a, k in simulation.busy.items() if a == other.address]
    assert totals(run)["evaluations"] == simulation.evaluated


@pytest.mark.parametrize("scheme", ["uncoded", "replication", "systematic"])
@pytest.mark.parametrize("lazy", [False, True])
def test_without_faults_nothing_is_lost_or_kept(scheme: str, lazy: bool) -> None:
    simulation = simulate(scheme, lazy=lazy)
    simulation.play(60)
    check_whole(simulation, 60)
    counts = totals(simulation.run)
    assert counts["erased"] == 0
    assert set(simulation.completed.values()) == {1}
    assert simulation.most_keys < 12 * simulation.run.codes["coded"].n
    if scheme == "uncoded":
        assert counts == {
            "run": 240,
            "dropped": 0,
            "unstarted": 0,
            "erased": 0,
            "evaluations": 240 * ROWS,
        }


def test_lazy_parity_costs_less_than_eager() -> None:
    cost = {}
    for lazy in (False, True):
        simulation = simulate(lazy=lazy, workers=5)
        simulation.play(80)
        check_whole(simulation, 80)
        cost[lazy] = simulation.evaluated / (80 * 4 * ROWS)
    assert 1.0 <= cost[True] < cost[False]


def test_a_slow_worker_is_not_waited_for() -> None:
    plain, slowed = simulate(), simulate()
    slowed.slow["a3"] = 20.0
    for simulation in (plain, slowed):
        simulation.play(80)
        check_whole(simulation, 80)
    assert slowed.run.ledger.record("w3").dropped > 0
    assert slowed.run.ledger.record("w3").run < plain.run.ledger.record("w3").run / 2
    assert slowed.run.times.pace["w3"] > 0.3
    assert slowed.ended < 1.5 * plain.ended  # one of seven workers is as good as gone


def test_a_hung_worker_holds_nothing_up_and_is_given_nothing_more() -> None:
    simulation = simulate(hang_after=1.0)
    simulation.hangs.add("a2")
    simulation.play(60)
    check_whole(simulation, 60)
    record = simulation.run.ledger.record("w2")
    assert record.run == 0
    assert record.erased + record.dropped >= 1
    assert simulation.run.workers["a2"].hung
    plain = simulate()
    plain.play(60)
    assert simulation.ended < 1.5 * plain.ended + 1.0


def test_a_dead_worker_holds_nothing_up() -> None:
    simulation = simulate()
    simulation.after(0.53, lambda: simulation.kill("a4"))
    simulation.after(1.01, lambda: simulation.kill("a1"))
    simulation.play(80)
    check_whole(simulation, 80)
    assert (
        simulation.run.ledger.record("w4").erased + simulation.run.ledger.record("w1").erased >= 1
    )
    assert set(simulation.run.workers) == {"a0", "a2", "a3", "a5", "a6"}


def test_hedging_ends_a_run_sooner_and_sends_few_copies() -> None:
    """One of seven workers takes 60 times as long; ``late`` is out of the way."""
    ended, cost = {}, {}
    for hedge in (None, Hedge(1.5, 0.75), Hedge(3.0, 0.5)):
        simulation = simulate("uncoded", hedge=hedge, late=1000.0)
        simulation.slow["a3"] = 60.0
        simulation.play(80)
        check_whole(simulation, 80)
        ended[hedge] = simulation.ended
        cost[hedge] = simulation.evaluated / (80 * 4 * ROWS)
    assert cost.pop(None) == 1.0
    assert max(cost.values()) < 1.05
    waited = ended.pop(None)
    assert max(ended.values()) < waited / 2
