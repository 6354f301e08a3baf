"""Whole runs on real worker processes that straggle, hang, die and come late."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_models
import xarray as xr
from distributed import Client, LocalCluster, Worker
from distributed.comm import CommClosedError
from marks import slow_after
from typer.testing import CliRunner
from waiting import until

from approxifer import score, submit
from approxifer.datasets import Journal
from approxifer.errors import TooFewWorkersError
from approxifer.pipeline import faults
from approxifer.pipeline.cli.main import app
from approxifer.pipeline.cluster.connect import workers_of
from approxifer.pipeline.job import Job
from approxifer.pipeline.records import Status
from approxifer.pipeline.reporting.report import Report

#: Systematic, K = 4, S = 1 on 6 workers; 80 shares of about 20 ms and the parity.
COMMON = {"model": toy_models.slow_linear, "k": 4, "block": 5, "window": 100}


def check_whole(report: Report, rows: np.ndarray) -> None:
    """Every row there, and the model's own output to the last bit."""
    np.testing.assert_array_equal(report.predictions.prediction, toy_models.linear(rows))
    assert report.counts["exact"] + report.counts["repaired"] == len(rows)


def pids(client: Client) -> dict[str, int]:
    """Worker name to process id."""

    def pid(dask_worker: Worker) -> tuple[str, int]:
        return str(dask_worker.name), os.getpid()

    return dict(client.run(pid).values())


def mend(client: Client, name: str) -> None:
    """Take the faults away and restart a worker whose thread hangs for good."""
    faults.remove(client)
    workers = workers_of(client)
    client.restart_workers([a for a, worker in workers.items() if str(worker["name"]) == name])


