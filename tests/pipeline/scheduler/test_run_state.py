"""The books of a run, driven by hand: what a scheduler would say, with the time given."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice
from typing import Any, TypeVar

import numpy as np
import pytest

from approxifer.coding import CodeSpec
from approxifer.pipeline.keys import Key, new_key
from approxifer.pipeline.protocol import (
    Complete,
    Contradiction,
    Place,
    Ready,
    Returned,
    RunEvent,
    Send,
    Sent,
    Unready,
    WorkerChange,
    read_report,
)
from approxifer.pipeline.records import AttemptOutcome
from approxifer.pipeline.scheduler.hedging import Hedge
from approxifer.pipeline.scheduler.policy import AttemptState, GroupState, Policy
from approxifer.pipeline.scheduler.run_state import RunState
from approxifer.pipeline.scheduler.state import SILENT, WorkerState
from approxifer.version import __version__

ROWS = 10
Event = TypeVar("Event", bound=RunEvent)


def worker(number: int, *, slots: int = 1, seen: float = 0.0) -> WorkerState:
    return WorkerState(
        address=f"a{number}",
        name=f"w{number}",
        host="here",
        slots=slots,
        seen=seen,
        incarnation=number + 1,
        ready={"r"},
    )


def make(
    scheme: str = "systematic",
    k: int = 2,
    stragglers: int = 1,
    *,
    workers: int = 4,
    **policy: Any,
) -> RunState:
    code = CodeSpec(scheme=scheme, k=k, stragglers=stragglers).build()
    return RunState(
        run="r",
        client="c",
        codes={"coded": code},
        policy=Policy(**({"floor": 0.0, "late": 3.0} | policy)),
        fingerprint="f",
        seed=0,
        restart=False,
        began=0.0,
        workers={f"a{i}": worker(i) for i in range(workers)},
        block=ROWS,
        micro_batch=4,
    )


def begin(run: RunState, number: int = 0, now: float = 0.0, **fields: Any) -> GroupState:
    code = run.codes["coded"]
    group = GroupState(group=number, code=code, **({"rows": ROWS, "priority": 0} | fields))
    run.open_group(group)
    assert run.advance(group, now) == []
    return group


def key_of(group: GroupState, share: int, number: int = 0) -> Key:
    return find(group, share, number).key


def find(group: GroupState, share: int, number: int = 0) -> AttemptState:
    return next(a for a in group.attempts if (a.share, a.attempt) == (share, number))


def start(run: RunState, group: GroupState, share: int, now: float, number: int = 0) -> Key:
    key = key_of(group, share, number)
    run.started(key, find(group, share, number).address, now)
    return key


def end(
    run: RunState, group: GroupState, share: int, seconds: float, rows: int, number: int = 0
) -> None:
    """A share is left after ``rows`` rows."""
    attempt = find(group, share, number)
    assert attempt.start is not None
    now = attempt.start + seconds
    run.ended(attempt.key, attempt.address, now, rows=rows, whole=rows == ROWS)


def come_back(
    run: RunState,
    group: GroupState,
    share: int,
    *,
    since: float = 0.0,
    now: float = 1.0,
    number: int = 0,
) -> None:
    """A share's whole life."""
    key = start(run, group, share, since, number)
    end(run, group, share, now - since, ROWS, number)
    assert run.returned(key, now) is group


def events(run: RunState, kind: type[Event]) -> list[Event]:
    return [event for event in run.events if isinstance(event, kind)]


def totals(run: RunState) -> dict[str, int]:
    names = ("run", "dropped", "unstarted", "erased", "evaluations")
    return {name: sum(w[name] for w in run.summary()["workers"]) for name in names}


# ---- an ordinary life ----------------------------------------------------------------------------


def test_a_group_is_sent_to_distinct_ready_workers() -> None:
    run = make(workers=5)
    run.workers["a1"].ready.clear()
    run.workers["a3"].hung = True
    group = begin(run)
    assert [a.share for a in sorted(group.attempts, key=lambda a: a.share)] == [0, 1, 2]
    assert {a.address for a in group.attempts} == {"a0", "a2", "a4"}
    (event,) = events(run, Send)
    assert event.group == 0
    assert set(event.to) == {Sent(a.share, 0, a.address, a.key) for a in group.attempts}
    assert all(run.workers[a.address].queued == 1 for a in group.attempts)
    assert run.ready_workers() == 3
    assert run.advance(group, 0.1) == []
    assert len(group.attempts) == 3


def test_with_no_worker_a_group_waits_for_one() -> None:
    run = make(workers=0)
    group = begin(run)
    assert (group.attempts, run.events) == ([], [])
    run.workers.update({f"a{i}": worker(i) for i in range(3)})
    run.advance(group, 1.0)
    assert len(group.attempts) == 3


