"""A store that was begun is gone on with: after a kill, a cancel, Ctrl-C, and by whom it may be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import psutil
import pytest
import toy_models
from distributed import Client, LocalCluster
from marks import slow_after
from waiting import until

from approxifer import score, submit
from approxifer.datasets import Journal, OutputStore
from approxifer.errors import FingerprintError, StoreError
from approxifer.pipeline.records import Status

SUPPORT = Path(__file__).parents[2] / "support"
#: Ten windows of 40 rows.
COMMON = {"model": toy_models.slow_linear, "k": 4, "block": 5, "window": 40}


def committed(out: Path) -> list[int]:
    """Windows in the order in which all sessions wrote them."""
    return [e["window"] for e in Journal.read(out) if e["event"] == "window"]


def test_a_killed_client(
    cluster: LocalCluster, client: Client, store: Path, tmp_path: Path
) -> None:
    """SIGKILL after the third of ten windows; the same command does the other seven."""
    out, undisturbed = tmp_path / "out.zarr", tmp_path / "undisturbed.zarr"
    options = COMMON | {"model": toy_models.counted, "client": client, "progress": False}
    command = [sys.executable, str(SUPPORT / "score_and_die.py")]
    command += [cluster.scheduler_address, str(store), str(out), "3"]
    died = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(SUPPORT)}, capture_output=True, timeout=60
    )
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()

    status = OutputStore.open(out, write=False).status().reshape(10, 40)
    whole = {i for i in range(10) if (status[i] != Status.PENDING).all()}
    assert 3 <= len(whole) < 10
    first = Journal.read(out)
    # A window whose status was cut short in the middle is not committed; none is half pending here.
    assert all((status[i] == Status.PENDING).all() for i in set(range(10)) - whole)

    report = score(store, out=out, **options)
    assert report.resumed == 40 * len(whole)
    again = [e for e in Journal.read(out)[len(first) :] if e["event"] in ("group", "window")]
    assert not {event["window"] for event in again} & whole, "committed windows were computed again"
    assert {event["window"] for event in again} | whole == set(range(10))

    other = score(store, out=undisturbed, **options)
    found, expected = report.predictions.load(), other.predictions.load()
    assert found.prediction.values.tobytes() == expected.prediction.values.tobytes()
    assert set(np.unique(found.status)) <= {Status.EXACT, Status.REPAIRED}
    # The index of each row's worker means the same over both sessions.
    groups = {
        (e["session"], e["group"]): set(e["shares"].values())
        for e in Journal.read(out)
        if e["event"] == "group"
    }
    for row in range(0, 400, 7):
        name = found.attrs["workers"][int(found.worker[row])]
        assert any(name in names for (_, g), names in groups.items() if g == int(found.group[row]))


def test_a_cancelled_job_is_gone_on_with(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "out.zarr"
    job = submit(store, out=out, client=client, **COMMON)
    until(lambda: job.progress().windows_done >= 2)
    job.cancel()
    with pytest.raises(CancelledError):
        job.result(20)
    done = committed(out)
    assert 2 <= len(done) < 10
    report = score(store, out=out, client=client, progress=False, **COMMON)
    assert sorted(committed(out)) == list(range(10))
    np.testing.assert_array_equal(report.predictions.prediction, toy_models.linear(rows))


def test_a_finished_store_is_left_as_it_is(client: Client, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    score(store, out=out, client=client, progress=False, **COMMON)
    report = score(store, out=out, client=client, progress=False, **COMMON)
    assert report.resumed == report.rows == 400
    assert report.evaluations == 0
    assert report.counts["exact"] == 400
    assert len(committed(out)) == 10


@pytest.mark.parametrize(
    ("change", "named"),
    slow_after(
        2,
        [
            ({"model": toy_models.linear}, "model"),
            ({"block": 6}, "layout.block"),
            ({"k": 3}, "code.k"),
            ({"scheme": "berrut"}, "code.scheme"),
            ({"repair": "none"}, "code.repair"),
            ({"order": "random"}, "layout.order"),
            ({"seed": 1}, "layout.seed"),
        ],
    ),
)
def test_another_model_or_layout_is_refused(
    client: Client, store: Path, tmp_path: Path, change: dict[str, object], named: str
) -> None:
    out = tmp_path / "out.zarr"
    job = submit(store, out=out, client=client, **COMMON)
    until(lambda: job.progress().windows_done >= 1)
    job.cancel()
    job.wait()
    before = OutputStore.open(out, write=False).status()
    with pytest.raises(FingerprintError, match=named):
        score(store, out=out, client=client, progress=False, **COMMON | change)
    np.testing.assert_array_equal(OutputStore.open(out, write=False).status(), before)


def test_changed_input_is_refused(client: Client, store: Path, tmp_path: Path) -> None:
    import zarr

    out = tmp_path / "out.zarr"
    score(store, out=out, client=client, progress=False, **COMMON)
    array = zarr.open_array(str(store / "x"), mode="r+")
    array[5] = 99.0
    with pytest.raises(FingerprintError, match="input"):
        score(store, out=out, client=client, progress=False, **COMMON)


def test_two_clients_do_not_write_one_store(client: Client, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    job = submit(store, out=out, client=client, **COMMON)
    until(lambda: job.progress().done > 0)
    with pytest.raises(StoreError, match="in use"):
        score(store, out=out, client=client, progress=False, **COMMON)
    job.result(30)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_a_store_to_go_on_with_and_no_process(
    store: Path, tmp_path: Path, how: signal.Signals
) -> None:
    """SIGINT to the whole process group of the real command line, as a terminal does; SIGTERM to
    the process, as a batch system does."""
    out = tmp_path / "out.zarr"
    approxifer = str(Path(sys.executable).parent / "approxifer")
    command = [approxifer, "score", str(store), "--out", str(out)]
    command += ["--model", "toy_models:make_very_slow", "-k", "2", "--block", "5", "--window", "40"]
    environment = os.environ | {"PYTHONPATH": str(SUPPORT)}
    run = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    until(lambda: out.exists() and len(committed(out)) >= 2, 60)
    children = psutil.Process(run.pid).children(recursive=True)
    assert len(children) >= 3
    if how is signal.SIGINT:
        os.killpg(run.pid, how)
    else:
        run.terminate()
    _, message = run.communicate(timeout=30)
    assert run.returncode == 130, message
    assert "the same command" in message
    assert "Traceback" not in message
    until(lambda: not any(child.is_running() for child in children), 10)
    done = len(committed(out))
    assert 2 <= done < 10

    begin = time.monotonic()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90)
    assert again.returncode == 0, again.stderr
    assert time.monotonic() - begin < 80
    assert sorted(committed(out)) == list(range(10))
