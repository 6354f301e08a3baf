"""The rows that a convicted worker touched, taken back in a store on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from approxifer.datasets import Journal, OutputStore, open_source
from approxifer.pipeline.byzantine.membership import Conviction, Evidence, Membership
from approxifer.pipeline.byzantine.taint import standing, sweep, tainted_groups, touched
from approxifer.pipeline.records import Status

PENDING, EXACT, DECODED, REPAIRED, FAILED = Status
EVIDENCE = Evidence(0, 0, 1, 1, 1.0, 0.1, "client", "random")
#: Three windows of eight rows, in chunks of four.
SPANS = [(0, 0, 8), (1, 8, 16), (2, 16, 24)]


def rows_of(found: np.ndarray) -> list[int]:
    return [int(row) for row in np.flatnonzero(found)]


def coded(group: int, *names: str, session: str = "s2", **fields: Any) -> dict[str, Any]:
    shares = {str(share): name for share, name in enumerate(names)}
    return {"event": "group", "session": session, "group": group, "kind": "coded"} | {
        "shares": shares
    } | fields  # fmt: skip


def membership(*names: str, past: Any = ()) -> Membership:
    """Members of a session in which these workers contributed, in this order."""
    made = Membership("s2", past)
    for number, name in enumerate(names):
        made.joined(number, name, host="n1", node="", device="cpu", hardware="any")
        made.index(number)
    return made


def convict(made: Membership, name: str) -> Conviction:
    """Convict the last member of that name."""
    index = max(i for i, member in enumerate(made.members) if member.name == name)
    conviction = made.convict(index, EVIDENCE)
    assert conviction is not None
    return conviction


# ---- rows ----------------------------------------------------------------------------------------


def test_rows_are_touched_that_a_convicted_worker_computed_or_helped_to_decode() -> None:
    status = np.array([EXACT, EXACT, REPAIRED, DECODED, DECODED, EXACT, PENDING, FAILED, DECODED])
    worker = np.array([3, 1, 3, -1, -1, 1, 3, -1, -1])
    group = np.array([5, 5, 5, 5, 6, 5, 5, 5, -1])
    found = touched(status, worker, group, convicted={3}, groups={5})
    assert rows_of(found) == [0, 2, 3]
    assert rows_of(touched(status, worker, group, convicted={3, 1}, groups={6})) == [0, 1, 2, 4, 5]
    assert rows_of(touched(status, worker, group, convicted={1}, groups={5, 6})) == [1, 3, 4, 5]


def test_without_a_conviction_nothing_is_touched() -> None:
    status, worker = np.array([EXACT, DECODED]), np.array([-1, -1])
    found = touched(status, worker, worker, convicted=(), groups=())
    assert found.dtype == bool
    assert not found.any()


# ---- groups --------------------------------------------------------------------------------------


def test_groups_are_tainted_to_which_a_convicted_worker_contributed() -> None:
    made = membership("a", "b", "bad")
    convict(made, "bad")
    events = [
        coded(0, "a", "b"),
        coded(1, "a", "bad"),
        coded(2, "a", "bad", kind="repair"),
        coded(3, "bad", "b", kind="audit"),
        {"event": "worker", "worker": "bad"},
        coded(4, "b"),
        coded(5, "bad"),
    ]
    assert tainted_groups(events, made) == {1, 5}
    assert tainted_groups([], made) == frozenset()


def test_a_group_counts_as_it_was_run_last() -> None:
    """Run by one session, not written before it was killed, and run again by the next."""
    past = [{"event": "name", "session": "s1", "worker": name, "host": "n1", "device": "cpu"}
            for name in ("a", "bad")]  # fmt: skip
    made = membership("a", "bad", past=past)
    convict(made, "bad")
    honest, mixed = coded(7, "a"), coded(7, "a", "bad")
    assert tainted_groups([honest, mixed], made) == {7}
    assert tainted_groups([mixed, honest], made) == frozenset()
    # In the session before, on one host, a worker of that name was another one.
    assert tainted_groups([coded(7, "bad", session="s1")], made) == frozenset()
    assert tainted_groups([mixed, coded(7, "bad", session="s1")], made) == frozenset()


def test_a_group_is_tainted_by_its_members_and_not_by_their_names() -> None:
    """The convicted name came back as another process."""
    made = membership("a", "bad")
    members = {"0": 0, "1": 1}
    made.joined(7, "bad", host="n9", node="", device="cpu", hardware="any")
    made.index(7)
    made.convict(0, EVIDENCE)
    events = [coded(0, "a", "bad", members=members), coded(1, "a", "bad", members={"0": 2})]
    assert tainted_groups(events, made) == {0}


def test_of_some_rows_those_stand_that_a_member_wrote_or_that_its_group_was_decoded_for() -> None:
    window = {
        "status": np.array([EXACT, REPAIRED, EXACT, DECODED, DECODED, PENDING]),
        "worker": np.array([3, 3, 1, -1, -1, 3]),
        "group": np.array([5, 5, 5, 5, 6, 5]),
    }
    found = standing(window, 100, range(101, 106), member=3, group=5)
    assert rows_of(found) == [1, 3]


# ---- the store -----------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OutputStore]:
    source = open_source(xr.DataArray(np.zeros((24, 3), np.float32), dims=("sample", "x")))
    with OutputStore.create(
        tmp_path / "out.zarr",
        source=source,
        output_shape=(2,),
        output_dtype="float32",
        chunk=4,
        attrs={"code": {}, "layout": {}, "model": "m", "input": "i"},
    ) as made:
        yield made


def write(store: OutputStore, span: tuple[int, int, int], **fields: Any) -> dict[str, Any]:
    """A window: by default its rows are exact, and computed by worker 0 and 1 in turn."""
    _, start, stop = span
    given = {
        "prediction": np.arange(2.0 * start, 2.0 * stop, dtype=np.float32).reshape(-1, 2),
        "status": np.full(stop - start, EXACT),
        "group": np.full(stop - start, start // 8),
        "worker": np.arange(start, stop) % 2,
        "residual": np.full(stop - start, 0.5),
    } | fields
    store.write_window(start, stop, **given)
    return given


def everything(store: OutputStore) -> dict[str, np.ndarray]:
    return store.read_window(0, 24)


def test_the_rows_of_a_convicted_worker_are_set_to_pending_and_no_others(
    store: OutputStore,
) -> None:
    write(store, SPANS[0], worker=np.zeros(8, int))
    write(store, SPANS[1])
    before = everything(store)
    made = membership("honest", "bad")
    convict(made, "bad")
    found = sweep(store, SPANS, made)
    after = everything(store)
    assert rows_of(before["status"] != after["status"]) == [9, 11, 13, 15]
    assert (after["status"][[9, 11, 13, 15]] == PENDING).all()
    for name in ("prediction", "group", "worker", "residual"):
        np.testing.assert_array_equal(before[name], after[name])
    assert list(found) == [1]
    assert found[1].tolist() == [EXACT] * 4


def test_a_second_sweep_finds_nothing(store: OutputStore) -> None:
    write(store, SPANS[0])
    made = membership("honest", "bad")
    assert sweep(store, SPANS, made) == {}
    convict(made, "bad")
    assert list(sweep(store, SPANS, made)) == [0]
    before = everything(store)
    assert sweep(store, SPANS, made) == {}
    np.testing.assert_array_equal(everything(store)["status"], before["status"])


def test_rows_decoded_with_a_convicted_workers_help_are_taken_back(store: OutputStore) -> None:
    status = np.array([EXACT, DECODED, DECODED, REPAIRED, EXACT, DECODED, EXACT, FAILED])
    worker = np.array([0, -1, -1, 0, 1, -1, 0, -1])
    group = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    write(store, SPANS[0], status=status, worker=worker, group=group)
    write(store, SPANS[2], status=DECODED, worker=-1, group=2)
    with Journal(store.path) as journal:
        journal.append(coded(0, "honest", "bad"))
        journal.append(coded(1, "honest"))
        journal.append(coded(2, "honest", "bad", session="s1"))  # that run was killed
        journal.append(coded(2, "honest"))
    made = membership("honest", "bad")
    convict(made, "bad")
    found = sweep(store, SPANS, made)
    assert rows_of(store.status()[:8] == PENDING) == [1, 2, 4]
    assert (store.status()[16:] == DECODED).all()
    assert {index: sorted(statuses.tolist()) for index, statuses in found.items()} == {
        0: [EXACT, DECODED, DECODED]
    }


def test_what_was_made_good_is_not_taken_back_again(store: OutputStore) -> None:
    """The next session sweeps before it begins; the convictions are those of the journal."""
    write(store, SPANS[0])
    made = membership("honest", "bad")
    conviction = convict(made, "bad")
    past: list[dict[str, Any]] = [
        {"event": "name", "session": "s2", "worker": name, "host": "n1", "device": "cpu"}
        for name in ("honest", "bad")
    ]
    past.append({"event": "conviction", "session": "s2"} | conviction.event())
    later = Membership("s3", past)  # the session that convicted was killed before its own sweep
    assert list(sweep(store, SPANS, later)) == [0]
    later.joined(0, "bad", host="n1", node="", device="cpu", hardware="any")  # another process
    again = np.where(store.status()[:8] == PENDING, later.index(0), 0)
    write(store, SPANS[0], worker=again, status=np.where(again, REPAIRED, EXACT))
    assert sweep(store, SPANS, later) == {}
    assert sweep(store, SPANS, Membership("s4", past)) == {}
