"""Hedging: when a second copy goes out, with the clock and all else given by the test."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from approxifer.coding import CodeSpec
from approxifer.errors import ConfigError
from approxifer.pipeline.planning.options import Options
from approxifer.pipeline.records import AttemptOutcome
from approxifer.pipeline.scheduler.hedging import POLICIES, Hedge
from approxifer.pipeline.scheduler.policy import COMPLETE, WAIT, Decision, Policy, decide
from approxifer.pipeline.scheduler.state import AttemptState, GroupState

CUBED, SPARK = POLICIES["cubed"], POLICIES["spark"]


@pytest.mark.parametrize(
    ("hedge", "sent", "least"), [(CUBED, 11, 5), (SPARK, 9, 6), (Hedge(2, 0), 9, 0), (SPARK, 1, 0)]
)
def test_a_part_of_the_others_must_be_back(hedge: Hedge, sent: int, least: int) -> None:
    assert next(back for back in range(sent) if hedge.ready(sent, sent - back)) == least


@pytest.mark.parametrize(
    ("given", "numbers"),
    [
        ("cubed", (3.0, 0.5)),
        ("spark", (1.5, 0.75)),
        ("2,.5", (2.0, 0.5)),
        ((2, 0.5), (2.0, 0.5)),
        ({"multiple": 2, "after": 1}, (2.0, 1.0)),
        (Hedge(4, 0.1), (4.0, 0.1)),
    ],
)
def test_policies_are_given_by_name_or_number(given: Any, numbers: tuple[float, float]) -> None:
    hedge = Hedge.of(given)
    assert (hedge.multiple, hedge.after) == numbers


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("sparc", "hedge='sparc': give 'cubed' or 'spark'"),
        ("2", "two numbers"),
        ((2.0,), "two numbers"),
        ({"multiple": 2.0}, "two numbers"),
        ({"multiple": 2.0, "after": 0.5, "late": 3}, "two numbers"),
        (True, "hedge=True"),
        ((0.5, 0.5), "multiple=0.5: give a number from 1 to"),
        ((2.0, 1.5), "after=1.5: give a number from 0 to 1"),
        ((float("nan"), 0.5), "multiple=nan"),
        (("2", 0.5), "multiple='2'"),
        ((2.0, True), "after=True"),
    ],
)
def test_nonsense_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        options(hedge=given)


def options(**changes: Any) -> Options:
    plain = {"data": "in.zarr", "model": "m.pt2", "out": "o.zarr", "scheme": "uncoded"}
    return Options(**(plain | changes))


@pytest.mark.parametrize("scheme", ["systematic", "berrut"])
def test_coded_schemes_have_parity_instead(scheme: str) -> None:
    with pytest.raises(ConfigError, match=f"scheme='{scheme}' has parity"):
        options(scheme=scheme, hedge="spark")
    assert options(scheme="replication", hedge="spark").policy.hedge == SPARK


def test_late_is_the_last_resort() -> None:
    assert options().policy.late == 2.0
    assert options(hedge="spark").policy.late == 4.5
    assert options(hedge="cubed", late=20).policy.late == 20.0
    with pytest.raises(ConfigError, match=r"late=3: .* more than the 3 medians"):
        options(hedge="cubed", late=3)


def test_a_policy_survives_the_way_to_the_scheduler() -> None:
    for policy in (Policy(), Policy(hedge=SPARK)):
        assert Policy.of(asdict(policy)) == policy


# ---- decisions ----------------------------------------------------------------------------------


class Worker:
    """As the policy sees it: since when it has run one share."""

    queued = 0

    def __init__(self, since: float = 0.0) -> None:
        self.since = since

    def stuck(self, now: float, limit: float) -> bool:
        return now - self.since > limit


def last_of_four(*starts: float | None) -> GroupState:
    """A group of which share 3 is out: once for each of these starts."""
    group = GroupState(0, CodeSpec("uncoded", 4).build(), rows=8, priority=0)
    back = {"sent": 0.0, "start": 0.0, "stop": 1.0, "returned": True}
    group.attempts += [AttemptState(share, 0, "a", "w", **back) for share in range(3)]  # type: ignore[arg-type]
    group.attempts += [
        AttemptState(3, number, f"a{number}", "w", sent=0.0, start=start, flight=9)
        for number, start in enumerate(starts)
    ]
    return group


def ask(group: GroupState, now: float, *, back: int = 8, **policy: Any) -> Decision:
    """Shares take 2 s; ``back`` of the eight others in flight are back."""
    return decide(
        group,
        now,
        policy=Policy(**({"floor": 0.0, "late": 10.0} | policy)),
        typical=2.0,
        workers={f"a{number}": Worker() for number in range(3)},
        out=lambda attempt: attempt.flight - back,
    )


@pytest.mark.parametrize(("hedge", "limit", "least"), [(CUBED, 6.0, 4), (SPARK, 3.0, 6)])
def test_a_copy_goes_out_after_a_multiple_once_a_part_is_back(
    hedge: Hedge, limit: float, least: int
) -> None:
    group = last_of_four(0.0)
    assert ask(group, limit - 0.1, hedge=hedge) == WAIT
    assert ask(group, limit + 0.1, hedge=hedge, back=least) == Decision(submit=(3,))
    assert ask(group, limit + 0.1, hedge=hedge, back=least - 1) == WAIT
    assert ask(group, limit + 0.1) == WAIT


def test_a_share_that_waits_behind_a_slow_one_is_copied_too() -> None:
    group = last_of_four(None)
    assert ask(group, 2.9, hedge=SPARK) == WAIT
    assert ask(group, 3.1, hedge=SPARK) == Decision(submit=(3,))
    assert ask(group, 3.1, hedge=SPARK, back=5) == WAIT


def test_there_is_one_extra_copy_until_both_are_late() -> None:
    group = last_of_four(0.0, 3.1)
    for now in (3.2, 8.0, 20.1, 23.0):
        assert ask(group, now, hedge=SPARK) == WAIT
    assert ask(group, 23.2, hedge=SPARK) == Decision(submit=(3,))


def test_where_too_few_are_back_late_is_the_last_resort() -> None:
    """At a run's very end nothing more comes back."""
    group = last_of_four(0.0)
    assert ask(group, 19.9, hedge=SPARK, back=0) == WAIT
    assert ask(group, 20.1, hedge=SPARK, back=0) == Decision(submit=(3,))


