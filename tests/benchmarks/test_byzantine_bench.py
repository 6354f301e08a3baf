"""``byzantine``: rivals, sections, tables and the picture, on a toy model that needs no torch."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from approxifer.benchmarks import byzantine, escapes, faulty, live, published, rivals
from approxifer.benchmarks.byzantine_picture import draw
from approxifer.benchmarks.byzantine_tables import describe
from approxifer.benchmarks.clean import measure as measure_clean
from approxifer.benchmarks.crew import crew
from approxifer.benchmarks.recorded import record
from approxifer.benchmarks.rivals import decode_without, judge
from approxifer.benchmarks.script import rerun
from approxifer.benchmarks.subjects import Source, Subject
from approxifer.benchmarks.toy import project
from approxifer.coding import CodeSpec
from approxifer.models.runner import Runner
from approxifer.models.samples import Split
from approxifer.pipeline.faults import StuckWeight
from approxifer.pipeline.lies import Noise, NotANumber
from approxifer.pipeline.tolerance import Tolerance

RNG = np.random.default_rng
TOLERANCE = Tolerance(1e-5, np.ones(3))
ROWS = 26 * 4 * 3 - 5
#: Added to all outputs by a stuck weight.
LAST = np.array([0, 0, 1], np.float32)


def model(rows: np.ndarray) -> np.ndarray:
    """(n, 8) to (n, 3)."""
    weights = np.cos(np.arange(24, dtype=np.float32)).reshape(8, 3)
    return np.tanh(rows @ weights) + rows @ weights


def begin(label: str) -> None:
    """Nobody is told."""


@cache
def rows() -> np.ndarray:
    return np.cumsum(RNG(5).normal(size=(ROWS, 8)), axis=0).astype(np.float32) / 8


@cache
def subject() -> Subject:
    """K=4, E=1: six shares; the published code has ten."""
    ours, other = (
        record("toy", rows(), model, CodeSpec(scheme, 4, 0, 1), block=3, order="natural")
        for scheme in ("systematic", "berrut")
    )
    stuck = [rerun(one, lambda some: model(some) + LAST) for one in (ours, other)]
    weight = StuckWeight(parameter="nothing", index=0)
    return Subject("toy", ours, other, model(rows()).argmax(axis=1), TOLERANCE, weight, *stuck)


# ---- rivals --------------------------------------------------------------------------------------


def test_the_published_scheme_evicts_a_gross_liar_and_is_not_exact() -> None:
    recording = subject().published
    found = rivals.published(recording, Noise(1e4), RNG(0))
    done = judge(found, 0.0, recording.plain, TOLERANCE, None)
    assert done.error < 0.5, "noise of ten thousand is gone"
    assert done.wrong_rows == ROWS
    not_finite = rivals.published(recording, NotANumber(), RNG(0))
    assert np.isfinite(not_finite).all()


def test_three_copies_and_two_then_three_leave_nothing_wrong() -> None:
    recording = subject().recording
    labels = subject().labels
    for fault in (Noise(1.0), NotANumber(), Noise(1.0, shares=0.3), subject().stuck):
        copies = rivals.majority(recording, fault, RNG(0), 12)
        most = judge(copies, 3.0 * ROWS, recording.plain, TOLERANCE, labels)
        found, evaluations = rivals.two_then_three(recording, fault, RNG(0), 12, TOLERANCE)
        two = judge(found, evaluations, recording.plain, TOLERANCE, labels)
        assert most.wrong_rows == two.wrong_rows == 0
        assert most.accuracy == two.accuracy == 1
        assert 2 < two.evaluations_per_query < 2.5


def test_decoding_leaves_out_what_each_codeword_is_told_to() -> None:
    code = CodeSpec("systematic", 2, 0, 1).build()
    outputs = code.encode(np.array([[[1.0], [3.0]], [[1.0], [3.0]]]))
    outputs[0, 0] = outputs[1, 1] = 100.0
    blocks = decode_without(code, outputs, np.array([[0], [1]]))
    np.testing.assert_allclose(blocks[:, :, 0], [[1, 3], [1, 3]])


# ---- sections ------------------------------------------------------------------------------------


@cache
def measured() -> dict[str, Any]:
    """All sections but the real workers, which are made up."""
    faults = ("noise, sigma 100", "2-bit flip", faulty.STUCK)
    with crew(subject(), 1) as call:
        found = faulty.measure(
            subject(), call, faults=faults, audit=0.05, seeds=2, rival_seeds=1, begin=begin
        )
        rare = escapes.measure(
            subject(), call, fractions=(0.2,), rates=(0.1, 0.3), runs=4, begin=begin
        )
    labels = model(rows()).argmax(axis=1)
    coded = published.code_rows(rows(), labels, model, (1,), seed=0)
    with crew(coded, 1) as call:
        own = published.measure(coded, call, errors=(1,), sigmas=(1.0, 100.0), seed=0)
    runner = Runner("toy", "", "float32", "cpu", 1, None, model)
    split = Split(rows(), labels, np.arange(0), np.arange(ROWS))
    source = Source("toy", split, np.arange(250), runner, k=4, block=3)
    run = {"convicted": True, "honest_convicted": 0, "groups": 5, "wrong_rows": 0}
    real = live.summary([run | {"evaluations_per_query": 1.3, "seconds": 9.0}] * 2)
    return {
        "workers_per_run": 12,
        "seconds": {"faults": 1.0},
        "faults": [found],
        "escapes": rare,
        "clean": [measure_clean(source, seeds=2, audit=0.05)],
        "published": own,
        "workers": {"rows": ROWS, "seeds": 2, "faults": [{"fault": "noise", **real}]},
    }


def test_ours_convicts_and_leaves_nothing_wrong() -> None:
    (found,) = measured()["faults"]
    for one in found["faults"]:
        assert one["ours"]["convicted"] == 2
        assert one["ours"]["groups"]["median"] <= 3
        assert one["ours"]["honest_convicted"] == one["ours"]["wrong_rows"] == 0
        assert one["rivals"][faulty.MAJORITY]["evaluations_per_query"] == pytest.approx(3, abs=0.1)
        assert one["rivals"][faulty.PUBLISHED]["wrong_rows"] == ROWS
    assert found["stuck_rows"] == 1
    assert found["uncoded_accuracy"] == 1


def test_escapes_tell_both_ways_apart() -> None:
    cells = measured()["escapes"]["cells"]
    assert [cell["audit"] for cell in cells] == [0.1, 0.3]
    assert cells[0]["expected"] > cells[1]["expected"] > 0
    for cell in cells:
        assert cell["corrupted"] > 0
        assert cell["everything"].keys() == escapes.LIES.keys()
        for one in (cell["alone"], *cell["everything"].values()):
            assert one["wrong_rows_if_convicted"] == one["honest_convicted"] == 0


def test_clean_runs_convict_nobody() -> None:
    (found,) = measured()["clean"]
    assert found["convictions"] == found["wrong_rows"] == 0
    assert found["groups"] == 2 * 21
    assert found["suspect_limit"] >= 1


def test_the_published_experiment_compares_locators() -> None:
    ours = {one["scheme"]: one for one in measured()["published"]["settings"]}
    berrut, systematic = ours["berrut"], ours["systematic"]
    assert (berrut["n"], systematic["n"]) == (26, 14)
    assert systematic["honest"]["no fault"] == 1
    gross = berrut["wrong"][1]
    assert gross["sigma"] == 100
    assert abs(gross["ours, 64"] - gross["known"]) < 0.02
    assert systematic["wrong"][1]["repaired, 64"] >= systematic["wrong"][1]["ours, 64"]


def test_the_json_has_what_the_tables_print() -> None:
    printed = describe(measured())
    assert describe(json.loads(json.dumps(measured()))) == printed
    for words in ("one of 12 workers lies", "left wrong by others", "Real workers", "Nobody lies",
                  "audits alone", "everything on", "berrut: 307 MNIST rows"):  # fmt: skip
        assert words in printed
    assert describe({"seconds": {}}).strip() == "measured in:"


def test_a_picture_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "new" / "picture.png"
    draw(measured(), target)
    assert target.read_bytes().startswith(b"\x89PNG")
    assert str(target) in capsys.readouterr().out
    draw({"clean": []}, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_groups_before_the_first_conviction_are_counted() -> None:
    events = [
        {"event": "group", "kind": "coded"}, {"event": "group", "kind": "audit"},
        {"event": "suspect"}, {"event": "group", "kind": "coded"}, {"event": "conviction"},
        {"event": "group", "kind": "coded"}, {"event": "conviction"},
    ]  # fmt: skip
    assert live.groups_before(events) == 2


@pytest.mark.slow
def test_real_workers_are_convicted_too() -> None:
    some = np.random.default_rng(0).normal(size=(600, 6)).astype(np.float32)
    found = live.measure(
        some, project(some), Tolerance(1e-5, np.ones(10)), project, names=("zeros",),
        stuck=subject().weight, k=4, block=5, audit=0.05, seeds=1, begin=begin,
    )  # fmt: skip
    (one,) = found["faults"]
    assert one["convicted"] == 1
    assert one["groups"]["max"] < 30
    assert one["honest_convicted"] == one["wrong_rows"] == 0
    assert 1.5 < one["evaluations_per_query"]["mean"] < 3


@pytest.mark.parametrize("processes", [1, 2])
def test_a_crew_keeps_the_order(processes: int) -> None:
    with crew(10, processes) as call:
        assert list(call(pow, [(2,), (0,), (3,)])) == [100, 1, 1000]


# ---- the command ---------------------------------------------------------------------------------


def test_quick_asks_for_less(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(byzantine, "run", lambda **given: asked.append(given) or {})
    for given in ([], ["--quick"], ["--quick", "--sections", "workers"]):
        assert byzantine.main(["--data", "d", *given]) == 0
    full, quick, chosen = asked
    assert quick["rows"] < full["rows"]
    assert set(full["sections"]) - set(quick["sections"]) == {"workers"}
    assert chosen["sections"] == ["workers"]
    assert chosen["runs"] == quick["runs"] < full["runs"]


def test_the_steps_are_as_many_as_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sections put together, on the toy model; real workers are left out."""
    labels = model(rows()).argmax(axis=1)
    runner = Runner("toy", "", "float32", "cpu", 1, None, model)
    split = Split(rows(), labels, np.arange(0), np.arange(ROWS))
    source = Source("MNIST", split, np.arange(ROWS), runner, k=4, block=3, order="natural")
    monkeypatch.setattr(byzantine, "sources", lambda *_: iter([source]))
    monkeypatch.setattr(byzantine, "record_subject", lambda _: subject())
    monkeypatch.setattr(byzantine, "ERRORS", (1,))
    monkeypatch.setattr(byzantine, "FAULTS", ("zeros", "NaN"))
    target = tmp_path / "r.json"
    given = ["--seeds", "1", "--rival-seeds", "1", "--runs", "1", "--processes", "1"]
    sections = ["--sections", "faults", "clean", "escapes", "published"]
    command = ["--data", str(tmp_path), "--model", "toy.pt2", *given, *sections]
    assert byzantine.main([*command, "--out", str(target)]) == 0
    printed = capsys.readouterr()
    assert "Nobody lies" in printed.out
    steps = [line.partition("]")[0] for line in printed.err.splitlines() if line.startswith("[")]
    assert steps == [f"[{number}/8" for number in range(1, 9)]
    results = json.loads(target.read_text())
    assert results["seconds"].keys() == {"faults", "clean", "escapes", "published"}
    assert [one["fault"] for one in results["faults"][0]["faults"]] == ["zeros", "NaN"]