def test_the_life_of_a_group() -> None:
    run = make()
    group = begin(run)
    for share in (0, 1):
        start(run, group, share, 0.5)
        place = run.workers[find(group, share).address]
        assert (place.queued, len(place.running)) == (0, 1)
    end(run, group, 0, 1.0, ROWS)
    run.returned(key_of(group, 0), 1.5)
    assert run.advance(group, 1.5) == []
    assert not group.complete
    end(run, group, 1, 1.5, ROWS)
    run.returned(key_of(group, 1), 2.0)
    assert run.advance(group, 2.0) == [key_of(group, 2)]  # parity: not needed, not started
    assert group.complete
    (event,) = events(run, Complete)
    assert event.broken is False
    assert sorted(event.used) == [(0, 0), (1, 0)]
    ends = {a.share: a for a in event.attempts}
    assert {share: a.fate for share, a in ends.items()} == {
        0: "used",
        1: "used",
        2: "unstarted",
    }
    assert (ends[1].start, ends[1].stop) == (0.5, 2.0)
    assert (ends[2].start, ends[2].stop) == (None, 2.0)
    assert ends[1].worker == find(group, 1).name
    assert ends[1].member == run.workers[find(group, 1).address].incarnation
    assert [event.key for event in events(run, Returned)] == [key_of(group, 0), key_of(group, 1)]
    run.settle(0)
    assert not run.groups
    assert not run.by_key
    assert all(w.queued == 0 and not w.running for w in run.workers.values())
    assert totals(run) == {
        "run": 2,
        "dropped": 0,
        "unstarted": 1,
        "erased": 0,
        "evaluations": 2 * ROWS,
    }


def test_times_in_events_count_from_the_runs_begin() -> None:
    run = make("uncoded", 1)
    run.began = 100.0
    for other in run.workers.values():
        other.seen = 100.0
    group = begin(run, now=101.0)
    come_back(run, group, 0, since=102.0, now=103.0)
    run.advance(group, 103.0)
    (attempt,) = events(run, Complete)[0].attempts
    assert (attempt.start, attempt.stop) == (2.0, 3.0)
    run.notify(run.workers["a0"], "gone", 104.0)
    (change,) = events(run, WorkerChange)
    assert (change.worker, change.what, change.time) == ("w0", "gone", 4.0)


def test_a_complete_group_is_left_alone() -> None:
    run = make("uncoded", 1)
    group = begin(run)
    come_back(run, group, 0)
    run.advance(group, 1.0)
    news = len(run.events)
    assert run.advance(group, 1.1) == []
    run.settle(0)
    assert run.advance(group, 1.2) == []
    assert len(run.events) == news


def test_a_spare_parity_is_told_from_a_used_one() -> None:
    run = make(patience=5.0)
    group = begin(run)
    for share in (0, 2, 1):
        come_back(run, group, share)
    run.advance(group, 1.0)
    assert {a.share: a.fate for a in group.attempts} == {
        0: AttemptOutcome.USED,
        1: AttemptOutcome.USED,
        2: AttemptOutcome.SPARE,
    }
    run = make(patience=0)
    group = begin(run)
    for share in (0, 2):
        come_back(run, group, share)
    assert run.advance(group, 1.0) == [key_of(group, 1)]
    assert {a.share: a.fate for a in group.attempts} == {
        0: AttemptOutcome.USED,
        1: AttemptOutcome.UNSTARTED,
        2: AttemptOutcome.USED,
    }


# ---- drops and zombies ---------------------------------------------------------------------------


def straggle(run: RunState) -> GroupState:
    """A group that completes by shares 0 and 2 while share 1 runs."""
    group = begin(run)
    start(run, group, 1, 0.0)
    come_back(run, group, 0)
    come_back(run, group, 2)
    assert run.advance(group, 1.0) == [key_of(group, 1)]
    assert find(group, 1).fate is AttemptOutcome.DROPPED
    return group


def test_a_dropped_share_is_counted_when_it_ends() -> None:
    run = make(patience=0)
    group = straggle(run)
    zombie = find(group, 1)
    assert run.record(zombie.name).dropped == 1
    run.settle(0)
    assert list(run.by_key) == [zombie.key]
    assert run.workers[zombie.address].running  # still taken
    before = run.record(zombie.name).evaluations
    end(run, group, 1, 3.0, 4)
    assert run.record(zombie.name).evaluations == before + 4
    assert (run.by_key, run.unreported) == ({}, {})
    assert not run.workers[zombie.address].running
    assert totals(run)["evaluations"] == 2 * ROWS + 4


def test_a_dropped_share_that_never_ends_is_counted_whole() -> None:
    run = make(patience=0)
    straggle(run)
    run.settle(0)
    assert totals(run)["evaluations"] == 3 * ROWS
    assert totals(run)["dropped"] == 1


def test_a_dropped_share_that_comes_back_all_the_same_changes_nothing() -> None:
    run = make(patience=0)
    group = straggle(run)
    news = len(run.events)
    end(run, group, 1, 5.0, ROWS)
    assert run.returned(find(group, 1).key, 5.0) is None
    assert len(run.events) == news
    assert totals(run) == {
        "run": 2,
        "dropped": 1,
        "unstarted": 0,
        "erased": 0,
        "evaluations": 3 * ROWS,
    }


def test_a_share_that_starts_while_it_is_dropped_is_counted() -> None:
    run = make(patience=0)
    group = begin(run)
    come_back(run, group, 0)
    come_back(run, group, 2)
    key = run.advance(group, 1.0)[0]
    assert totals(run)["unstarted"] == 1
    run.started(key, find(group, 1).address, 1.01)
    run.settle(0)
    run.ended(key, find(group, 1).address, 1.2, rows=2, whole=False)
    assert totals(run)["evaluations"] == 2 * ROWS + 2
    assert not run.by_key


def test_a_zombie_takes_its_worker() -> None:
    run = make(patience=0, workers=3, late=3.0)
    for number in range(3):
        run.times.add(1.0)
        run.pace[f"w{number}"] = 1.0
    group = straggle(run)
    busy = find(group, 1).address
    free = {c.address: c.wait for c in run.candidates(1.0)}
    assert free[busy] == pytest.approx(1.0)
    assert sum(free.values()) == pytest.approx(1.0)
    assert busy in {c.address for c in run.candidates(2.9)}
    assert busy not in {c.address for c in run.candidates(3.1)}  # stuck: late already


