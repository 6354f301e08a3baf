"""Groups that one worker alone may run: checks of what others returned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from approxifer.coding import CodeSpec
from approxifer.pipeline.keys import new_key
from approxifer.pipeline.protocol import Complete, Send, WorkerChange
from approxifer.pipeline.records import AttemptOutcome
from approxifer.pipeline.scheduler.policy import Policy
from approxifer.pipeline.scheduler.run_state import RunState
from approxifer.pipeline.scheduler.state import Bar, GroupState, WorkerState
from approxifer.pipeline.scheduler.times import ShareTimes

ROWS = 8
PLAIN = CodeSpec("uncoded", 1).build()


def worker(number: int) -> WorkerState:
    return WorkerState(
        f"a{number}", f"w{number}", "here", 1, seen=0.0, incarnation=number + 1, ready={"r"}
    )


@pytest.fixture
def run() -> RunState:
    """Four workers; shares take a second, and three of them are late."""
    made = RunState(
        run="r",
        client="c",
        codes={"plain": PLAIN},
        policy=Policy(floor=0.0, late=3.0, hang_after=30.0),
        fingerprint="f",
        seed=0,
        restart=False,
        began=0.0,
        workers={f"a{i}": worker(i) for i in range(4)},
        block=ROWS,
        micro_batch=4,
    )
    for _ in range(3):
        made.times.add(1.0)
    return made


def begin(run: RunState, number: int = 0, now: float = 0.0, **fields: Any) -> GroupState:
    given = {"rows": ROWS, "priority": 0, "only": 2, "check": True} | fields
    group = GroupState(group=number, code=PLAIN, **given)
    run.open_group(group)
    run.advance(group, now)
    return group


def ends(run: RunState) -> list[Complete]:
    """The ends of groups."""
    return [event for event in run.events if isinstance(event, Complete)]


def sends(run: RunState) -> list[str]:
    """The addresses to which shares were sent."""
    return [to.address for event in run.events if isinstance(event, Send) for to in event.to]


def fates(event: Complete) -> list[tuple[int, str]]:
    return [(attempt.member, attempt.fate.value) for attempt in event.attempts]


# ---- where a check goes --------------------------------------------------------------------------


def test_a_check_goes_to_the_worker_that_was_drawn_whatever_that_is_busy_with(
    run: RunState,
) -> None:
    drawn = run.workers["a1"]
    drawn.waiting.update(new_key("r") for _ in range(9))
    run.times.pace["w1"] = 100.0
    for number in range(20):
        begin(run, number)
    assert sends(run) == ["a1"] * 20
    assert (len(drawn.waiting), ends(run)) == (29, [])


def test_a_check_is_sent_to_a_worker_that_is_late_with_another_share(run: RunState) -> None:
    run.workers["a1"].running[new_key("r")] = -100.0
    begin(run)
    assert sends(run) == ["a1"]


def test_a_check_goes_to_a_process_and_not_to_its_name(run: RunState) -> None:
    run.workers["a9"] = worker(1)
    run.workers["a9"].address, run.workers["a9"].incarnation = "a9", 10
    for number in range(20):
        begin(run, number, only=10)
    assert sends(run) == ["a9"] * 20


def leave(run: RunState) -> None:
    run.workers.pop("a1")
    run.attempts.worker_gone("a1", 0.5)


CANNOT: dict[str, Callable[[RunState], Any]] = {
    "gone": leave,
    "without the model": lambda run: run.workers["a1"].ready.clear(),
    "barred": lambda run: run.bar([Bar(name="w1")], 0.5),
    "closed": lambda run: setattr(run.workers["a1"], "closed", True),
    "hung": lambda run: setattr(run.workers["a1"], "hung", True),
}


@pytest.mark.parametrize("why", CANNOT)
def test_a_check_that_its_worker_cannot_run_is_run_by_nobody(run: RunState, why: str) -> None:
    CANNOT[why](run)
    begin(run)
    (event,) = ends(run)
    assert (event.broken, event.used, event.attempts, sends(run)) == (True, (), (), [])


@pytest.mark.parametrize("why", CANNOT)
def test_a_check_ends_when_its_worker_can_run_it_no_more(run: RunState, why: str) -> None:
    group = begin(run)
    key = group.attempts[0].key
    CANNOT[why](run)
    dropped = run.advance(group, 0.6)
    (event,) = ends(run)
    assert (event.broken, event.used, sends(run)) == (True, (), ["a1"])
    assert (dropped, fates(event)) in [
        ([key], [(2, "unstarted")]),
        ([], [(2, "lost")]),  # with its worker
    ]
    assert run.advance(group, 0.7) == []
    assert len(ends(run)) == 1
    run.settle(0)
    assert (run.attempts.by_key, run.groups) == ({}, {})


# ---- how it ends ---------------------------------------------------------------------------------


def test_a_check_that_comes_back_is_used(run: RunState) -> None:
    group = begin(run)
    attempt = group.attempts[0]
    run.attempts.started(attempt.key, "a1", 1.0)
    assert run.advance(group, 1.1) == []
    run.attempts.ended(attempt.key, "a1", 1.2, rows=ROWS, whole=True)
    run.returned(attempt.key, 1.2)
    run.workers["a1"].hung = True  # too late to matter
    assert run.advance(group, 1.2) == []
    (event,) = ends(run)
    assert (event.broken, event.used, fates(event)) == (False, ((0, 0),), [(2, "used")])


def test_a_check_that_cannot_be_fetched_ends_without_an_output(run: RunState) -> None:
    group = begin(run)
    run.returned(group.attempts[0].key, 1.0)
    run.advance(group, 1.0)
    run.attempts.lost(group.attempts[0].key, 1.1, error="not fetched")
    run.advance(group, 1.2)
    first, second = ends(run)
    assert (first.used, second.used, second.broken) == (((0, 0),), (), True)
    assert sends(run) == ["a1"]


@pytest.mark.parametrize("fate", [AttemptOutcome.LOST, AttemptOutcome.FAILED])
def test_a_check_that_is_lost_or_on_which_the_model_raises_is_not_sent_again(
    run: RunState, fate: AttemptOutcome
) -> None:
    group = begin(run)
    run.attempts.lost(group.attempts[0].key, 1.0, fate=fate, error="why")
    run.advance(group, 1.0)
    (event,) = ends(run)
    assert (event.broken, event.used, fates(event)) == (True, (), [(2, fate.value)])
    assert event.attempts[0].error == "why"
    assert sends(run) == ["a1"]


def test_a_check_is_dropped_once_it_is_late(run: RunState) -> None:
    group = begin(run)
    attempt = group.attempts[0]
    run.attempts.started(attempt.key, "a1", 1.0)
    assert run.advance(group, 4.0) == []
    assert run.advance(group, 4.01) == [attempt.key]
    (event,) = ends(run)
    assert (event.broken, event.used, fates(event)) == (True, (), [(2, "dropped")])
    run.settle(0)
    place = run.workers["a1"]
    assert list(place.running) == [attempt.key], "it still takes its worker"
    run.attempts.ended(attempt.key, "a1", 9.0, rows=4, whole=False)
    assert (place.running, run.attempts.by_key, run.ledger.record("w1").evaluations) == ({}, {}, 4)


def test_a_check_that_is_never_begun_is_dropped_too(run: RunState) -> None:
    """One limit for each place in its worker's queue, where it is the third, and a second."""
    run.workers["a1"].waiting.update(new_key("r") for _ in range(2))
    group = begin(run)
    run.workers["a1"].seen = 13.0
    assert run.advance(group, 13.0) == []
    assert run.advance(group, 13.01) == [group.attempts[0].key]


