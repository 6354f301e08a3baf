"""Who is right when two runs of a share differ."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from approxifer.pipeline.referee import REFEREE_ROWS, ClientReferee, Fault, against, agreement
from approxifer.pipeline.tolerance import Tolerance


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def tolerance() -> Tolerance:
    return Tolerance(1e-3, np.ones(()))


def test_a_fault_counts_the_wrong_rows() -> None:
    right = np.ones((6, 2))
    found = right.copy()
    assert against(tolerance(), found, right) is None
    found[[1, 4], 1] += 0.25, -0.5
    assert against(tolerance(), found, right) == Fault(2, 6, 0.5, 1e-3)
    found[2, 0] = np.nan
    fault = against(tolerance(), found, right)
    assert fault is not None
    assert (fault.rows, fault.deviation) == (3, np.inf)


# ---- the client ----------------------------------------------------------------------------------


class Client:
    """Notes what it is asked to run."""

    def __init__(self) -> None:
        self.ran: list[np.ndarray] = []

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        self.ran.append(rows)
        return 2 * rows


def judge(
    rows: np.ndarray, outputs: dict[str, np.ndarray], disputed: np.ndarray, seed: int = 0
) -> tuple[dict[str, Fault], np.ndarray]:
    client = Client()
    liars = ClientReferee(client, tolerance(), rng(seed)).liars(rows, outputs, disputed)
    (ran,) = client.ran
    return liars, ran


@pytest.mark.parametrize("wrong", [1, 5, REFEREE_ROWS, REFEREE_ROWS + 1, 100])
def test_the_client_runs_disputed_rows_only_and_a_few_of_them(wrong: int) -> None:
    rows = np.arange(200.0).reshape(100, 2)
    for seed in range(5):
        lied = np.zeros(100, bool)
        lied[rng(seed).permutation(100)[:wrong]] = True
        lie = np.where(lied[:, None], -1.0, 2 * rows)
        liars, ran = judge(rows, {"honest": 2 * rows, "liar": lie}, lied, seed)
        assert len(ran) == min(wrong, REFEREE_ROWS)
        places = (ran[:, 0] / 2).astype(int)
        assert len(set(places)) == len(places)
        assert lied[places].all()
        assert set(liars) == {"liar"}
        assert (liars["liar"].rows, liars["liar"].of) == (len(ran), len(ran))


def test_which_rows_are_run_cannot_be_told_beforehand() -> None:
    rows = np.arange(200.0).reshape(100, 2)
    everything = np.ones(100, bool)
    outputs = {"a": 2 * rows, "b": 3 * rows + 1}
    ran = np.concatenate([judge(rows, outputs, everything, seed)[1][:, 0] for seed in range(200)])
    counts = np.bincount((ran / 2).astype(int), minlength=100)
    expected = 200 * REFEREE_ROWS / 100
    assert counts.sum() == 200 * REFEREE_ROWS
    assert float(((counts - expected) ** 2 / expected).sum()) < 99 + 5 * np.sqrt(2 * 99)


def test_both_may_lie_and_the_honest_one_never_does() -> None:
    rows = np.ones((8, 2))
    true, one, other = 2 * rows, 3 * rows, 4 * rows
    everything = np.ones(8, bool)
    assert set(judge(rows, {"a": one, "b": other}, everything)[0]) == {"a", "b"}
    assert set(judge(rows, {"a": true, "b": other}, everything)[0]) == {"b"}
    assert set(judge(rows, {"a": one, "b": true}, everything)[0]) == {"a"}
    # Off by less than the tolerance, each in another direction: more than one of it apart.
    near = {"a": true * (1 + 0.9e-3), "b": true * (1 - 0.9e-3)}
    assert judge(rows, near, everything)[0] == {}


def test_two_lies_in_other_rows_are_both_seen() -> None:
    rows = np.ones((8, 2))
    a, b = 2 * rows, 2 * rows
    a[1], b[6] = 7.0, np.nan
    disputed = (a != b).any(axis=1)
    liars, ran = judge(rows, {"a": a, "b": b}, disputed)
    assert len(ran) == 2
    assert liars == {"a": Fault(1, 2, 5.0, 2e-3), "b": Fault(1, 2, np.inf, 2e-3)}


# ---- a quorum ------------------------------------------------------------------------------------

TRUE = np.linspace(1, 2, 12).reshape(4, 3)


@pytest.mark.parametrize("byzantine", [1, 2, 3])
def test_honest_workers_outvote_colluders(byzantine: int) -> None:
    """E liars with one lie, E + 1 honest ones that round in their own ways; wherever they stand."""
    lie = -TRUE
    for seed in range(20):
        draw = rng(seed)
        honest = [TRUE + draw.uniform(-0.9e-3, 0.9e-3, TRUE.shape) for _ in range(byzantine + 1)]
        outputs = [*honest, *[lie] * byzantine]
        order = draw.permutation(len(outputs))
        found = agreement([outputs[i] for i in order], byzantine + 1, tolerance())
        assert found is not None
        center, members = found
        assert center in members
        assert {int(order[i]) for i in members} == set(range(byzantine + 1))


@pytest.mark.parametrize("byzantine", [1, 2, 3])
def test_fewer_than_needed_are_no_quorum(byzantine: int) -> None:
    lies = [np.full_like(TRUE, 10.0 * i) for i in range(1, 4)]
    for outputs in ([TRUE] * byzantine, [-TRUE] * byzantine, [TRUE] * byzantine + lies, []):
        assert agreement(outputs, byzantine + 1, tolerance()) is None


def test_colluders_as_many_as_needed_win_and_are_beyond_the_promise() -> None:
    for order in permutations([TRUE, -TRUE, -TRUE]):
        found = agreement(order, 2, tolerance())
        assert found is not None
        assert all((order[i] == -TRUE).all() for i in found[1])


def test_what_is_not_finite_agrees_with_itself() -> None:
    holes = TRUE.copy()
    holes[2, 1], holes[3, 0] = np.nan, np.inf
    assert agreement([holes, TRUE, holes], 2, tolerance()) == (0, frozenset({0, 2}))
    assert agreement([TRUE, holes, TRUE], 2, tolerance()) == (0, frozenset({0, 2}))


def test_one_wrong_row_is_enough_to_disagree() -> None:
    lie = TRUE.copy()
    lie[3, 2] += 0.01
    assert agreement([lie, TRUE, TRUE], 2, tolerance()) == (1, frozenset({1, 2}))


def test_with_a_coarse_tolerance_a_huge_lie_is_no_center() -> None:
    coarse = Tolerance(0.5, np.ones(3))
    found = agreement([np.full_like(TRUE, 1e30), TRUE, TRUE], 2, coarse)
    assert found is not None
    assert found[1] == {1, 2}