# ---- what workers say ----------------------------------------------------------------------------


def ran(run: RunState, name: str) -> int:
    return run.record(name).evaluations


def test_a_share_is_begun_once_and_where_it_was_sent() -> None:
    run = make("uncoded", 2, workers=3)
    group = begin(run)
    attempt = find(group, 0)
    other = next(a for a in run.workers if a != attempt.address)
    run.started(attempt.key, other, 1.0)
    assert (attempt.start, run.workers[other].running) == (None, {})
    run.started(new_key("r"), other, 1.0)
    assert run.workers[other].running == {}
    run.started(attempt.key, attempt.address, 2.0)
    run.started(attempt.key, attempt.address, 9.0)
    assert (attempt.start, run.workers[attempt.address].running) == (2.0, {attempt.key: 2.0})


def test_who_says_that_it_begins_again_and_again_is_late_and_hangs_all_the_same() -> None:
    run = make("uncoded", 1, workers=2, hang_after=30.0)
    for _ in range(3):
        run.times.add(1.0)
    group = begin(run)
    first = find(group, 0)
    for tick in range(300):
        now = tick / 10
        run.started(first.key, first.address, now)
        for other in run.workers.values():
            other.seen = now
        run.advance(group, now)
    assert find(group, 0, 1).address != first.address
    assert [w.address for w in run.hung_workers(30.1)] == [first.address]


@pytest.mark.parametrize("fate", [AttemptOutcome.LOST, AttemptOutcome.FAILED])
def test_a_share_that_is_lost_is_not_begun(fate: AttemptOutcome) -> None:
    run = make("uncoded", 2)
    group = begin(run)
    attempt = find(group, 0)
    run.lost(attempt.key, 1.0, fate=fate)
    run.started(attempt.key, attempt.address, 2.0)
    assert (attempt.start, run.workers[attempt.address].running, run.unreported) == (None, {}, {})


def test_a_share_ends_once_and_where_it_was_sent_and_after_it_began() -> None:
    run = make("uncoded", 2, workers=3)
    group = begin(run)
    attempt = find(group, 0)
    other = next(a for a in run.workers if a != attempt.address)
    run.ended(attempt.key, attempt.address, 1.0, rows=ROWS, whole=True)
    assert ran(run, attempt.name) == 0
    start(run, group, 0, 1.0)
    for _ in range(300):
        run.ended(attempt.key, other, 1e9, rows=ROWS, whole=True)
    assert ran(run, attempt.name) == 0
    for now in (2.0, 1e9):
        run.ended(attempt.key, attempt.address, now, rows=ROWS, whole=True)
    run.returned(attempt.key, 2.1)
    run.ended(attempt.key, attempt.address, 1e9, rows=ROWS, whole=True)
    assert ran(run, attempt.name) == ROWS
    assert run.pace == {attempt.name: 1.0}
    assert list(run.latencies[attempt.name]) == [1.0]


@pytest.mark.parametrize(("rows", "counted"), [(3, 3), (-(10**15), 0), (10**15, ROWS)])
def test_rows_are_as_many_as_a_share_may_have(rows: int, counted: int) -> None:
    run = make("uncoded", 1)
    group = begin(run)
    attempt = find(group, 0)
    start(run, group, 0, 0.0)
    run.ended(attempt.key, attempt.address, 1.0, rows=rows, whole=False)
    assert ran(run, attempt.name) == counted


def test_an_end_without_an_output_neither_frees_a_worker_nor_makes_it_fast() -> None:
    run = make("uncoded", 1, workers=2, hang_after=30.0)
    for _ in range(3):
        run.times.add(1.0)
    group = begin(run)
    attempt = find(group, 0)
    start(run, group, 0, 0.0)
    run.ended(attempt.key, attempt.address, 0.001, rows=ROWS, whole=True)
    place = run.workers[attempt.address]
    for other in run.workers.values():
        other.seen = 30.1
    assert (run.pace, place.running) == ({}, {attempt.key: 0.0})
    assert [c.address for c in run.candidates(30.1)] != [attempt.address]
    assert list(run.hung_workers(30.1)) == [place]
    run.lost(attempt.key, 30.1)
    assert place.running == {}


# ---- two attempts at one share -------------------------------------------------------------------


def test_a_late_share_goes_to_another_worker_and_the_first_to_return_counts() -> None:
    run = make("uncoded", 1, workers=2)
    for _ in range(3):
        run.times.add(1.0)
    group = begin(run)
    start(run, group, 0, 0.0)
    run.advance(group, 2.9)
    assert len(group.attempts) == 1
    run.advance(group, 3.1)
    first, second = group.attempts
    assert (second.share, second.attempt) == (0, 1)
    assert second.address != first.address
    assert first.key != second.key
    come_back(run, group, 0, since=3.2, now=4.0, number=1)
    assert run.advance(group, 4.0) == [first.key]
    (event,) = events(run, Complete)
    assert event.used == ((0, 1),)
    assert (first.fate, second.fate) == (AttemptOutcome.DROPPED, AttemptOutcome.USED)


