"""Runs on a real Slurm: four nodes of four slots, whose jobs are cancelled, requeued and killed."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_models
import xarray as xr
from runs import Run, assert_no_jobs, until
from slurm import Slurm

from approxifer import score
from approxifer.errors import ClusterError
from approxifer.models import ensure, open_model, run_rows
from approxifer.pipeline.cluster import batch

Start = Callable[..., Run]
Digits = tuple[Path, np.ndarray]

#: What the smallest run of these options takes: K=8 and S=2 in shares of one micro-batch.
CODE = ("-k", "8", "-s", "2", "--block", "8")


def uncoded(rows: np.ndarray) -> np.ndarray:
    """What the model gives for the rows, in the run's micro-batches."""
    return run_rows(ensure(open_model(toy_models.linear)), rows, 8)


def assert_whole(run: Run, rows: np.ndarray) -> None:
    """Every row is there, and equals the uncoded one to the last bit."""
    with xr.open_zarr(run.out) as scores:
        assert set(np.unique(scores.status)) <= {1, 3}
        np.testing.assert_array_equal(scores.prediction, uncoded(rows))


def worker_of(slurm: Slurm, job: str) -> str:
    """The node of a job."""
    return slurm.run("squeue", "--noheader", "--format=%N", f"--jobs={job}").strip()


@pytest.mark.timeout(300)
def test_jobs_cancelled_requeued_and_a_node_lost(
    quiet: Slurm, digits: Digits, start: Start
) -> None:
    data, rows = digits
    run = start(data, {"walltime": "00:20:00"}, *CODE)
    run.until_groups(10)
    jobs = quiet.jobs("RUNNING")
    assert len(jobs) == 11  # ten that the code needs, and a spare
    where = {job: worker_of(quiet, job) for job in jobs}
    node = next(n for n in quiet.nodes if list(where.values()).count(n) >= 3)
    others = [job for job in jobs if where[job] != node]
    quiet.run("scancel", others[0])
    run.until_groups(15)
    quiet.run("scontrol", "requeue", others[1])
    run.until_groups(20)
    quiet.fail_node(node)
    printed = run.wait(240)
    quiet.start_node(node)
    assert_whole(run, rows)
    assert "submitting 11 jobs to slurm, one worker each: 10 are needed, 1 to spare" in run.stderr
    assert "exact" in printed
    gone = {e["worker"] for e in run.events("worker") if e["what"] == "gone"}
    assert len(gone) >= 5  # one, one, and the node's three or more
    ready = [e["worker"] for e in run.events("worker") if e["what"] == "ready"]
    assert {name for name in ready if ready.count(name) > 1} & gone, "none was submitted again"
    assert_no_jobs(quiet)
    until(lambda: quiet.run("sinfo", "-hN", "-pmain", "--format=%t").split() == ["idle"] * 4, 60)


def test_ctrl_c(quiet: Slurm, digits: Digits, start: Start) -> None:
    run = start(digits[0], {}, *CODE)
    run.until_groups(3)
    run.interrupt()
    run.process.communicate(timeout=60)
    assert run.process.returncode == 130, run.stderr
    assert "the same command goes on where it stopped" in run.stderr
    assert_no_jobs(quiet)


@pytest.fixture
def full(quiet: Slurm) -> Slurm:
    """Ten of the sixteen slots are taken by somebody else's job."""
    quiet.run("sbatch", "--ntasks=10", "--output=/dev/null", "--wrap", "sleep 600")
    until(lambda: quiet.jobs("RUNNING"), 20)
    return quiet


def test_ctrl_c_while_jobs_wait(full: Slurm, digits: Digits, start: Start) -> None:
    run = start(digits[0], {}, *CODE)
    until(lambda: "PENDING Resources" in run.stderr, 60)
    run.interrupt()
    run.process.communicate(timeout=60)
    assert run.process.returncode == 130, run.stderr
    until(lambda: len(full.jobs()) == 1, 20)


def test_the_client_is_killed(quiet: Slurm, digits: Digits, start: Start) -> None:
    run = start(digits[0], {"death-timeout": 20}, *CODE)
    run.until_groups(3)
    os.kill(run.process.pid, signal.SIGKILL)
    run.process.communicate(timeout=60)
    assert_no_jobs(quiet, 40)


def test_the_client_is_killed_while_jobs_wait(full: Slurm, digits: Digits, start: Start) -> None:
    """They end within the death timeout of having started."""
    run = start(digits[0], {"death-timeout": 15}, *CODE)
    until(lambda: "PENDING Resources" in run.stderr, 60)
    os.kill(run.process.pid, signal.SIGKILL)
    run.process.communicate(timeout=60)
    full.run("scancel", "--name=wrap")
    assert_no_jobs(full, 80)


