"""The curve of ``repair=0.995`` on a small recording, and the runs beside it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from approxifer.benchmarks.recording import record
from approxifer.benchmarks.selective_repair import (
    Decodes,
    curve,
    decode_all,
    describe,
    draw,
    play,
    run,
    runs,
)
from approxifer.coding import CodeSpec
from approxifer.errors import ConfigError

#: Centres of ten classes.
CENTRES = 3 * np.random.default_rng(1).normal(size=(10, 16))


def logits(rows: np.ndarray) -> np.ndarray:
    """(M, 16) to (M, 10): the higher the nearer."""
    return -np.sqrt(np.square(rows[:, None] - CENTRES).sum(axis=2)).astype(np.float32)


@pytest.fixture(scope="module", params=["systematic", "berrut"])
def of(request: pytest.FixtureRequest) -> Decodes:
    rng = np.random.default_rng(0)
    rows = CENTRES[rng.integers(10, size=1600)] + 3 * rng.normal(size=(1600, 16))
    spec = CodeSpec(request.param, 8, 1)
    rows = rows.astype(np.float32)
    return decode_all(record("toy", rows, logits, spec, block=None, order="similar"))


def test_the_curve_goes_from_no_repair_to_exact_repair(of: Decodes) -> None:
    found = curve(of, of.sure)
    decoded = 1.0 if of.code.spec.scheme == "berrut" else 1 / 9
    assert found["evaluations"][0] == 9 / 8
    assert found["evaluations"][-1] == pytest.approx(9 / 8 + decoded)
    assert found["agreement"][-1] == 1.0
    agree = of.rows.argmax(axis=3) == of.blocks.argmax(axis=2)
    assert len(agree) == 9, "each share lost in turn"
    assert found["agreement"][0] == pytest.approx(agree.mean())
    assert (np.diff(found["agreement"]) >= 0).all()


def test_a_run_costs_what_it_repairs_and_agrees_better_than_without(of: Decodes) -> None:
    without = curve(of, of.sure)
    agrees, evaluations, doubts = play(of, 0.95, np.random.default_rng(0))
    assert without["agreement"][0] < agrees <= 1
    decoded = np.isfinite(of.sure).mean() * 1600
    repaired = decoded - doubts.found.kept
    assert evaluations == pytest.approx(9 / 8 + repaired / 1600, abs=0.01)
    assert doubts.found.checked > 0


def test_the_target_holds_on_average_and_a_higher_one_costs_more(of: Decodes) -> None:
    low, high = (runs(of, target, 20, seed=0) for target in (0.95, 0.98))
    assert low["agreement"] >= 0.95
    assert high["agreement"] >= 0.98
    assert high["evaluations"] > low["evaluations"]


def test_the_table_and_the_picture(of: Decodes, tmp_path: Path) -> None:
    setting = {
        "dataset": "toy", "rows": 1600, "curve": curve(of, of.sure),
        "margin_alone": curve(of, of.margin), "runs": [runs(of, 0.995, 3, seed=0)],
    }  # fmt: skip
    results = {
        "scheme": of.code.spec.scheme, "k": 8, "stragglers": 1, "runs": 3, "default": 0.995,
        "seconds": 1.0, "settings": [setting],
    }  # fmt: skip
    assert "0.995 (default)" in describe(json.loads(json.dumps(results)))
    draw(results, tmp_path / "new" / "x.png")
    assert (tmp_path / "new" / "x.png").stat().st_size > 5000


def test_without_a_model_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no model"):
        run(
            tmp_path, model=None, model_cifar=None, rows=8, scheme="systematic", stragglers=1,
            runs_each=1, seed=0, picture=None,
        )  # fmt: skip
