"""Convictions, and what follows from them, also in the next session."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trust_scene import Scene, corrupted, run

from approxifer.coding import CodeSpec, gather
from approxifer.datasets import Journal
from approxifer.errors import TrustError
from approxifer.packing import Packing
from approxifer.pipeline.byzantine.spot_checks import owed
from approxifer.pipeline.records import Status
from approxifer.pipeline.results import Results

# ---- a wrong output ------------------------------------------------------------------------------


def test_the_way_of_a_conviction(scene: Any) -> None:
    """Evidence and verdict on the disk, then the bar, then the sweep; nothing wrong is written."""
    on = scene()

    async def play() -> None:
        await on.monitor.open()
        first, second = on.window(0), on.window(1)
        await on.all_back(first, {0: 0, 1: 1})
        await on.rest()
        on.runs[1] = corrupted
        await on.all_back(second, {0: 0, 1: 1}, number=1)
        await on.rest()

    run(play)
    assert on.convicted() == ["w1"]
    order = [one[:2] for one in on.done if one[0] in ("mismatch", "conviction", "bar", "pending")]
    assert order[:2] == [("mismatch", "fsync"), ("conviction", "fsync")]
    assert [one[0] for one in order[2:4]] == ["bar", "pending"]
    assert on.done[-1] == ("taken back", 1, list(range(1, 12, 2)))
    status = on.store.status()
    assert (status[1:12:2] == Status.PENDING).all(), "what it wrote before, too"
    assert (status[0:12:2] == Status.EXACT).all()
    (mismatch,) = on.events("mismatch")[:1]
    assert mismatch["rows"][0] % 2 == 1
    assert on.events("verdict")[0]["of"] == ["s1", 0]


def test_a_byzantine_checker_is_convicted_and_its_checks_are_made_again(scene: Any) -> None:
    on = scene()

    async def play() -> None:
        await on.monitor.open()
        on.runs[2] = corrupted
        for number, window in enumerate((on.window(0), on.window(1))):
            await on.all_back(window, {0: 0, 1: 1}, number=number)
            await on.rest()

    run(play)
    assert on.convicted() == ["w2"]
    assert on.kinds("written") == ["written", "written"]
    bad = on.members.index(2)
    for event in on.events("check"):
        assert bad not in event["checkers"]
        assert len(event["rows"]) == 2
    assert "its check of w" in str(on.members.convictions[0])


def test_an_output_that_is_none_is_judged_like_a_wrong_one(scene: Any) -> None:
    on = scene()

    async def play() -> None:
        await on.monitor.open()
        on.turn_of(2)
        on.runs[2] = lambda rows: rows[:-1]
        await on.all_back(on.window(), {0: 0, 1: 1})
        await on.rest()

    run(play)
    assert on.convicted() == ["w2"]
    assert on.kinds("written") == ["written"]


def test_more_than_e_convictions_end_the_run(scene: Any) -> None:
    on = scene(byzantine=0)

    async def play() -> None:
        await on.monitor.open()
        on.runs[1] = corrupted
        await on.all_back(on.window(), {0: 0, 1: 1})
        await on.rest()

    with pytest.raises(TrustError, match="1 workers are convicted, and byzantine=0"):
        run(play)
    assert on.kinds("written") == []


# ---- void checks ---------------------------------------------------------------------------------


class Confirming:
    """A worker that returns what its accomplice returns, wherever it is asked."""

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        return np.where((rows.astype(int) - 1) % 2 == 1, 3 * rows + 1, 3 * rows)


def test_what_an_accomplice_confirmed_is_checked_again_once_it_is_convicted(
    scene: Any, tmp_path: Path
) -> None:
    """Of the first window all checks fall to the accomplice: nobody else may check."""
    on = scene(3, byzantine=2, check=2)

    async def play() -> None:
        await on.monitor.open()
        first = on.window(0)
        on.runs[1] = Confirming()  # its share is of the odd rows
        on.runs[2] = Confirming()
        await on.all_back(first, {0: 0, 1: 1})
        await on.rest()

    run(play)
    # Three checkers a share, one of them honest or the client: the corruption is found at once.
    assert "w1" in on.convicted()
    assert (on.store.status()[1:12:2] != Status.EXACT).all()


def test_checks_of_an_open_window_are_made_again_once_their_checker_is_convicted(
    scene: Any,
) -> None:
    on = scene(5, check=3)

    async def play() -> None:
        await on.monitor.open()
        on.turn_of(2)
        window = on.window(0)
        await on.back(window, list(range(6)), {0: 0, 1: 1})
        on.monitor.flush(window)
        await on.rest()
        on.runs[2] = corrupted
        await on.back(window, list(range(6, 12)), {0: 2, 1: 3}, number=1)
        await on.rest()

    run(play)
    assert on.convicted() == ["w2"]
    bad = on.members.index(2)
    checks = on.events("check")
    assert any(bad in event["checkers"] for event in checks), "it had checked others"
    assert owed(checks, {bad}) == {}
    assert any(event["why"] == "again" for event in checks)


def test_a_session_later_void_checks_are_made_up_before_the_store_is_whole(
    tmp_path: Path,
) -> None:
    """w2 checked w1's written rows, and is convicted in the next session by another run."""
    one = Scene(tmp_path, 3)
    one.open("s1")

    async def first() -> None:
        await one.monitor.open()
        one.members.departed(0)  # so that w2 alone may check w1, and w1 alone w2
        on_window = one.window(0)
        wrong = corrupted(gather(on_window.queries, np.arange(12), 2)[1])
        one.runs[2] = Confirming()
        await one.all_back(on_window, {0: 2, 1: 1}, outputs={1: wrong})
        await one.rest()

    asyncio.run(first())
    assert one.convicted() == []
    assert (one.store.status()[:12] == Status.EXACT).all()
    assert one.store.read_prediction(1, 2)[0, 0] == 7.0, "2 -> 6, and one too large"
    accomplice = next(m for m in one.members.members if m.name == "w2")
    journal = one.journal
    evidence = {
        "group": 9, "share": 0, "rows": 1, "of": 1, "deviation": 1.0, "allowed": 0.0,
        "referee": "client", "suspicion": "another run",
    }  # fmt: skip
    member = accomplice.event() | {"name": "w2"}
    journal.append(
        {
            "event": "conviction", "session": "s1", "kind": "worker", "evidence": evidence,
            "member": member,
        }
    )  # fmt: skip
    one.close()

    two = Scene(tmp_path, 3)
    two.open("s2")

    async def second() -> None:
        await two.monitor.open()
        await two.monitor.finish_checks()
        await two.rest()

    asyncio.run(second())
    try:
        assert sorted(two.convicted()) == ["w1", "w2"]
        assert two.again[0], "and its rows are pending"
        assert (two.store.status()[1:12:2] == Status.PENDING).all()
        assert two.members.convicted_here == [], "they are workers of another session"
    finally:
        two.close()


