"""Runs without a cluster: the policies are the engine's, so what they promise holds here too."""

from __future__ import annotations

from functools import cache, partial
from math import comb

import numpy as np
import pytest
from scipy.stats import binomtest

from approxifer.benchmarks.byzantine import replay
from approxifer.benchmarks.byzantine.outcome import Outcome, Wrong
from approxifer.benchmarks.byzantine.simulation import groups_waited, simulate
from approxifer.benchmarks.recording import Recording, record
from approxifer.coding import CodeSpec
from approxifer.errors import TrustError
from approxifer.pipeline.byzantine.tolerance import Tolerance
from approxifer.pipeline.faults.corruption import (
    Corruption,
    Noise,
    NotANumber,
    Replay,
    Roll,
    ShuffleRows,
    Zeros,
)

TOLERANCE = Tolerance(1e-5, np.ones(3))
BLOCK, CHECK = 8, 3


def model(rows: np.ndarray) -> np.ndarray:
    """(n, 4, 4) to (n, 3), neither linear nor the same for two rows."""
    flat = rows.reshape(len(rows), -1)
    weights = np.cos(np.arange(48, dtype=np.float32)).reshape(16, 3)
    return np.tanh(flat @ weights / 3) + flat @ weights


@cache
def recording(groups: int = 12, k: int = 4, scheme: str = "uncoded") -> Recording:
    """Groups of K * BLOCK rows, and a last one that is smaller."""
    rows = np.random.default_rng(7).normal(size=(groups * k * BLOCK - 7, 4, 4)).astype(np.float32)
    return record("toy", rows, model, CodeSpec(scheme, k), block=BLOCK, order="none")


play = partial(simulate, tolerance=TOLERANCE, check=CHECK, seed=3, workers=7)

CORRUPTIONS = (Noise(1.0), Zeros(), Roll(), ShuffleRows(), NotANumber(), Noise(1.0, rows=0.5))


@pytest.mark.parametrize("cautious", [True, False])
@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=str)
def test_a_worker_faulty_in_every_share_is_convicted_and_nothing_of_it_is_left(
    corruption: Corruption, cautious: bool
) -> None:
    done = play(recording(), faults={"w3": corruption}, cautious=cautious)
    assert done.convicted == ["w3"]
    assert done.corrupted == {"w3"}
    assert done.wrong_rows == 0
    assert done.shares["w3"] <= (1 if corruption.rows == 1 else 3)
    assert "w3" not in done.beyond


def test_a_replayed_output_is_found_once_it_is_returned() -> None:
    """The first share of a worker that replays older ones is honest."""
    done = play(recording(), faults={"w3": Replay()}, cautious=True)
    assert (done.convicted, done.shares["w3"], done.wrong_rows) == (["w3"], 2, 0)


def test_without_faults_no_worker_is_convicted() -> None:
    done = play(recording())
    assert (done.convicted, done.wrong, done.wrong_rows, done.beyond) == ([], {}, 0, [])
    shares = [outputs.shape[1] for outputs in recording().outputs for _ in range(4)]
    assert done.checks == CHECK * len(shares), "of each share"
    assert done.evaluations == sum(shares) + done.checks
    assert sum(done.shares.values()) == len(shares)


def test_a_conviction_costs_the_shares_that_the_worker_returned_and_the_checks_it_made() -> None:
    clean = play(recording()).evaluations
    one = play(recording(), faults={"w3": Noise(1.0)}, cautious=True)
    assert one.shares["w3"] == 1
    above = one.evaluations - clean - (BLOCK + CHECK)
    assert 0 <= above <= 2 * CHECK, "checks of one group, made again"


def test_checks_fill_micro_batches_up_unless_they_wait() -> None:
    often, seldom = (play(recording(), wait=wait) for wait in (1, 12))
    assert often.evaluations == seldom.evaluations
    assert often.checks_padded > 1.5 * seldom.checks_padded >= 1.5 * seldom.checks
    rest = {one.padded - one.checks_padded for one in (often, seldom)}
    assert rest == {BLOCK * sum(often.shares.values())}


def test_queues_wait_while_the_workers_run_so_many_groups() -> None:
    assert groups_waited(8, 12) == 2
    assert groups_waited(4, 12) == 3
    assert groups_waited(12, 4) == 1


def test_without_checks_each_row_that_it_ran_is_wrong() -> None:
    done = play(recording(), check=0, faults={"w3": Noise(10.0)})
    assert done.convicted == []
    assert done.checks == 0
    assert done.wrong_rows == done.left("w3") > 0
    assert all(share.wrong == share.rows for share in done.wrong["w3"])
    assert len(done.wrong["w3"]) <= done.shares["w3"], "of a short group some are padding alone"