def test_a_lost_copy_leaves_the_race() -> None:
    group = last_of_four(0.0, 3.1)
    group.attempts[-1].fate = AttemptOutcome.LOST
    assert ask(group, 3.2, hedge=SPARK) == Decision(submit=(3,))
    group.attempts[-2].fate = AttemptOutcome.LOST
    assert ask(group, 3.2, hedge=SPARK, back=0) == Decision(submit=(3,))


def test_the_first_copy_back_ends_the_race() -> None:
    group = last_of_four(0.0, 3.1)
    group.attempts[-1].returned = True
    assert ask(group, 4.0, hedge=SPARK) == COMPLETE


def test_replication_needs_no_copy_of_a_block_of_which_one_is_in_time() -> None:
    group = GroupState(0, CodeSpec("replication", 1, 1).build(), rows=8, priority=0)
    group.attempts += [
        AttemptState(share, 0, f"a{share}", "w", sent=0.0, start=start, flight=9)
        for share, start in enumerate((0.0, 2.0))
    ]
    assert ask(group, 4.0, hedge=SPARK) == WAIT
    assert ask(group, 5.1, hedge=SPARK) == Decision(submit=(0,))


def test_without_a_median_nothing_is_hedged() -> None:
    policy = Policy(hedge=Hedge(1, 0))
    group = last_of_four(0.0)
    assert decide(group, 1e6, policy=policy, typical=None, workers={"a0": Worker(1e6)}) == WAIT


def test_nothing_is_hedged_below_the_floor() -> None:
    group = last_of_four(0.0)
    assert ask(group, 3.5, hedge=SPARK, floor=4.0) == WAIT
    assert ask(group, 4.1, hedge=SPARK, floor=4.0) == Decision(submit=(3,))
    assert np.isinf(Policy(hedge=SPARK).slow_limit(None))
