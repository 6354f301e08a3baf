"""A run on the scheduler: groups sent, decided on, complete."""

from __future__ import annotations

import pytest
from scheduling import (
    ROWS,
    begin,
    come_back,
    end,
    events,
    find,
    key_of,
    make,
    start,
    totals,
    worker,
)

from approxifer.coding import CodeSpec
from approxifer.pipeline.keys import new_key
from approxifer.pipeline.protocol import (
    Complete,
    Returned,
    Send,
    Sent,
    WorkerChange,
)
from approxifer.pipeline.records import AttemptOutcome
from approxifer.pipeline.scheduler.hedging import Hedge

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
    assert set(event.to) == {Sent(a.share, 0, a.name, a.address, a.key) for a in group.attempts}
    assert all(run.workers[a.address].queued == 1 for a in group.attempts)
    assert run.ledger.ready_workers() == 3
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
    assert not run.attempts.by_key
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
    run.began = 100.0  # by its clock
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


def test_a_spare_parity_is_distinct_from_a_used_one() -> None:
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
    assert run.attempts.lost(key_of(group, 0, 1), 4.2) is group  # it could not be fetched
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
        assert run.attempts.lost(key, 0.5, error="gone") is group
        assert run.attempts.lost(key, 0.6) is None
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
        assert run.attempts.lost(key, 1.5 + number, fate=AttemptOutcome.FAILED, error="no") is group
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
    assert not run.attempts.by_key


def test_a_model_that_raises_is_tried_by_workers_of_other_names() -> None:
    """Each of them dies of it, and is back at another address at once."""
    run = make("uncoded", 1, workers=5, max_failures=5)
    group = begin(run)
    for number in range(5):
        attempt = find(group, 0, number)
        dead = run.workers.pop(attempt.address)
        run.attempts.lost(attempt.key, number + 0.5, fate=AttemptOutcome.FAILED)
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
    assert run.attempts.worker_gone(address, 0.5) == {0, 1}
    assert {a.fate for a in mine.values()} == {AttemptOutcome.LOST}
    assert run.ledger.record(gone.name).erased == 2
    assert run.ledger.record(gone.name).evaluations == ROWS  # how far it came is not known
    assert not run.attempts.unreported
    # Data shares are sent again at once, to others.
    for group in (one, two):
        run.advance(group, 0.6)
        assert address not in {a.address for a in group.attempts if a.live}


def test_a_death_after_the_return_loses_nothing_yet() -> None:
    """The output may have been fetched already; the client will report."""
    run = make("uncoded", 2)
    group = begin(run)
    come_back(run, group, 0)
    address = find(group, 0).address
    run.workers.pop(address)
    assert run.attempts.worker_gone(address, 1.5) == set()
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
    assert run.attempts.lost(key_of(group, 1), 1.5, error="not fetched") is group
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
    assert not run.attempts.by_key


def test_a_lost_spare_is_no_loss() -> None:
    run = make(patience=5.0)
    group = begin(run)
    for share in (0, 2, 1):
        come_back(run, group, share)
    run.advance(group, 1.0)
    run.attempts.lost(key_of(group, 2), 1.5)
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
        run.attempts.lost(key_of(group, 0, number), 1.0, fate=AttemptOutcome.FAILED)
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


# ---- a model that raises -------------------------------------------------------------------------


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
    run.attempts.lost(key_of(group, 0), 1.0, fate=AttemptOutcome.FAILED, error="it raised")
    run.attempts.lost(key_of(group, 1), 1.0, fate=AttemptOutcome.FAILED, error="it raised")
    run.returned(key_of(group, 3), 1.0)
    if back:
        run.returned(key_of(group, 2), 1.0)
        run.advance(group, 1.0)
        assert not group.complete, "the spare worker may come back"
        spare.hung = False
        run.advance(group, 2.0)
        (retried,) = [attempt for attempt in group.attempts if attempt.address == spare.address]
        run.attempts.lost(retried.key, 3.0, fate=AttemptOutcome.FAILED, error="it raised")
    else:
        run.attempts.lost(key_of(group, 2), 1.0, fate=AttemptOutcome.FAILED, error="it raised")
    run.advance(group, 3.0)
    assert group.complete
    assert events(run, Complete)[-1].broken


def test_where_workers_were_lost_such_a_group_waits_for_others() -> None:
    run = make("systematic", 2, 0, workers=4, reuse=False)
    run.codes["coded"] = CodeSpec("systematic", 2, 0, byzantine=1).build()
    group = begin(run)
    for share in range(4):
        run.attempts.lost(key_of(group, share), 1.0)
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
        run.attempts.started(key, run.attempts.by_key[key][1].address, 0.5)
    run.workers[run.attempts.by_key[keys[2]][1].address].retiring = True
    assert [run.attempts.died_while_running(key) for key in keys] == [False, True, False]
