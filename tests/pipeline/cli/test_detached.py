"""Jobs that outlive their shell: real processes, on a local cluster of NumPy workers."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import toy_models
import xarray as xr
import yaml
import zarr
from waiting import until

from approxifer.errors import ClusterError, ConfigError, StoreError
from approxifer.pipeline.cli import detached
from approxifer.pipeline.cli import jobs as job_commands
from approxifer.pipeline.cli.jobfile import JobFile, JobFolder, JobState

SUPPORT = Path(__file__).parents[2] / "support"
COMMAND = [sys.executable, "-m", "approxifer.pipeline.cli.main"]


def write_job(folder: Path, **options: Any) -> Path:
    """A job of the store in the folder; its paths are relative."""
    content = {
        "data": "in.zarr", "model": "toy_models:make_very_slow", "out": "out.zarr", "k": 2,
        "block": 1, "window": 100, "cluster": {"kind": "local", "workers": 3},
    }  # fmt: skip
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(content | options))
    return path


def command(*args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, args)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(SUPPORT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def state_of(folder: Path) -> JobState:
    state = detached.look(JobFolder.of(folder / "out.zarr"))
    assert state is not None
    return state


def wait_for(folder: Path, text: str) -> JobState:
    end = time.monotonic() + 60
    while text not in (state := state_of(folder)).told:
        assert state.stage == "running", state
        assert time.monotonic() < end, state
        time.sleep(0.1)
    return state


# ---- the file ------------------------------------------------------------------------------------


def test_paths_count_from_the_file_and_names_do_not(tmp_path: Path) -> None:
    path = write_job(tmp_path, data="s3://bucket/in.zarr", state="w.pt", max_failed=3)
    job = JobFile.read(path)
    assert job.max_failed == 3
    assert job.options["data"] == "s3://bucket/in.zarr"
    assert job.options["model"] == "toy_models:make_very_slow"
    assert job.options["state"] == str(tmp_path / "w.pt")
    assert job.options["out"] == str(tmp_path / "out.zarr")
    assert job.options["cluster"] == {"kind": "local", "workers": 3}
    assert job.folder.path == tmp_path / "out.zarr.job"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"straglers": 2}, "unknown argument 'straglers', did you mean 'stragglers'"),
        ({"input": "x"}, "unknown argument 'input', did you mean 'data'"),
        ({"client": "x"}, "client= is for Python"),
        ({"model": None}, "model is missing"),
        ({"max_failed": "many"}, "max_failed='many'"),
    ],
)
def test_a_bad_job_file_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        JobFile.read(write_job(tmp_path, **options))


@pytest.mark.parametrize("text", ["", "- a", "{", None])
def test_no_job_file(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "job.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=r"job\.yaml: (holds|not valid|no such)"):
        JobFile.read(path)


# ---- what is known of a job ----------------------------------------------------------------------


def test_a_job_on_another_host_is_lost_only_after_long_silence(tmp_path: Path) -> None:
    folder = JobFolder.of(tmp_path / "out.zarr")
    folder.begin(JobFile({}))
    assert detached.look(folder) is None
    now = time.time()
    state = JobState("running", "12 of 99 rows", "elsewhere", 1, now - 500, now - 60)
    folder.say(state)
    assert detached.look(folder) == state
    folder.say(dataclasses.replace(state, updated=now - 200))
    found = detached.look(folder)
    assert found is not None
    assert (found.stage, found.code) == ("lost", 1)
    assert "12 of 99 rows" in found.told


@pytest.mark.parametrize("since", [30 * 86400, 60])
def test_a_number_that_another_process_has_now_is_no_running_job(
    tmp_path: Path, since: float
) -> None:
    folder, then = JobFolder.of(tmp_path / "out.zarr"), time.time() - since
    folder.begin(JobFile({}))
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        host = socket.gethostname()
        created = psutil.Process(process.pid).create_time()
        state = JobState("running", "12 %", host, process.pid, then, then)
        for kept in (state, dataclasses.replace(state, created=created - since)):
            folder.say(kept)
            found = detached.look(folder)
            assert found is not None
            assert found.stage == "lost"
            cancelled = command("cancel", "out.zarr", cwd=tmp_path)
            assert "it died" in cancelled.stdout
        detached.refuse_running(JobFile({"out": str(tmp_path / "out.zarr")}))
        folder.say(dataclasses.replace(state, created=created))
        found = detached.look(folder)
        assert found is not None
        assert found.stage == "running"
    finally:
        process.communicate(b"\n")


def test_a_job_that_does_not_stop_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, now = JobFolder.of(tmp_path / "out.zarr"), time.time()
    folder.begin(JobFile({}))
    folder.say(JobState("running", "12 %", "elsewhere", 1, now, now))
    monkeypatch.setattr(job_commands, "PATIENCE", 0.3)
    with pytest.raises(ClusterError, match="runs on"):
        job_commands.cancel(tmp_path / "out.zarr")
    assert folder.cancelled


def test_a_clock_that_is_ahead_keeps_no_job_running(tmp_path: Path) -> None:
    folder, now = JobFolder.of(tmp_path / "out.zarr"), time.time()
    folder.begin(JobFile({}))
    folder.say(JobState("running", "12 %", "elsewhere", 1, now, now + 86400))
    found = detached.look(folder)
    assert found is not None
    assert found.stage == "lost"


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", '{"stage": "running"}', "null", "[" * 9000,
     '{"stage": "x\\u001b[2J", "told": "", "host": "", "pid": 1, "began": 1, "updated": 1}',
     '{"stage": "running", "told": "", "host": "", "pid": "1", "began": 1, "updated": 1}'],
)  # fmt: skip
def test_a_crafted_state_is_a_clear_error(tmp_path: Path, content: str) -> None:
    folder = JobFolder.of(tmp_path / "out.zarr")
    folder.begin(JobFile({}))
    (folder.path / "state.json").write_text(content)
    with pytest.raises(StoreError, match="not a job's state") as caught:
        detached.look(folder)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_a_jobs_files_are_for_its_user_alone_and_hold_no_credentials(
    tmp_path: Path, umask: int
) -> None:
    folder = JobFolder.of(tmp_path / "out.zarr")
    folder.path.mkdir(mode=0o755)  # of an earlier version
    options = {"data": "s3://me:hunter2@host/in", "cluster": {"env": {"FOO": "hunter3"}}}
    before = os.umask(umask)
    try:
        folder.begin(JobFile(options))
        folder.say(JobState("running", "1 %", "h", 1, 1.0, 1.0))
        folder.ask_to_cancel()
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    files = sorted(folder.path.iterdir())
    assert [file.name for file in files] == ["cancel", "log.txt", "state.json"]
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert "hunter" not in file.read_text()


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out.zarr.job").symlink_to(tmp_path / "elsewhere")
    folder = JobFolder.of(tmp_path / "out.zarr")
    with pytest.raises(StoreError, match="symbolic link"):
        folder.begin(JobFile({}))
    with pytest.raises(StoreError, match="symbolic link"):
        folder.state()
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize(
    "text",
    [
        "a: &x [1]\nb: *x",
        "a: &x [*x]",
        "out: 2020-01-01",
        "- !!set {a}",
        "a: !!python/name:os.system",
        "a: " + "[" * 5000,
    ],
)
def test_yaml_that_is_more_than_it_seems_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"job\.yaml: "):
        JobFile.read(tmp_path / "job.yaml")


# ---- real processes ------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, rows: np.ndarray) -> Path:
    """A folder with an input of 400 rows: some 20 s of work on three workers."""
    data = xr.Dataset({"x": (("sample", "a", "b"), rows)})
    encoding = {"x": {"chunks": (100, 4, 4)}}
    data.to_zarr(tmp_path / "in.zarr", encoding=encoding, consolidated=False)
    return tmp_path


@pytest.mark.slow
def test_a_job_outlives_its_shell(folder: Path, rows: np.ndarray) -> None:
    path = write_job(folder)
    shell = subprocess.run(
        f"{' '.join(COMMAND)} submit {path} & wait", shell=True, cwd=folder,
        env=os.environ | {"PYTHONPATH": str(SUPPORT)}, capture_output=True, text=True, check=True,
        start_new_session=True,
    )  # fmt: skip
    assert "400 rows" in shell.stdout
    assert "submitted: process" in shell.stdout
    state = wait_for(folder, "of 400 rows")
    assert psutil.Process(state.pid).ppid() != os.getpid()
    again = command("submit", path, cwd=folder)
    assert again.returncode == 2
    assert "is running" in again.stderr
    status = command("status", "out.zarr", cwd=folder)
    assert (status.returncode, "running" in status.stdout) == (0, True)
    result = command("result", "job.yaml", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "400 rows in" in result.stdout
    found = xr.open_zarr(folder / "out.zarr")
    np.testing.assert_array_equal(found.prediction, toy_models.linear(rows))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["command", "SIGTERM", "SIGKILL"])
def test_a_job_that_was_stopped_goes_on_when_it_is_submitted_again(
    folder: Path, rows: np.ndarray, how: str
) -> None:
    path = write_job(folder)
    assert command("submit", path, cwd=folder).returncode == 0
    state = wait_for(folder, "of 400 rows")
    until(lambda: zarr.open_array(folder / "out.zarr" / "status", mode="r")[:].any(), 60)
    if how == "command":
        assert "cancelled; before: " in command("cancel", path, cwd=folder).stdout
    else:
        os.kill(state.pid, getattr(signal, how))
        psutil.wait_procs([psutil.Process(state.pid)], timeout=30)
    ended = command("result", path, cwd=folder)
    expected = {"SIGKILL": (1, "lost", "it died")}.get(how, (130, "cancelled", "cancelled"))
    assert (ended.returncode, state_of(folder).stage) == expected[:2]
    assert expected[2] in ended.stderr
    assert command("submit", path, cwd=folder).returncode == 0
    result = command("result", path, cwd=folder)
    assert result.returncode == 0
    assert "from earlier sessions" in result.stderr + result.stdout
    found = xr.open_zarr(folder / "out.zarr")
    np.testing.assert_array_equal(found.prediction, toy_models.linear(rows))


def test_bad_input_is_refused_before_anything_is_started(folder: Path) -> None:
    path = write_job(folder, model="toy_models:nothing")
    refused = command("submit", path, cwd=folder)
    assert refused.returncode == 2
    assert "toy_models was imported but has no 'nothing'" in refused.stderr
    assert sorted(p.name for p in folder.iterdir()) == ["in.zarr", "job.yaml"]
    asked = command("status", path, cwd=folder)
    assert asked.returncode == 2
    assert "no job was submitted here" in asked.stderr


@pytest.mark.slow
def test_an_error_on_the_way_is_told(folder: Path) -> None:
    path = write_job(folder, cluster={"kind": "address", "address": "tcp://127.0.0.1:9"})
    assert command("submit", path, cwd=folder).returncode == 0
    result = command("result", path, cwd=folder)
    assert result.returncode == 2
    assert "no Dask scheduler answered" in result.stderr
