"""The journal, also after a crash."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from approxifer.datasets import Journal
from approxifer.errors import ConfigError, StoreError


def test_events_come_back_in_order(tmp_path):
    out = tmp_path / "out.zarr"
    with Journal(f"{out}/") as journal:
        journal.append({"event": "group", "group": np.int64(3), "shares": {np.int64(1): "w1"}})
        journal.append({"rows": np.arange(3), "path": Path("a/b"), "pair": (1, None)}, fsync=True)
        journal.sync()
    assert journal.path == tmp_path / "out.zarr.journal.jsonl"
    expected = [
        {"event": "group", "group": 3, "shares": {"1": "w1"}},
        {"rows": [0, 1, 2], "path": "a/b", "pair": [1, None]},
    ]
    assert Journal.read(out) == Journal.read(journal.path) == expected
    with Journal(out) as journal:
        journal.append({"event": "resumed"})
    assert Journal.read(out)[2:] == [{"event": "resumed"}]


def test_no_journal_has_no_events(tmp_path):
    assert Journal.read(tmp_path / "out.zarr") == []


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 120), st.sampled_from([b"", b"\0\0\0", b"\0\0\n", b"\0\n\0"]))
def test_a_journal_cut_anywhere_keeps_its_whole_lines(tmp_path_factory, cut, rubbish):
    out = tmp_path_factory.mktemp("journal") / "out.zarr"
    with Journal(out) as journal:
        for number in range(5):
            journal.append({"event": "n", "number": number})
    content = journal.path.read_bytes()[:cut]
    journal.path.write_bytes(content + rubbish)
    whole = [json.loads(line) for line in content.splitlines(keepends=True) if b"\n" in line]
    assert Journal.read(out)[: len(whole)] == whole
    before = Journal.read(out)
    with Journal(out) as journal:
        journal.append({"event": "after the crash"})
    assert Journal.read(out) == [*before, {"event": "after the crash"}]


def test_a_damaged_line_in_the_middle_is_an_error(tmp_path):
    with Journal(tmp_path / "out.zarr") as journal:
        for number in range(3):
            journal.append({"number": number})
    lines = journal.path.read_bytes().splitlines()
    journal.path.write_bytes(b"\n".join([lines[0], lines[1][:5], lines[2], b""]))
    with pytest.raises(StoreError, match="Line 2 of the journal"):
        Journal.read(tmp_path / "out.zarr")


def test_threads_do_not_mix_their_lines(tmp_path):
    with Journal(tmp_path / "out.zarr") as journal:

        def write(name):
            for number in range(50):
                journal.append({"name": name, "number": number, "text": "x" * 500})

        threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    events = Journal.read(tmp_path / "out.zarr")
    assert len(events) == 200
    for name in range(4):
        assert [e["number"] for e in events if e["name"] == name] == list(range(50))


def test_what_cannot_be_written_is_refused(tmp_path):
    with Journal(tmp_path / "out.zarr") as journal:
        with pytest.raises(ConfigError, match="no form in JSON"):
            journal.append({"lock": threading.Lock()})
        journal.append({"fine": True})
    with pytest.raises(ValueError, match="closed"):
        journal.append({}, fsync=True)
    with pytest.raises(ValueError, match="closed"):
        journal.sync()
    assert Journal.read(tmp_path / "out.zarr") == [{"fine": True}]
    with pytest.raises(ConfigError, match="not a URL"):
        Journal("s3://bucket/out.zarr")
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="Cannot"):
        Journal(tmp_path / "file" / "out.zarr")
