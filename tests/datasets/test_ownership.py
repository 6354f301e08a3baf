"""Journals and the stores that they belong to."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import zarr

from approxifer.datasets import Journal, OutputStore
from approxifer.datasets.layout import UUID
from approxifer.datasets.ownership import claim_journal, own_events
from approxifer.errors import StoreError


def session(store, name="s"):
    with Journal(store.path) as journal:
        journal.append({"event": "session", "session": name, "store": store.uuid})
        journal.append({"event": "name", "session": name, "index": 0, "worker": f"of {name}"})


def write(store):
    store.write_window(0, 8, prediction=np.ones((8, 5)), status=1, worker=0, group=3)


def test_a_journal_is_gone_on_with(make_store):
    store = make_store()
    assert claim_journal(store) == ([], [])
    session(store)
    write(store)
    events, notes = claim_journal(store)
    assert ([e["event"] for e in events], notes) == (["session", "name"], [])
    assert (store.read_window(0, 8)["worker"] == 0).all()


def test_the_journal_of_a_deleted_store_is_set_aside(make_store, tmp_path):
    first = make_store()
    session(first, "first")
    first.release()
    shutil.rmtree(first.path)
    store = make_store()
    assert store.uuid != first.uuid
    assert own_events(store)[0] == []
    events, notes = claim_journal(store)
    assert events == []
    assert "was set aside" in notes[0]
    aside = tmp_path / f"out.zarr.journal.jsonl.of-{first.uuid}"
    assert aside.read_text().count("of first") == 1
    assert Journal.read(store.path) == []
    session(store)
    assert len(claim_journal(store)[0]) == 2


@pytest.mark.parametrize("named", ["../../escape", None, "\x1b[2J"])
def test_an_odd_name_is_no_path(make_store, tmp_path, named):
    store = make_store()
    with Journal(store.path) as journal:
        journal.append({"event": "session", "session": "s", "store": named})
    assert claim_journal(store)[0] == []
    assert (tmp_path / "out.zarr.journal.jsonl.of-unknown").exists()
    with Journal(store.path) as journal:
        journal.append({"event": "session", "session": "s", "store": named})
    claim_journal(store)
    assert (tmp_path / "out.zarr.journal.jsonl.of-unknown-2").exists()


def test_a_store_whose_journal_is_gone_names_nobody(make_store):
    store = make_store()
    session(store)
    write(store)
    Journal(store.path).path.unlink()
    assert "not known who wrote its 8 rows" in own_events(store)[1][0]
    events, notes = claim_journal(store)
    assert events == []
    assert "not known who wrote its 8 rows" in notes[0]
    now = store.read_window(0, 8)
    assert (now["worker"] == -1).all()
    assert (now["group"] == -1).all()
    assert (now["status"] == 1).all()
    assert [e["event"] for e in Journal.read(store.path)] == ["orphaned"]


def test_sessions_of_several_stores_are_refused(make_store):
    store = make_store()
    session(store)
    with Journal(store.path) as journal:
        journal.append({"event": "session", "session": "x", "store": "0" * 32})
    with pytest.raises(StoreError, match=r"of this store .* and of others"):
        claim_journal(store)


@pytest.mark.parametrize("killed", [False, True])
def test_a_store_begun_before_there_were_uuids_is_given_one(make_store, monkeypatch, killed):
    path = make_store().path
    group = zarr.open_group(str(path), mode="r+", use_consolidated=True)
    attrs = {k: v for k, v in group.attrs.items() if k != UUID}
    group.attrs.put(attrs)
    assert OutputStore.open(path, write=False).uuid is None
    with Journal(path) as journal:
        journal.append({"event": "session", "session": "old"})
    with monkeypatch.context() as patch:
        if killed:
            patch.setattr(OutputStore, "name_itself", lambda self, uuid: 1 / 0)
        reopened = _reopen(path)
        if killed:
            with pytest.raises(ZeroDivisionError):
                claim_journal(reopened)
            reopened.release()
    if killed:
        reopened = _reopen(path)
    events, notes = claim_journal(reopened)
    assert events[0]["session"] == "old"
    assert notes == []
    assert OutputStore.open(path, write=False).uuid == reopened.uuid == _adopted(path)
    reopened.release()


def _reopen(path):
    lock = path.with_name(path.name + ".lock")
    lock.unlink(missing_ok=True)  # of the fixture
    return OutputStore.open(path)


def _adopted(path):
    (found,) = {e["store"] for e in Journal.read(path) if e["event"] == "adopted"}
    return found


# ---- events --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"event": "conviction"}, "conviction: kind: Field required"),
        ({"event": "group", "attempts": 3}, "group: "),
        ({"event": "name", "index": 0, "worker": "again"}, "member 0, and 1 is the next"),
        ({"event": "name", "index": 2, "worker": "gap"}, "member 2, and 1 is the next"),
        ({"event": "group", "group": 0, "members": {"0": 5}}, "member 5 was not named"),
        ({"event": ["session"]}, "no text"),
        ({"event": "close", "wall_seconds": "\x1b[2J"}, "close: wall_seconds"),
        ({"event": "session", "session": "s", "time": 1e300}, "session: time"),
    ],
)
def test_a_crafted_event_is_a_clear_error(make_store, event, message):
    store = make_store()
    session(store)
    with Journal(store.path) as journal:
        journal.append(event)
    with pytest.raises(StoreError, match="Line 3 of the journal") as caught:
        own_events(store)
    assert message in str(caught.value)


def test_unknown_events_and_fields_pass(make_store):
    store = make_store()
    session(store)
    with Journal(store.path) as journal:
        journal.append({"event": "of a later version", "attempts": 3})
        journal.append({"event": "window", "window": 0, "more": {}})
    assert len(own_events(store)[0]) == 4
