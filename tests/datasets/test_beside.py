"""The lock and the journal beside a store: whose they are, and by which way they are reached."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
from pathlib import Path

import pytest

from approxifer.datasets import Journal, OutputStore
from approxifer.datasets.lock import Lock
from approxifer.errors import ConfigError, StoreError

PRECIOUS = "precious\n" * 3


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


@pytest.mark.parametrize("way", ["link to the store", "link to its folder", "dots"])
def test_one_lock_and_one_journal_whatever_the_way(make_store, tmp_path, way):
    (tmp_path / "scratch" / "deep").mkdir(parents=True)
    store = make_store(path=tmp_path / "scratch" / "out.zarr")
    other = tmp_path / "other.zarr"
    if way == "link to the store":
        other.symlink_to(store.path)
    elif way == "link to its folder":
        (tmp_path / "link").symlink_to(tmp_path / "scratch")
        other = tmp_path / "link" / "out.zarr"
    else:  # which a look at the text alone would take for another folder
        (tmp_path / "link").symlink_to(tmp_path / "scratch" / "deep")
        other = tmp_path / "link" / ".." / "out.zarr"
    with pytest.raises(StoreError, match="in use by pid"):
        OutputStore.open(f"{other}/")
    with Journal(store.path) as one, Journal(other) as two:
        assert one.path == two.path
    store.release()
    OutputStore.open(other).release()


def plant(kind: str, at: Path, victim: Path) -> None:
    match kind:
        case "link":
            at.symlink_to(victim)
        case "second name":
            os.link(victim, at)
        case "file":
            at.write_text(PRECIOUS)
        case "pipe":
            os.mkfifo(at)
        case "folder":
            at.mkdir()


@pytest.mark.parametrize("kind", ["link", "second name", "file", "pipe", "folder"])
@pytest.mark.parametrize("suffix", [".lock", ".journal.jsonl"])
def test_what_is_not_ours_is_left_as_it_is(make_store, tmp_path, kind, suffix):
    victim, out = tmp_path / "victim.txt", tmp_path / "out.zarr"
    victim.write_text(PRECIOUS)
    at = beside(out, suffix)
    plant(kind, at, victim)
    begin = Journal if suffix == ".journal.jsonl" else make_store
    with pytest.raises(StoreError, match="Nothing was touched"):
        begin(out)
    assert victim.read_text() == PRECIOUS
    assert kind != "file" or at.read_text() == PRECIOUS
    assert not out.exists()


def test_a_link_to_an_event_is_not_read(tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text('{"event":"session","session":"s"}\n')
    (tmp_path / "out.zarr.journal.jsonl").symlink_to(other)
    with pytest.raises(StoreError, match="is a symbolic link"):
        Journal.read(tmp_path / "out.zarr")


def test_a_link_to_nowhere_makes_no_store_there(make_store, tmp_path):
    (tmp_path / "out.zarr").symlink_to(tmp_path / "elsewhere" / "new.zarr")
    with pytest.raises(StoreError, match="where there is nothing"):
        make_store()
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(ConfigError, match="NUL"):
        make_store(path="a\0b")


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_they_are_private_whatever_the_umask(make_store, tmp_path, umask):
    before = os.umask(umask)
    try:
        store = make_store()
        Journal(store.path).close()
    finally:
        os.umask(before)
    for suffix in (".lock", ".journal.jsonl"):
        assert stat.S_IMODE(beside(store.path, suffix).stat().st_mode) == 0o600


def test_credentials_do_not_reach_a_journal(tmp_path):
    with Journal(tmp_path / "out.zarr") as journal:
        error = "OSError: s3://me:hunter2@host/a: password=\"hunter2\" {'secret': 'hunter2'}"
        journal.append({"event": "failed", "row": 1, "error": error, "of": [{"x": error}]})
    assert "hunter2" not in journal.path.read_text()
    assert Journal.read(tmp_path / "out.zarr")[0]["row"] == 1


# ---- the lock's file, where the system has no locks ----------------------------------------------


@pytest.fixture
def no_flock(monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_without_flock_the_file_is_the_lock(no_flock, tmp_path):
    path = tmp_path / "out.zarr.lock"
    lock = Lock(path, what="The store")
    with pytest.raises(StoreError, match=f"in use by pid {os.getpid()} on host"):
        Lock(path, what="The store")
    lock.release()
    Lock(path, what="The store").release()


def test_a_lock_of_a_dead_host_says_whose_it_is_and_how_to_clear_it(no_flock, tmp_path):
    path = tmp_path / "out.zarr.lock"
    path.write_text(json.dumps({"pid": 7, "host": "node-9", "since": 1.7e9}))
    with pytest.raises(StoreError, match=r"pid 7 on host node-9, since 2023-.* delete .*lock"):
        Lock(path, what="The store")
    here = {"pid": os.getpid(), "host": socket.gethostname(), "since": 1.0}
    path.write_text(json.dumps(here))  # another process had this number, long ago
    Lock(path, what="The store").release()
    path.write_text(json.dumps(here | {"pid": 2**22 + 1}))
    Lock(path, what="The store").release()
