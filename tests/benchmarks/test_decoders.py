"""The decoders that were tried, each against what it is defined by; and the comparison itself."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import FloaterHormannInterpolator, make_smoothing_spline

from approxifer.benchmarks import decoders, interpolants
from approxifer.coding import CodeSpec
from approxifer.coding.interpolation import berrut_matrix
from approxifer.errors import ConfigError

NODES = np.cos(np.array([5, 1, 7, 2, 3, 6, 0]))
AT = np.array([-0.9, 0.1, 0.93])


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 6])
def test_floater_hormann_is_scipys(degree: int) -> None:
    order = np.argsort(NODES)
    oracle = FloaterHormannInterpolator(NODES[order], np.eye(7)[order], d=degree)(AT)
    found = interpolants.floater_hormann(AT, NODES, degree)
    np.testing.assert_allclose(found, oracle, atol=1e-12)
    if degree == 0:
        np.testing.assert_allclose(found, berrut_matrix(AT, NODES), atol=1e-12)


def test_a_smoothing_spline_is_a_matrix() -> None:
    order, values = np.argsort(NODES), np.random.default_rng(0).normal(size=7)
    oracle = make_smoothing_spline(NODES[order], values[order], lam=1e-3)(AT)
    matrix = interpolants.smoothing_spline(tuple(AT), tuple(NODES), 1e-3)
    np.testing.assert_allclose(matrix @ values, oracle, atol=1e-9)


def bent(rows: np.ndarray) -> np.ndarray:
    """(M, 6) to (M, 4), no linear function."""
    weights = np.cos(np.arange(24.0)).reshape(6, 4)
    return np.tanh(rows @ weights).astype(np.float32)


@pytest.fixture(scope="module")
def of() -> decoders.Known:
    rows = np.random.default_rng(0).normal(size=(1600, 6)).astype(np.float32)
    spec = CodeSpec("systematic", 8, 1)
    return decoders.known("toy", [rows], bent, spec, order="similar", seed=0, plain=[])


def test_nothing_is_learnt_where_it_is_judged(of: decoders.Known) -> None:
    seen = np.zeros(200, int)
    for learnt, judged in of.splits:
        assert not set(learnt) & set(judged)
        seen[judged] += 1
    assert (seen == 1).all()


def test_berrut_is_what_the_code_decodes(of: decoders.Known) -> None:
    found = decoders.judge(of, interpolants.DECODERS["berrut"])
    agree = []
    for lost in range(9):
        left = {share: of.outputs[share] for share in range(9) if share != lost}
        agree.append(of.code.decode(left).blocks.argmax(axis=2) == of.blocks.argmax(axis=2))
    assert found["all"] == pytest.approx(np.mean(agree))
    low, high = found["interval"]
    assert low <= found["all"] <= high
    assert found["lost"] == pytest.approx(1 - 9 * (1 - found["all"]))  # 8 of 72 rows are lost


@pytest.mark.parametrize("name", interpolants.DECODERS)
def test_each_decoder_does_better_than_chance(of: decoders.Known, name: str) -> None:
    assert decoders.judge(of, interpolants.DECODERS[name])["lost"] > 0.4


def test_a_run_without_a_model_or_with_too_few_shares_is_refused(tmp_path) -> None:
    given = {"model_cifar": None, "model_era5": None, "rows": 8, "seed": 0}
    with pytest.raises(ConfigError, match="no model"):
        decoders.run(tmp_path, model=None, stragglers=[1], **given)
    with pytest.raises(ConfigError, match="--stragglers"):
        decoders.run(tmp_path, model=tmp_path, stragglers=[4], **given)
