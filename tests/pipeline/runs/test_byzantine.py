"""Whole runs on real worker processes that return wrong numbers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_corruptions
import toy_models
import xarray as xr
from byzantine_runs import (
    COMMON,
    VOTES,
    check_whole,
    contributors,
    convicted,
    nine_workers,
    of_kind,
    unneeded,
)
from distributed import Client, LocalCluster, Nanny, Scheduler, SpecCluster
from marks import slow_after

from approxifer import score
from approxifer.coding import CodeSpec, block_rows, gather, order_rows
from approxifer.datasets import Journal, OutputStore
from approxifer.errors import ClusterError, TooFewWorkersError, TrustError
from approxifer.pipeline import faults
from approxifer.pipeline.byzantine.membership import Membership
from approxifer.pipeline.byzantine.referee import Referee
from approxifer.pipeline.client.connection import Connection
from approxifer.pipeline.client.context import Context
from approxifer.pipeline.records import Status

SUPPORT = Path(__file__).parents[2] / "support"


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with nine_workers() as made:
        yield made


@pytest.fixture
def found_late(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> toy_corruptions.Once:
    """A corruption of worker "5" that begins once rows are written which it has run, and others
    which it has checked. Until then it checks whatever it may: nothing is left to chance."""
    flag, out = tmp_path / "now", tmp_path / "out.zarr"
    checkers, journal = Membership.checkers, Context.journal

    def preferred(self: Membership, asked: Any, tried: Any = ()) -> list[int]:
        allowed = checkers(self, asked, tried)
        return [one for one in allowed if self.member(one).name == "5"] or allowed

    def noted(self: Context, event: str, **fields: Any) -> None:
        journal(self, event, **fields)
        if event == "window" and not flag.exists():
            written = {e["window"] for e in of_kind(out, "window")}
            ran = any(
                e.get("window") in written and "5" in e["shares"].values()
                for e in of_kind(out, "group")
            )
            names = [e["worker"] for e in of_kind(out, "name")]
            checked = {
                names[one] for e in of_kind(out, "check") for one in e["checkers"] if one >= 0
            }
            if ran and "5" in checked:
                flag.touch()

    monkeypatch.setattr(Membership, "checkers", preferred)
    monkeypatch.setattr(Context, "journal", noted)
    return toy_corruptions.Once(flag=str(flag))


@pytest.mark.parametrize(
    "scheme", slow_after(2, ["uncoded", "systematic", "berrut", "replication"])
)
def test_nobody_is_convicted_on_a_healthy_cluster(
    scheme: str, client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "out.zarr"
    options = COMMON | {"scheme": scheme, "stragglers": 1}
    report = score(store, out=out, client=client, **options)
    check_whole(report, rows)
    assert report.convicted == []
    names = [event["worker"] for event in of_kind(out, "name")]
    checks = of_kind(out, "check")
    assert checks
    for event in checks:
        assert len(event["rows"]) == len(event["checkers"]) == 3
        assert event["member"] not in event["checkers"]
    written = [event["window"] for event in of_kind(out, "window")]
    assert len(written) == 10
    for name, worker in report.workers.items():
        mine = [e for e in checks if names[e["member"]] == name]
        assert worker.checked == sum(len(event["rows"]) for event in mine)
        if sum(event["of"] for event in mine):
            assert worker.bound is not None
            at_random = sum(2 for e in mine if e["of"])  # the third is that of the furthest output
            assert worker.bound < 3 / max(1, at_random)
    assert of_kind(out, "mismatch") == []
    assert "wrong <" in str(report)


def test_uncoded_with_checks_needs_no_more_shares(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "out.zarr"
    report = score(store, out=out, client=client, **COMMON | {"check": 1})
    check_whole(report, rows)
    assert report.scheme.endswith("4 shares")
    assert 1.2 <= report.evaluations_per_query <= 1.2 + 5 * unneeded(out) / len(rows)


@pytest.mark.parametrize(
    "corruption",
    slow_after(
        4,
        [
            faults.Roll(),
            faults.NotANumber(),
            faults.WrongShape(dtype=True),
            faults.Noise(sigma=1.0, rows=0.2),
            faults.Noise(sigma=1.0),
            faults.SignFlip(),
            faults.Zeros(),
            faults.ShuffleRows(),
            faults.BitFlips(bits=4, values=3),
            faults.WrongShape(),
            faults.Replay(),
        ],
    ),
    ids=str,
)
def test_a_byzantine_worker_is_convicted_and_what_it_touched_made_good(
    corruption: faults.Corruption, client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "out.zarr"
    faults.install(client, {"3": corruption})
    report = score(store, out=out, client=client, **COMMON)
    check_whole(report, rows)
    # On a loaded machine it may be so slow that it has a single share: nothing to replay in it.
    if report.workers["3"].run == isinstance(corruption, faults.Replay):
        pytest.skip("this worker came too late to corrupt anything")
    assert convicted(report) == ["3"]
    assert report.workers["3"].state == "convicted"
    (event,) = of_kind(out, "conviction")
    evidence = event["evidence"]
    assert evidence["referee"] == "client"
    assert 1 == evidence["rows"] <= evidence["of"] <= 5
    # The order of a verdict: what differs, then the conviction; then its rows are taken back.
    kinds = [e["event"] for e in Journal.read(out) if e["event"] in ("mismatch", "conviction")]
    assert kinds == ["conviction"] or kinds[0] == "mismatch"
    # It has nothing in the output, and nothing was given to it any more.
    found = report.predictions.load()
    assert "3" not in contributors(found)
    assert found.attrs["convicted"] == [str(report.convicted[0])]
    assert re.search(r"convicted: 3 on .*: share \d+ of group \d+", str(report))


def test_who_returns_no_output_is_convicted_though_it_checks_honestly(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    """A masked array of the right shape, for its own shares alone: those have five rows, and what
    it is asked to check has another number of them."""
    faults.install(client, {"3": toy_corruptions.Dressed("masked", of=5)})
    report = score(store, out=tmp_path / "out.zarr", client=client, **COMMON)
    check_whole(report, rows)
    assert convicted(report) == ["3"]


def test_a_corruption_found_late_is_taken_back_from_written_windows(
    client: Client,
    store: Path,
    rows: np.ndarray,
    tmp_path: Path,
    found_late: toy_corruptions.Once,
) -> None:
    """Honest for its first shares and checks, which are written, and then in no row."""
    out = tmp_path / "out.zarr"
    faults.install(client, {"5": found_late})
    report = score(store, out=out, client=client, **COMMON | {"check": 1})
    check_whole(report, rows)
    assert convicted(report) == ["5"]
    written = [event["window"] for event in of_kind(out, "window")]
    assert sorted(set(written)) == list(range(10))
    assert len(written) > 10, "those that it had touched were written twice"
    assert report.counts["repaired"] > 0
    # What it had checked was checked again.
    names = [event["worker"] for event in of_kind(out, "name")]
    checks = [event for event in of_kind(out, "check") if names[event["member"]] != "5"]
    again = [tuple(map(tuple, e["rows"])) for e in checks if e["why"] == "again"]
    void = [e for e in checks if "5" in {names[i] for i in e["checkers"] if i >= 0}]
    assert void
    assert again


@pytest.mark.slow
def test_decoded_rows_are_redone_where_a_byzantine_worker_contributed(
    client: Client,
    store: Path,
    rows: np.ndarray,
    tmp_path: Path,
    found_late: toy_corruptions.Once,
) -> None:
    out = tmp_path / "out.zarr"
    faults.install(client, {"5": found_late})
    options = {"scheme": "berrut", "k": 2, "repair": "none", "order": "none", "stragglers": 1}
    report = score(store, out=out, client=client, **COMMON | options | {"check": 1})
    assert convicted(report) == ["5"]
    groups = {
        e["group"]: set(e["shares"].values()) for e in of_kind(out, "group") if e["kind"] == "coded"
    }
    found = report.predictions.load()
    decoded = found.status.values == Status.DECODED
    assert decoded.any()
    assert report.counts["repaired"] > 0
    assert report.counts["decoded"] + report.counts["repaired"] == len(rows)
    for number in np.unique(found.group.values[decoded]).tolist():
        assert "5" not in groups[number]
    right = toy_models.linear(rows)
    np.testing.assert_array_equal(found.prediction.values[~decoded], right[~decoded])
    # What is decoded, is decoded from the honest outputs that the journal names.
    code = CodeSpec(scheme="berrut", k=2, stragglers=1).build()
    shares = {e["group"]: e["shares"] for e in of_kind(out, "group") if e["kind"] == "coded"}
    members = order_rows(40, 2, how="none", block=5).reshape(4, 10)
    for number in np.unique(found.group.values[decoded]).tolist():
        of = 40 * (number // 4) + members[number % 4]
        outputs = [toy_models.linear(share) for share in code.encode(gather(rows, of, 2))]
        honest = code.decode({int(share): outputs[int(share)] for share in shares[number]})
        for block, block_of in zip(honest.blocks, block_rows(of, 2), strict=True):
            still = decoded[block_of]
            np.testing.assert_allclose(
                found.prediction.values[block_of][still], block[still], atol=1e-4
            )


def test_a_quorum_decides(client: Client, store: Path, rows: np.ndarray, tmp_path: Path) -> None:
    faults.install(client, {"3": faults.SignFlip()})
    report = score(store, out=tmp_path / "o.zarr", client=client, referee="quorum", **COMMON)
    check_whole(report, rows)
    assert convicted(report) == ["3"]
    assert " and " in report.convicted[0].evidence.referee


@pytest.mark.slow
def test_two_colluders_are_held_with_two_byzantine_workers(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    faults.install(client, {"1": faults.Collude(), "4": faults.Collude()})
    for referee in ("client", "quorum"):
        report = score(
            store, out=tmp_path / f"{referee}.zarr", client=client, referee=referee,
            **COMMON | {"k": 2, "byzantine": 2},
        )  # fmt: skip
        check_whole(report, rows)
        assert sorted(convicted(report)) == ["1", "4"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_accomplices_who_know_every_row_and_answer_at_once_leave_no_wrong_row(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    """Twenty runs; the checkers of a share are three different ones, so one of them is honest."""
    found = Counter[str]()
    for number in range(20):
        folder = tmp_path / f"corrupted-{number}"
        folder.mkdir()
        pair = toy_corruptions.Accomplice(str(folder), block=COMMON["block"])
        faults.install(client, {"3": pair, "4": pair}, seed=number)
        report = score(
            store, out=tmp_path / f"{number}.zarr", client=client, **COMMON | {"byzantine": 2}
        )
        check_whole(report, rows)
        assert set(convicted(report)) <= {"3", "4"}
        if any(folder.iterdir()):
            assert report.convicted
        found.update(convicted(report))
    assert min(found["3"], found["4"]) > 10


@pytest.mark.slow
def test_three_colluders_with_two_byzantine_workers_end_the_run_or_touch_nothing(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "out.zarr"
    faults.install(client, {name: faults.Collude() for name in "147"})
    options = COMMON | {"k": 2, "byzantine": 2, "client": client}
    with pytest.raises(TrustError, match=r"3 workers are convicted, and byzantine=2 allows for 2"):
        score(store, out=out, **options)
    store_now = OutputStore.open(out, write=False)
    there = store_now.status() != Status.PENDING
    right = toy_models.linear(rows)
    np.testing.assert_array_equal(store_now.read_prediction(0, 400)[there], right[there])
    # With the cause mended, the same command goes on.
    faults.remove(client)
    check_whole(score(store, out=out, **options), rows)


def test_too_many_byzantine_workers_end_the_run_and_leave_what_they_touched_pending(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    """Checks without byzantine=: no worker may be wrong."""
    out = tmp_path / "out.zarr"
    faults.install(client, {"2": faults.SignFlip()})
    with pytest.raises(TrustError, match="byzantine=0 allows for 0"):
        score(store, out=out, client=client, **COMMON | {"byzantine": 0, "check": 3})
    now = OutputStore.open(out, write=False)
    there = now.status() != Status.PENDING
    right = toy_models.linear(rows)
    np.testing.assert_array_equal(now.read_prediction(0, 400)[there], right[there])


@pytest.mark.slow
def test_a_scheduler_that_dies_at_the_verdict_loses_nothing(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The conviction is on the disk before the scheduler is notified."""
    out = tmp_path / "out.zarr"
    faults.install(client, {"5": toy_corruptions.Later(after=5)})
    call = Connection.call

    async def dead(self: Connection, what: str, **fields: Any) -> Any:
        if what == "bar":
            raise ClusterError("the scheduler is gone")
        return await call(self, what, **fields)

    monkeypatch.setattr(Connection, "call", dead)
    with pytest.raises(ClusterError, match="the scheduler is gone"):
        score(store, out=out, client=client, **COMMON | {"check": 1})
    monkeypatch.setattr(Connection, "call", call)
    assert [event["member"]["name"] for event in of_kind(out, "conviction")] == ["5"]
    faults.remove(client)
    report = score(store, out=out, client=client, **COMMON | {"check": 1})
    check_whole(report, rows)
    first = of_kind(out, "session")[0]["session"]
    bad = {e["index"] for e in of_kind(out, "name") if e["worker"] == "5" and e["session"] == first}
    assert not bad & set(report.predictions.worker.values.tolist())


