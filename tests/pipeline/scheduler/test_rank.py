"""The turns of several runs on one scheduler."""

from __future__ import annotations

from approxifer.coding import CodeSpec
from approxifer.pipeline.scheduler.policy import Policy
from approxifer.pipeline.scheduler.run_state import RunState
from approxifer.pipeline.scheduler.state import GroupState


def run_state(seconds: float) -> RunState:
    """A run whose shares take that long."""
    code = CodeSpec("uncoded", 2).build()
    made = RunState("r", "c", {"coded": code}, Policy(), "f", 0, False, 0.0, {}, 1, 1)
    for _ in range(9):
        made.times.add(seconds)
    return made


def begin(run: RunState, *others: RunState, first: bool = False) -> float:
    rank = run.rank(2, first=first, others=others)
    run.open_group(GroupState(len(run.groups), run.codes["coded"], rows=1, priority=rank))
    return rank


def test_groups_of_one_run_come_in_turn_and_repairs_with_the_oldest_in_flight() -> None:
    run = run_state(1.0)
    ranks = [begin(run) for _ in range(3)]
    assert ranks == sorted(ranks, reverse=True)
    assert len(set(ranks)) == 3
    assert [begin(run, first=True) for _ in range(2)] == [ranks[0]] * 2
    other = run_state(1.0)
    assert begin(other, run, first=True) == ranks[0]
    del run.groups[0], run.groups[3], run.groups[4], other.groups[0]
    assert begin(run, other, first=True) == ranks[1]
    run.groups.clear()
    assert begin(run, first=True) < ranks[2], "nothing is in flight: in turn"


def test_a_run_that_begins_later_starts_level() -> None:
    old, new = run_state(1.0), run_state(1.0)
    for _ in range(100):
        last = begin(old, new)
    assert begin(new, old) < last  # not before all that wait, nor behind what will come
    assert begin(new, old) < begin(old, new) + 4.1


def test_runs_share_time_and_not_groups() -> None:
    quick, slow = run_state(0.1), run_state(1.0)
    ranks = [("quick", begin(quick, slow)), ("slow", begin(slow, quick))]
    ranks += [("quick", begin(quick, slow)) for _ in range(199)]
    ranks += [("slow", begin(slow, quick)) for _ in range(199)]
    turns = [name for name, _ in sorted(ranks, key=lambda one: -one[1])]
    assert 95 <= turns[:110].count("quick") <= 105


def test_a_run_saves_up_nothing_while_it_is_idle() -> None:
    idle, busy = run_state(1.0), run_state(1.0)
    begin(idle, busy)
    idle.groups.clear()
    for _ in range(100):
        last = begin(busy, idle)
    assert begin(idle, busy) < last
