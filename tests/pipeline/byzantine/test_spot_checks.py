"""The draw of rows and of their checkers, their queues, and what clean checks prove."""

from __future__ import annotations

from collections import Counter
from math import comb, log
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from approxifer.pipeline.byzantine.membership import CLIENT
from approxifer.pipeline.byzantine.spot_checks import (
    ASSURANCE,
    ODD,
    USED,
    Check,
    Checked,
    CheckerOrder,
    Proof,
    Queues,
    choose_checkers,
    choose_rows,
    honest_part,
    owed,
    proofs,
    random_rows,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# ---- rows ----------------------------------------------------------------------------------------


ALIKE = np.zeros(1000)


@given(st.integers(1, 200), st.integers(1, 20), st.integers(0, 9))
def test_as_many_different_rows_as_asked_and_only_relevant_ones(
    rows: int, check: int, seed: int
) -> None:
    found = choose_rows(ALIKE[:rows], np.arange(0), check, rng(seed))
    assert len(set(found.tolist())) == min(rows, check)
    assert found.min() >= 0
    assert found.max() < rows


def test_each_row_is_as_likely() -> None:
    """The furthest one, or the next if it is drawn, is checked besides."""
    found = Counter(
        int(row)
        for seed in range(4000)
        for row in choose_rows(np.arange(8.0), np.arange(0), 3, rng(seed))
    )
    assert found.pop(7) == 4000
    assert 1700 < found.pop(6) < 2000
    found.pop(5)  # where both of these are drawn
    assert min(found.values()) > 850
    assert max(found.values()) < 1150


def test_one_row_is_random_where_only_one_is_checked() -> None:
    found = Counter(
        int(choose_rows(np.arange(8.0), np.arange(0), 1, rng(seed))[0]) for seed in range(4000)
    )
    assert min(found.values()) > 400
    assert [random_rows(1, 8), random_rows(2, 8), random_rows(3, 8)] == [1, 1, 2]
    assert [random_rows(1, 1), random_rows(8, 8), random_rows(9, 8)] == [1, 8, 8]


def test_rows_that_are_not_finite_are_checked_besides() -> None:
    odd = np.arange(100, 200)
    found = choose_rows(ALIKE, odd, 3, rng())
    assert ODD <= np.isin(found, odd).sum() <= ODD + 3
    assert 1 <= (~np.isin(found, odd)).sum() <= 3


# ---- checkers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("byzantine", [0, 1, 2, 3])
def test_checkers_are_drawn_uniformly(byzantine: int) -> None:
    """An accomplice that answers at once gets no more rows than the others, nor others of them."""
    found: Counter[tuple[int, int]] = Counter()
    for seed in range(3000):
        order = CheckerOrder(rng(seed)).order(range(10))
        found.update(choose_checkers(4, order, byzantine, rng(seed)))
    assert sorted({who for _, who in found}) == list(range(10))
    assert min(found.values()) > 0.75 * 300
    assert max(found.values()) < 1.25 * 300


def test_an_order_lasts_until_it_is_drawn_again_and_takes_in_who_comes() -> None:
    turns = CheckerOrder(rng())
    order = turns.order(range(10))
    assert turns.order(reversed(range(10))) == order
    assert turns.order(order[3:]) == order[3:], "the first of those allowed"
    assert [one for one in turns.order(range(11)) if one != 10] == order
    turns.draw_again()
    assert turns.order(range(10)) != order
    places = Counter(CheckerOrder(rng(seed)).order(range(5)).index(4) for seed in range(1000))
    assert min(places.values()) > 140


def test_two_byzantine_workers_never_check_all_rows_of_a_share() -> None:
    for seed in range(200):
        pairs = choose_checkers(3, [4, 5, 6, 7, 8], 2, rng(seed))
        assert sorted(row for row, _ in pairs) == [0, 1, 2]
        assert len({who for _, who in pairs}) == 3
        pairs = choose_checkers(1, [4, 5, 6, 7, 8], 2, rng(seed))
        assert [row for row, _ in pairs] == [0, 0, 0], "one row, by three"
        assert len({who for _, who in pairs}) == 3


def test_where_all_allowed_may_be_accomplices_the_client_checks_too() -> None:
    assert choose_checkers(2, [], 1, rng()) == [(0, CLIENT), (1, CLIENT)]
    assert {who for _, who in choose_checkers(3, [4], 2, rng())} == {4, CLIENT}
    assert CLIENT not in {who for _, who in choose_checkers(3, [4, 5], 2, rng())}
    assert {who for _, who in choose_checkers(3, [], 3, rng())} == {CLIENT}


def test_accomplices_are_taken_off_the_checkers() -> None:
    assert honest_part([4, 5, 6], 1) == 1.0
    assert honest_part([4, 5, 6], 2) == pytest.approx(2 / 3)
    assert honest_part([4, CLIENT], 2) == 0.5
    assert honest_part([CLIENT], 5) == 1.0


# ---- queues --------------------------------------------------------------------------------------


def a_check(window: Any = None, *, model: int = 0, size: int = 4, alone: bool = False) -> Check:
    query = np.zeros(size, np.float32)
    return Check(Checked(0, 1, 2, window=window), (5,), query, query, model, alone=alone)


def test_a_full_queue_goes_out() -> None:
    queues = Queues(3)
    one, two, three, other = (a_check() for _ in range(4))
    assert queues.add(8, one, 0.0) == queues.add(8, two, 0.1) == queues.add(9, other, 0.1) == []
    assert queues.add(8, three, 0.2) == [(8, [one, two, three])]
    assert queues.everything() == [(9, [other])]
    assert queues.everything() == []


def test_each_model_has_a_queue_and_a_row_alone_goes_at_once() -> None:
    queues = Queues(2)
    user, parity, alone = a_check(), a_check(model=1), a_check(alone=True)
    assert queues.add(8, user, 0.0) == queues.add(8, parity, 0.0) == []
    assert queues.add(8, alone, 0.0) == [(8, [alone])]
    assert len(queues.everything()) == 2


def test_old_queues_and_those_of_a_window_go_out() -> None:
    queues = Queues(10)
    old, new = SimpleNamespace(), SimpleNamespace()
    first, second, third = a_check(old), a_check(new), a_check(new)
    queues.add(1, first, 0.0)
    queues.add(1, second, 5.0)
    queues.add(2, third, 5.0)
    assert queues.older(0.0) == []
    assert queues.of_window(old) == [(1, [first, second])]
    assert queues.older(6.0) == [(2, [third])]


def test_queues_do_not_grow_without_bounds() -> None:
    queues = Queues(1000, most=100)
    for number in range(7):
        assert queues.add(number % 2, a_check(size=4), 0.0) == [] or number == 6
    assert sum(len(checks) for _, checks in queues.everything()) <= 6


# ---- what checks prove ---------------------------------------------------------------------------


def check_event(member: int, group: int, rows: list[list[int]], by: list[int], **more: Any) -> Any:
    fields = {"of": 8, "rate": len(rows) / 8, "why": USED, "share": 0} | more
    return {
        "event": "check", "member": member, "group": group, "rows": rows, "checkers": by
    } | fields  # fmt: skip


def test_the_bound_is_three_over_the_rows_checked() -> None:
    events = [check_event(1, g, [[8 * g], [8 * g + 3]], [2, 3]) for g in range(50)]
    proof = proofs(events, ())[1]
    assert (proof.rows, proof.checked) == (400, 100)
    assert proof.bound == pytest.approx(3 / 100, rel=0.2)
    assert proof.bound < 3 / 100, "rows of a share are drawn without putting them back"


@pytest.mark.parametrize(("wrong", "of", "check"), [(1, 8, 3), (4, 8, 3), (40, 64, 3), (2, 64, 1)])
def test_corruptions_beyond_the_bound_are_seen_with_95_percent(
    wrong: int, of: int, check: int
) -> None:
    """By the exact probability that all shares pass: never more than the bound allows for."""
    for shares in (1, 10, 100, 400):
        proof = Proof(rows=of * shares, rate=check / of)
        corrupt = 1
        while corrupt <= shares and corrupt * wrong / proof.rows <= proof.bound:
            corrupt += 1
        if corrupt <= shares:
            passes = (comb(of - wrong, check) / comb(of, check)) ** corrupt
            assert passes <= 0.05


def test_honesty_in_small_shares_does_not_pay_for_corruption_in_large_ones() -> None:
    small = [check_event(1, g, [[g]], [2], of=1, rate=1.0) for g in range(1000)]
    large = [check_event(1, 1000 + g, [[g]], [2], of=1000, rate=0.001) for g in range(3)]
    assert proofs(small, ())[1].bound == 0.0
    proof = proofs(small + large, ())[1]
    assert proof.rate == 0.001
    assert proof.bound > 0.7


def test_accomplices_raise_the_bound() -> None:
    honest = proofs([check_event(1, g, [[g]], [2], rate=0.125) for g in range(99)], ())[1]
    doubtful = proofs([check_event(1, g, [[g]], [2], rate=0.0625) for g in range(99)], ())[1]
    assert doubtful.bound > 1.9 * honest.bound


def test_void_checks_prove_nothing_until_they_are_made_again() -> None:
    events = [check_event(1, g, [[8 * g]], [2 + g % 2]) for g in range(40)]
    whole = proofs(events, ())[1]
    half = proofs(events, {3})[1]
    assert (whole.checked, half.checked) == (40, 20)
    assert half.bound == 1.0, "a share whose only check is void may be wrong throughout"
    found = owed(events, {3})
    assert sorted(found) == [(1, g, 0) for g in range(1, 40, 2)]
    again = [
        check_event(*share[:2], [list(r) for r in rows], [7], of=0, rate=0.0, why="again")
        for share, rows in found.items()
    ]
    assert owed(events + again, {3}) == {}
    assert proofs(events + again, {3})[1] == whole
    assert owed(events + again, {1, 3}) == {}, "of the convicted nothing is checked again"
    assert len(owed(events + again, {7, 3})) == 20


def test_a_row_that_two_have_checked_stays_checked_when_one_is_convicted() -> None:
    assert owed([check_event(1, 0, [[4], [4]], [2, 3])], {3}) == {}


def test_decoded_rows_that_do_not_stay_do_not_count() -> None:
    events = [check_event(1, 0, [[0, 1]], [2], of=0, rate=0.001)]
    events.append(check_event(1, 1, [[5]], [2], of=8, rate=0.125))
    assert proofs(events, ())[1].rate == 0.125


@pytest.mark.parametrize("assurance", [0.5, 0.05, 0.01])
def test_assurance_says_how_many_rows_are_missing(assurance: float) -> None:
    events = [check_event(1, g, [[8 * g]], [2]) for g in range(40)]
    missing = proofs(events, ())[1].missing(assurance)
    rows = [[n] for n in range(missing)]
    besides = check_event(
        1, -1, rows, [2] * missing, of=320, rate=1.0, why=ASSURANCE, share=-1
    )  # fmt: skip
    assert proofs([*events, besides], ())[1].bound <= assurance
    if missing:
        assert missing <= -log(0.05) / assurance + 1
        fewer = dict(besides, rows=rows[:-1], checkers=[2] * (missing - 1))
        assert missing >= 320 or proofs([*events, fewer], ())[1].bound > assurance


def test_a_member_checked_whole_has_nothing_left_to_prove() -> None:
    events = [check_event(1, 0, [[0]], [2])]
    for part in ([[n] for n in range(5)], [[n] for n in range(5, 8)]):
        events.append(
            check_event(1, -1, part, [2] * len(part), of=8, rate=1.0, why=ASSURANCE, share=-1)
        )
    assert proofs(events, ())[1].bound == 0.0
