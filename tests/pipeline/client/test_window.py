"""A window's books: what is to be repaired, and when it is whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from approxifer.pipeline.client.window import Repair, Window
from approxifer.pipeline.records import Status

NOBODY: frozenset[str] = frozenset()


def window(rows: int = 20, *, start: int = 100) -> Window:
    return Window(
        index=3,
        start=start,
        queries=np.zeros((rows, 2), np.float32),
        order=np.arange(rows),
        prediction=np.full((rows, 3), np.nan, np.float32),
    )


def due(of: Window, block: int) -> list[tuple[list[int], Status, frozenset[str]]]:
    return [(r.rows.tolist(), r.status, r.avoid) for r in of.due_repairs(block)]


def test_a_new_window_is_pending() -> None:
    new = window()
    assert (new.start, new.stop) == (100, 120)
    assert (new.status == Status.PENDING).all()
    assert (new.group == -1).all()
    assert (new.worker == -1).all()
    assert np.isnan(new.residual).all()
    assert [a.dtype for a in (new.status, new.group, new.worker, new.residual)] == [
        np.uint8,
        np.int32,
        np.int32,
        np.float32,
    ]
    assert not new.whole
    assert not new.closing
    assert due(new, 4) == []


def test_it_is_whole_once_each_row_has_its_final_status() -> None:
    new = window(6)
    padded = np.array([[1.0] * 3, [1.0] * 3, [9.0] * 3])  # its last row is no row of the window
    new.put(np.array([4, 0]), padded, status=Status.EXACT, worker=2)
    assert not new.whole
    new.put(np.array([1]), np.full((1, 3), 2.0), status=Status.DECODED)
    new.put(np.array([5, 3]), np.full((2, 3), np.nan), status=Status.FAILED)
    assert not new.whole
    new.put(np.array([2]), np.full((1, 3), 3.0), status=Status.REPAIRED, worker=0)
    assert new.whole
    assert new.status.tolist() == [1, 2, 3, 4, 1, 4]
    assert new.worker.tolist() == [2, -1, 0, -1, 2, -1]
    np.testing.assert_array_equal(new.prediction[:, 0], [1, 2, 3, np.nan, 1, np.nan])


def test_only_full_blocks_are_due_while_coded_groups_are_out() -> None:
    new = window()
    new.coded_left = 1
    new.ask_repair(np.array([5, 1, 7]), Status.REPAIRED, NOBODY)
    assert due(new, 4) == []
    new.ask_repair(np.array([2, 9]), Status.REPAIRED, NOBODY)
    assert due(new, 4) == [([5, 1, 7, 2], Status.REPAIRED, NOBODY)]
    assert due(new, 4) == []
    new.ask_repair(np.arange(10, 17), Status.REPAIRED, NOBODY)
    assert [rows for rows, *_ in due(new, 4)] == [[9, 10, 11, 12], [13, 14, 15, 16]]
    assert due(new, 4) == []


def test_the_rest_is_due_once_no_coded_group_is_out() -> None:
    new = window()
    new.coded_left = 1
    new.ask_repair(np.arange(6), Status.REPAIRED, NOBODY)
    assert [rows for rows, *_ in due(new, 4)] == [[0, 1, 2, 3]]
    new.coded_left = 0
    assert [rows for rows, *_ in due(new, 4)] == [[4, 5]]
    assert due(new, 4) == []
    assert new.repairs == []


def test_the_workers_to_avoid_are_all_that_failed_any_of_the_rows() -> None:
    new = window()
    new.coded_left = 1
    new.ask_repair(np.array([0, 1]), Status.REPAIRED, frozenset({"a"}))
    new.ask_repair(np.array([2, 3, 4]), Status.REPAIRED, frozenset({"b", "c"}))
    everyone = frozenset({"a", "b", "c"})
    assert due(new, 4) == [([0, 1, 2, 3], Status.REPAIRED, everyone)]
    new.coded_left = 0
    assert due(new, 4) == [([4], Status.REPAIRED, everyone)]


def test_rows_that_end_differently_are_not_mixed() -> None:
    """Rows with NaN are run plainly and end exact; repaired ones are distinct from them."""
    new = window()
    new.ask_repair(np.array([0, 1]), Status.EXACT, NOBODY)
    new.ask_repair(np.array([2, 3, 4]), Status.REPAIRED, frozenset({"a"}))
    new.ask_repair(np.array([5]), Status.EXACT, NOBODY)
    found = sorted(due(new, 2))
    assert found == [
        ([0, 1], Status.EXACT, NOBODY),
        ([2, 3], Status.REPAIRED, frozenset({"a"})),
        ([4], Status.REPAIRED, frozenset({"a"})),
        ([5], Status.EXACT, NOBODY),
    ]


def test_no_rows_are_no_repair() -> None:
    new = window()
    new.ask_repair(np.array([], int), Status.REPAIRED, frozenset({"a"}))
    assert new.repairs == []


@settings(derandomize=True, max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from([Status.EXACT, Status.REPAIRED]))),
    st.integers(1, 6),
)
def test_each_row_is_repaired_once(asked: list[tuple[int, Status]], block: int) -> None:
    new = window(200)
    new.coded_left = len(asked)
    first, expected, found = 0, {}, []
    for size, status in asked:
        rows = np.arange(first, first + size)
        expected |= dict.fromkeys(rows.tolist(), status)
        first += size
        new.ask_repair(rows, status, NOBODY)
        new.coded_left -= 1
        given: list[Repair] = list(new.due_repairs(block))
        if new.coded_left:
            assert all(len(repair.rows) == block for repair in given)
            assert all(len(repair.rows) < 2 * block for repair in new.repairs)
        found += [(row, repair.status) for repair in given for row in repair.rows.tolist()]
        assert all(1 <= len(repair.rows) <= block for repair in given)
    assert len(found) == len(expected)
    assert dict(found) == expected


@pytest.mark.parametrize("status", [Status.PENDING, Status.EXACT, Status.FAILED])
def test_statuses_are_the_stores_flags(status: Status) -> None:
    from approxifer.datasets.layout import FLAG_MEANINGS

    assert FLAG_MEANINGS[status] == status.name.lower()
