"""The policy's decisions, from records and a clock that the test sets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from approxifer.coding import Code, CodeSpec
from approxifer.pipeline.records import AttemptOutcome
from approxifer.pipeline.scheduler.policy import (
    COMPLETE,
    WAIT,
    Decision,
    Policy,
    decide,
    fewest,
    wanted,
)
from approxifer.pipeline.scheduler.state import AttemptState, GroupState, WorkerState
from approxifer.pipeline.scheduler.times import ShareTimes

SCHEMES = ("uncoded", "replication", "systematic", "berrut")


@dataclass
class FakeWorker:
    """A worker as the policy sees it: a queue, and whether it is stuck."""

    queued: int = 0
    is_stuck: bool = False

    def stuck(self, now: float, limit: float) -> bool:
        return self.is_stuck


def build(scheme: str = "systematic", k: int = 4, stragglers: int = 1) -> Code:
    return CodeSpec(scheme=scheme, k=k, stragglers=stragglers).build()


def group_of(
    code: Code,
    *,
    back: Iterable[int] = (),
    running: dict[int, float] | None = None,
    waiting: dict[int, float] | None = None,
) -> GroupState:
    """A group: shares that are back, that run since when, that were sent when and wait."""
    group = GroupState(group=0, code=code, rows=8, priority=0)
    for share in back:
        group.attempts.append(attempt(share, sent=0.0, start=0.0, stop=1.0, returned=True))
    for share, start in (running or {}).items():
        group.attempts.append(attempt(share, sent=start, start=start))
    for share, sent in (waiting or {}).items():
        group.attempts.append(attempt(share, sent=sent))
    return group


def attempt(share: int, *, number: int = 0, **fields: object) -> AttemptState:
    plain: dict[str, object] = {
        "share": share,
        "attempt": number,
        "address": f"a{share}",
        "name": f"w{share}",
    }
    return AttemptState(**(plain | fields))  # type: ignore[arg-type]


def ask(
    group: GroupState,
    now: float,
    *,
    policy: Policy | None = None,
    typical: float | None = 1.0,
    workers: dict[str, WorkerState] | None = None,
) -> Decision:
    if workers is None:
        workers = {f"a{share}": FakeWorker() for share in range(group.code.n)}
    return decide(group, now, policy=policy or Policy(late=3.0), typical=typical, workers=workers)


# ---- complete, or wait ---------------------------------------------------------------------------


@pytest.mark.parametrize("patience", [0.0, 1.0, float("inf")])
@pytest.mark.parametrize("scheme", ["uncoded", "replication", "systematic"])
def test_an_exact_group_is_complete_at_once(scheme: str, patience: float) -> None:
    code = build(scheme)
    policy = Policy(patience=patience)
    rest = dict.fromkeys(range(4, code.n), 0.0)
    assert ask(group_of(code, back=range(4), running=rest), 0.5, policy=policy) == COMPLETE
    assert ask(group_of(code, back=range(4), running=rest), 0.5, typical=None) == COMPLETE


def test_one_share_less_is_not_complete() -> None:
    for scheme in SCHEMES:
        code = build(scheme)
        rest = dict.fromkeys(range(3, code.n), 0.0)
        assert ask(group_of(code, back=range(3), running=rest), 0.5) == WAIT, scheme


def test_without_patience_a_decodable_group_is_complete() -> None:
    group = group_of(build(), back=(0, 1, 2, 4), running={3: 0.0})
    assert ask(group, 0.0, policy=Policy(patience=0)) == COMPLETE
    assert ask(group, 0.0, policy=Policy(patience=0), typical=None) == COMPLETE
    assert ask(group, 0.0, policy=Policy(patience=0.01)) == WAIT


@pytest.mark.parametrize("patience", [0.5, 1.0, 2.0])
def test_patience_counts_medians_from_each_shares_start(patience: float) -> None:
    code = build("systematic", 4, 2)
    group = group_of(code, back=(0, 1, 4, 5), running={2: 10.0, 3: 11.0})
    policy = Policy(patience=patience, floor=0)
    ends = 11.0 + (1 + patience) * 2.0
    assert ask(group, ends - 0.01, policy=policy, typical=2.0) == WAIT
    assert ask(group, ends + 0.01, policy=policy, typical=2.0) == COMPLETE


def test_where_rows_end_exact_late_blocks_are_sent_again_together() -> None:
    code = build("systematic", 4, 2)
    group = group_of(code, back=(0, 4), running={1: 0.0, 2: 0.0, 3: 5.0, 5: 5.0})
    few, exact = Policy(late=3.0), Policy(late=3.0, exact=True)
    assert ask(group, 5.0, policy=few) == WAIT  # with 3 and 5 it will be decodable
    assert ask(group, 5.0, policy=exact) == Decision(submit=(1, 2))
    group.attempts[-1].start = 0.0
    assert ask(group, 5.0, policy=few) == Decision(submit=(1,))
    assert ask(group, 5.0, policy=exact) == Decision(submit=(1, 2))  # parity does not better it


def test_where_rows_end_exact_a_late_block_is_sent_again_while_another_is_waited_for() -> None:
    code = build("systematic", 4, 2)
    group = group_of(code, back=(0, 1, 4, 5), running={2: 0.0, 3: 4.0})
    few, exact = Policy(late=3.0), Policy(late=3.0, exact=True)
    assert ask(group, 5.0, policy=few) == WAIT
    assert ask(group, 5.0, policy=exact) == Decision(submit=(2,))
    group.attempts.append(attempt(2, number=1, sent=5.0, start=5.0))
    assert ask(group, 6.5, policy=exact) == WAIT  # for the copy, too
    for one in group.attempts:
        one.start = 0.0
    assert ask(group, 6.5, policy=exact) == COMPLETE


@pytest.mark.parametrize("scheme", ["berrut", "parm"])
def test_where_rows_end_exact_and_no_share_can_make_them_so_few_are_sent_again(scheme: str) -> None:
    code = build(scheme)
    group = group_of(code, back=(0, 1))
    group.attempts += [
        attempt(3, number=n, sent=0.0, fate=AttemptOutcome.FAILED)
        for n in range(Policy.max_failures)
    ]
    assert ask(group, 1.0, policy=Policy(exact=True)) == Decision(submit=(2, 4))


def test_no_share_is_late_below_the_floor() -> None:
    group = group_of(build(), back=(0, 1, 2, 4), running={3: 0.0})
    policy = Policy(patience=1, floor=0.25)
    assert ask(group, 0.24, policy=policy, typical=0.001) == WAIT
    assert ask(group, 0.26, policy=policy, typical=0.001) == COMPLETE
    short = group_of(build(), back=(0, 1), running={2: 0.0, 3: 0.0, 4: 0.0})
    assert ask(short, 0.24, policy=policy, typical=0.001) == WAIT
    assert ask(short, 0.26, policy=policy, typical=0.001).submit


def test_before_there_is_a_median_nothing_is_late() -> None:
    group = group_of(build(), back=(0, 1, 2, 4), running={3: 0.0})
    assert ask(group, 1e6, typical=None) == WAIT
    short = group_of(build(), back=(0,), running={1: 0.0, 2: 0.0}, waiting={3: 0.0, 4: 0.0})
    assert ask(short, 1e6, typical=None) == WAIT


def test_parity_is_not_waited_for() -> None:
    """Data share 3 is lost for good: the parity still running cannot make block 3 exact."""
    code = build("systematic", 4, 2)
    group = group_of(code, back=(0, 1, 2, 4), running={5: 0.0})
    group.attempts.append(attempt(3, sent=0.0, start=0.0, fate=AttemptOutcome.LOST))
    assert ask(group, 0.0, policy=Policy(patience=float("inf"))) == COMPLETE


def test_a_second_copy_is_not_waited_for() -> None:
    code = build("replication", 3, 1)
    group = group_of(code, back=(0, 4, 2), running={1: 0.0, 3: 0.0, 5: 0.0})
    assert ask(group, 0.0) == COMPLETE


def test_berrut_waits_for_every_share() -> None:
    code = build("berrut", 4, 2)
    group = group_of(code, back=(0, 1, 2, 3, 4), running={5: 0.0})
    assert ask(group, 1.9) == WAIT
    assert ask(group, 2.1) == COMPLETE
    assert ask(group, 0.0, policy=Policy(patience=0)) == COMPLETE


def test_berrut_is_complete_once_all_are_in() -> None:
    code = build("berrut", 4, 2)
    assert ask(group_of(code, back=range(6)), 0.0) == COMPLETE


def test_a_second_attempt_at_a_share_that_is_in_is_not_waited_for() -> None:
    code = build("berrut", 4, 1)
    group = group_of(code, back=(0, 1, 2, 3))
    group.attempts.append(attempt(0, number=1, sent=0.0, start=0.0))
    group.attempts.append(attempt(4, sent=0.0, start=0.0, fate=AttemptOutcome.LOST))
    assert ask(group, 0.1) == COMPLETE
    hopeless = failed(build("uncoded"), 3, 3, (0, 1, 2))
    hopeless.attempts.append(attempt(0, number=1, sent=0.0, start=0.0))
    assert ask(hopeless, 0.1) == Decision(complete=True, broken=True)


def test_wanted() -> None:
    code = build("systematic", 4, 2)
    assert wanted(code, {0, 1, 4, 5}, {2, 3}) == {2, 3}
    assert wanted(code, {0, 1, 2, 4}, {3, 5}) == {3}
    assert wanted(code, {0, 1, 2, 4}, {5}) == set()
    copies = build("replication", 2, 1)
    assert wanted(copies, {0}, {1, 2, 3}) == {1, 3}
    mixed = build("berrut", 4, 2)
    assert wanted(mixed, {0, 1, 2, 3}, {4, 5}) == {4, 5}


# ---- submit again ------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["systematic", "berrut", "uncoded"])
def test_a_late_share_is_submitted_again(scheme: str) -> None:
    code = build(scheme, 4, 1)
    lost = set(range(code.n)) - {0, 1, 2, 3}
    group = group_of(code, back=(0, 1, 2), running={3: 0.0})
    for share in lost:
        group.attempts.append(attempt(share, sent=0.0, start=0.0, fate=AttemptOutcome.LOST))
    assert ask(group, 2.9) == WAIT
    decision = ask(group, 3.1)
    assert not decision.complete
    assert len(decision.submit) == 1
    assert code.decodable({0, 1, 2, *decision.submit})


def test_late_counts_medians() -> None:
    group = group_of(build("uncoded"), back=(0, 1, 2), running={3: 10.0})
    policy = Policy(late=5.0, floor=0)
    assert ask(group, 10.0 + 5 * 0.2 - 0.01, policy=policy, typical=0.2) == WAIT
    assert ask(group, 10.0 + 5 * 0.2 + 0.01, policy=policy, typical=0.2) == Decision(submit=(3,))


def test_while_another_attempt_is_in_time_nothing_is_submitted() -> None:
    group = group_of(build("uncoded"), back=(0, 1, 2), running={3: 0.0})
    group.attempts.append(attempt(3, number=1, sent=3.1, start=3.2))
    assert ask(group, 6.0) == WAIT
    assert ask(group, 6.3).submit == (3,)


def test_as_few_as_possible_and_carriers_first() -> None:
    code = build("systematic", 4, 2)
    group = group_of(code, back=(0,), running=dict.fromkeys(range(1, 6), 0.0))
    assert ask(group, 5.0).submit == (1, 2, 3)
    group = group_of(code, back=(4,), running=dict.fromkeys((0, 1, 2, 3, 5), 0.0))
    assert ask(group, 5.0).submit == (0, 1, 2)
    # A data share that failed too often leaves its place to parity.
    for number in range(3):
        group.attempts.append(attempt(0, number=1 + number, sent=0.0, fate=AttemptOutcome.FAILED))
    assert ask(group, 5.0).submit == (1, 2, 3)
    for number in range(3):
        group.attempts.append(attempt(1, number=1 + number, sent=0.0, fate=AttemptOutcome.FAILED))
    assert ask(group, 5.0).submit == (2, 3, 5)


def test_replication_submits_one_copy_of_the_missing_block() -> None:
    code = build("replication", 3, 2)
    group = group_of(code, back=(0, 1), running={2: 0.0, 5: 0.0, 8: 0.0})
    assert ask(group, 5.0).submit == (2,)
    # while one of the copies is in time
    group.attempts.append(attempt(5, number=1, sent=4.0, start=4.0))
    assert ask(group, 5.0) == WAIT


def test_lost_shares_are_submitted_at_once() -> None:
    group = group_of(build("uncoded"), back=(0, 1), running={2: 0.0})
    group.attempts.append(attempt(3, sent=0.0, start=0.0, fate=AttemptOutcome.LOST))
    assert ask(group, 0.1).submit == (3,)
    group.attempts[-1].fate = AttemptOutcome.FAILED
    assert ask(group, 0.1).submit == (3,)


def test_a_share_that_was_never_sent_is_submitted() -> None:
    """There were too few workers when its group began."""
    group = group_of(build("uncoded"), back=(0, 1), running={2: 0.0})
    assert ask(group, 0.1).submit == (3,)


def test_unstarted_idle_time_parity_is_not_counted_on() -> None:
    code = build("systematic", 4, 1)
    group = group_of(code, back=(0, 1, 2))
    group.attempts.append(attempt(3, sent=0.0, start=0.0, fate=AttemptOutcome.LOST))
    group.attempts.append(attempt(4, sent=0.0, lazy=True))
    assert ask(group, 0.1).submit == (3,)
    group.attempts[-1].lazy = False
    assert ask(group, 0.1) == WAIT
    group.attempts[-1].lazy = True
    group.attempts[-1].start = 0.05
    assert ask(group, 0.1) == WAIT


# ---- shares that have not started ----------------------------------------------------------------


def test_an_unstarted_share_behind_a_stuck_or_gone_worker_is_overdue() -> None:
    group = group_of(build("uncoded"), back=(0, 1, 2), waiting={3: 0.0})
    assert ask(group, 0.1, workers={"a3": FakeWorker()}) == WAIT
    assert ask(group, 0.1, workers={"a3": FakeWorker(is_stuck=True)}).submit == (3,)
    assert ask(group, 0.1, workers={}).submit == (3,)
    decodable = group_of(build(), back=(0, 1, 2, 4), waiting={3: 0.0})
    assert ask(decodable, 0.1, workers={"a3": FakeWorker()}) == WAIT
    assert ask(decodable, 0.1, workers={"a3": FakeWorker(is_stuck=True)}) == COMPLETE


def test_stuck_is_asked_with_the_limit_at_hand() -> None:
    seen: list[float] = []

    class Curious(FakeWorker):
        def stuck(self, now: float, limit: float) -> bool:
            seen.append(limit)
            return False

    workers: dict[str, WorkerState] = {"a3": Curious()}
    ask(group_of(build("uncoded"), back=(0, 1, 2), waiting={3: 0.0}), 0.1, workers=workers)
    ask(group_of(build(), back=(0, 1, 2, 4), waiting={3: 0.0}), 0.1, workers=workers)
    assert seen == [3.0, 2.0]


@pytest.mark.parametrize("queued", [0, 1, 4])
def test_a_queue_has_one_limit_for_each_place(queued: int) -> None:
    group = group_of(build("uncoded"), back=(0, 1, 2), waiting={3: 0.0})
    workers: dict[str, WorkerState] = {"a3": FakeWorker(queued=queued)}
    ends = (1 + queued) * 3.0 + 1.0
    assert ask(group, ends - 0.01, workers=workers) == WAIT
    assert ask(group, ends + 0.01, workers=workers).submit == (3,)


def test_once_started_the_queue_does_not_count() -> None:
    group = group_of(build("uncoded"), back=(0, 1, 2), running={3: 0.0})
    assert ask(group, 2.9, workers={"a3": FakeWorker(is_stuck=True)}) == WAIT
    assert ask(group, 3.1, workers={"a3": FakeWorker(queued=9)}).submit == (3,)


# ---- failures ------------------------------------------------------------------------------------


def failed(code: Code, share: int, times: int, back: Iterable[int]) -> GroupState:
    group = group_of(code, back=back)
    for number in range(times):
        group.attempts.append(attempt(share, number=number, sent=0.0, fate=AttemptOutcome.FAILED))
    return group


def test_a_share_is_tried_max_failures_times() -> None:
    code = build("uncoded")
    assert ask(failed(code, 3, 2, (0, 1, 2)), 0.1).submit == (3,)
    assert ask(failed(code, 3, 3, (0, 1, 2)), 0.1) == Decision(complete=True, broken=True)
    patient = Policy(max_failures=5)
    assert ask(failed(code, 3, 4, (0, 1, 2)), 0.1, policy=patient).submit == (3,)


def test_only_failures_of_the_model_count() -> None:
    group = group_of(build("uncoded"), back=(0, 1, 2))
    for number in range(9):
        group.attempts.append(attempt(3, number=number, sent=0.0, fate=AttemptOutcome.LOST))
    assert ask(group, 0.1).submit == (3,)
    assert group.failures(3) == 0


def test_broken_only_when_nothing_is_live() -> None:
    """Share 3 cannot be had; share 2 still runs and its row is worth the wait."""
    group = failed(build("uncoded"), 3, 3, (0, 1))
    group.attempts.append(attempt(2, sent=0.0, start=0.0))
    assert ask(group, 0.1) == WAIT
    assert ask(group, 100.0) == WAIT  # until it comes back or is given up as hung
    group.attempts[-1].fate = AttemptOutcome.LOST
    assert ask(group, 0.2) == Decision(complete=True, broken=True)


def test_a_failed_data_share_is_replaced_by_parity() -> None:
    group = failed(build("systematic", 4, 1), 3, 3, (0, 1, 2))
    assert ask(group, 0.1).submit == (4,)


def test_present_is_the_first_attempt_that_came_back() -> None:
    group = group_of(build("uncoded"))
    first, second = attempt(0, sent=0.0, start=0.0), attempt(0, number=1, sent=1.0, start=1.0)
    group.attempts += [first, second]
    assert group.present() == {}
    second.returned = True
    assert group.present() == {0: second}
    first.returned, first.fate = True, AttemptOutcome.SPARE
    assert group.present() == {0: first}
    first.returned, first.fate = False, AttemptOutcome.LOST
    assert group.present() == {0: second}


# ---- share times ---------------------------------------------------------------------------------


def test_share_times() -> None:
    times = ShareTimes()
    assert times.typical is None
    times.add(1.0)
    times.add(5.0)
    assert times.typical is None
    times.add(2.0)
    assert times.typical == 2.0
    times.add(6.0)
    assert times.typical == 3.5


def test_share_times_remember_the_last_255() -> None:
    times = ShareTimes()
    for _ in range(300):
        times.add(9.0)
    for _ in range(127):
        times.add(1.0)
    assert times.typical == 9.0
    times.add(1.0)
    assert times.typical == 1.0


@pytest.mark.parametrize(("typical", "seconds"), [(None, 30.0), (1.0, 30.0), (4.0, 40.0)])
def test_hang_limit(typical: float | None, seconds: float) -> None:
    assert Policy(hang_after=30.0).hang_limit(typical) == seconds


# ---- properties ----------------------------------------------------------------------------------


@st.composite
def codes(draw: st.DrawFn) -> Code:
    scheme = draw(st.sampled_from(SCHEMES))
    k = draw(st.integers(1, 8))
    return build(scheme, k, draw(st.integers(0, 3)))


@settings(derandomize=True, max_examples=120, deadline=None)
@given(data=st.data(), code=codes())
def test_fewest_is_minimal_and_enough_or_nothing(data: st.DataObject, code: Code) -> None:
    have = data.draw(st.sets(st.integers(0, code.n - 1)))
    if code.decodable(have):
        assert fewest(code.decodable, have, sorted(set(range(code.n)) - have)) == ()
    candidates = data.draw(
        st.permutations(sorted(set(range(code.n)) - have)).flatmap(
            lambda order: st.integers(0, len(order)).map(lambda size: list(order[:size]))
        )
    )
    chosen = fewest(code.decodable, have, candidates)
    assert set(chosen) <= set(candidates)
    assert [share for share in candidates if share in chosen] == list(chosen)
    if chosen:
        assert code.decodable(have | set(chosen))
        for share in chosen:
            assert not code.decodable(have | set(chosen) - {share})
    else:
        assert code.decodable(have) or not code.decodable(have | set(candidates))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_fewest_has_no_smaller_rival(scheme: str) -> None:
    code = build(scheme, 3, 1)
    for size in range(code.n + 1):
        for have in map(set, combinations(range(code.n), size)):
            rest = sorted(set(range(code.n)) - have)
            chosen = fewest(code.decodable, have, rest)
            for few in range(len(chosen)):
                for rival in combinations(rest, few):
                    assert not code.decodable(have | set(rival))


@st.composite
def histories(draw: st.DrawFn) -> tuple[GroupState, dict[str, WorkerState], float, Policy]:
    """A group in any state, workers in any state, and a moment."""
    code = draw(codes())
    group = GroupState(group=0, code=code, rows=8, priority=0)
    fates = [None, None, AttemptOutcome.LOST, AttemptOutcome.FAILED]
    for number in range(draw(st.integers(0, 2 * code.n))):
        start = draw(st.one_of(st.none(), st.floats(0, 10)))
        fate = draw(st.sampled_from(fates))
        group.attempts.append(
            attempt(
                draw(st.integers(0, code.n - 1)),
                number=number,
                address=f"a{draw(st.integers(0, 4))}",
                sent=0.0,
                start=start,
                lazy=draw(st.booleans()),
                returned=fate is None and start is not None and draw(st.booleans()),
                fate=fate,
            )
        )
    workers: dict[str, WorkerState] = {
        f"a{i}": FakeWorker(draw(st.integers(0, 3)), draw(st.booleans()))
        for i in range(draw(st.integers(0, 5)))
    }
    policy = Policy(patience=draw(st.sampled_from([0.0, 0.5, 1.0])), max_failures=2)
    return group, workers, draw(st.floats(0, 20)), policy


@settings(derandomize=True, max_examples=200, deadline=None)
@given(histories(), st.sampled_from([None, 0.2, 1.0]))
def test_a_decision_makes_sense_in_any_state(
    history: tuple[GroupState, dict[str, WorkerState], float, Policy], typical: float | None
) -> None:
    group, workers, now, policy = history
    code, present = group.code, set(group.present())
    decision = decide(group, now, policy=policy, typical=typical, workers=workers)
    assert not (decision.complete and decision.submit)
    live = [a for a in group.attempts if a.live and a.share not in present]
    untried = [
        s for s in range(code.n) if s not in present and group.failures(s) < policy.max_failures
    ]
    assert not set(decision.submit) - set(untried)
    if code.exact(present).all():
        assert decision == COMPLETE
    if decision.complete:
        assert decision.broken == (not code.decodable(present))
    if decision.broken:
        assert not live
        assert not code.decodable(present | set(untried))
    if not live and not code.decodable(present):  # nothing will happen by itself
        assert decision.submit or decision.broken
        assert bool(decision.submit) == code.decodable(present | set(untried))
    if code.decodable(present):
        assert not decision.submit
        if not live:
            assert decision == COMPLETE


@settings(derandomize=True, max_examples=60, deadline=None)
@given(histories())
def test_whatever_happens_a_group_ends(
    history: tuple[GroupState, dict[str, WorkerState], float, Policy],
) -> None:
    """Submitted shares come back, those that live are given up: few turns later it is complete."""
    group, workers, now, policy = history
    for turn in range(30):
        decision = decide(group, now, policy=policy, typical=1.0, workers=workers)
        if decision.complete:
            return
        for share in decision.submit:
            new = attempt(share, number=100 + turn, sent=now, start=now)
            new.returned = True
            group.attempts.append(new)
        if not decision.submit:
            next(a for a in group.attempts if a.live).fate = AttemptOutcome.LOST
        now += 1.0
    raise AssertionError("it never ended")


# ---- a run without faults ------------------------------------------------------------------------


def repaired_fraction(patience: float, *, groups: int = 1000, seed: int = 0) -> float:
    """Rows repaired where nine healthy workers take lognormal times (cv 0.2) for K = 8, S = 1."""
    rng = np.random.default_rng(seed)
    sigma = np.sqrt(np.log(1 + 0.2**2))
    code = build("systematic", 8, 1)
    policy = Policy(patience=patience, floor=0)
    workers: dict[str, WorkerState] = {f"a{share}": FakeWorker() for share in range(code.n)}
    times = ShareTimes()
    for seconds in rng.lognormal(0.0, sigma, 100):
        times.add(seconds)
    repaired = 0
    for _ in range(groups):
        took = rng.lognormal(0.0, sigma, code.n)
        group = group_of(code, running=dict.fromkeys(range(code.n), 0.0))
        order = np.argsort(took)
        limit = policy.patience_limit(times.typical) + 1e-9
        moments = sorted([*((took[s], int(s)) for s in order), (limit, -1)])
        for now, share in moments:
            if share >= 0:
                group.attempts[share].returned = True
                times.add(now)
            decision = decide(group, now, policy=policy, typical=times.typical, workers=workers)
            assert not decision.submit
            if decision.complete:
                break
        assert group.code.decodable(group.present())
        repaired += int((~code.exact(group.present())).sum())
    return repaired / (8 * groups)


def test_without_faults_less_than_one_row_in_a_hundred_is_repaired() -> None:
    assert repaired_fraction(1.0) < 0.001


def test_less_patience_repairs_more() -> None:
    little, some, much = (repaired_fraction(p, groups=300) for p in (0.1, 0.5, 1.0))
    assert little > 0.08  # nearly every group loses its last share
    assert 0.001 < some < 0.03
    assert much < 0.001