@pytest.mark.slow
def test_a_run_that_ends_between_mismatch_and_verdict_is_gone_on_with(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.zarr"
    faults.install(client, {"5": toy_corruptions.Later(after=5)})
    judge = Referee.judge

    async def dies(*_: Any) -> Any:
        raise ClusterError("killed here")

    monkeypatch.setattr(Referee, "judge", dies)
    with pytest.raises(ClusterError, match="killed here"):
        score(store, out=out, client=client, **COMMON | {"check": 1})
    monkeypatch.setattr(Referee, "judge", judge)
    assert of_kind(out, "mismatch")
    assert of_kind(out, "conviction") == []
    report = score(store, out=out, client=client, **COMMON | {"check": 1})
    check_whole(report, rows)
    # Of the first session, by its evidence; and again in this one: wrong from the start.
    assert convicted(report) == ["5", "5"]


@pytest.mark.slow
def test_a_run_killed_between_conviction_and_make_good(
    cluster: LocalCluster, client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "out.zarr"
    faults.install(client, {"5": toy_corruptions.Later(after=8)})
    command = [sys.executable, str(SUPPORT / "convict_and_die.py")]
    died = subprocess.run(
        [*command, cluster.scheduler_address, str(store), str(out)],
        env=os.environ | {"PYTHONPATH": str(SUPPORT)},
        capture_output=True,
        timeout=90,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    faults.remove(client)
    (event,) = of_kind(out, "conviction")
    assert event["member"]["name"] == "5"
    report = score(store, out=out, client=client, **COMMON)
    check_whole(report, rows)
    found = report.predictions.load()
    first = found.attrs["workers"].index("5")
    assert first not in set(found.worker.values.tolist())
    # In the new session, on one host, a worker of that name is another one.
    assert report.workers["5"].state == "ready"


@pytest.mark.parametrize(
    "scheme", slow_after(1, ["systematic", "uncoded", "replication", "majority"])
)
def test_nan_that_belongs_to_the_data_convicts_nobody(
    scheme: str, client: Client, tmp_path: Path, rows: np.ndarray
) -> None:
    """The model gives NaN for some rows, whoever runs it; and the input holds NaN in others."""
    queries = rows.copy()
    queries[[7, 120, 121], 0, 0] = -100.0
    queries[[3, 300], 1, 1] = np.nan
    data = xr.DataArray(queries, dims=("sample", "a", "b"), name="x")
    options = COMMON | {"scheme": scheme}
    if scheme == "majority":
        options = VOTES | {"scheme": "replication", "k": 2}
    report = score(
        data, out=tmp_path / "out.zarr", client=client, **options | {"model": toy_models.rooted}
    )
    assert report.convicted == []
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(report.predictions.prediction, toy_models.rooted(queries))
    assert report.counts["failed"] == 0


@pytest.mark.slow
def test_assurance_is_reached(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "out.zarr"
    options = COMMON | {"check": 1}
    report = score(store, out=out, client=client, assurance=0.1, **options)
    check_whole(report, rows)
    for worker in report.workers.values():
        assert worker.bound is not None
        assert worker.bound <= 0.1
    assert any(event["why"] == "assurance" for event in of_kind(out, "check"))
    # Also of a session that was not asked for it.
    half = tmp_path / "half.zarr"
    score(store, out=half, client=client, **options)
    again = score(store, out=half, client=client, assurance=0.1, **options)
    assert again.scored == 0
    assert all(proof.bound <= 0.1 for _, proof in again.proofs)
    assert {member.session for member, _ in again.proofs} == {
        of_kind(half, "session")[0]["session"]
    }
    assert "checked: " in str(again)


def test_workers_to_spare_are_asked_for(client: Client, store: Path, tmp_path: Path) -> None:
    with pytest.raises(TooFewWorkersError, match="10"):
        score(
            store, out=tmp_path / "out.zarr", client=client,
            **COMMON | {"scheme": "systematic", "k": 8},
        )  # fmt: skip


# ---- several nodes -------------------------------------------------------------------------------


def on_hosts(hosts: dict[str, str]) -> SpecCluster:
    """Workers by name, each bound to a loopback address of its own: as many nodes."""
    workers = {
        name: {
            "cls": Nanny,
            "options": {"nthreads": 1, "host": host, "name": name, "memory_limit": 0},
        }
        for name, host in hosts.items()
    }
    scheduler = {"cls": Scheduler, "options": {"dashboard_address": "127.0.0.1:0"}}
    return SpecCluster(workers, scheduler, silence_logs=50)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs 127.0.0.2 and following")
def test_a_convicted_node_stays_out_whatever_its_jobs_are_called(
    store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "out.zarr"
    hosts = {f"job-{i}": f"127.0.0.{i + 2}" for i in range(8)}
    half = xr.open_zarr(store, consolidated=False).x
    with on_hosts(hosts) as cluster, Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(8, timeout=60)
        faults.install(client, {"job-3": faults.SignFlip()})
        report = score(half, out=out, client=client, **COMMON)
        check_whole(report, rows)
        (conviction,) = report.convicted
        assert conviction.kind == "node"
        assert conviction.member.host == "127.0.0.5"
        faults.remove(client)

    # Later: the bad node has a job under a new name, and its old name went to another node.
    taken_back = OutputStore.open(out)
    taken_back.set_pending(np.arange(200))
    taken_back.release()
    hosts = {name: host for name, host in hosts.items() if name != "job-3"}
    hosts |= {"job-3": "127.0.0.20", "job-9": "127.0.0.5"}
    with on_hosts(hosts) as cluster, Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(9, timeout=60)
        report = score(half, out=out, client=client, **COMMON)
        check_whole(report, rows)
        assert report.workers["job-3"].run > 0
        assert report.workers["job-3"].state == "ready"
        assert report.workers["job-9"].run == 0
        assert report.workers["job-9"].state == "convicted"

        taken_back = OutputStore.open(out)
        taken_back.set_pending(np.arange(200))
        taken_back.release()
        report = score(half, out=out, client=client, forgive=["127.0.0.5"], **COMMON)
        check_whole(report, rows)
        assert report.workers["job-9"].run > 0