def asked(data: Path, folder: Path, **cluster: Any) -> dict[str, Any]:
    """Arguments of a short run from Python."""
    file = {"kind": "slurm", "memory": "300MB", "interface": "lo"}
    file |= {"log-directory": str(folder / "logs"), **cluster}
    return {
        "data": data, "model": toy_models.linear, "out": folder / "out.zarr", "block": 100,
        "cluster": file, "progress": False,
    }  # fmt: skip


@pytest.fixture
def from_here(quiet: Slurm, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    """This very process may submit."""
    for name, value in quiet.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(Path(toy_models.__file__).parent))
    return quiet


def test_too_few_workers_in_time(
    full: Slurm, from_here: Slurm, digits: Digits, tmp_path: Path
) -> None:
    begun = asked(digits[0], tmp_path, wait="15s")
    with pytest.raises(ClusterError, match=r"of 10 workers came within .* PENDING Resources"):
        score(**begun, k=8)
    until(lambda: len(full.jobs()) == 1, 20)


def test_a_smaller_k_where_no_more_workers_come(
    full: Slurm, from_here: Slurm, digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "QUIET", 5.0)
    report = score(**asked(digits[0], tmp_path))
    assert report.scheme.startswith("systematic K=5 S=1")
    assert "K=5 instead of 8: 6 of 10 workers came in time" in report.notes
    assert report.counts["exact"] + report.counts["repaired"] == report.rows
    until(lambda: len(full.jobs()) == 1, 20)


def test_jobs_whose_workers_never_come_are_given_up(
    from_here: Slurm, digits: Digits, tmp_path: Path
) -> None:
    begun = asked(
        digits[0], tmp_path, resubmissions=1, **{"job-script-prologue": ["echo no; exit 3"]}
    )
    with pytest.raises(ClusterError, match="has left the queue, its worker never came"):
        score(**begun)
    assert_no_jobs(from_here)


def test_what_slurm_refuses_is_told(from_here: Slurm, digits: Digits, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"could not be submitted: .*invalid partition"):
        score(**asked(digits[0], tmp_path, queue="nowhere"))


def test_tls(quiet: Slurm, digits: Digits, start: Start, tmp_path: Path) -> None:
    """With certificates of the user's own, everything that Dask sends is encrypted."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=tests", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    files: dict[str, Any] = {"tls-ca-file": str(cert), "require-encryption": True}
    for role in ("scheduler", "worker", "client"):
        files |= {f"tls-{role}-cert": str(cert), f"tls-{role}-key": str(key)}
    run = start(digits[0], {"security": files}, "-k", "4", "-s", "1", "--block", "400")
    run.wait(100)
    logs = "".join(path.read_text() for path in (tmp_path / "logs").glob("*.err"))
    assert "tls://" in logs
    assert "tcp://" not in logs
    assert_no_jobs(quiet)


@pytest.mark.parametrize("secured", [True, False])
def test_tls_with_a_certificate_of_the_run(
    secured: bool, quiet: Slurm, digits: Digits, start: Start, tmp_path: Path
) -> None:
    """By default everything is encrypted, and the certificate is gone afterwards."""
    shared = tmp_path / "shared"
    shared.mkdir()
    given: dict[str, Any] = {"shared-temp-directory": str(shared)}
    if not secured:
        given["security"] = False
    run = start(digits[0], given, "-k", "4", "-s", "1", "--block", "400")
    until(lambda: any(shared.iterdir()) or not secured, 60)
    for folder in shared.iterdir():
        assert folder.stat().st_mode & 0o777 == 0o700
        assert all(file.stat().st_mode & 0o777 == 0o600 for file in folder.iterdir())
    run.wait(100)
    logs = "".join(path.read_text() for path in (tmp_path / "logs").glob("*.err"))
    assert ("tls://" if secured else "tcp://") in logs
    assert ("tcp://" if secured else "tls://") not in logs
    assert list(shared.iterdir()) == []
    assert_no_jobs(quiet)


def test_dry_run(quiet: Slurm, digits: Digits, start: Start) -> None:
    run = start(digits[0], {}, *CODE, "--dry-run")
    printed = run.wait(60)
    assert "11 jobs of slurm" in printed
    assert "#SBATCH" in printed
    script = printed[printed.index("#!") :]
    done = subprocess.run(
        ["sbatch", "--test-only"], input=script, env=quiet.env, text=True, capture_output=True,
        check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert quiet.jobs() == []
