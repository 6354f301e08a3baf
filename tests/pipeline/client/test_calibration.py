"""The decoded rows that are kept: the calibration meets its target, and is reported as measured."""

from __future__ import annotations

import numpy as np
import pytest

from approxifer.pipeline.client.calibration import (
    CHECK,
    Calibration,
    DisagreementEstimate,
    SelectiveRepair,
)
from approxifer.pipeline.records import Status


def drawn(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that disagree the oftener the less sure they are: 20 % of all."""
    confidence = rng.random(n)
    return confidence, rng.random(n) < 0.4 * (1 - confidence)


@pytest.mark.parametrize("allowed", [0.01, 0.045, 0.1])
def test_what_is_kept_of_other_rows_disagrees_no_more_than_allowed(allowed: float) -> None:
    rng, found, kept = np.random.default_rng(0), [], []
    for _ in range(200):
        calibration = Calibration()
        calibration.add(*drawn(rng, int(9 / allowed)))
        threshold, expected = calibration.threshold(allowed)
        assert expected <= allowed
        confidence, wrong = drawn(rng, 2000)
        found.append((wrong & (confidence >= threshold)).mean())
        kept.append((confidence >= threshold).mean())
    assert np.mean(found) <= allowed
    assert np.mean(np.array(found) <= allowed) > 0.7, "it mostly holds for one run, too"
    assert np.mean(found) > 0.4 * allowed, "and no more than that is run again"
    assert 0 < np.mean(kept) < 1


def test_the_more_is_allowed_the_more_is_kept() -> None:
    calibration = Calibration()
    calibration.add(*drawn(np.random.default_rng(0), 300))
    allowed = np.linspace(0, 0.5, 60)
    thresholds, expected = zip(*map(calibration.threshold, allowed), strict=True)
    assert thresholds[0] == np.inf
    assert thresholds[-1] == -np.inf
    assert (np.diff(thresholds[1:-1]) <= 0).all() if np.isfinite(thresholds[1:-1]).all() else True
    assert list(thresholds) == sorted(thresholds, reverse=True)
    assert all(one <= limit for one, limit in zip(expected, allowed, strict=True))


def test_nothing_is_kept_before_enough_is_known() -> None:
    calibration = Calibration()
    assert calibration.threshold(0.05) == (np.inf, 0.0)
    calibration.add(np.ones(15), np.zeros(15, bool))
    assert calibration.threshold(0.05) == (np.inf, 0.0)
    calibration.add(np.ones(5), np.zeros(5, bool))
    assert calibration.threshold(0.05)[0] < np.inf


def test_rows_that_are_equally_sure_are_kept_or_not_together() -> None:
    calibration = Calibration()
    wrong = np.zeros(100, bool)
    wrong[50:] = True  # all of one confidence, the wrong ones last
    calibration.add(np.ones(100), wrong)
    assert calibration.threshold(0.1)[0] == np.inf


class Run:
    """Windows whose decoded rows disagree the oftener the less sure they are."""

    def __init__(self, seed: int, agreement: float = 0.99) -> None:
        self.rng = np.random.default_rng(seed)
        self.doubts = SelectiveRepair(agreement, np.random.default_rng(seed + 1))
        self.differ = self.rows = 0

    def window(self, index: int, rows: int = 4000, decoded: int = 1000) -> np.ndarray:
        """Whether each decoded row was kept."""
        confidence, wrong = drawn(self.rng, decoded)
        where = self.rng.permutation(rows)[:decoded]
        status = np.full(rows, Status.EXACT, np.uint8)
        status[where] = Status.PENDING
        truth = self.rng.integers(3, size=rows)
        classes = np.where(wrong, (truth[where] + 1) % 3, truth[where])
        prediction = np.eye(3)[truth]
        prediction[where] = np.eye(3)[classes]
        for part in np.array_split(np.arange(decoded), 7):
            self.doubts.wait(index, where[part], classes[part], confidence[part])
        for _ in range(3):
            keep, repair = self.doubts.look(index, status, prediction.argmax(axis=1))
            assert (status[keep] == Status.PENDING).all()
            status[keep] = Status.DECODED
            status[repair] = Status.REPAIRED
            prediction[repair] = np.eye(3)[truth[repair]]
        assert (status != Status.PENDING).all()
        self.rows += rows
        self.differ += int((prediction.argmax(axis=1) != truth).sum())
        kept: np.ndarray = status[where] == Status.DECODED
        return kept


def test_over_all_rows_the_target_is_kept_and_the_interval_holds_the_truth() -> None:
    differ, held, kept = [], [], []
    for seed in range(40):
        run = Run(seed)
        kept += [run.window(index).mean() for index in range(4)][1:]
        found = run.doubts.found
        assert found.rows == run.rows
        assert found.stated <= 0.01
        differ.append(run.differ / run.rows)
        measured = found.measured()
        assert measured is not None
        held.append(measured[1] <= differ[-1] <= measured[2])
    assert 0.003 < np.mean(differ) <= 0.01
    assert np.mean(held) > 0.9
    assert 0.1 < np.mean(kept) < 0.9


def test_rows_to_learn_from_are_drawn_once_and_a_few_are_always_checked() -> None:
    run = Run(0)
    run.window(0)
    assert run.doubts.found.learnt == 225  # 9 disagreements at 1 % of 4,000 among 1,000
    run.window(1)
    assert run.doubts.found.learnt == 225
    kept, checked = run.doubts.found.kept, run.doubts.found.checked
    assert checked == pytest.approx(CHECK / (1 - CHECK) * kept, abs=30)


def test_a_window_waits_for_the_rows_to_learn_from() -> None:
    doubts = SelectiveRepair(0.9, np.random.default_rng(0))
    status, prediction = np.zeros(1000, np.uint8), np.eye(2)[np.zeros(1000, int)]
    doubts.wait(0, np.arange(1000), np.zeros(1000, int), np.ones(1000))
    keep, repair = doubts.look(0, status, prediction.argmax(axis=1))
    assert len(keep) == 0
    assert len(repair) == pytest.approx(90 + 0.05 * 910, abs=25)
    assert [len(part) for part in doubts.look(0, status, prediction.argmax(axis=1))] == [0, 0]
    status[repair] = Status.REPAIRED
    keep, more = doubts.look(0, status, prediction.argmax(axis=1))
    assert sorted([*keep, *repair]) == list(range(1000))
    assert len(more) == 0


def test_rows_that_failed_teach_nothing() -> None:
    doubts = SelectiveRepair(0.9, np.random.default_rng(0))
    status, prediction = np.zeros(100, np.uint8), np.eye(2)[np.zeros(100, int)]
    doubts.wait(0, np.arange(100), np.zeros(100, int), np.ones(100))
    _, repair = doubts.look(0, status, prediction.argmax(axis=1))
    status[repair] = Status.FAILED
    keep, more = doubts.look(0, status, prediction.argmax(axis=1))
    assert len(keep) == 0
    assert len(more) == 100 - len(repair)
    assert doubts.found.checked == 0


def test_what_is_said() -> None:
    found = DisagreementEstimate(0.005, rows=8000, kept=600, learnt=200, expected=32.0)
    assert found.measured() is None
    assert "none was checked" in str(found)
    found.checked, found.wrong = 30, 1
    value, low, high = found.measured() or (0, 0, 0)
    assert value == pytest.approx(600 / 8000 / 30)
    assert (low, high) == pytest.approx(
        (0.075 * 0.000844, 0.075 * 0.17217), rel=1e-3
    )  # R: binom.test
    assert "at most 0.5 %" in str(found)
    assert "0.4 % were expected" in str(found)
    assert found.attrs()["expected"] == 0.004
