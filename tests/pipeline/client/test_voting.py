"""Groups with Byzantine workers, without a cluster: their completion, placement and votes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from approxifer.coding import Code, CodeSpec
from approxifer.pipeline.client.window import Window
from approxifer.pipeline.records import Status
from approxifer.pipeline.scheduler.policy import (
    COMPLETE,
    WAIT,
    AttemptState,
    GroupState,
    Policy,
    decide,
)


def build(scheme: str = "systematic", k: int = 4, stragglers: int = 0, byzantine: int = 1) -> Code:
    return CodeSpec(scheme=scheme, k=k, stragglers=stragglers, byzantine=byzantine).build()


# ---- policy: when a group is complete ------------------------------------------------------------


class Idle:
    """A worker with nothing to do."""

    queued = 0

    def stuck(self, now: float, limit: float) -> bool:
        return False


def ask(code: Code, back: set[int], *, patience: float = 1.0) -> Any:
    group = GroupState(0, code, rows=8, priority=0)
    for share in range(code.n):
        group.attempts.append(
            AttemptState(share, 0, f"a{share}", f"w{share}", 0.0, start=0.0, returned=share in back)
        )
    workers = {f"a{share}": Idle() for share in range(code.n)}
    return decide(group, 0.5, policy=Policy(patience=patience), typical=1.0, workers=workers)


@pytest.mark.parametrize("patience", [0.0, 1.0])
@pytest.mark.parametrize(("stragglers", "byzantine"), [(0, 1), (1, 1), (2, 2)])
def test_the_queries_alone_do_not_complete_a_group(
    stragglers: int, byzantine: int, patience: float
) -> None:
    """K exact outputs are there, but nobody can decide whether one of them is wrong."""
    code = build("systematic", 4, stragglers, byzantine)
    queries = {share for share in range(code.n) if code.carries[share] is not None}
    parities = sorted(set(range(code.n)) - queries)
    assert (len(queries), code.n) == (4, 4 + stragglers + 2 * byzantine)
    for more in range(2 * byzantine):
        assert ask(code, queries | set(parities[:more]), patience=patience) == WAIT
    assert ask(code, queries | set(parities[: 2 * byzantine]), patience=patience) == COMPLETE


def test_a_query_that_is_still_out_is_waited_for() -> None:
    code = build("systematic", 4, 1, 1)
    missing = next(share for share in range(code.n) if code.carries[share] is not None)
    enough = set(range(code.n)) - {missing}
    assert ask(code, enough) == WAIT
    assert ask(code, enough, patience=0.0) == COMPLETE


def test_each_query_needs_a_majority_of_its_copies() -> None:
    code = build("replication", 2, 1, 1)  # four copies of each
    for back in ({0, 1}, {0, 2, 1, 3}, {0, 2, 4, 1, 3}):
        assert ask(code, back) == WAIT
    assert ask(code, {0, 2, 4, 1, 3, 5}) == COMPLETE


# ---- windows -------------------------------------------------------------------------------------


def a_window(rows: int = 8, index: int = 0) -> Window:
    queries = np.arange(index * rows, (index + 1) * rows, dtype=np.float32)[:, None] + 1
    return Window(
        index, index * rows, queries, np.arange(rows), np.full((rows, 1), np.nan, np.float32)
    )


def test_a_window_is_not_whole_while_a_check_is_under_way() -> None:
    window = a_window()
    window.put(np.arange(8), np.ones((8, 1)), status=Status.EXACT, worker=0)
    window.checks = 2
    assert not window.whole
    window.checks = 0
    assert window.whole


def test_rows_taken_back_are_pending_and_run_again() -> None:
    window = a_window()
    window.put(np.arange(8), np.ones((8, 1)), status=Status.EXACT, worker=0)
    window.take_back(np.isin(np.arange(8), [2, 5, 6]))
    assert np.flatnonzero(window.status == Status.PENDING).tolist() == [2, 5, 6]
    (repair,) = window.due_repairs(4)
    assert (repair.rows.tolist(), repair.status, repair.avoid) == ([2, 5, 6], 3, frozenset())


def test_a_window_reopened_runs_its_pending_rows_and_keeps_the_others() -> None:
    before = {
        "prediction": np.arange(8, dtype=np.float32)[:, None],
        "status": np.array([1, 0, 3, 4, 0, 2, 1, 0], np.uint8),
        "group": np.full(8, 7, np.int32),
        "worker": np.arange(8, dtype=np.int32),
        "residual": np.full(8, 0.5, np.float32),
    }
    kept = {name: values.copy() for name, values in before.items()}
    window = Window.reopened(3, 24, np.zeros((8, 1), np.float32), before)
    assert (window.index, window.start, window.stop, window.coded_left) == (3, 24, 32, 0)
    for name, values in kept.items():
        np.testing.assert_array_equal(getattr(window, name), values)
    rows = [repair.rows.tolist() for repair in window.due_repairs(2)]
    assert rows == [[1, 4], [7]]
    window.put(np.array([1]), np.full((1, 1), 9.0), status=Status.REPAIRED, worker=0)
    for name, values in kept.items():  # what was read is not written to
        np.testing.assert_array_equal(before[name], values)
