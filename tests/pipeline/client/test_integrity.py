"""Spot checks: windows wait for them, checkers are drawn, bounds are reached."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import numpy as np
import pytest
from trust_scene import WINDOW, LateError, run

from approxifer.errors import TrustError
from approxifer.pipeline.byzantine.membership import CLIENT
from approxifer.pipeline.client import integrity

# ---- windows close -------------------------------------------------------------------------------


def test_a_window_is_written_once_its_checks_are_in(scene: Any) -> None:
    on = scene()

    async def play() -> None:
        await on.monitor.open()
        window = on.window()
        await on.all_back(window, {0: 0, 1: 1})
        assert window.checks == 4
        assert on.kinds("written") == []
        await on.rest()
        assert on.kinds("check", "written") == ["check", "check", "written"]

    run(play)
    assert sum(len(rows) for _, rows in on.asked) == 4
    for event in on.events("check"):
        assert (event["of"], len(event["rows"]), event["rate"]) == (6, 2, pytest.approx(1 / 6))


@pytest.mark.parametrize("rows", [1, 3, 5, WINDOW])
def test_a_tail_is_checked_without_its_padding(scene: Any, rows: int) -> None:
    """Fewer rows than a micro-batch, and a last codeword that is not full."""
    on = scene(check=9)

    async def play() -> None:
        await on.monitor.open()
        await on.all_back(on.window(0, rows), {0: 0, 1: 1})
        await on.rest()

    run(play) if rows == WINDOW else None
    if rows < WINDOW:  # the store takes whole chunks: look at the checks alone
        on.store.write_window = lambda *_, **__: None
        run(play)
    checked = sorted(row for event in on.events("check") for (row,) in event["rows"])
    assert checked == list(range(rows)), "each real row once"


def test_two_windows_do_not_wait_for_each_other(scene: Any) -> None:
    """The older goes out although the younger has nothing but checks to wait for."""
    on = scene()

    async def play() -> None:
        await on.monitor.open()
        older, younger = on.window(0), on.window(1)
        await on.all_back(younger, {0: 0, 1: 1}, number=1)
        await on.rest()
        assert on.kinds("written") == []
        await on.all_back(older, {0: 2, 1: 3})
        await on.rest()

    run(play)
    assert on.kinds("written") == ["written", "written"]


def test_the_clock_sends_rows_that_wait_for_a_window_which_is_not_whole(scene: Any) -> None:
    on = scene()

    async def play() -> None:
        await on.monitor.open()
        window = on.window()
        await on.back(window, [0, 1, 2, 3], {0: 0, 1: 1})
        clock = asyncio.create_task(on.monitor.send_old())
        async with asyncio.timeout(10):
            while window.checks:
                await asyncio.sleep(0.01)
        clock.cancel()
        assert on.kinds("written") == []

    run(play)


# ---- checkers ------------------------------------------------------------------------------------


def test_a_share_is_not_checked_by_who_ran_it_or_a_copy_of_it(scene: Any) -> None:
    on = scene(4, check=6)

    async def play() -> None:
        await on.monitor.open()
        await on.all_back(on.window(), {0: 0, 1: 1})
        await on.rest()

    run(play)
    checkers = Counter(who for who, rows in on.asked for _ in rows)
    assert set(checkers) <= {0, 1, 2, 3}
    for event in on.events("check"):
        assert event["member"] not in event["checkers"]


def test_a_checker_that_hangs_is_replaced_and_nobody_is_convicted(scene: Any) -> None:
    on = scene(4)

    def silent(rows: np.ndarray) -> np.ndarray:
        raise LateError

    async def play() -> None:
        await on.monitor.open()
        on.turn_of(2)
        on.runs[2] = silent
        for number, window in enumerate((on.window(0), on.window(1))):
            await on.all_back(window, {0: 0, 1: 1}, number=number)
            await on.rest()

    run(play)
    assert on.kinds("written") == ["written", "written"]
    assert on.convicted() == []
    assert 2 in {who for who, _ in on.asked}
    assert all(on.members.index(2) not in event["checkers"] for event in on.events("check"))


def test_where_no_worker_may_check_the_client_does(scene: Any) -> None:
    on = scene(1)

    async def play() -> None:
        await on.monitor.open()
        await on.all_back(on.window(), {0: 0, 1: 0})
        await on.rest()

    run(play)
    assert on.asked == []
    assert on.kinds("written") == ["written"]
    assert {who for event in on.events("check") for who in event["checkers"]} == {CLIENT}


def test_where_no_worker_may_check_a_quorum_cannot_be_had(scene: Any) -> None:
    on = scene(1, referee="quorum")

    async def play() -> None:
        await on.monitor.open()
        await on.all_back(on.window(), {0: 0, 1: 0})

    with pytest.raises(TrustError, match="no worker is left that could check"):
        run(play)


# ---- rows on which the model raises --------------------------------------------------------------


def test_a_row_fails_where_e_plus_one_workers_raise_on_it_alone(scene: Any) -> None:
    """One worker answers for a row that nobody else can run: that is no output."""
    on = scene(6, check=6)

    def raising(rows: np.ndarray) -> np.ndarray:
        if (rows == 2.0).any():
            raise ValueError("two")
        return 3 * rows

    async def play() -> None:
        await on.monitor.open()
        for number in range(2, 6):
            on.runs[number] = raising
        await on.all_back(on.window(), {0: 0, 1: 1})
        on.runs[0] = on.runs[1] = raising
        await on.rest()

    run(play)
    assert on.convicted() == []
    assert ("failed", [1]) in on.done
    alone = {who for who, rows in on.asked if rows == [2.0]}
    assert len(alone) >= 2
    assert on.kinds("written") == ["written"]
    assert on.store.status().tolist()[:3] == [1, 4, 1]


def test_one_that_raises_at_will_is_passed_over(scene: Any) -> None:
    on = scene(5)

    def raising(rows: np.ndarray) -> np.ndarray:
        raise ValueError("no")

    async def play() -> None:
        await on.monitor.open()
        on.runs[2] = raising
        for number, window in enumerate((on.window(0), on.window(1))):
            await on.all_back(window, {0: 0, 1: 1}, number=number)
            await on.rest()

    run(play)
    assert on.convicted() == []
    assert on.kinds("failed") == []
    assert on.kinds("written") == ["written", "written"]


# ---- bounds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("assurance", [0.6, 0.2])
def test_assurance_draws_from_what_each_member_has_written(scene: Any, assurance: float) -> None:
    on = scene(check=1, assurance=assurance)

    async def play() -> None:
        await on.monitor.open()
        await on.all_back(on.window(0), {0: 0, 1: 1})
        await on.all_back(on.window(1), {0: 2, 1: 3}, number=1)
        await on.rest()
        await on.monitor.finish_checks()
        await on.rest()

    run(play)
    _, proofs = on.monitor.records()
    assert len(proofs) == 4
    assert all(proof.bound <= assurance for _, proof in proofs)
    if assurance == 0.2:  # more than there are: each is checked whole
        assert all(proof.whole for _, proof in proofs)


def test_the_sample_for_the_tolerance_is_what_the_model_takes() -> None:
    def some(rows: np.ndarray) -> np.ndarray:
        if (rows > 20).any():
            raise ValueError
        return rows

    rows = np.arange(24.0)[:, None]
    assert len(integrity._that_it_takes(some, rows)) == 21