def test_a_slow_worker_is_not_waited_for(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    faults.install(client, {"2": faults.Slow(factor=1, seconds=2.0)})
    report = score(store, out=tmp_path / "out.zarr", client=client, progress=False, **COMMON)
    check_whole(report, rows)
    slow = report.workers["2"]
    others = [worker.run for name, worker in report.workers.items() if name != "2"]
    assert slow.run < min(others) / 2
    assert report.wall_seconds < 2.0 * 80 / 6  # had each of its shares been waited for


@pytest.mark.slow
def test_a_function_that_never_returns(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    """heal="avoid" (the default with a client of the user's): the worker is left alone."""
    faults.install(client, {"1": faults.Hang(after=3)})
    before = pids(client)
    report = score(
        store,
        out=tmp_path / "out.zarr",
        client=client,
        progress=False,
        hang_after=1.0,
        **COMMON | {"model": toy_models.very_slow_linear},
    )
    check_whole(report, rows)
    assert report.workers["1"].state == "hung"
    assert report.workers["1"].restarts == 0
    assert pids(client) == before
    mend(client, "1")


@pytest.mark.slow
def test_hung_workers_are_restarted_where_that_is_allowed(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    faults.install(client, {"1": faults.Hang(after=2)})
    before = pids(client)
    job = submit(
        store,
        out=tmp_path / "out.zarr",
        client=client,
        hang_after=3.0,  # a new process imports for a second
        heal="restart",
        **COMMON | {"model": toy_models.very_slow_linear, "block": 1},
    )
    until(lambda: job.progress().done > 0)
    until(lambda: job.progress().workers == 5)
    faults.remove(client)
    report = job.result(timeout=60)
    check_whole(report, rows)
    assert report.workers["1"].restarts == 1
    after = pids(client)
    assert after["1"] != before["1"]
    assert report.workers["1"].run > 2, "it got the model again and worked on"


def test_a_killed_worker(client: Client, store: Path, rows: np.ndarray, tmp_path: Path) -> None:
    victim = pids(client)["3"]
    job = submit(store, out=tmp_path / "out.zarr", client=client, **COMMON)
    until(lambda: job.progress().done >= 100)
    os.kill(victim, signal.SIGKILL)
    check_whole(job.result(timeout=60), rows)


def test_a_stopped_worker(client: Client, store: Path, rows: np.ndarray, tmp_path: Path) -> None:
    """SIGSTOP: it answers nothing, and its connections stay open."""
    victim = pids(client)["3"]
    job = submit(store, out=tmp_path / "out.zarr", client=client, **COMMON)
    until(lambda: job.progress().done >= 100)
    os.kill(victim, signal.SIGSTOP)
    try:
        check_whole(job.result(timeout=60), rows)
    finally:
        os.kill(victim, signal.SIGCONT)


@pytest.mark.slow
def test_a_worker_stopped_before_the_start(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    victim = pids(client)["0"]
    os.kill(victim, signal.SIGSTOP)
    try:
        report = score(store, out=tmp_path / "out.zarr", client=client, progress=False, **COMMON)
        check_whole(report, rows)
    finally:
        os.kill(victim, signal.SIGCONT)


@pytest.mark.slow
def test_more_stragglers_than_the_code_tolerates(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    """S = 1, one worker hung and two slow: late shares are submitted again, to workers whose own
    share of the group is in, if there is no other."""
    broken = {"1": faults.Hang(), "2": faults.Slow(1, 3.0), "4": faults.Slow(1, 3.0)}
    faults.install(client, broken)
    report = score(store, out=tmp_path / "out.zarr", client=client, progress=False, **COMMON)
    check_whole(report, rows)
    mend(client, "1")


@pytest.mark.slow
def test_a_worker_that_joins_late_gets_the_model_and_shares(
    store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    with (
        LocalCluster(
            n_workers=5, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        # Long enough that a worker starts meanwhile, on a loaded machine too.
        options = COMMON | {"model": toy_models.very_slow_linear, "block": 2}
        job = submit(store, out=tmp_path / "out.zarr", client=client, **options)
        until(lambda: job.progress().done > 0)
        cluster.scale(6)
        report = job.result(timeout=60)
        check_whole(report, rows)
        assert len(report.workers) == 6
        assert all(worker.run > 0 for worker in report.workers.values())


def test_fewer_workers_than_conflicting_shares(client: Client, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    with pytest.raises(TooFewWorkersError, match="needs 7"):
        score(store, model=toy_models.linear, out=out, client=client, k=6, progress=False)
    assert not out.exists()


def test_two_runs_at_once_on_one_cluster(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    first = submit(store, out=tmp_path / "a.zarr", client=client, **COMMON)
    second = submit(
        store,
        out=tmp_path / "b.zarr",
        client=client,
        scheme="replication",
        **COMMON | {"model": toy_models.bent},
    )
    np.testing.assert_array_equal(second.result(60).predictions.prediction, toy_models.bent(rows))
    check_whole(first.result(60), rows)


@pytest.mark.slow
def test_cancelling_one_of_two_runs_leaves_the_other_whole(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    first = submit(store, out=tmp_path / "a.zarr", client=client, **COMMON)
    second = submit(store, out=tmp_path / "b.zarr", client=client, **COMMON)
    until(lambda: second.progress().done > 0)
    second.cancel()
    with pytest.raises(CancelledError):
        second.result(20)
    check_whole(first.result(60), rows)
    check_whole(submit(store, out=tmp_path / "b.zarr", client=client, **COMMON).result(60), rows)


@pytest.mark.parametrize(
    ("repair", "scheme"),
    slow_after(
        2,
        [
            ("none", "systematic"),
            ("exact", "uncoded"),
            *itertools.product(["exact"], ["systematic", "berrut", "replication"]),
            *itertools.product(["none"], ["berrut", "uncoded", "replication"]),
        ],
    ),
)
def test_a_row_on_which_the_model_raises_fails_alone(
    client: Client, tmp_path: Path, scheme: str, repair: str
) -> None:
    """Neither its codeword nor its block goes with it."""
    rows = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    rows[[42, 43, 171]] = 5000
    data = xr.DataArray(rows, dims=("n", "f"), name="x")
    out = tmp_path / "out.zarr"
    report = score(
        data, model=toy_models.raises_on_large, out=out, client=client, k=4, block=5, window=100,
        scheme=scheme, repair=repair, progress=False,
    )  # fmt: skip
    found = report.predictions.load()
    failed = found.status.values == Status.FAILED
    poisoned = [42, 43, 171]
    if repair == "exact":
        assert np.flatnonzero(failed).tolist() == poisoned
    else:  # one of them may have been decoded, so that nobody had to run it
        assert set(np.flatnonzero(failed)) <= set(poisoned)
        assert np.isin(found.status.values[poisoned], (Status.FAILED, Status.DECODED)).all()
    assert report.counts["failed"] == failed.sum()
    assert np.isnan(found.prediction.values[failed]).all()
    exact = np.isin(found.status.values, (Status.EXACT, Status.REPAIRED))
    assert (exact | failed).all() or repair == "none"
    np.testing.assert_array_equal(found.prediction.values[exact], toy_models.linear(rows)[exact])
    assert sorted(row for row, _ in report.failures) == np.flatnonzero(failed).tolist()
    assert all("a value above 1000" in error for _, error in report.failures)
    events = [event for event in Journal.read(out) if event["event"] == "failed"]
    assert [(event["row"], event["error"]) for event in events] == report.failures
    for row, error in report.failures:
        assert f"failed: row {row}: {error}" in str(report)


def test_rows_that_failed_are_run_again_where_that_is_asked_for(
    client: Client, tmp_path: Path
) -> None:
    rows = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    data = xr.DataArray(rows, dims=("n", "f"), name="x")
    asked: dict[str, Any] = {
        "model": toy_models.linear, "out": tmp_path / "out.zarr", "client": client, "k": 4,
        "block": 5, "window": 10, "progress": False,
    }  # fmt: skip
    faults.install(client, {str(name): faults.Raise(share=1.0) for name in range(6)})
    assert score(data, **asked).counts["failed"] == 20
    faults.remove(client)
    assert score(data, **asked).counts["failed"] == 20, "not unless it is asked for"
    report = score(data, **asked, retry_failed=True)
    assert report.counts["failed"] == 0
    np.testing.assert_array_equal(report.predictions.prediction, toy_models.linear(rows))


def test_so_many_rows_may_fail(client: Client, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    rows[[30, 31]] = 5000  # beyond the rows that the model is probed with
    xr.Dataset({"x": (("n", "f"), rows)}).to_zarr(tmp_path / "in.zarr", consolidated=False)
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(f"kind: address\naddress: {client.scheduler.address}\n")
    asked = [
        "score", str(tmp_path / "in.zarr"), "--model", "toy_models:large_raises", "--cluster",
        str(cluster), "--out", str(tmp_path / "out.zarr"), "-k", "4", "--block", "5",
    ]  # fmt: skip
    for most, code in (("1", 1), ("2", 0)):
        found = CliRunner().invoke(app, [*asked, "--max-failed", most])
        assert found.exit_code == code, found.output
        assert "2 rows failed" in found.stderr
        assert "--retry-failed" in found.stderr


def test_a_share_that_fails_now_and_then_is_tried_again(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    faults.install(client, {"2": faults.Raise(share=0.3), "5": faults.Raise(share=0.3)})
    report = score(
        store, out=tmp_path / "out.zarr", client=client, scheme="uncoded", progress=False, **COMMON
    )
    check_whole(report, rows)
    assert report.workers["2"].erased + report.workers["5"].erased > 0


def test_a_job_leaves_no_thread(client: Client, store: Path, tmp_path: Path) -> None:
    job = submit(store, out=tmp_path / "out.zarr", client=client, **COMMON)
    assert isinstance(job, Job)
    job.result(60)
    names = {thread.name for thread in threading.enumerate()}
    assert not any(name.startswith("approxifer") for name in names)


@pytest.mark.slow
def test_a_worker_that_goes_at_the_very_end_leaves_nothing_on_the_scheduler(
    cluster: LocalCluster,
    client: Client,
    store: Path,
    rows: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The scheduler's word to all workers fails; the fixture looks for what is left."""
    forget = cluster.scheduler.unregister_worker_plugin

    async def fail(**given: Any) -> None:
        await forget(**given)
        raise CommClosedError("a worker has left")

    monkeypatch.setattr(cluster.scheduler, "unregister_worker_plugin", fail)
    report = score(store, out=tmp_path / "out.zarr", client=client, progress=False, **COMMON)
    check_whole(report, rows)
    monkeypatch.undo()
