"""A job of which nothing is left starts no cluster; one that owes a row or a check runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_corruptions
import toy_models
from distributed import Client
from typer.testing import CliRunner

from approxifer import score, submit
from approxifer.datasets import Journal, OutputStore
from approxifer.datasets.journal import journal_path
from approxifer.pipeline import api, faults
from approxifer.pipeline.api import plan_run
from approxifer.pipeline.cli.main import app
from approxifer.pipeline.records import Status

COMMON: dict[str, Any] = {"k": 4, "block": 5, "window": 100, "model": toy_models.linear}


@pytest.fixture
def out(client: Client, store: Path, tmp_path: Path) -> Path:
    path = tmp_path / "finished.zarr"
    score(store, out=path, client=client, progress=False, **COMMON)
    return path


@pytest.fixture
def no_workers(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the job has run."""

    def open_workers(*_: Any) -> None:
        raise AssertionError("a cluster was asked for")

    monkeypatch.setattr(api, "open_workers", open_workers)


def files(out: Path) -> dict[Path, tuple[bytes, int]]:
    found = [*out.rglob("*"), journal_path(out)]
    return {p: (p.read_bytes(), os.stat(p).st_mtime_ns) for p in found if p.is_file()}


@pytest.mark.usefixtures("no_workers")
def test_it_needs_no_worker_and_writes_nothing(
    store: Path, out: Path, rows: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sbatch", "scancel"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    before = files(out)
    slurm = {"kind": "slurm", "workers": 9, "memory": "1GB"}
    report = score(store, out=out, cluster=slurm, **COMMON)
    assert (report.resumed, report.rows, report.evaluations) == (400, 400, 0)
    assert report.counts == {"exact": 400, "decoded": 0, "repaired": 0, "failed": 0}
    assert report.scheme == "systematic K=4 S=1, 5 shares"
    np.testing.assert_array_equal(report.predictions.prediction, toy_models.linear(rows))
    assert "400 rows were there" in str(report)
    assert submit(store, out=out, **COMMON).result(60).resumed == 400
    assert plan_run(store, out=out, **COMMON).startswith("finished: all 400 rows of")
    assert files(out) == before


@pytest.mark.usefixtures("no_workers")
def test_no_empty_picture_is_drawn(
    store: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = score(store, out=out, progress=False, **COMMON)
    monkeypatch.setattr(api, "score", lambda *_, **__: report)
    picture = tmp_path / "workers.png"
    command = ["score", str(store), "--model", "m", "--out", str(out), "--timeline", str(picture)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0
    assert "nothing was left to run" in done.stderr
    assert not picture.exists()
    assert CliRunner().invoke(app, ["inspect", str(out), "--timeline", str(picture)]).exit_code == 0
    assert picture.exists(), "of the session that ran"


@pytest.mark.usefixtures("no_workers")
def test_what_its_last_session_was_stopped_before_is_written(store: Path, out: Path) -> None:
    """Killed between the last window and the close."""
    attrs = (out / "zarr.json").read_text()
    assert '"counts"' in attrs
    (out / "zarr.json").write_text(attrs.replace('"counts"', '"counted"'))
    report = score(store, out=out, progress=False, **COMMON)
    assert report.predictions.attrs["counts"] == report.counts


def test_a_row_that_is_pending_is_run(
    client: Client, store: Path, out: Path, rows: np.ndarray
) -> None:
    with OutputStore.open(out) as held:
        held.set_pending([7])
    report = score(store, out=out, client=client, progress=False, **COMMON)
    assert report.resumed == 399
    np.testing.assert_array_equal(report.predictions.prediction, toy_models.linear(rows))


def test_failed_rows_are_run_again_if_asked(client: Client, store: Path, out: Path) -> None:
    with OutputStore.open(out) as held:
        now = held.read_window(0, 100)
        now["status"][3] = Status.FAILED
        held.write_window(0, 100, **now)
    report = score(store, out=out, client=client, progress=False, **COMMON)
    assert (report.resumed, report.counts["failed"]) == (400, 1)
    report = score(store, out=out, client=client, progress=False, retry_failed=True, **COMMON)
    assert (report.resumed, report.counts["failed"]) == (399, 0)


CHECKED: dict[str, Any] = COMMON | {"stragglers": 0, "byzantine": 1, "k": 2}


def test_a_verdict_that_is_owed_is_made(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    """The journal ends with a mismatch: its session was killed before the verdict."""
    out = tmp_path / "out.zarr"
    faults.install(client, {"3": toy_corruptions.Later(after=0)})
    score(store, out=out, client=client, progress=False, **CHECKED)
    faults.remove(client)
    path = journal_path(out)
    lines = path.read_text().splitlines(keepends=True)
    cut = next(i for i, line in enumerate(lines) if '"conviction"' in line)
    mismatch = [line for line in lines[:cut] if '"mismatch"' in line]
    verdicts = ('"event": "verdict"', '"event":"verdict"')
    kept = [line for line in lines[cut + 1 :] if not any(v in line for v in verdicts)]
    if not mismatch:
        pytest.skip("what the worker returned was convicted without a mismatch")
    path.write_text("".join(lines[:cut] + kept))
    report = score(store, out=out, client=client, progress=False, **CHECKED)
    assert [c.member.name for c in report.convicted] == ["3"]
    np.testing.assert_array_equal(report.predictions.prediction, toy_models.linear(rows))
    events = Journal.read(out)
    assert sum(event["event"] == "session" for event in events) == 2


def test_a_checked_job_without_debts_needs_no_worker(
    client: Client, store: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    out = tmp_path / "out.zarr"
    score(store, out=out, client=client, progress=False, **CHECKED)
    request.getfixturevalue("no_workers")
    report = score(store, out=out, progress=False, **CHECKED)
    assert report.resumed == 400
    assert report.proofs, "what the checks of the earlier session prove"
    with pytest.raises(AssertionError, match="a cluster was asked for"):
        score(store, out=out, progress=False, assurance=0.001, **CHECKED)
