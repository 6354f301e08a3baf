import xml.dom.minidom

import numpy as np
import pytest
import xarray as xr

from approxifer.datasets import Journal, OutputStore, open_source
from approxifer.errors import ConfigError, StoreError
from approxifer.pipeline.reporting.inspect import inspect_store


@pytest.fixture
def out(tmp_path):
    """An unfinished store of 40 rows and its journal: a torn session, then one that goes on."""
    path = tmp_path / "out.zarr"
    source = open_source(xr.DataArray(np.zeros((40, 3), np.float32), dims=("time", "x")))
    attrs = {
        "code": {"scheme": "systematic", "k": 8, "stragglers": 1},
        "model": "f" * 64,
        "version": "0.1.0",
        "input": {"metadata": "a" * 200},
    }
    with OutputStore.create(
        path, source=source, output_shape=(2,), output_dtype="f4", chunk=10, attrs=attrs
    ) as store:
        status = np.array([1] * 8 + [3, 4], np.uint8)
        store.write_window(0, 10, prediction=np.ones((10, 2), np.float32), status=status)
    with Journal(path) as journal:
        for session in ("first", "second"):
            journal.append({"event": "session", "session": session, "time": 1.7e9, "rows": 40})
            journal.append(
                {
                    "event": "group", "session": session, "group": 0, "window": 0, "kind": "coded",
                    "shares": {}, "attempts": [
                        {"share": 0, "attempt": 0, "worker": "worker-10", "fate": "used",
                         "start": 0.1, "stop": 0.2, "error": None},
                        {"share": 1, "attempt": 0, "worker": "worker-9", "fate": "dropped",
                         "start": 0.1, "stop": 0.3, "error": None},
                    ],
                }
            )  # fmt: skip
        journal.append(
            {"event": "worker", "session": "second", "time": 0.3, "worker": "worker-9",
             "what": "hung"}
        )  # fmt: skip
        journal.append({"event": "window", "session": "second", "window": 0, "time": 0.4})
    return path


def words(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_unfinished(out):
    lines = words(inspect_store(out))
    assert lines[0] == f"{out}: 40 rows, predictions float32 (2)"
    assert "code: scheme systematic, k 8, stragglers 1" in lines
    assert f"model: {'f' * 64}" in lines
    assert "pending 30 75.00" in lines
    assert "exact 8 20.00" in lines
    assert any(line.startswith("unfinished: 30 rows are pending; the command") for line in lines)
    assert any(line.startswith("first 2023-11-") for line in lines)
    assert lines.index("worker-9 0 0 2 0 0 0 1") < lines.index("worker-10 2 0 0 0 0 0 0")
    assert max(map(len, lines)) <= 200


def test_finished(out):
    with OutputStore.open(out) as store:
        store.write_window(10, 40, prediction=np.ones((30, 2), np.float32), status=1)
        store.close(counts={"exact": 38}, workers=["worker-9"])
    with Journal(out) as journal:
        journal.append(
            {"event": "close", "session": "second", "counts": {}, "evaluations": 1234,
             "wall_seconds": 4.5}
        )  # fmt: skip
    lines = words(inspect_store(out))
    assert not any("unfinished" in line for line in lines)
    assert any(
        line.startswith("second") and line.endswith("1 1 1,234 4.5 s closed") for line in lines
    )
    assert any(line.startswith("first") and line.endswith("1 0 not closed") for line in lines)


def test_timeline(out, tmp_path):
    text = inspect_store(out, timeline=tmp_path / "t.svg", session="first")
    assert "t.svg" in text.splitlines()[-1]
    assert "worker-10" in (tmp_path / "t.svg").read_text()
    with pytest.raises(ConfigError, match="no session third; it has: first, second"):
        inspect_store(out, timeline=tmp_path / "t.svg", session="third")


def test_without_a_journal(out):
    (out.parent / "out.zarr.journal.jsonl").unlink()
    assert "pending" in inspect_store(out)


def test_while_it_is_being_written(out):
    with OutputStore.open(out):
        assert "unfinished" in inspect_store(out)


def test_not_a_store(tmp_path):
    with pytest.raises(StoreError, match="is not there"):
        inspect_store(tmp_path / "none.zarr")


ODD = "\x1b]0;owned\x07\x1b[2J\nnote: all is well [/bold] $\\frac{1$ \u202e\ud800"


@pytest.fixture
def crafted(out):
    """The store with names in its journal that somebody has made to do harm."""
    with Journal(out) as journal:
        about = {"worker": ODD, "session": ODD, "host": ODD, "node": ODD, "device": ODD}
        attempt = {"worker": ODD, "fate": "used", "start": 0.1, "stop": 0.2}
        evidence = {
            "group": 0, "share": 1, "rows": 1, "of": 2, "deviation": None, "allowed": 0.1,
            "referee": ODD, "suspicion": ODD,
        }  # fmt: skip
        for event in (
            {"event": "session", "time": 1.7e9},
            {"event": "name", "index": 0, **about},
            {"event": "group", "group": 0, "kind": "coded", "shares": {}, "attempts": [attempt]},
            {"event": "worker", "worker": ODD, "what": "hung", "time": 0.1},
            {"event": "conviction", "kind": "node", "member": about, "evidence": evidence},
            {"event": "close", "counts": {ODD: 3}, "wall_seconds": 2.0},
        ):
            journal.append({"session": ODD} | event)
    return out


def test_nothing_in_a_store_commands_the_terminal(crafted):
    text = inspect_store(crafted)
    assert text.replace("\n", "").isprintable()
    assert not [line for line in text.splitlines() if line.startswith("note: all is well")]
    assert "convicted: node" in text


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_nothing_in_a_name_breaks_the_picture(crafted, tmp_path, suffix):
    picture = tmp_path / f"t{suffix}"
    inspect_store(crafted, timeline=picture, session=ODD)
    assert picture.stat().st_size > 1000
    if suffix == ".svg":
        xml.dom.minidom.parse(str(picture))


def test_a_journal_of_another_store_is_not_told_as_this_ones(out):
    with Journal(out) as journal:
        journal.append({"event": "session", "session": "third", "store": "0" * 32})
    text = inspect_store(out)
    assert "is of another store (00000000000000000000000000000000)" in text
    assert "not known who wrote its 10 rows" in text
    assert "worker-9" not in text
    journal.path.unlink()
    assert "not known who wrote its 10 rows" in inspect_store(out)