def test_two_copies_that_both_return_are_not_both_used() -> None:
    run = make("uncoded", 2, workers=3)
    for _ in range(3):
        run.times.add(1.0)
    group = begin(run)
    start(run, group, 0, 0.0)
    start(run, group, 1, 0.0)
    run.advance(group, 3.1)
    assert len(group.attempts) == 4
    come_back(run, group, 0, since=3.2, now=4.0, number=1)
    end(run, group, 0, 4.1, ROWS)
    assert run.returned(key_of(group, 0), 4.1) is group
    come_back(run, group, 1, since=3.2, now=4.2, number=1)
    run.advance(group, 4.2)
    (event,) = events(run, Complete)
    assert sorted(event.used) == [(0, 0), (1, 1)]
    fates = {(a.share, a.attempt): a.fate for a in group.attempts}
    assert fates[0, 0] is AttemptOutcome.USED
    assert fates[0, 1] is AttemptOutcome.SPARE
    assert totals(run)["run"] == 3


def test_the_slower_copy_is_dropped_while_its_group_goes_on() -> None:
    """It would hold its worker up for as long as the group's other shares take."""
    run = make("uncoded", 2, workers=3)
    for _ in range(3):
        run.times.add(1.0)
    group = begin(run)
    start(run, group, 0, 0.0)
    start(run, group, 1, 2.0)
    run.advance(group, 3.1)
    come_back(run, group, 0, since=3.2, now=4.0, number=1)
    slower = find(group, 0)
    assert run.advance(group, 4.0) == [slower.key]
    assert (slower.fate, group.complete) == (AttemptOutcome.DROPPED, False)
    assert run.advance(group, 4.0) == []
    end(run, group, 0, 4.1, 3)
    assert run.lost(key_of(group, 0, 1), 4.2) is group  # it could not be fetched
    run.advance(group, 4.2)
    assert [a.attempt for a in group.attempts if a.share == 0] == [0, 1, 2]
    assert totals(run)["dropped"] == 1


def test_a_flight_is_what_was_out_once_a_share_was_sent() -> None:
    run = make("uncoded", 4, workers=6, hedge=Hedge(1.5, 0.75), late=100.0)
    for _ in range(3):
        run.times.add(1.0)
    first = begin(run)
    assert {a.flight for a in first.attempts} == {4}
    come_back(run, first, 0)
    come_back(run, first, 1)
    second = begin(run, 1, now=1.0)
    assert {a.flight for a in second.attempts} == {6}
    start(run, second, 0, 1.0)
    late = 2.6  # of the five others three must be back, and one more
    for group, share in ((first, 2), (first, 3), (second, 1)):
        come_back(run, group, share)
        run.advance(group, late)
        assert run.advance(second, late) == []
        assert len(second.attempts) == 4
    # What is sent afterwards does not count.
    begin(run, 2, now=late)
    come_back(run, second, 2)
    run.advance(second, late)
    copy = second.attempts[-1]
    assert (len(second.attempts), copy.share, copy.attempt, copy.flight) == (5, 0, 1, 7)


def test_a_slow_worker_is_given_nothing_by_the_hedges_limit() -> None:
    run = make("uncoded", 1, workers=2, hedge=Hedge(1.5, 0.75), late=100.0)
    for _ in range(3):
        run.times.add(1.0)
    group = begin(run)
    start(run, group, 0, 0.0)
    assert len(run.candidates(1.4)) == 2
    assert len(run.candidates(1.6)) == 1


def test_a_share_returns_once() -> None:
    run = make()
    group = begin(run)
    come_back(run, group, 0)
    assert run.returned(key_of(group, 0), 1.1) is None
    assert len(events(run, Returned)) == 1
    assert totals(run)["run"] == 1
    assert run.returned(new_key("r"), 1.2) is None


# ---- losses --------------------------------------------------------------------------------------


def test_a_lost_share_is_sent_again_to_another_worker() -> None:
    run = make("uncoded", 2, workers=3)
    for number in range(12):
        group = begin(run, number)
        key = start(run, group, 0, 0.0)
        end(run, group, 0, 0.4, 3)
        assert run.lost(key, 0.5, error="gone") is group
        assert run.lost(key, 0.6) is None
        assert find(group, 0).fate is AttemptOutcome.LOST
        assert find(group, 0).error == "gone"
        run.advance(group, 0.6)
        assert find(group, 0, 1).address != find(group, 0).address
    assert totals(run)["erased"] == 12


def test_a_model_that_always_raises_breaks_the_group() -> None:
    run = make("uncoded", 2, workers=4)
    group = begin(run)
    come_back(run, group, 1)
    for number in range(3):
        key = start(run, group, 0, 1.0 + number, number)
        end(run, group, 0, 0.1, 5, number)
        assert run.lost(key, 1.5 + number, fate=AttemptOutcome.FAILED, error="no") is group
        run.advance(group, 1.5 + number)
    (event,) = events(run, Complete)
    assert event.broken is True
    assert event.used == ((1, 0),)
    assert [a.fate for a in event.attempts if a.share == 0] == ["failed"] * 3
    assert {a.error for a in event.attempts} == {None, "no"}
    assert totals(run) == {
        "run": 1,
        "dropped": 0,
        "unstarted": 0,
        "erased": 3,
        "evaluations": ROWS + 3 * 5,
    }
    run.settle(0)
    assert not run.by_key


def test_a_model_that_raises_is_tried_by_workers_of_other_names() -> None:
    """Each of them dies of it, and is back at another address at once."""
    run = make("uncoded", 1, workers=5, max_failures=5)
    group = begin(run)
    for number in range(5):
        attempt = find(group, 0, number)
        dead = run.workers.pop(attempt.address)
        run.lost(attempt.key, number + 0.5, fate=AttemptOutcome.FAILED)
        again = run.workers[f"b{number}"] = worker(100 + number, seen=9.0)
        again.address, again.name = f"b{number}", dead.name
        run.advance(group, number + 0.5)
    assert sorted(attempt.name for attempt in group.attempts) == [f"w{i}" for i in range(5)]
    assert group.complete


