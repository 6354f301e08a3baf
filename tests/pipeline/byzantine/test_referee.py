"""The referee, where two runs of a row differ."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from approxifer.errors import TrustError
from approxifer.pipeline.byzantine.membership import CLIENT, Membership
from approxifer.pipeline.byzantine.referee import Answer, Referee, Verdict, same
from approxifer.pipeline.byzantine.spot_checks import Check, Checked
from approxifer.pipeline.byzantine.tolerance import Tolerance

RIGHT = np.array([1.0, -2.0, 3.0], np.float32)
WRONG = np.array([3.0, 1.0, -2.0], np.float32)
OTHER = np.array([9.0, 9.0, 9.0], np.float32)
#: One unit in the last place away, and as far as no rounding goes.
NEAR = np.nextafter(RIGHT, np.float32(np.inf))


class Workers:
    """Workers 0, 1, ... that answer as they are to, each of a class of hardware."""

    def __init__(self, answers: dict[int, Any], hardware: dict[int, str] | None = None) -> None:
        self.answers = answers
        self.members = Membership("s", quarantine="worker")
        self.asked: list[int] = []
        for number in answers:
            self.members.joined(
                number, f"w{number}", host="h", node="", device="cpu",
                hardware=(hardware or {}).get(number, "A"),
            )  # fmt: skip
            self.members.index(number)

    async def ask(self, check: Check, incarnation: int) -> Answer | None:
        self.asked.append(incarnation)
        found = self.answers[incarnation]
        return None if isinstance(found, Exception) else Answer(incarnation, found)


async def call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def referee(
    workers: Workers,
    *,
    own: Any = RIGHT,
    quorum: bool = False,
    byzantine: int = 1,
    hardware: str = "A",
    micro_batch: int = 8,
    noise: float = 0.0,
) -> Referee:
    def run(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(own, Exception):
            raise own
        return own[None], np.full((1, *own.shape), noise)

    return Referee(
        workers.members,
        Tolerance(1e-5, np.abs(np.asarray(RIGHT))),
        byzantine=byzantine,
        own=None if quorum else run,
        hardware=hardware,
        micro_batch=micro_batch,
        ask=workers.ask,
        call=call,
        rng=np.random.default_rng(0),
    )


def judge(of: Referee, workers: Workers, *pair: int) -> Verdict:
    """The first of a pair has run the row, the other has checked it."""
    answers = [Answer(who, workers.answers[who]) for who in pair]
    checked = Checked(pair[0], 0, 0, asked=frozenset(pair[:1]))
    check = Check(checked, (0,), np.zeros(2), answers[0].output, tried=frozenset(pair[1:]))
    return asyncio.run(of.judge(check, answers))


# ---- agree ---------------------------------------------------------------------------------------


def test_runs_of_one_hardware_agree_bit_by_bit_and_others_within_the_tolerance() -> None:
    workers = Workers({0: RIGHT, 1: NEAR, 2: NEAR}, {2: "B"})
    of = referee(workers)
    a, b, c = (Answer(n, workers.answers[n]) for n in range(3))
    assert of.agree(a, a)
    assert not of.agree(a, b)
    assert of.agree(a, c)
    assert not of.agree(c, Answer(0, WRONG))
    assert not of.agree(a, Answer(1, None))
    small = referee(workers, micro_batch=7)
    assert small.agree(a, b), "a row's place in so small a batch counts"
    nameless = referee(Workers({0: RIGHT, 1: NEAR}, {0: "", 1: ""}))
    assert nameless.agree(a, b), "of unknown hardware nothing is known to be alike"


def test_same_takes_nan_for_nan_and_keeps_imaginary_parts_apart() -> None:
    holes = np.array([np.nan, np.inf, 1.0])
    assert same(holes, holes.copy())
    assert not same(holes, np.array([1.0, np.inf, 1.0]))
    assert not same(np.array([1 + 2j]), np.array([1 + 3j]))
    assert not same(np.array([3]), np.array([4]))


# ---- the client decides --------------------------------------------------------------------------


def test_the_client_finds_the_wrong_one_of_the_two() -> None:
    workers = Workers({0: WRONG, 1: RIGHT})
    verdict = judge(referee(workers), workers, 0, 1)
    assert set(verdict.faults) == {0}
    assert verdict.faults[0].deviation == 2.0, "the largest for its size"
    assert verdict.by == "client"
    corrupt = Workers({0: RIGHT, 1: WRONG})
    assert set(judge(referee(corrupt), corrupt, 0, 1).faults) == {1}
    both = Workers({0: OTHER, 1: WRONG})
    assert set(judge(referee(both), both, 0, 1).faults) == {0, 1}
    assert workers.asked == corrupt.asked == both.asked == []


def test_what_is_no_output_is_wrong() -> None:
    workers = Workers({0: None, 1: RIGHT})
    verdict = judge(referee(workers), workers, 0, 1)
    assert verdict.faults[0].deviation == np.inf


def test_the_client_alone_can_be_the_checker() -> None:
    workers = Workers({0: WRONG})
    assert set(judge(referee(workers), workers, 0).faults) == {0}
    honest = Workers({0: RIGHT})
    verdict = judge(referee(honest), honest, 0)
    assert (verdict.faults, verdict.confirms) == ({}, CLIENT)


def test_two_that_differ_within_the_tolerance_are_compared_by_it_from_then_on() -> None:
    workers = Workers({0: RIGHT, 1: NEAR, 2: RIGHT}, {2: "B"})
    of = referee(workers)
    a, b = Answer(0, RIGHT), Answer(1, NEAR)
    assert not of.agree(a, b)
    assert judge(of, workers, 0, 1) == Verdict()
    assert of.agree(a, b)
    assert not of.agree(a, Answer(1, WRONG))


def test_the_row_s_own_noise_widens_the_tolerance() -> None:
    off = RIGHT + np.float32(0.01)
    workers = Workers({0: off, 1: RIGHT})
    assert set(judge(referee(workers), workers, 0, 1).faults) == {0}
    assert judge(referee(workers, noise=0.01), workers, 0, 1).faults == {}


def test_a_row_on_which_the_model_raises_blames_nobody() -> None:
    workers = Workers({0: WRONG, 1: RIGHT})
    verdict = judge(referee(workers, own=ValueError("too large")), workers, 0, 1)
    assert verdict.fails
    assert verdict.faults == {}


# ---- other hardware ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tie of classes", "sum near zero"])
def test_hardware_that_differs_is_reported_and_not_convicted(kind: str) -> None:
    """Another class of hardware gives another class for a tie, or rounds a sum near zero away."""
    ours, theirs = {
        "tie of classes": (np.array([3]), np.array([5])),
        "sum near zero": (RIGHT, np.array([1.0, -2.0, 3.2], np.float32)),
    }[kind]
    workers = Workers({0: theirs, 1: ours, 2: theirs, 3: theirs}, {0: "B", 2: "B", 3: "B"})
    verdict = judge(referee(workers, own=ours), workers, 0, 1)
    assert verdict.faults == {}
    assert verdict.hardware == {0}
    assert set(workers.asked) <= {2, 3}
    # The checker may be the odd one as well.
    verdict = judge(referee(workers, own=ours), workers, 1, 0)
    assert verdict.hardware == {0}


def test_a_byzantine_worker_is_convicted_by_its_own_hardware() -> None:
    workers = Workers({0: WRONG, 1: RIGHT, 2: RIGHT, 3: RIGHT}, {0: "B", 2: "B", 3: "B"})
    verdict = judge(referee(workers), workers, 0, 1)
    assert set(verdict.faults) == {0}
    assert verdict.aside == frozenset()


def test_one_byzantine_worker_cannot_incriminate_other_hardware() -> None:
    """Two agree on the tie, one Byzantine worker of that hardware contradicts."""
    tie, ours = np.array([5]), np.array([3])
    answers = {0: tie, 1: ours, 2: ours, 3: tie, 4: tie}
    workers = Workers(answers, {0: "B", 2: "B", 3: "B", 4: "B"})
    verdict = judge(referee(workers, own=ours), workers, 0, 1)
    assert verdict.faults == {}
    assert verdict.hardware == {0}


def test_of_hardware_that_nobody_shares_an_odd_worker_is_set_aside() -> None:
    workers = Workers({0: WRONG, 1: RIGHT, 2: RIGHT}, {0: "B"})
    verdict = judge(referee(workers), workers, 0, 1)
    assert set(verdict.faults) == {0}
    assert verdict.aside == {0}
    no_output = Workers({0: None, 1: RIGHT}, {0: "B"})
    assert judge(referee(no_output), no_output, 0, 1).aside == frozenset()


def test_a_checker_of_the_same_hardware_is_witness_enough() -> None:
    workers = Workers({0: WRONG, 1: RIGHT, 2: RIGHT}, {0: "B", 1: "B", 2: "B"})
    verdict = judge(referee(workers, hardware="login node"), workers, 0, 1)
    assert set(verdict.faults) == {0}
    assert verdict.aside == frozenset()
    assert workers.asked == []


# ---- a quorum decides ----------------------------------------------------------------------------


def test_a_quorum_of_e_plus_one_decides() -> None:
    workers = Workers({0: WRONG, 1: RIGHT, 2: RIGHT})
    verdict = judge(referee(workers, quorum=True), workers, 0, 1)
    assert set(verdict.faults) == {0}
    assert verdict.by == "w1 and w2"
    assert workers.asked == [2]
    assert verdict.confirms in (1, 2)


def test_a_quorum_outvotes_two_accomplices() -> None:
    workers = Workers({0: WRONG, 1: RIGHT, 2: WRONG, 3: RIGHT, 4: RIGHT})
    verdict = judge(referee(workers, quorum=True, byzantine=2), workers, 0, 1)
    assert 0 in verdict.faults
    assert not {1, 3, 4} & set(verdict.faults)


def test_one_that_raises_has_no_vote() -> None:
    workers = Workers({0: WRONG, 1: RIGHT, 2: ValueError("flaky"), 3: RIGHT})
    assert set(judge(referee(workers, quorum=True), workers, 0, 1).faults) == {0}


def test_without_a_quorum_nobody_is_convicted() -> None:
    workers = Workers({0: WRONG, 1: RIGHT, 2: OTHER})
    with pytest.raises(TrustError, match="no 2 of them agree"):
        judge(referee(workers, quorum=True), workers, 0, 1)
    few = Workers({0: WRONG, 1: RIGHT})
    with pytest.raises(TrustError, match="2 workers ran the same row"):
        judge(referee(few, quorum=True), few, 0, 1)