def test_rows_that_are_no_share_s_output_cannot_be_checked_again(tmp_path: Path) -> None:
    """A decoded row whose checker is convicted is run again."""
    code = CodeSpec("systematic", 2, 1).build()
    one = Scene(tmp_path, 3, code=code, repair="none")
    one.open("s1")
    data = [share for share in range(3) if code.carries[share] is not None]
    parity = next(share for share in range(3) if code.carries[share] is None)

    async def first() -> None:
        await one.monitor.open()
        one.members.departed(0)
        window = one.window(0)
        await one.all_back(window, {data[0]: 1, parity: 1})
        await one.rest()
        index = one.members.index(2)
        one.runs[2] = corrupted
        one.journal.sync()
        assert (one.store.status()[:12] == Status.DECODED).sum() == 6
        mixed = [e for e in one.events("check") if any(len(rows) == 2 for rows in e["rows"])]
        assert all(who == index for event in mixed for who in event["checkers"])
        # Found out in its next share.
        await one.all_back(one.window(1), {data[0]: 2, data[1]: 1}, number=1)
        await one.rest()
        await one.monitor.finish_checks()
        await one.rest()

    asyncio.run(first())
    try:
        assert one.convicted() == ["w2"]
        checked = {row for e in one.events("check") for rows in e["rows"] for row in rows}
        status = one.store.status()[:12]
        decoded = {row for row in range(12) if status[row] == Status.DECODED}
        for event in one.events("check"):
            for rows in event["rows"]:
                if len(rows) == 2 and event["group"] == 0:
                    assert not decoded & set(rows)
        assert checked
        assert (status == Status.PENDING).any()
    finally:
        one.close()