def test_a_workers_death_loses_what_it_had() -> None:
    run = make(workers=4)
    one, two = begin(run, 0), begin(run, 1)
    both = {a.address for a in one.attempts} & {a.address for a in two.attempts}
    address = sorted(both)[0]
    mine = {g.group: next(a for a in g.attempts if a.address == address) for g in (one, two)}
    start(run, one, mine[0].share, 0.0)
    gone = run.workers.pop(address)
    assert run.worker_gone(address, 0.5) == {0, 1}
    assert {a.fate for a in mine.values()} == {AttemptOutcome.LOST}
    assert run.record(gone.name).erased == 2
    assert run.record(gone.name).evaluations == ROWS  # how far it came is not known
    assert not run.unreported
    # Data shares are sent again at once, to others.
    for group in (one, two):
        run.advance(group, 0.6)
        assert address not in {a.address for a in group.attempts if a.live}


def test_the_death_of_a_worker_with_a_dropped_share() -> None:
    run = make(patience=0)
    group = straggle(run)
    run.settle(0)
    zombie = find(group, 1)
    run.workers.pop(zombie.address)
    assert run.worker_gone(zombie.address, 9.0) == set()
    assert (run.by_key, run.unreported) == ({}, {})
    assert totals(run)["evaluations"] == 3 * ROWS
    assert totals(run) | {"evaluations": 0} == {
        "run": 2,
        "dropped": 1,
        "unstarted": 0,
        "erased": 0,
        "evaluations": 0,
    }


def test_a_death_after_the_return_loses_nothing_yet() -> None:
    """The output may have been fetched already; the client will tell."""
    run = make("uncoded", 2)
    group = begin(run)
    come_back(run, group, 0)
    address = find(group, 0).address
    run.workers.pop(address)
    assert run.worker_gone(address, 1.5) == set()
    assert find(group, 0).returned
    come_back(run, group, 1)
    run.advance(group, 2.0)
    assert group.complete


def test_an_output_that_cannot_be_fetched_opens_its_group_again() -> None:
    run = make("systematic", 2, 1, workers=4)
    group = begin(run)
    come_back(run, group, 0)
    come_back(run, group, 1)
    run.advance(group, 1.0)
    assert group.complete
    assert run.lost(key_of(group, 1), 1.5, error="not fetched") is group
    assert not group.complete
    assert set(group.present()) == {0}
    assert totals(run)["run"] == 1
    assert totals(run)["erased"] == 1
    run.advance(group, 1.6)
    again = find(group, 1, 1)
    assert again.live
    assert again.address != find(group, 1).address
    come_back(run, group, 1, since=1.7, now=2.0, number=1)
    run.advance(group, 2.0)
    first, second = events(run, Complete)
    assert sorted(first.used) == [(0, 0), (1, 0)]
    assert sorted(second.used) == [(0, 0), (1, 1)]
    counts = totals(run)
    assert (counts["run"], counts["erased"], counts["unstarted"]) == (2, 1, 1)
    run.settle(0)
    assert not run.by_key


def test_a_lost_spare_is_no_loss() -> None:
    run = make(patience=5.0)
    group = begin(run)
    for share in (0, 2, 1):
        come_back(run, group, share)
    run.advance(group, 1.0)
    run.lost(key_of(group, 2), 1.5)
    run.advance(group, 1.6)
    assert group.complete
    assert len(group.attempts) == 3
    assert sorted(events(run, Complete)[-1].used) == [(0, 0), (1, 0)]


# ---- idle-time parity ----------------------------------------------------------------------------


def test_parity_is_lazy_only_at_first_and_only_where_asked() -> None:
    run = make(lazy=True)
    group = begin(run)
    assert {a.share: a.lazy for a in group.attempts} == {0: False, 1: False, 2: True}
    idle = run.workers[find(group, 2).address]
    assert idle.queued == 0  # nobody waits behind it
    eager = begin(make())
    assert not any(a.lazy for a in eager.attempts)
    # Where it is needed, it is sent like a data share.
    for number in range(3):
        run.lost(key_of(group, 0, number), 1.0, fate=AttemptOutcome.FAILED)
        run.advance(group, 1.0)
    again = find(group, 2, 1)
    assert not again.lazy


def test_berrut_has_no_parity_that_could_wait_for_idle_time() -> None:
    """Each of its shares is a mixture, and K of them are needed: none is sent twice."""
    run = make("berrut", 4, 1, workers=10, lazy=True)
    groups = [begin(run, number) for number in range(3)]
    for now in (0.025, 0.05, 0.075):
        for group in groups:
            run.advance(group, now)
    assert [len(group.attempts) for group in groups] == [5, 5, 5]


# ---- workers that hang ---------------------------------------------------------------------------


def test_a_worker_hangs_when_a_share_of_this_run_takes_too_long() -> None:
    run = make("uncoded", 2, hang_after=30.0)
    group = begin(run)
    start(run, group, 0, 10.0)
    address = find(group, 0).address
    for other in run.workers.values():
        other.seen = 100.0
    assert list(run.hung_workers(39.9)) == []
    assert [w.address for w in run.hung_workers(40.1)] == [address]
    for _ in range(3):
        run.times.add(5.0)  # long shares get ten medians
    assert list(run.hung_workers(40.1)) == []
    assert [w.address for w in run.hung_workers(60.1)] == [address]
    run.workers[address].hung = True
    assert list(run.hung_workers(99.0)) == []  # not found a second time


