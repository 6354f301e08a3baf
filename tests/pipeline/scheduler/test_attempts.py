"""Attempts at shares: dropped ones that run on, and reports of workers."""

from __future__ import annotations

import pytest
from scheduling import (
    ROWS,
    begin,
    come_back,
    end,
    find,
    key_of,
    make,
    start,
    totals,
)

from approxifer.pipeline.keys import new_key
from approxifer.pipeline.records import AttemptOutcome
from approxifer.pipeline.scheduler.run_state import RunState
from approxifer.pipeline.scheduler.state import GroupState

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
    assert run.ledger.record(zombie.name).dropped == 1
    run.settle(0)
    assert list(run.attempts.by_key) == [zombie.key]
    assert run.workers[zombie.address].running  # still taken
    before = run.ledger.record(zombie.name).evaluations
    end(run, group, 1, 3.0, 4)
    assert run.ledger.record(zombie.name).evaluations == before + 4
    assert (run.attempts.by_key, run.attempts.unreported) == ({}, {})
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
    run.attempts.started(key, find(group, 1).address, 1.01)
    run.settle(0)
    run.attempts.ended(key, find(group, 1).address, 1.2, rows=2, whole=False)
    assert totals(run)["evaluations"] == 2 * ROWS + 2
    assert not run.attempts.by_key


def test_a_zombie_takes_its_worker() -> None:
    run = make(patience=0, workers=3, late=3.0)
    for number in range(3):
        run.times.add(1.0)
        run.times.pace[f"w{number}"] = 1.0
    group = straggle(run)
    busy = find(group, 1).address
    free = {c.address: c.wait for c in run.candidates(1.0)}
    assert free[busy] == pytest.approx(1.0)
    assert sum(free.values()) == pytest.approx(1.0)
    assert busy in {c.address for c in run.candidates(2.9)}
    assert busy not in {c.address for c in run.candidates(3.1)}  # stuck: late already


def test_the_death_of_a_worker_with_a_dropped_share() -> None:
    run = make(patience=0)
    group = straggle(run)
    run.settle(0)
    zombie = find(group, 1)
    run.workers.pop(zombie.address)
    assert run.attempts.worker_gone(zombie.address, 9.0) == set()
    assert (run.attempts.by_key, run.attempts.unreported) == ({}, {})
    assert totals(run)["evaluations"] == 3 * ROWS
    assert totals(run) | {"evaluations": 0} == {
        "run": 2,
        "dropped": 1,
        "unstarted": 0,
        "erased": 0,
        "evaluations": 0,
    }


# ---- reports of workers --------------------------------------------------------------------------


def ran(run: RunState, name: str) -> int:
    return run.ledger.record(name).evaluations


def test_a_share_is_begun_once_and_where_it_was_sent() -> None:
    run = make("uncoded", 2, workers=3)
    group = begin(run)
    attempt = find(group, 0)
    other = next(a for a in run.workers if a != attempt.address)
    run.attempts.started(attempt.key, other, 1.0)
    assert (attempt.start, run.workers[other].running) == (None, {})
    run.attempts.started(new_key("r"), other, 1.0)
    assert run.workers[other].running == {}
    run.attempts.started(attempt.key, attempt.address, 2.0)
    run.attempts.started(attempt.key, attempt.address, 9.0)
    assert (attempt.start, run.workers[attempt.address].running) == (2.0, {attempt.key: 2.0})


def test_who_says_that_it_begins_again_and_again_is_late_and_hangs_all_the_same() -> None:
    run = make("uncoded", 1, workers=2, hang_after=30.0)
    for _ in range(3):
        run.times.add(1.0)
    group = begin(run)
    first = find(group, 0)
    for tick in range(300):
        now = tick / 10
        run.attempts.started(first.key, first.address, now)
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
    run.attempts.lost(attempt.key, 1.0, fate=fate)
    run.attempts.started(attempt.key, attempt.address, 2.0)
    assert (attempt.start, run.workers[attempt.address].running, run.attempts.unreported) == (
        None,
        {},
        {},
    )


def test_a_share_ends_once_and_where_it_was_sent_and_after_it_began() -> None:
    run = make("uncoded", 2, workers=3)
    group = begin(run)
    attempt = find(group, 0)
    other = next(a for a in run.workers if a != attempt.address)
    run.attempts.ended(attempt.key, attempt.address, 1.0, rows=ROWS, whole=True)
    assert ran(run, attempt.name) == 0
    start(run, group, 0, 1.0)
    for _ in range(300):
        run.attempts.ended(attempt.key, other, 1e9, rows=ROWS, whole=True)
    assert ran(run, attempt.name) == 0
    for now in (2.0, 1e9):
        run.attempts.ended(attempt.key, attempt.address, now, rows=ROWS, whole=True)
    run.returned(attempt.key, 2.1)
    run.attempts.ended(attempt.key, attempt.address, 1e9, rows=ROWS, whole=True)
    assert ran(run, attempt.name) == ROWS
    assert run.times.pace == {attempt.name: 1.0}
    assert run.times.latency(attempt.name) == 1.0


@pytest.mark.parametrize(("rows", "counted"), [(3, 3), (-(10**15), 0), (10**15, ROWS)])
def test_rows_are_as_many_as_a_share_may_have(rows: int, counted: int) -> None:
    run = make("uncoded", 1)
    group = begin(run)
    attempt = find(group, 0)
    start(run, group, 0, 0.0)
    run.attempts.ended(attempt.key, attempt.address, 1.0, rows=rows, whole=False)
    assert ran(run, attempt.name) == counted


def test_an_end_without_an_output_neither_frees_a_worker_nor_makes_it_fast() -> None:
    run = make("uncoded", 1, workers=2, hang_after=30.0)
    for _ in range(3):
        run.times.add(1.0)
    group = begin(run)
    attempt = find(group, 0)
    start(run, group, 0, 0.0)
    run.attempts.ended(attempt.key, attempt.address, 0.001, rows=ROWS, whole=True)
    place = run.workers[attempt.address]
    for other in run.workers.values():
        other.seen = 30.1
    assert (run.times.pace, place.running) == ({}, {attempt.key: 0.0})
    assert [c.address for c in run.candidates(30.1)] != [attempt.address]
    assert list(run.hung_workers(30.1)) == [place]
    run.attempts.lost(attempt.key, 30.1)
    assert place.running == {}


# ---- what is left --------------------------------------------------------------------------------


def test_an_end_heard_after_the_group_was_settled_leaves_nothing() -> None:
    run = make("uncoded", 1)
    group = begin(run)
    key = start(run, group, 0, 0.0)
    run.returned(key, 1.0)
    run.advance(group, 1.0)
    run.settle(0)
    run.attempts.ended(key, find(group, 0).address, 1.1, rows=ROWS, whole=True)
    assert run.times.latency(find(group, 0).name) == 1.1
    assert totals(run)["evaluations"] == ROWS
    assert (run.attempts.by_key, run.attempts.unreported) == ({}, {})


def test_a_hung_workers_shares_leave_nothing_when_it_is_restarted() -> None:
    run = make()
    group = begin(run)
    key = start(run, group, 1, 0.0)
    address = find(group, 1).address
    run.attempts.lost(key, 30.0, error="its worker hangs")
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
    run.attempts.worker_gone(address, 33.0)
    assert (run.attempts.by_key, run.attempts.unreported) == ({}, {})
