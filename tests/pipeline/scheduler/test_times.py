"""The times of shares, and the pace of each worker."""

from __future__ import annotations

import pytest
from scheduling import (
    ROWS,
    begin,
    come_back,
    end,
    find,
    make,
    start,
)

from approxifer.pipeline.keys import new_key


def test_pace_follows_a_workers_shares() -> None:
    run = make("uncoded", 1, workers=1)
    group = begin(run)
    come_back(run, group, 0, since=0.0, now=2.0)
    assert run.times.pace == {"w0": 2.0}
    run.advance(group, 2.0)
    come_back(run, begin(run, 1), 0, since=2.0, now=6.0)
    assert run.times.pace["w0"] == pytest.approx(0.7 * 2.0 + 0.3 * 4.0)
    assert run.summary()["workers"][0]["latency"] == 3.0


@pytest.mark.parametrize(("rows", "batches"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 3), (ROWS, 3)])
def test_a_short_block_counts_as_a_full_share_by_its_micro_batches(rows: int, batches: int) -> None:
    run = make("uncoded", 1, workers=1)
    for number in range(3):
        group = begin(run, number, rows=rows)
        attempt = find(group, 0)
        start(run, group, 0, 1.0)
        run.attempts.ended(attempt.key, attempt.address, 1.0 + 0.5 * batches, rows=rows, whole=True)
        run.returned(attempt.key, 9.0)
    assert run.times.typical == pytest.approx(1.5)  # of three micro-batches
    assert run.times.pace == {"w0": pytest.approx(1.5)}
    assert run.summary()["workers"][0]["latency"] == pytest.approx(1.5)
    # One that is stopped shows that a full share takes longer than three times as long.
    group = begin(run, 3, rows=1)
    start(run, group, 0, 0.0)
    run.attempts.ended(find(group, 0).key, "a0", 1.0, rows=0, whole=False)
    assert run.times.pace == {"w0": pytest.approx(0.7 * 1.5 + 0.3 * 3.0)}


def test_a_stopped_share_only_ever_slows_the_pace() -> None:
    run = make("uncoded", 1, workers=1)
    run.times.pace["w0"] = 2.0
    for number, (seconds, pace) in enumerate([(1.0, 2.0), (4.0, 2.6), (2.0, 2.6)]):
        group = begin(run, number)
        start(run, group, 0, 0.0)
        end(run, group, 0, seconds, 3)
        assert run.times.pace["w0"] == pytest.approx(pace)
    assert run.times.typical is None  # nor do they count among the share times


def test_a_slow_record_fades_with_what_is_sent() -> None:
    """Else a worker that was slow once would get nothing but parity until the end."""
    run = make("uncoded", 1, workers=1)
    for _ in range(3):
        run.times.add(1.0)
    run.times.pace["w0"] = 10.0
    paces = []
    for number in range(300):
        group = begin(run, number)
        run.settle(group.group)
        paces.append(run.times.pace["w0"])
    assert paces[0] == pytest.approx(10.0 - 0.02 * 9.0)
    assert paces == sorted(paces, reverse=True)
    assert 1.0 < paces[-1] < 1.1


def test_a_slow_worker_waits_longer() -> None:
    run = make(workers=2)
    run.workers["a0"].slots = 2
    for _ in range(3):
        run.times.add(1.0)
    run.times.pace["w1"] = 4.0
    for _ in range(3):
        run.workers["a0"].waiting.add(new_key("r"))
        run.workers["a1"].waiting.add(new_key("r"))
    found = {c.address: (c.wait, c.time) for c in run.candidates(0.0)}
    assert found == {"a0": (1.5, 1.0), "a1": (12.0, 4.0)}
