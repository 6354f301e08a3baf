"""What is drawn: the same from the same seed, everything at times, and nothing that cannot be."""

from __future__ import annotations

from collections import Counter

import pytest

from chaos import schedule as s

SEEDS = range(600)


def test_a_seed_is_a_schedule() -> None:
    assert s.schedule(7) == s.schedule(7)
    assert len({repr(s.schedule(seed)) for seed in SEEDS}) == len(SEEDS)


def test_every_fault_and_every_scheme_is_drawn() -> None:
    drawn = [s.schedule(seed) for seed in SEEDS]
    kinds = Counter(type(fault) for chaos in drawn for fault in chaos.faults)
    assert kinds.keys() == set(s.Fault.__args__)  # type: ignore[attr-defined]
    assert min(kinds.values()) >= 20
    assert len({chaos.job.scheme for chaos in drawn}) == 4
    assert {chaos.job.byzantine for chaos in drawn} == {0, 1}


@pytest.mark.parametrize("kinds", [s.ENDINGS, s.EXTRA], ids=["endings", "the extra worker"])
def test_of_some_there_is_one_at_most(kinds: tuple[type, ...]) -> None:
    assert max(len(s.schedule(seed).of(*kinds)) for seed in SEEDS) == 1


@pytest.mark.parametrize("seed", SEEDS[::20])
def test_what_is_drawn_can_be_played(seed: int) -> None:
    chaos = s.schedule(seed)
    workers = [fault.worker for fault in chaos.faults if hasattr(fault, "worker")]
    assert len(set(workers)) == len(workers)
    assert set(workers) <= set(range(s.WORKERS))
    assert 1 <= len(chaos.faults) <= 5
    assert len(chaos.of(s.Corruption)) == chaos.job.byzantine
    assert all(s.PROBED <= row < chaos.job.rows for row in chaos.poisoned)


def test_how_a_run_may_end() -> None:
    stop, full = s.Stop(0.1, 2), s.DiskFull(0.5, "data")
    said = "Cannot write to out.zarr: no space. The same: the same command goes on"
    assert s.Chaos(0, s.Job(), (stop, full)).may_end("OutputError", said)
    assert not s.Chaos(0, s.Job(), (stop, full)).may_end("OSError", said)
    assert not s.Chaos(0, s.Job(), (stop, full)).may_end("OutputError", "no space")
    assert not s.Chaos(0, s.Job(), (stop,)).may_end("OutputError", said)
    back, on = s.ClockJump(0.1, -3600.0), s.ClockJump(0.1, 3600.0)
    stalled = ("ClusterError", "no share has come back for 20 s")
    assert s.Chaos(0, s.Job(), (back,)).may_end(*stalled)
    assert not s.Chaos(0, s.Job(), (on,)).may_end(*stalled)