def test_rows_whose_outputs_were_not_kept_are_scored_again_once(tmp_path: Path) -> None:
    """w2 checked w1's rows, and is convicted; what is stored is made of outputs, and not these."""
    one = Scene(tmp_path, 3)
    one.open("s1")

    async def first() -> None:
        await one.monitor.open()
        one.members.departed(0)  # so that w2 alone may check w1
        await one.all_back(one.window(0), {0: 1, 1: 1})
        await one.rest()

    asyncio.run(first())
    checked = {row for event in one.events("check") for rows in event["rows"] for row in rows}
    assert checked
    bad = one.members.index(2)
    member = one.members.members[bad].event() | {"name": "w2"}
    evidence = {
        "group": 9, "share": 0, "rows": 1, "of": 1, "deviation": 1.0, "allowed": 0.0,
        "referee": "client", "suspicion": "another run",
    }  # fmt: skip
    conviction = {"event": "conviction", "session": "s1", "kind": "worker", "evidence": evidence}
    one.journal.append(conviction | {"member": member})
    packing = one.store.packing
    one.close()

    def then(travel: Packing, outputs: np.ndarray) -> tuple[Packing, np.ndarray]:
        return travel, outputs

    two = Scene(tmp_path, 3, results=Results(packing, packing, then, packing))
    two.open("s2")

    async def second() -> None:
        await two.monitor.open()
        await two.monitor.finish_checks()
        await two.rest()

    asyncio.run(second())
    try:
        assert two.convicted() == ["w2"]
        assert set(np.flatnonzero(two.store.status()[:12] == Status.PENDING)) == checked
        assert [event["rows"] for event in two.events("rescored")] == [sorted(checked)]
        assert owed(Journal.read(two.store.path), {bad}) == {}
    finally:
        two.close()


# ---- crashes -------------------------------------------------------------------------------------


def test_a_mismatch_without_a_verdict_is_decided_by_the_next_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Scene(tmp_path, 4)
    one.open("s1")

    async def first() -> None:
        await one.monitor.open()
        await one.all_back(one.window(0), {0: 0, 1: 1})
        await one.rest()
        one.runs[1] = corrupted

        async def dies(*_: Any) -> None:
            raise MemoryError("killed here")

        assert one.monitor._checking is not None
        one.monitor._checking.referee.judge = dies  # type: ignore[method-assign,assignment]
        await one.all_back(one.window(1), {0: 0, 1: 1}, number=1)
        await one.rest()

    with pytest.raises(MemoryError):
        asyncio.run(first())
    assert one.events("mismatch")
    assert one.events("verdict") == []
    assert (one.store.status()[:12] == Status.EXACT).all()
    one.close()

    two = Scene(tmp_path, 4)
    two.open("s2")

    async def second() -> None:
        await two.monitor.open()
        await two.monitor.finish_verdicts()

    asyncio.run(second())
    try:
        assert two.convicted() == ["w1"]
        assert (two.store.status()[1:12:2] == Status.PENDING).all()
        assert len(two.events("verdict")) == len(two.events("mismatch"))
    finally:
        two.close()
