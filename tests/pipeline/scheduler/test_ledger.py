"""The workers of a run: those that hang, their models, their records."""

from __future__ import annotations

from typing import Any

import pytest
from scheduling import (
    ROWS,
    begin,
    come_back,
    events,
    find,
    make,
    start,
    worker,
)

from approxifer.pipeline.keys import new_key
from approxifer.pipeline.protocol import (
    Complete,
    Contradiction,
    Place,
    Ready,
    Returned,
    Unready,
    WorkerChange,
    read_report,
)
from approxifer.pipeline.scheduler.run_state import RunState
from approxifer.pipeline.scheduler.state import SILENT, WorkerState
from approxifer.version import __version__

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


# ---- changes and records -------------------------------------------------------------------------


def test_notify_keeps_the_state_and_counts_restarts() -> None:
    run = make()
    run.notify(run.workers["a1"], "hung", 1.0)
    run.notify(run.workers["a1"], "restarting", 1.0)
    run.notify(run.workers["a1"], "ready", 4.0)
    run.notify(run.workers["a1"], "restarting", 9.0)
    record = run.ledger.record("w1")
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
    assert run.ledger.record("w7").host == "n1"
    group = begin(run, now=1.0)
    key = start(run, group, 0, 1.0)
    run.returned(key, 2.0, nbytes=320)
    run.advance(group, 2.0)
    assert events(run, Returned) == [Returned(0, key, 320)]
    assert [a.member for a in events(run, Complete)[0].attempts] == [8]


def test_a_worker_has_the_place_that_it_stated_first_in_whatever_run() -> None:
    run = make(workers=0)
    other = make(run="other", at=run.workers)
    made, first = newcomer(run), Place(**PLACE)
    run.model_loaded(made, report(), 1.0)
    for _ in range(9):
        other.model_loaded(made, report(place=PLACE | {"node": "n2", "device": "cuda"}), 2.0)
    assert made.ready == {"r", "other"}
    contradiction, ready = other.events
    assert contradiction == Contradiction("w7", 8, Place("n2", "cuda", "cpu | One"), first)
    assert ready == WorkerChange("w7", "ready", 2.0, 8, "here", first)
    assert [type(event) for event in run.events] == [WorkerChange]
    for number, name in enumerate(PLACE):
        third = make(run=f"third-{number}", at=run.workers)
        third.model_loaded(made, report(place=PLACE | {name: ""}), 3.0)
        assert getattr(events(third, Contradiction)[0].stated, name) == ""
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
    assert why in run.ledger.unready["w7"]
    assert len(run.ledger.unready["w7"]) < 600
    run.model_loaded(made, report(), 2.0)
    assert (made.ready, run.ledger.unready) == ({"r"}, {})
    run.model_loaded(made, report(**fields), 3.0)  # too late
    assert (made.ready, run.ledger.unready) == ({"r"}, {})


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
