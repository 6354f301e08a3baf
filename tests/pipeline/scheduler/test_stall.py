"""Nothing comes back: the warning, its text, and the end of the run."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_models
from distributed import Client, LocalCluster
from waiting import until

from approxifer import score, submit
from approxifer.coding import CodeSpec
from approxifer.datasets import Journal
from approxifer.errors import ClusterError
from approxifer.pipeline.protocol import SHOWN, HeldShare, Stalled
from approxifer.pipeline.reporting.progress import describe
from approxifer.pipeline.scheduler.policy import Policy
from approxifer.pipeline.scheduler.run_state import RunState
from approxifer.pipeline.scheduler.stall import held
from approxifer.pipeline.scheduler.state import GroupState, WorkerState


@pytest.fixture
def run() -> RunState:
    """Two workers, and a code that needs both of them."""
    code = CodeSpec("systematic", 2, 0).build()
    return RunState(
        run="r", client="c", codes={"coded": code}, fingerprint="f", seed=0, restart=False,
        began=0.0, policy=Policy(hang_after=1.0, stall_after=10.0), block=4, micro_batch=4,
        workers={
            f"a{i}": WorkerState(f"a{i}", f"w{i}", "h", 1, seen=0.0, ready={"r"}) for i in range(2)
        },
    )  # fmt: skip


@pytest.fixture
def look(run: RunState) -> Callable[[float], list[Stalled]]:
    """The client's notices at a time."""

    def at(now: float) -> list[Stalled]:
        run.events.clear()
        run.look_for_stall(now)
        return [event for event in run.events if isinstance(event, Stalled)]

    return at


def begin(run: RunState, now: float, number: int = 0) -> GroupState:
    group = GroupState(number, run.codes["coded"], rows=4, priority=0)
    run.open_group(group)
    run.advance(group, now)
    return group


Look = Callable[[float], list[Stalled]]


def test_a_warning_at_half_the_time_and_the_end_at_all_of_it(run: RunState, look: Look) -> None:
    assert look(0.0) == []
    assert look(100.0) == []
    begin(run, 100.0)
    assert look(104.9) == []
    (warning,) = look(105.0)
    assert (warning.final, warning.seconds) == (False, 5.0)
    assert look(109.9) == [], "once"
    (end,) = look(110.0)
    assert (end.final, end.seconds, end.ready, end.present) == (True, 10.0, 2, 2)


def test_every_share_that_comes_back_begins_it_anew(run: RunState, look: Look) -> None:
    group = begin(run, 0.0)
    look(0.0)
    assert len(look(6.0)) == 1
    run.returned(group.attempts[0].key, 7.0)
    assert look(11.9) == []
    (warning,) = look(12.0)
    assert not warning.final


def test_nothing_asked_for_is_no_stall(run: RunState, look: Look) -> None:
    """A slow consumer, or a slow reader: the workers have nothing to do."""
    group = begin(run, 0.0)
    for attempt in group.attempts:
        run.returned(attempt.key, 1.0)
    run.advance(group, 1.0)
    assert group.complete
    assert look(1000.0) == []
    begin(run, 1000.0, 1)
    assert look(1004.0) == []


def test_long_shares_have_long(run: RunState, look: Look) -> None:
    for _ in range(3):
        run.times.add(20.0)
    begin(run, 0.0)
    look(0.0)
    assert look(290.0) == [], "three times ten medians: 600 s, and 300 s for the warning"
    assert len(look(300.0)) == 1


def test_the_places_of_shares(run: RunState) -> None:
    group = begin(run, 0.0)
    first, second = group.attempts
    run.attempts.started(first.key, first.address, 2.0)
    lonely = GroupState(7, run.codes["coded"], rows=4, priority=0)
    shares, unplaced = held([group, lonely], 10.0)
    assert unplaced == (7,)
    assert [(share.worker, share.seconds, share.running) for share in shares] == [
        (second.name, 10.0, False),
        (first.name, 8.0, True),
    ]
    text = str(Stalled(10.0, False, 1, 2, shares, unplaced))
    assert text.startswith("no share has come back for 10 s: group 0 share")
    assert f"waits on {second.name} since 10 s" in text
    assert f"runs on {first.name} since 8 s" in text
    assert "1 group without a worker" in text
    assert text.endswith("1 of 2 workers can be used")


def test_of_many_shares_the_longest_are_shown() -> None:
    shares = tuple(HeldShare(i, 0, "w", 99.0, True) for i in range(20))
    text = str(Stalled(100.0, False, 1, 1, shares, ()))
    assert text.count("runs on") == SHOWN
    assert "12 shares more" in text


@pytest.mark.slow
def test_a_run_that_cannot_go_on_ends_and_goes_on_where_workers_come(
    store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    """All workers stop answering, and nobody may restart them."""
    out = tmp_path / "out.zarr"
    asked: dict[str, Any] = {
        "model": toy_models.very_slow_linear, "out": out, "k": 4, "block": 5, "window": 100,
        "progress": False, "hang_after": 1.0, "stall_after": 8.0,
    }  # fmt: skip
    options: dict[str, Any] = {
        "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "silence_logs": 50,
    }  # fmt: skip
    with LocalCluster(n_workers=5, **options) as cluster, Client(cluster) as client:
        pids = list(client.run(os.getpid).values())
        job = submit(store, client=client, **asked)
        until(lambda: job.progress().done > 0, 60)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            until(lambda: "0 of 5 workers can be used" in describe(job.progress()), 30)
            with pytest.raises(ClusterError, match=r"no share has come back.*0 of 5 workers"):
                job.result(timeout=60)
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
    *_, first, last = [e for e in Journal.read(out) if e["event"] == "stalled"]
    assert first["seconds"] < last["seconds"]
    assert last["unplaced"] or last["shares"]
    with LocalCluster(n_workers=5, **options) as cluster, Client(cluster) as client:
        report = score(store, client=client, **asked)
    np.testing.assert_array_equal(report.predictions.prediction, toy_models.linear(rows))