def test_a_worker_that_breaks_late_loses_all_that_it_wrote() -> None:
    made = replay.Replay(recording())
    spoiled = made.honest.copy()
    late = np.concatenate([made.share(g, s) for g in range(8, 12) for s in range(4)])
    spoiled[late] += 1
    done = play(recording(), faults={"w3": spoiled}, cautious=True)
    assert done.convicted == ["w3"]
    assert done.wrong_rows == 0
    clean = play(recording())
    again = (BLOCK + CHECK) * (done.shares["w3"] - 1)
    assert done.shares["w3"] > 3
    assert done.evaluations >= clean.evaluations + again, "also rows that were right"


def test_more_faulty_workers_than_there_may_be_end_the_run() -> None:
    with pytest.raises(TrustError, match="2 workers are convicted, and byzantine=1"):
        play(recording(), faults={"w3": Noise(1.0), "w4": Noise(1.0)})


def test_a_run_follows_from_its_seed() -> None:
    fault = {"w3": Noise(1.0, shares=0.2)}
    first, same, other = (play(recording(), faults=fault, seed=seed) for seed in (1, 1, 2))
    assert first == same
    assert first != other


def test_runs_of_one_seed_are_placed_alike_until_one_is_convicted() -> None:
    fault = {"w3": Noise(1.0, rows=1 / BLOCK)}
    free, checked = (play(recording(), faults=fault, check=m, cautious=True) for m in (0, CHECK))
    assert checked.convicted
    assert free.wrong["w3"][: len(checked.wrong["w3"])] == checked.wrong["w3"]


def test_a_share_is_missed_with_the_probability_of_an_unlucky_draw() -> None:
    assert Wrong(64, 1, finite=True).missed(3) == pytest.approx(62 / 64), "one is the furthest"
    assert Wrong(64, 1, finite=True).missed(1) == pytest.approx(63 / 64)
    assert Wrong(64, 63, finite=True).missed(3) == 0
    assert Wrong(2, 1, finite=True).missed(3) == 0, "all two of them are checked"
    assert Wrong(64, 1, finite=False).missed(3) == 0
    assert Wrong(8, 2, finite=True).missed(4) == pytest.approx(comb(6, 3) / comb(8, 3))


@cache
def rare_faults(check: int, seed: int, *, cautious: bool = True) -> Outcome:
    return simulate(
        recording(groups=6, k=2),
        tolerance=TOLERANCE,
        check=check,
        seed=seed,
        faults={"w0": Noise(1.0, rows=1 / BLOCK)},
        workers=4,
        cautious=cautious,
    )


@pytest.mark.parametrize("check", [1, CHECK])
def test_the_chance_to_escape_is_what_it_should_be(check: int) -> None:
    free = [rare_faults(0, seed) for seed in range(100)]
    checked = [rare_faults(check, seed) for seed in range(100)]
    caught = np.array([bool(run.convicted) for run in checked])
    expected = np.mean([run.chance("w0", check) for run in free])
    interval = binomtest(int((~caught).sum()), len(free)).proportion_ci(0.99)
    assert interval.low < expected
    if check == 1:
        assert expected < interval.high
    else:
        assert interval.high < expected / 2, "the furthest row is checked too"
    assert 0.3 < expected < 0.75, "else it would show little"
    for one, run in zip(free, checked, strict=True):
        assert run.wrong_rows == (0 if run.convicted else one.left("w0"))
    # A worker that is faulty where it checks others is convicted there too.
    escaped = np.flatnonzero(~caught & [bool(one.wrong) for one in free]).tolist()
    assert any(rare_faults(check, seed, cautious=False).convicted for seed in escaped[:20])


def test_bounds_hold_for_workers_that_escape() -> None:
    runs = [rare_faults(CHECK, seed) for seed in range(100)]
    assert sum(bool(run.beyond) for run in runs) <= 5


def test_a_replay_has_all_rows_in_order() -> None:
    coded = recording(scheme="systematic")
    made = replay.Replay(coded)
    np.testing.assert_array_equal(replay.rerun(coded, model), made.honest)
    np.testing.assert_array_equal(made.honest[made.share(4, 3)], coded.outputs[4][3])
    rows = np.array([3, 0, 300])
    np.testing.assert_array_equal(made.honest[made.plain(rows)], coded.plain[rows])
