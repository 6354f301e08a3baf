"""The locators on a small recording, and each against what it is defined by."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from approxifer.benchmarks import judges, locators
from approxifer.benchmarks.recorded import Recording, record
from approxifer.coding.foretelling import mean_products
from approxifer.coding.interpolate import berrut_matrix
from approxifer.coding.interpolating import InterpolatingCode


def bent(rows: np.ndarray) -> np.ndarray:
    """(M, 6) to (M, 4), no linear function."""
    weights = np.cos(np.arange(24.0)).reshape(6, 4)
    return np.tanh(rows @ weights).astype(np.float32)


@pytest.fixture(scope="module")
def recording() -> Recording:
    rows = np.random.default_rng(0).normal(size=(2560, 6)).astype(np.float32)
    return record("toy", rows, bent, locators.SPEC, block=4, order="similar")


@pytest.fixture(scope="module")
def code() -> InterpolatingCode:
    made = locators.SPEC.build()
    assert isinstance(made, InterpolatingCode)
    return made


def products(outputs: np.ndarray) -> np.ndarray:
    return mean_products(dict(enumerate(outputs)))[None]


def test_berrut_residual_is_what_is_left_of_the_interpolation(code: InterpolatingCode) -> None:
    outputs = np.random.default_rng(0).normal(size=(10, 3, 4))
    found = judges.berrut_residual(code)(products(outputs))[0]
    nodes = np.array(code.nodes)
    for share in range(10):
        others = np.delete(np.arange(10), share)
        weights = berrut_matrix(nodes[[share]], nodes[others])[0]
        left = outputs[share] - np.tensordot(weights, outputs[others], 1)
        size = np.sqrt(np.square(left).mean() / (1 + np.square(weights).sum()))
        assert found[share] == pytest.approx(np.log(size))


@pytest.mark.parametrize("liar", range(10))
def test_polynomials_have_no_dct_syndrome_and_an_error_has_its_own(
    code: InterpolatingCode, liar: int
) -> None:
    score = judges.dct_syndrome(code)
    coefficients = np.random.default_rng(0).normal(size=(12, 8))
    outputs = np.polynomial.chebyshev.chebval(np.array(code.nodes), coefficients.T).T
    clean = score(products(outputs))
    assert clean.max() < -10
    outputs[liar] += 1e-3 * np.random.default_rng(1).normal(size=12)
    assert score(products(outputs))[0].argmax() == liar


def test_all_are_compared_on_the_same_groups(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = ("noise 2 sd", "sigma 100", "zeros")
    monkeypatch.setattr(locators, "FAULTS", {name: locators.FAULTS[name] for name in some})
    found = {one["locator"]: one for one in locators.compare(recording, seed=0)}
    assert len(found) == 7
    for one in found.values():
        assert one["groups"] == 80
        assert one["suspected"].keys() == one["named"].keys() == locators.FAULTS.keys()
        assert all(one["named"][f] <= one["suspected"][f] <= 1 for f in locators.FAULTS)
    assert found["published vote"]["false"] == 80
    for name, one in found.items():
        assert name == "published vote" or one["false"] <= one["false_limit"]
    assert found["and statistics"]["named"]["sigma 100"] == 1
    assert found["and statistics"]["named"]["zeros"] > 0.9
    assert (
        found["learnt precision"]["named"]["noise 2 sd"]
        > found["Berrut residual"]["named"]["noise 2 sd"]
    )


def test_clean_runs_count_groups_shares_and_watches(recording: Recording) -> None:
    found = locators.clean_runs(recording, passes=2, seed=0)
    assert (found["groups"], found["shares"]) == (160, 1600)
    assert found["suspects"] <= found["limit"]
    assert found["watches"] <= found["watches_limit"]


def test_the_command_prints_what_it_writes(
    recording: Recording,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def recordings(*_: Any, **__: Any) -> Iterator[Recording]:
        yield recording

    monkeypatch.setattr(locators, "recordings", recordings)
    monkeypatch.setattr(locators, "FAULTS", {"zeros": locators.FAULTS["zeros"]})
    out = tmp_path / "locators.json"
    given = ["--data", ".", "--lenet", "l.pt2", "--passes", "1", "--out", str(out)]
    assert locators.main(given) == 0
    (setting,) = json.loads(out.read_text())["settings"]
    assert (setting["dataset"], setting["order"], setting["block"]) == ("toy", "similar", 4)
    printed = " ".join(capsys.readouterr().out.split())
    assert "toy, similar order, blocks of 4: 80 groups" in printed
    last = setting["locators"][-1]
    assert f"{last['suspected']['zeros']:.2f}/{last['named']['zeros']:.2f}" in printed


def test_without_a_model_there_is_nothing_to_measure(capsys: pytest.CaptureFixture[str]) -> None:
    assert locators.main(["--data", "."]) == 2
    assert "--forecaster" in capsys.readouterr().err