def test_another_runs_long_share_is_not_ours_to_judge() -> None:
    run = make(hang_after=1.0)
    run.workers["a0"].running[new_key("other")] = 0.0
    for other in run.workers.values():
        other.seen = 50.0
    assert list(run.hung_workers(50.0)) == []


def test_a_silent_worker_hangs() -> None:
    run = make(hang_after=30.0)
    for other in run.workers.values():
        other.seen = 100.0
    run.workers["a2"].seen = 50.0
    assert [w.name for w in run.hung_workers(80.1)] == ["w2"]
    assert list(run.hung_workers(79.9)) == []
    run.workers["a2"].ready.clear()  # it has not our model: none of our business
    assert list(run.hung_workers(80.1)) == []


def test_a_silent_worker_is_given_nothing() -> None:
    run = make(workers=3)
    for other in run.workers.values():
        other.seen = 100.0
    run.workers["a1"].seen = 100.0 - SILENT - 0.1
    assert {c.address for c in run.candidates(100.0)} == {"a0", "a2"}
    run.workers["a1"].seen = 100.0 - SILENT + 0.1
    assert len(run.candidates(100.0)) == 3


def test_stuck_is_when_every_slot_is_late() -> None:
    two = worker(0, slots=2, seen=10.0)
    first, second = new_key("r"), new_key("r")
    two.running[first] = 0.0
    assert not two.stuck(10.0, 3.0)
    two.running[second] = 8.0
    assert not two.stuck(10.0, 3.0)
    two.running[second] = 6.0
    assert two.stuck(10.0, 3.0)


# ---- pace ----------------------------------------------------------------------------------------


def test_pace_follows_a_workers_shares() -> None:
    run = make("uncoded", 1, workers=1)
    group = begin(run)
    come_back(run, group, 0, since=0.0, now=2.0)
    assert run.pace == {"w0": 2.0}
    run.advance(group, 2.0)
    come_back(run, begin(run, 1), 0, since=2.0, now=6.0)
    assert run.pace["w0"] == pytest.approx(0.7 * 2.0 + 0.3 * 4.0)
    assert run.summary()["workers"][0]["latency"] == 3.0


@pytest.mark.parametrize(("rows", "batches"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 3), (ROWS, 3)])
def test_a_short_block_counts_as_a_full_share_by_its_micro_batches(rows: int, batches: int) -> None:
    run = make("uncoded", 1, workers=1)
    for number in range(3):
        group = begin(run, number, rows=rows)
        attempt = find(group, 0)
        start(run, group, 0, 1.0)
        run.ended(attempt.key, attempt.address, 1.0 + 0.5 * batches, rows=rows, whole=True)
        run.returned(attempt.key, 9.0)
    assert run.times.typical == pytest.approx(1.5)  # of three micro-batches
    assert run.pace == {"w0": pytest.approx(1.5)}
    assert run.summary()["workers"][0]["latency"] == pytest.approx(1.5)
    # One that is stopped shows that a full share takes longer than three times as long.
    group = begin(run, 3, rows=1)
    start(run, group, 0, 0.0)
    run.ended(find(group, 0).key, "a0", 1.0, rows=0, whole=False)
    assert run.pace == {"w0": pytest.approx(0.7 * 1.5 + 0.3 * 3.0)}


def test_a_stopped_share_only_ever_slows_the_pace() -> None:
    run = make("uncoded", 1, workers=1)
    run.pace["w0"] = 2.0
    for number, (seconds, pace) in enumerate([(1.0, 2.0), (4.0, 2.6), (2.0, 2.6)]):
        group = begin(run, number)
        start(run, group, 0, 0.0)
        end(run, group, 0, seconds, 3)
        assert run.pace["w0"] == pytest.approx(pace)
    assert run.times.typical is None  # nor do they count among the share times


def test_a_slow_record_fades_with_what_is_sent() -> None:
    """Else a worker that was slow once would get nothing but parity until the end."""
    run = make("uncoded", 1, workers=1)
    for _ in range(3):
        run.times.add(1.0)
    run.pace["w0"] = 10.0
    paces = []
    for number in range(300):
        group = begin(run, number)
        run.settle(group.group)
        paces.append(run.pace["w0"])
    assert paces[0] == pytest.approx(10.0 - 0.02 * 9.0)
    assert paces == sorted(paces, reverse=True)
    assert 1.0 < paces[-1] < 1.1


def test_a_slow_worker_waits_longer() -> None:
    run = make(workers=2)
    run.workers["a0"].slots = 2
    for _ in range(3):
        run.times.add(1.0)
    run.pace["w1"] = 4.0
    for _ in range(3):
        run.workers["a0"].waiting.add(new_key("r"))
        run.workers["a1"].waiting.add(new_key("r"))
    found = {c.address: (c.wait, c.time) for c in run.candidates(0.0)}
    assert found == {"a0": (1.5, 1.0), "a1": (12.0, 4.0)}


# ---- what is told --------------------------------------------------------------------------------


def test_notify_keeps_the_state_and_counts_restarts() -> None:
    run = make()
    run.notify(run.workers["a1"], "hung", 1.0)
    run.notify(run.workers["a1"], "restarting", 1.0)
    run.notify(run.workers["a1"], "ready", 4.0)
    run.notify(run.workers["a1"], "restarting", 9.0)
    record = run.record("w1")
    assert (record.state, record.restarts) == ("restarting", 2)
    assert [change.what for change in events(run, WorkerChange)] == [
        "hung",
        "restarting",
        "ready",
        "restarting",
    ]