def test_where_no_share_is_back_yet_a_check_may_take_as_long_as_a_hang(run: RunState) -> None:
    run.times = ShareTimes()
    group = begin(run)
    run.attempts.started(group.attempts[0].key, "a1", 0.0)
    assert run.advance(group, 30.0) == []
    assert run.advance(group, 30.1) == [group.attempts[0].key]


# ---- what it leaves ------------------------------------------------------------------------------


def play(run: RunState, number: int, seconds: float, **fields: Any) -> None:
    """A group's life on a1."""
    group = begin(run, number, **fields)
    attempt = group.attempts[0]
    run.attempts.started(attempt.key, attempt.address, 0.0)
    run.attempts.ended(attempt.key, attempt.address, seconds, rows=ROWS, whole=True)
    run.returned(attempt.key, seconds)
    run.advance(group, seconds)
    run.settle(number)


@pytest.mark.parametrize("seconds", [0.001, 2.9])
def test_the_times_of_checks_are_no_share_times(run: RunState, seconds: float) -> None:
    run.times.pace["w1"] = 2.0
    for number in range(300):
        play(run, number, seconds)
    dropped = begin(run, 301)
    run.attempts.started(dropped.attempts[0].key, "a1", 0.0)
    run.advance(dropped, 3.1)
    run.attempts.ended(dropped.attempts[0].key, "a1", 100.0, rows=0, whole=False)
    assert (run.times.typical, run.times.pace) == (1.0, {"w1": 2.0})
    assert run.times.latency("w1") is None
    assert run.ledger.record("w1").evaluations == 300 * ROWS, "yet they are counted"
    play(run, 400, 2.0, check=False)
    assert run.times.latency("w1") == 2.0


def test_a_worker_that_hangs_on_checks_only_is_convicted_of_nothing_and_delays_nothing(
    run: RunState,
) -> None:
    """Its check is drawn again at the late limit; meanwhile, and after, shares go on elsewhere."""
    check = begin(run, 0)
    run.attempts.started(check.attempts[0].key, "a1", 0.0)
    done, now, again = 0, 0.0, None
    while now < 25.0:
        now += 0.25
        for other in run.workers.values():
            other.seen = now
        for group in list(run.groups.values()):
            run.advance(group, now)
        if check.complete and again is None:
            assert now == 3.25
            run.settle(0)
            again = begin(run, 1, now, only=3)
            attempt = again.attempts[0]
            run.attempts.started(attempt.key, attempt.address, now)
            run.returned(attempt.key, now)
            run.advance(again, now)
            assert ends(run)[-1].used == ((0, 0),)
        share = begin(run, 1000 + done, now, only=None, check=False)
        assert share.attempts[0].name != "w1" or now <= 3.0
        run.returned(share.attempts[0].key, now)
        run.advance(share, now)
        run.settle(share.group)
        done += share.complete
        assert list(run.hung_workers(now)) == []
    assert done == 100
    assert not any(isinstance(event, WorkerChange) for event in run.events)
