"""What the machines do: a disk fills up, chunks are lost, the scheduler dies."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from distributed import Client
from waiting import until

from approxifer import score, submit
from approxifer.datasets import OutputStore
from approxifer.errors import ClusterError, InputError, OutputError
from approxifer.pipeline.cluster.local import local_cluster
from approxifer.pipeline.job import Job
from approxifer.pipeline.records import Status
from chaos import onworker
from chaos.pool import ExtraWorker, SchedulerProcess

ROWS = 240
COMMON: dict[str, Any] = {
    "model": onworker.model_20, "scheme": "uncoded", "k": 2, "stragglers": 0, "block": 4,
    "window": 40, "hang_after": 5.0, "stall_after": 20.0,
}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The rows as Zarr, in six chunks."""
    path = tmp_path / "in.zarr"
    data = xr.Dataset({"x": (("sample", "f"), onworker.make_rows(ROWS, []))})
    data.to_zarr(path, encoding={"x": {"chunks": (40, 6)}}, consolidated=False)
    return path


def chunk(store: Path, number: int) -> Path:
    """The file of a chunk."""
    found = store / "x" / "c" / str(number)
    return found if found.is_file() else found / "0"


def check_whole(out: Path, rows: np.ndarray | None = None) -> None:
    """Every row is the model's own."""
    rows = onworker.make_rows(ROWS, []) if rows is None else rows
    with OutputStore.open(out, write=False) as found:
        assert np.isin(found.status(), (Status.EXACT, Status.REPAIRED)).all()
        assert found.read_prediction(0, ROWS).tobytes() == onworker.outputs(rows).tobytes()


@contextmanager
def small_cluster(**options: Any) -> Iterator[Client]:
    """Three workers."""
    with (
        local_cluster(
            n_workers=3,
            memory=options.pop("memory", 2**31),
            options={"security": False} | options,
        ) as made,
        Client(made, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 128 kB."""
    path = tmp_path / "disk"
    path.mkdir()
    options = ["-t", "tmpfs", "-o", "size=128k", "tmpfs", str(path)]
    if os.geteuid() or subprocess.run(["mount", *options], capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield path
    subprocess.run(["umount", str(path)], check=True)


@pytest.mark.slow
def test_a_disk_that_is_full(store: Path, small_disk: Path) -> None:
    """A real one, made larger afterwards."""
    out = small_disk / "out.zarr"
    with small_cluster() as client:
        asked = COMMON | {"client": client, "out": out, "progress": False, "block": 1}
        with pytest.raises(OutputError, match=r"Errno 28.*same command goes on"):
            score(str(store), **asked)
        with OutputStore.open(out, write=False) as found:
            before = (found.status() != Status.PENDING).sum()
        assert before < ROWS
        enlarge = ["mount", "-o", "remount,size=16m", str(small_disk)]
        subprocess.run(enlarge, check=True)
        report = score(str(store), **asked)
    assert report.resumed == before
    check_whole(out)


@pytest.mark.slow
def test_a_chunk_that_is_damaged_from_the_start(store: Path, tmp_path: Path) -> None:
    """It is found before anything is written; once it is restored the same command runs."""
    out, last = tmp_path / "out.zarr", chunk(store, 5)
    held = last.read_bytes()
    last.write_bytes(b"noise")
    with small_cluster() as client:
        with pytest.raises(InputError, match="may be damaged"):
            score(str(store), client=client, out=out, progress=False, **COMMON)
        assert not out.exists()
        last.write_bytes(held)
        score(str(store), client=client, out=out, progress=False, **COMMON)
    check_whole(out)


@pytest.mark.slow
def test_a_chunk_that_is_not_there(store: Path, tmp_path: Path) -> None:
    """To Zarr it is the fill value, so that its rows are scored as that; the report says so."""
    chunk(store, 3).unlink()
    with small_cluster() as client:
        out = tmp_path / "out.zarr"
        report = score(str(store), client=client, out=out, progress=False, **COMMON)
    rows = onworker.make_rows(ROWS, [])
    rows[120:160] = xr.open_zarr(store, consolidated=False).x[120:160]
    assert not np.isfinite(rows[120:160]).any() or (rows[120:160] == 0).all()
    with OutputStore.open(out, write=False) as found:
        expected = onworker.outputs(rows)
        np.testing.assert_array_equal(found.read_prediction(0, ROWS), expected)
    assert any("1 of the 6 chunks of 'x' are not stored" in note for note in report.notes)


@pytest.mark.slow
@pytest.mark.slow
def test_a_row_that_kills_every_worker(tmp_path: Path) -> None:
    """It asks for more memory than a worker may have, so that the nanny kills and replaces it; a
    worker in which it has died is no proof, but three are."""
    rows = onworker.make_rows(ROWS, [])
    rows[117, 2] = onworker.GLUTTON
    path, out = tmp_path / "in.zarr", tmp_path / "out.zarr"
    data = xr.Dataset({"x": (("sample", "f"), rows)})
    data.to_zarr(path, encoding={"x": {"chunks": (40, 6)}}, consolidated=False)
    common = COMMON | {"model": onworker.glutton, "stall_after": 60.0, "window": 240}
    with small_cluster(memory=400_000_000) as client:
        report = score(path, out=out, client=client, progress=False, **common)
    assert report.counts["failed"] == 1
    ((row, error),) = report.failures
    assert (row, "its worker died" in error) == (117, True)
    with OutputStore.open(out, write=False) as found:
        right = np.arange(ROWS) != 117
        same = found.read_prediction(0, ROWS)[right] == onworker.outputs(rows)[right]
        assert same.all()


@pytest.mark.slow
def test_a_scheduler_that_dies(store: Path, tmp_path: Path) -> None:
    """SIGKILL to the scheduler; with another one the same command goes on."""
    out = tmp_path / "out.zarr"

    def begin(stack: ExitStack) -> tuple[SchedulerProcess, Job]:
        scheduler = stack.enter_context(SchedulerProcess())
        for number in range(3):
            stack.enter_context(ExtraWorker(scheduler.address, f"w{number}"))
        client = stack.enter_context(Client(scheduler.address, set_as_default=False))
        client.wait_for_workers(3, timeout=30)
        return scheduler, submit(str(store), client=client, out=out, **COMMON)

    with ExitStack() as stack:
        scheduler, job = begin(stack)
        until(lambda: job.progress().windows_done >= 1)
        scheduler.kill()
        with pytest.raises(ClusterError, match=r"scheduler is gone.*same command goes on"):
            job.result(60)
    with ExitStack() as stack:
        _, job = begin(stack)
        report = job.result(60)
    assert 40 <= report.resumed < ROWS
    check_whole(out)