PLACE = {"node": "n1", "device": "cpu", "hardware": "cpu | One"}


def report(*, place: Any = PLACE, **fields: Any) -> Ready | Unready:
    """A worker's report that it has the model of the run, as it is read."""
    plain = {"op": "ready", "run": "r", "version": __version__, "fingerprint": "f"}
    read = read_report(plain | {"place": place} | fields)
    assert isinstance(read, Ready | Unready)
    return read


def newcomer(run: RunState, number: int = 7) -> WorkerState:
    made = run.workers[f"a{number}"] = worker(number)
    made.ready.clear()
    return made


def test_events_name_a_worker_by_incarnation_and_place() -> None:
    run = make("uncoded", 1, workers=0)
    made = newcomer(run)
    run.model_loaded(made, report(), 1.0)
    (change,) = events(run, WorkerChange)
    assert change == WorkerChange("w7", "ready", 1.0, 8, "here", Place(**PLACE))
    assert run.record("w7").host == "n1"
    group = begin(run, now=1.0)
    key = start(run, group, 0, 1.0)
    run.returned(key, 2.0, nbytes=320)
    run.advance(group, 2.0)
    assert events(run, Returned) == [Returned(0, key, 320)]
    assert [a.member for a in events(run, Complete)[0].attempts] == [8]


def test_a_worker_has_the_place_that_it_stated_first_in_whatever_run() -> None:
    run, other = make(workers=0), make()
    other.run, other.workers = "other", run.workers
    made, first = newcomer(run), Place(**PLACE)
    run.model_loaded(made, report(), 1.0)
    for _ in range(9):
        other.model_loaded(made, report(place=PLACE | {"node": "n2", "device": "cuda"}), 2.0)
    assert made.ready == {"r", "other"}
    contradiction, ready = other.events
    assert contradiction == Contradiction("w7", 8, Place("n2", "cuda", "cpu | One"), first)
    assert ready == WorkerChange("w7", "ready", 2.0, 8, "here", first)
    assert [type(event) for event in run.events] == [WorkerChange]
    for name in PLACE:
        run.changed.clear()
        run.model_loaded(made, report(place=PLACE | {name: ""}), 3.0)
        assert getattr(events(run, Contradiction)[-1].stated, name) == ""
        assert made.place == first
    # A process of the same name at the same address is another one.
    again = newcomer(run)
    again.incarnation = 9
    run.model_loaded(again, report(place=PLACE | {"node": "n2"}), 4.0)
    assert events(run, WorkerChange)[-1].place.node == "n2"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"op": "unready", "error": "no torch"}, "no torch"),
        ({"op": "unready", "error": ["no torch"]}, "unreadable"),
        ({"op": "unready", "error": ""}, "unreadable"),
        ({"op": "unready", "error": "no torch" * 10**6}, "no torch"),
        ({"version": "0.0"}, "approxifer 0.0 there"),
        ({"version": {}}, "unreadable"),
        ({"fingerprint": "g"}, "another fingerprint"),
        ({"fingerprint": None}, "another fingerprint"),
        ({"place": PLACE | {"node": None}}, "its node"),
        ({"place": PLACE | {"device": 3}}, "its device"),
        ({"place": PLACE | {"hardware": ["cpu"]}}, "its hardware"),
        ({"place": PLACE | {"hardware": "x" * 501}}, "its hardware"),
        ({"place": [1]}, "its node"),
    ],
)
def test_a_worker_that_is_not_fit_is_given_nothing(fields: dict[str, Any], why: str) -> None:
    run = make(workers=0)
    made = newcomer(run)
    run.model_loaded(made, report(**fields), 1.0)
    assert (made.ready, made.introduced, run.events) == (set(), False, [])
    assert why in run.unready["w7"]
    assert len(run.unready["w7"]) < 600
    run.model_loaded(made, report(), 2.0)
    assert (made.ready, run.unready) == ({"r"}, {})
    run.model_loaded(made, report(**fields), 3.0)  # too late
    assert (made.ready, run.unready) == ({"r"}, {})


def test_shares_of_a_group_avoid_nodes_that_have_one_address() -> None:
    run = make("systematic", 2, 1, workers=6)
    for number, other in enumerate(run.workers.values()):
        other.place = Place(f"n{number // 2}")
    for number in range(20):
        group = begin(run, number)
        assert {run.workers[a.address].place.node for a in group.attempts} == {"n0", "n1", "n2"}
        run.settle(number)


def test_the_ledger_goes_by_name_not_by_address() -> None:
    """A worker restarted under another address keeps its record."""
    run = make("uncoded", 1, workers=1)
    come_back(run, begin(run), 0)
    run.workers.clear()
    again = worker(0)
    again.address = "elsewhere"
    run.workers["elsewhere"] = again
    come_back(run, begin(run, 1), 0)
    (record,) = run.summary()["workers"]
    assert (record["name"], record["run"], record["evaluations"]) == ("w0", 2, 2 * ROWS)


# ---- what is kept --------------------------------------------------------------------------------


