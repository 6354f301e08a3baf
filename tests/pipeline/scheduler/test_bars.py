"""Workers shut out of a run: barred by name, host, node or device."""

from __future__ import annotations

from typing import Any

import pytest

from approxifer.coding import Code, CodeSpec
from approxifer.pipeline.protocol import Place, WorkerChange
from approxifer.pipeline.scheduler.policy import Policy
from approxifer.pipeline.scheduler.run_state import RunState
from approxifer.pipeline.scheduler.state import Bar, GroupState, WorkerState


def worker(number: int, *, name: str = "", host: str = "", node: str = "") -> WorkerState:
    """Number 0 and 1 are on the host n0, 2 and 3 on n1, and so on."""
    return WorkerState(
        f"a{number}",
        name or f"w{number}",
        host or f"n{number // 2}",
        1,
        seen=0.0,
        incarnation=number + 1,
        ready={"r"},
        place=Place(node, "cpu"),
    )


def run_state(workers: int = 8, code: Code | None = None) -> RunState:
    return RunState(
        run="r",
        client="c",
        codes={"coded": code or CodeSpec("uncoded", 4).build()},
        policy=Policy(floor=0.0),
        fingerprint="f",
        seed=0,
        restart=False,
        began=0.0,
        workers={f"a{i}": worker(i) for i in range(workers)},
        block=8,
        micro_batch=8,
    )


def begin(run: RunState, number: int = 0, **fields: Any) -> GroupState:
    group = GroupState(number, run.codes["coded"], rows=8, priority=0, **fields)
    run.open_group(group)
    run.advance(group, 0.0)
    return group


def names(group: GroupState) -> set[str]:
    return {attempt.name for attempt in group.attempts}


def test_a_group_never_goes_to_workers_that_are_forbidden() -> None:
    run = run_state(code=CodeSpec("uncoded", 1).build())
    forbidden = frozenset({1, 2, 3, 5, 6, 7})
    for number in range(20):
        group = begin(run, number, forbid=forbidden)
        assert names(group) <= {"w3", "w7"}
        # Nor when its share is late, or lost, and goes out again.
        for _ in range(2):
            last = group.attempts[-1]
            run.attempts.lost(last.key, 1.0)
            run.advance(group, 1.0)
        assert names(group) == {"w3", "w7"}


def test_a_group_that_everybody_is_forbidden_waits_for_somebody_to_come() -> None:
    run = run_state(workers=2, code=CodeSpec("uncoded", 1).build())
    group = begin(run, forbid=frozenset({1, 2}))
    assert group.attempts == []
    run.workers["a4"] = worker(4)
    run.advance(group, 1.0)
    assert names(group) == {"w4"}


def test_a_bar_is_about_somebody() -> None:
    with pytest.raises(ValueError, match="needs a name"):
        Bar()


@pytest.mark.parametrize(
    ("bar", "out"),
    [
        (Bar(name="w3"), {"w3"}),
        (Bar(host="n1"), {"w2", "w3"}),
        (Bar(host="n1", node="", device="cpu"), {"w2", "w3"}),
        (Bar(host="n1", node="n1"), set()),
        (Bar(host="n1", device="cuda"), set()),
        (Bar(name="w3", host="n1"), {"w3"}),
        (Bar(name="w3", host="n0"), set()),
        (Bar(device="cpu"), {f"w{i}" for i in range(8)}),
    ],
    ids=str,
)
def test_convicted_workers_get_nothing_more_and_lose_what_they_have(
    bar: Any, out: set[str]
) -> None:
    run = run_state()
    groups = [begin(run, number) for number in range(8)]
    mine = [(g, a) for g in groups for a in g.attempts if a.name in out or not out]
    _, back = mine[0]
    run.returned(back.key, 0.5)
    theirs = {
        attempt.key
        for group in groups
        for attempt in group.attempts
        if attempt.name in out and attempt is not back
    }
    assert bool(theirs) == bool(out)
    lost = run.bar([bar], 1.0)
    assert set(lost) == theirs
    assert len(lost) == len(theirs)
    assert {c.name for c in run.candidates(1.0)} == {f"w{i}" for i in range(8)} - out
    assert run.ledger.ready_workers() == 8 - len(out)
    assert {
        name for name, record in run.ledger.records.items() if record.state == "convicted"
    } == out
    changes = [(e.worker, e.what) for e in run.events if isinstance(e, WorkerChange)]
    assert sorted(changes) == sorted((name, "convicted") for name in out)
    for number in range(10, 20):
        assert names(begin(run, number)).isdisjoint(out)
    assert run.bar([bar], 2.0) == lost  # until they are reported lost; and notified once
    assert sum(isinstance(e, WorkerChange) for e in run.events) == len(out)


def test_of_a_gateway_one_node_is_shut_out() -> None:
    run = run_state(workers=0)
    for number, node in enumerate(["x", "y", ""]):
        run.workers[f"a{number}"] = worker(number, host="gate", node=node)
    run.bar([Bar(host="gate", node="x")], 1.0)
    assert {c.name for c in run.candidates(1.0)} == {"w1", "w2"}
    run.bar([Bar(host="gate", node="")], 1.0)
    assert {c.name for c in run.candidates(1.0)} == {"w1"}


def test_a_convicted_worker_stays_out_when_it_comes_back() -> None:
    run = run_state()
    run.bar([Bar(name="w3"), Bar(host="n0", device="cpu")], 1.0)
    run.events.clear()
    run.workers["a20"] = worker(20, name="w3", host="n9")
    run.workers["a21"] = worker(21, host="n0")
    allowed = {c.name for c in run.candidates(1.0)}
    assert allowed == {"w2", "w4", "w5", "w6", "w7"}
    for address in ("a20", "a21"):
        run.notify(run.workers[address], "ready", 2.0)  # one that hung has come back, for instance
    changes = [(e.incarnation, e.what) for e in run.events if isinstance(e, WorkerChange)]
    assert changes == [(21, "convicted"), (22, "convicted")]
    assert run.ledger.record("w3").state == "convicted"


def test_a_name_on_another_node_is_notified_when_that_is_barred_too() -> None:
    run = run_state(workers=0)
    run.workers.update({"a0": worker(0, name="job"), "a2": worker(2, name="job")})
    seen = []
    for host in ("n0", "n1", "n1"):
        run.bar([Bar(host=host)], 1.0)
        seen.append([e.incarnation for e in run.events if isinstance(e, WorkerChange)])
    assert seen == [[1], [1, 3], [1, 3]]


def test_a_convicted_worker_that_hangs_is_left_alone() -> None:
    run = run_state()
    late = 1e6
    assert {w.name for w in run.hung_workers(late)} == {f"w{i}" for i in range(8)}
    run.bar([Bar(name="w3")], 1.0)
    assert "w3" not in {w.name for w in run.hung_workers(late)}
