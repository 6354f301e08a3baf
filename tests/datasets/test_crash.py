"""Crashes: what is on the disk when, and who may write."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from approxifer.datasets import OutputStore, arrays, layout, localdisk
from approxifer.errors import OutputError, StoreError

SETUP = """
import os, signal, sys, time
import numpy as np
import xarray as xr
from approxifer.datasets import OutputStore, arrays, open_source
source = open_source(xr.DataArray(np.zeros((22, 3), np.float32), dims=("n", "f"), name="a"))

def create():
    return OutputStore.create(
        sys.argv[1], source=source, output_shape=(5,), output_dtype="float32", chunk=4, attrs={}
    )

def die():
    os.kill(os.getpid(), signal.SIGKILL)
"""


def run(script, path):
    """Run a script in a process of its own; returns its exit code."""
    code = SETUP + textwrap.dedent(script)
    return subprocess.run([sys.executable, "-c", code, str(path)], timeout=60).returncode


def test_killed_between_data_and_status_leaves_the_window_pending(tmp_path):
    code = run(
        """
        store = create()
        store.write_window(0, 4, prediction=np.ones((4, 5)), status=1)
        real = arrays.Arrays.write
        def write(self, name, start, values):
            if name == "status":
                die()
            real(self, name, start, values)
        arrays.Arrays.write = write
        store.write_window(4, 12, prediction=np.ones((8, 5)), status=1)
        """,
        tmp_path / "out.zarr",
    )
    assert code == -signal.SIGKILL
    with OutputStore.open(tmp_path / "out.zarr") as store:  # the lock died with its holder
        assert store.status().tolist() == [1] * 4 + [0] * 18
        assert (store.read_prediction(0, 12) == 1).all()
        xr.open_zarr(str(store.path)).close()
        store.write_window(4, 12, prediction=np.full((8, 5), 2.0), status=3)
        assert store.status().tolist() == [1] * 4 + [3] * 8 + [0] * 10


def test_killed_while_it_is_created_leaves_nothing_at_the_path(tmp_path):
    code = run(
        """
        from approxifer.datasets import layout
        layout.consolidate = lambda folder: die()
        create()
        """,
        tmp_path / "out.zarr",
    )
    assert code == -signal.SIGKILL
    assert not OutputStore.exists(tmp_path / "out.zarr")
    assert run("create().release()", tmp_path / "out.zarr") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]  # rests are cleared away


def test_an_error_while_it_is_created_leaves_nothing(make_store, tmp_path, monkeypatch):
    def fail(folder):
        raise OSError("disk full")

    monkeypatch.setattr(layout, "consolidate", fail)
    with pytest.raises(OSError, match="disk full"):
        make_store()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_to_be_one(make_store, monkeypatch):
    """Of the data, and of the journal; what is committed stays, and room can be made."""
    store = make_store()
    whole = {"prediction": np.ones((4, 5), np.float32), "status": 1}
    store.write_window(0, 4, **whole)

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(arrays, "sync", full)
        with pytest.raises(OutputError, match=r"No space left.*the same command goes on"):
            store.write_window(4, 8, **whole)
    assert store.status()[:8].tolist() == [1] * 4 + [0] * 4
    store.write_window(4, 8, **whole)
    assert store.status()[:8].tolist() == [1] * 8


def test_data_are_synced_before_the_status_is_written(make_store, monkeypatch):
    store = make_store()
    events = []
    real_write = arrays.Arrays.write
    real_fsync = os.fsync

    def write(self, name, start, values):
        events.append(f"write {name} {int(values.max()) if name == 'status' else ''}".strip())
        real_write(self, name, start, values)

    def fsync(descriptor):
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        events.append(f"sync {path.relative_to(store.path)}")
        real_fsync(descriptor)

    monkeypatch.setattr(arrays.Arrays, "write", write)
    monkeypatch.setattr(localdisk.os, "fsync", fsync)
    store.write_window(4, 12, prediction=np.ones((8, 5)), status=1, group=1, worker=1, residual=0)
    data = [
        event
        for name, tail in (("prediction", ".0"), ("group", ""), ("worker", ""), ("residual", ""))
        for event in (
            f"write {name}",
            f"sync {name}/c.1{tail}",
            f"sync {name}/c.2{tail}",
            f"sync {name}",
        )
    ]
    status = ["sync status/c.1", "sync status/c.2", "sync status"]
    assert events == [*data, "write status 1", *status]
    events.clear()
    store.write_window(4, 8, prediction=np.ones((4, 5)), status=2, group=1)
    assert events[0] == "write status 0"  # pending again before the data change
    assert events[1] == "sync status"
    assert events[-3:] == ["write status 2", "sync status/c.1", "sync status"]


def test_rows_are_taken_back(make_store):
    store = make_store()
    store.write_window(0, 20, prediction=np.ones((20, 5)), status=1)
    store.set_pending([5, 1, 19, 5])
    expected = np.ones(22)
    expected[[1, 5, 19, 20, 21]] = 0
    np.testing.assert_array_equal(store.status(), expected)
    for wrong in ([-1], [3, 22]):
        with pytest.raises(ValueError, match="not all are there"):
            store.set_pending(wrong)
    store.set_pending([])
    np.testing.assert_array_equal(store.status(), expected)
    store.set_pending(np.arange(22))
    assert not store.status().any()


def test_rows_are_made_good_within_a_window(make_store):
    store = make_store()
    store.write_window(4, 12, prediction=np.ones((8, 5)), status=1, group=7, worker=2, residual=0.5)
    store.set_pending([6])
    whole = store.read_window(4, 12)
    again = np.flatnonzero(whole["status"] == 0)
    assert again.tolist() == [2]
    whole["prediction"][again] = 9
    whole["status"][again] = 3
    whole["worker"][again] = 1
    store.write_window(4, 12, **whole)
    assert store.status()[4:12].tolist() == [1, 1, 3, 1, 1, 1, 1, 1]
    found = store.dataset().isel(time=slice(4, 12))
    assert found["prediction"].values[:, 0].tolist() == [1, 1, 9, 1, 1, 1, 1, 1]
    assert found["worker"].values.tolist() == [2, 2, 1, 2, 2, 2, 2, 2]
    assert (found["group"].values == 7).all()


def test_two_processes_do_not_write_one_store(make_store, tmp_path):
    store = make_store()
    message = rf"in use by pid {os.getpid()} on host "
    with pytest.raises(StoreError, match=message):
        OutputStore.open(store.path)
    with pytest.raises(StoreError, match=message):
        make_store()
    reader = OutputStore.open(store.path, write=False)
    assert not reader.status().any()
    for write in (
        lambda: reader.set_pending([0]),
        lambda: reader.close(counts={}, workers=[]),
        lambda: reader.write_window(0, 4, prediction=np.ones((4, 5)), status=1),
    ):
        with pytest.raises(StoreError, match="opened for reading"):
            write()
    store.release()
    store.release()
    OutputStore.open(store.path).release()
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]


def test_a_lock_does_not_survive_sigkill(tmp_path):
    path = tmp_path / "out.zarr"
    code = SETUP + "\nstore = create()\nprint('ready', flush=True)\ntime.sleep(60)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(StoreError, match=f"in use by pid {process.pid} on host"):
            OutputStore.open(path)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    OutputStore.open(path).release()


def test_a_file_system_without_locks_is_noted(make_store, monkeypatch, caplog):
    def no_flock(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_flock)
    store = make_store()
    assert "not locked" in store.note
    assert store.note in caplog.messages
    store.write_window(0, 4, prediction=np.ones((4, 5)), status=1)