def test_an_end_heard_after_the_group_was_settled_leaves_nothing() -> None:
    run = make("uncoded", 1)
    group = begin(run)
    key = start(run, group, 0, 0.0)
    run.returned(key, 1.0)
    run.advance(group, 1.0)
    run.settle(0)
    run.ended(key, find(group, 0).address, 1.1, rows=ROWS, whole=True)
    assert list(run.latencies["w" + find(group, 0).address[1:]]) == [1.1]
    assert totals(run)["evaluations"] == ROWS
    assert (run.by_key, run.unreported) == ({}, {})


def test_a_hung_workers_shares_leave_nothing_when_it_is_restarted() -> None:
    run = make()
    group = begin(run)
    key = start(run, group, 1, 0.0)
    address = find(group, 1).address
    run.lost(key, 30.0, error="its worker hangs")
    come_back(run, group, 0)
    come_back(run, group, 2)
    run.advance(group, 31.0)
    for attempt in group.attempts:
        if attempt.live:
            come_back(run, group, attempt.share, since=31.0, now=32.0, number=attempt.attempt)
    run.advance(group, 32.0)
    assert group.complete
    run.settle(0)
    run.workers.pop(address)
    run.worker_gone(address, 33.0)
    assert (run.by_key, run.unreported) == ({}, {})


# ---- a simulated cluster -------------------------------------------------------------------------


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
            self.most_keys = max(self.most_keys, len(self.run.by_key))

    def kill(self, address: str) -> None:
        self.run.workers.pop(address)
        key = self.busy.pop(address, None)
        if key is not None:
            self.evaluated += ROWS  # the ledger cannot know better
        self.queues.pop(address, None)
        self.run.worker_gone(address, self.now)

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
            for key, (group, attempt) in list(self.run.by_key.items()):
                if attempt.address == other.address and attempt.live:
                    self.run.lost(key, self.now)
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
                    item = (self.run.by_key[one.key][1].lazy, next(self._order), one.key)
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
        found = self.run.by_key.get(item[2])
        if address in self.run.workers and found is not None and found[1].live:
            heapq.heappush(self.queues.setdefault(address, []), item)
            self._next(address)

    def _next(self, address: str) -> None:
        if address in self.busy or not self.queues.get(address):
            return
        key = heapq.heappop(self.queues[address])[2]
        self.busy[address] = key
        self.run.started(key, address, self.now)
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
            self.run.ended(key, address, self.now, rows=row, whole=row == ROWS)
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
    assert set(run.by_key) == set(run.unreported) == set(hanging)
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
    assert slowed.run.record("w3").dropped > 0
    assert slowed.run.record("w3").run < plain.run.record("w3").run / 2
    assert slowed.run.pace["w3"] > 0.3
    assert slowed.ended < 1.5 * plain.ended  # one of seven workers is as good as gone


def test_a_hung_worker_holds_nothing_up_and_is_given_nothing_more() -> None:
    simulation = simulate(hang_after=1.0)
    simulation.hangs.add("a2")
    simulation.play(60)
    check_whole(simulation, 60)
    record = simulation.run.record("w2")
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
    assert simulation.run.record("w4").erased + simulation.run.record("w1").erased >= 1
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


@pytest.mark.parametrize("back", [True, False])
def test_where_each_share_needs_a_worker_of_its_own_a_model_that_raises_ends_the_group(
    back: bool,
) -> None:
    """Four shares on four workers; the fifth, the only one that has none, hangs meanwhile."""
    run = make("systematic", 2, 0, workers=5, reuse=False)
    run.codes["coded"] = CodeSpec("systematic", 2, 0, byzantine=1).build()
    group = begin(run)
    assert len(group.attempts) == 4
    spare = next(w for a, w in run.workers.items() if a not in {x.address for x in group.attempts})
    spare.hung = True
    run.lost(key_of(group, 0), 1.0, fate=AttemptOutcome.FAILED, error="it raised")
    run.lost(key_of(group, 1), 1.0, fate=AttemptOutcome.FAILED, error="it raised")
    run.returned(key_of(group, 3), 1.0)
    if back:
        run.returned(key_of(group, 2), 1.0)
        run.advance(group, 1.0)
        assert not group.complete, "the spare worker may come back"
        spare.hung = False
        run.advance(group, 2.0)
        (retried,) = [attempt for attempt in group.attempts if attempt.address == spare.address]
        run.lost(retried.key, 3.0, fate=AttemptOutcome.FAILED, error="it raised")
    else:
        run.lost(key_of(group, 2), 1.0, fate=AttemptOutcome.FAILED, error="it raised")
    run.advance(group, 3.0)
    assert group.complete
    assert events(run, Complete)[-1].broken


def test_where_workers_were_lost_such_a_group_waits_for_others() -> None:
    run = make("systematic", 2, 0, workers=4, reuse=False)
    run.codes["coded"] = CodeSpec("systematic", 2, 0, byzantine=1).build()
    group = begin(run)
    for share in range(4):
        run.lost(key_of(group, share), 1.0)
    run.advance(group, 1.0)
    assert not group.complete
    run.workers["a9"] = worker(9, seen=1.0)
    run.advance(group, 1.5)
    assert any(attempt.address == "a9" for attempt in group.attempts)


def test_a_worker_that_dies_while_it_runs_a_share_speaks_against_the_share() -> None:
    """Not where it had not begun it, nor where it was asked to leave."""
    run = make("uncoded", 3, 0, workers=3)
    group = begin(run)
    keys = [key_of(group, share) for share in range(3)]
    for key in keys[1:]:
        run.started(key, run.by_key[key][1].address, 0.5)
    run.workers[run.by_key[keys[2]][1].address].retiring = True
    assert [run.died_at_it(key) for key in keys] == [False, True, False]
