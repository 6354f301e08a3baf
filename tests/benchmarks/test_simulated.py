"""Runs without a cluster: the policies are the engine's, so what they promise holds here too."""

from __future__ import annotations

from functools import cache, partial
from math import sqrt

import numpy as np
import pytest

from approxifer.benchmarks.recorded import Recording, record
from approxifer.benchmarks.script import Script, rerun
from approxifer.benchmarks.simulated import Outcome, simulate
from approxifer.coding import CodeSpec
from approxifer.errors import TrustError
from approxifer.pipeline.audits import AuditRule
from approxifer.pipeline.liar import Lie
from approxifer.pipeline.lies import Noise, NotANumber, Replay, Roll, ShuffleRows, Zeros
from approxifer.pipeline.tolerance import Tolerance

NOTHING = AuditRule(0.0, first=False, least=0)
TOLERANCE = Tolerance(1e-5, np.ones(3))


def model(rows: np.ndarray) -> np.ndarray:
    """(n, 4, 4) to (n, 3), neither linear nor the same for two rows."""
    flat = rows.reshape(len(rows), -1)
    weights = np.cos(np.arange(48, dtype=np.float32)).reshape(16, 3)
    return np.tanh(flat @ weights / 3) + flat @ weights


@cache
def recording(groups: int = 30, k: int = 4, block: int = 5) -> Recording:
    """Groups of K * block rows, and a last one that is smaller."""
    rows = np.random.default_rng(7).normal(size=(groups * k * block - 7, 4, 4)).astype(np.float32)
    return record("toy", rows, model, CodeSpec("systematic", k, 0, 1), block=block, order="random")


play = partial(simulate, tolerance=TOLERANCE, rule=AuditRule(0.05), seed=3, workers=9)


LIES = (Noise(1.0), Noise(1.0, rows=0.2), Zeros(), Roll(), ShuffleRows(), NotANumber(), Replay())


@pytest.mark.parametrize("lie", LIES, ids=str)
def test_who_lies_in_every_share_is_convicted_and_nothing_of_it_is_left(lie: Lie) -> None:
    done = play(recording(), faults={"w3": lie})
    assert done.convicted.keys() == {"w3"}
    assert done.convicted["w3"] <= 5, "its first share is audited, or the one before a replay"
    assert (done.wrong_rows, done.changed_rows) == (0, 0)
    assert "w3" not in done.bounds
    # For the first wrong share that was audited, or for an audit of its own (a replay).
    assert done.corrupted_audited["w3"] == done.corrupted["w3"] <= 1


def test_nobody_is_convicted_where_nobody_lies() -> None:
    done = play(recording())
    assert done.convicted == {}
    assert done.wrong_rows == 0
    assert sum(done.corrupted.values()) == 0
    assert all(bound <= 1 - 0.05 ** (1 / 3) for bound in done.bounds.values()), "three audits each"
    # Six shares for four blocks, nothing repaired; each audit runs a share again.
    coded = sum(outputs.shape[0] * outputs.shape[1] for outputs in recording().outputs)
    last = recording().outputs[-1].shape[1]
    assert coded + last * done.audits <= done.evaluations <= coded + 5 * done.audits
    assert sum(done.shares.values()) == 6 * len(recording().members)


def test_where_nobody_looks_each_row_that_it_ran_is_wrong() -> None:
    done = play(recording(), rule=NOTHING, detectors=False, faults={"w3": Noise(10.0)})
    assert done.convicted == {}
    assert done.audits == 0
    assert done.shares["w3"] == done.corrupted["w3"] > 0
    # Of six shares four carry blocks of five rows.
    assert done.wrong_rows == pytest.approx(5 * done.corrupted["w3"] * 4 / 6, rel=0.35)


def test_suspicion_finds_gross_lies_without_audits() -> None:
    done = play(recording(groups=40), rule=NOTHING, faults={"w3": Noise(100.0)})
    assert done.convicted.keys() == {"w3"}
    assert done.wrong_rows == 0


def test_a_worker_that_breaks_late_is_found_by_the_audits_at_the_end() -> None:
    """By then all its rows are written: they are taken back and run by others."""
    script = Script(recording())
    spoiled = script.honest.copy()
    late = np.concatenate([script.share(g, s) for g in range(10, 30) for s in range(6)])
    spoiled[late] += 1
    rule = AuditRule(1e-9)
    done = play(recording(), rule=rule, detectors=False, faults={"w3": spoiled})
    assert done.convicted == {"w3": len(recording().members)}
    assert done.wrong_rows == 0
    clean = play(recording(), rule=rule, detectors=False)
    assert done.evaluations > clean.evaluations + 4 * done.corrupted["w3"], "rows are run again"


def test_more_liars_than_the_code_is_made_for_end_the_run() -> None:
    with pytest.raises(TrustError, match="2 workers are convicted, and byzantine=1"):
        play(recording(), faults={"w3": Noise(1.0), "w4": Noise(1.0)})


def test_a_run_follows_from_its_seed() -> None:
    lie = {"w3": Noise(1.0, shares=0.2)}
    first, same, other = (play(recording(), faults=lie, seed=seed) for seed in (1, 1, 2))
    assert first == same
    assert first != other


def rare_lies(rate: float, seed: int, *, cautious: bool = True) -> Outcome:
    return simulate(
        recording(groups=6, k=2, block=2),
        tolerance=TOLERANCE,
        rule=AuditRule(rate, first=False, least=0),
        seed=seed,
        faults={"w0": Noise(1.0, shares=0.6)},
        workers=5,
        detectors=False,
        cautious=cautious,
    )


def test_with_audits_alone_the_chance_to_escape_is_what_it_should_be() -> None:
    rate, runs = 0.3, 200
    corrupted = np.array([rare_lies(0.0, seed).corrupted["w0"] for seed in range(runs)])
    caught = np.array([bool(rare_lies(rate, seed).convicted) for seed in range(runs)])
    chances = (1 - rate) ** corrupted
    deviation = sqrt((chances * (1 - chances)).sum())
    assert abs((~caught).sum() - chances.sum()) < 3 * deviation
    assert 0.3 < chances.mean() < 0.7, "else it would tell little"
    assert not caught[corrupted == 0].any()
    # Who lies where it audits others is also found out there.
    escaped = np.flatnonzero(~caught).tolist()
    assert any(rare_lies(rate, seed, cautious=False).convicted for seed in escaped[:20])


def test_a_script_has_all_rows_in_order() -> None:
    script = Script(recording())
    np.testing.assert_array_equal(rerun(recording(), model), script.honest)
    np.testing.assert_array_equal(script.honest[script.share(4, 5)], recording().outputs[4][5])
    rows = np.array([3, 0, 500])
    np.testing.assert_array_equal(script.honest[script.plain(rows)], recording().plain[rows])
