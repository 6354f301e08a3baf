"""``byzantine``: rivals, sections, tables and the picture, on a toy model that needs no torch."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from approxifer.benchmarks.byzantine import __main__ as byzantine
from approxifer.benchmarks.byzantine import (
    detection,
    evasion,
    false_alarms,
    live,
    published,
    rivals,
)
from approxifer.benchmarks.byzantine.outcome import Outcome, Wrong
from approxifer.benchmarks.byzantine.picture import draw
from approxifer.benchmarks.byzantine.replay import rerun
from approxifer.benchmarks.byzantine.rivals import compare, decode_without
from approxifer.benchmarks.byzantine.subjects import Source, Subject, repeated
from approxifer.benchmarks.byzantine.tables import describe
from approxifer.benchmarks.pool import process_pool
from approxifer.benchmarks.recording import record
from approxifer.benchmarks.toy_model import project
from approxifer.coding import CodeSpec
from approxifer.models.runner import Runner
from approxifer.models.samples import Split
from approxifer.pipeline.byzantine.tolerance import Tolerance
from approxifer.pipeline.faults.corruption import Noise, NotANumber
from approxifer.pipeline.faults.execution import StuckWeight

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
    """Take no notice."""


@cache
def rows() -> np.ndarray:
    return np.cumsum(RNG(5).normal(size=(ROWS, 8)), axis=0).astype(np.float32) / 8


@cache
def subject() -> Subject:
    """K=4, E=1: four shares; the published code has ten."""
    ours = record("toy", rows(), model, CodeSpec("uncoded", 4), block=3, order="none")
    published = CodeSpec("berrut", 4, 0, 1)
    other = record("toy", rows(), model, published, block=3, order="natural")
    stuck = [rerun(one, lambda some: model(some) + LAST) for one in (ours, other)]
    weight = StuckWeight(parameter="nothing", index=0)
    return Subject("toy", ours, other, model(rows()).argmax(axis=1), TOLERANCE, weight, *stuck)


# ---- rivals --------------------------------------------------------------------------------------


def test_the_published_scheme_evicts_gross_errors_and_is_not_exact() -> None:
    recording = subject().published
    found = rivals.published(recording, Noise(1e4), RNG(0))
    done = compare(found, 0.0, recording.plain, TOLERANCE, None)
    assert done.error < 0.5, "noise of ten thousand is gone"
    assert done.wrong_rows == ROWS
    not_finite = rivals.published(recording, NotANumber(), RNG(0))
    assert np.isfinite(not_finite).all()


def test_three_copies_and_two_then_three_leave_nothing_wrong() -> None:
    recording = subject().recording
    labels = subject().labels
    for fault in (Noise(1.0), NotANumber(), Noise(1.0, shares=0.3), subject().stuck):
        copies = rivals.majority(recording, fault, RNG(0), 12)
        most = compare(copies, 3.0 * ROWS, recording.plain, TOLERANCE, labels)
        found, evaluations = rivals.two_then_three(recording, fault, RNG(0), 12, TOLERANCE)
        two = compare(found, evaluations, recording.plain, TOLERANCE, labels)
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


def source(**fields: Any) -> Source:
    runner = Runner("toy", "", "float32", "cpu", 1, None, model)
    labels = model(rows()).argmax(axis=1)
    split = Split(rows(), labels, np.arange(0), np.arange(ROWS))
    return Source(**{"name": "toy", "split": split, "chosen": np.arange(250), "runner": runner,
                     "k": 4, "block": 3} | fields)  # fmt: skip


@cache
def measured() -> dict[str, Any]:
    """All sections but the real workers, which are made up."""
    faults = ("noise, sigma 100", "2-bit flip", "infinity", detection.STUCK)
    with process_pool(subject(), 1) as call:
        found = detection.measure(
            subject(), call, faults=faults, check=2, seeds=3, rival_seeds=1, begin=begin
        )
    short = replace(subject(), recording=repeated(subject().recording, 480, block=3, seed=0))
    with process_pool(short, 1) as call:
        rare = evasion.measure(short, call, fractions=(0.2,), check=2, runs=4, begin=begin)
    labels = model(rows()).argmax(axis=1)
    coded = published.code_rows(rows(), labels, model, (1,), seed=0)
    with process_pool(coded, 1) as call:
        own = published.measure(coded, call, errors=(1,), sigmas=(1.0, 100.0), seed=0)
    quiet = [
        false_alarms.measure(source(), seeds=2, check=2),
        false_alarms.measure_many(source(), seeds=1, check=2, rows=2000, block=100),
    ]
    run = {"convicted": True, "honest_convicted": 0, "shares": 2, "wrong_rows": 0}
    real = live.summary([run | {"evaluations_per_query": 1.3, "seconds": 9.0}] * 2)
    workers = {"dataset": "toy", "rows": ROWS, "block": 3, "faults": [{"fault": "noise", **real}]}
    return {
        "workers_per_run": 12,
        "seconds": {"faults": 1.0},
        "faults": [found],
        "escapes": rare,
        "clean": quiet,
        "published": own,
        "workers": [workers],
    }


def fault(name: str) -> dict[str, Any]:
    (found,) = measured()["faults"]
    return next(one for one in found["faults"] if one["fault"] == name)


@pytest.mark.parametrize("name", ["noise, sigma 100", "infinity", detection.STUCK])
def test_faults_that_no_check_misses_are_listed_by_what_was_measured(name: str) -> None:
    one = fault(name)
    assert one["throughout"]
    for found in (one["broken"], one["cautious"]):
        assert found["corrupted_runs"] == found["convicted"] == 3
        assert found["honest_convicted"] == found["wrong_rows"] == 0
        assert found["shares"]["max"] <= 1
        assert found["rows_above"] <= 2 * 4, "checks of one group, made again"
    assert (one["formula"]["escaped"], one["formula"]["expected"]) == (0, 0)
    assert (one["wrong_of_a_share"]["min"] == 1) == (name != "infinity")


def test_faults_that_a_check_may_miss_are_held_against_the_formula() -> None:
    one = fault("2-bit flip")
    assert not one["throughout"]
    assert one["wrong_of_a_share"]["min"] == pytest.approx(1 / 3)
    found = one["formula"]
    assert 0 < found["expected"] < 1
    assert found["wrong_rows_exact"]
    assert found["interval"][0] <= found["escaped"] / 3 <= found["interval"][1]


def test_rivals_run_each_row_twice_or_more() -> None:
    (found,) = measured()["faults"]
    for one in found["faults"]:
        copies = one["rivals"][detection.MAJORITY]
        assert copies["evaluations_per_query"] == pytest.approx(3, abs=0.1)
        assert one["rivals"][detection.PUBLISHED]["wrong_rows"] == ROWS
    assert found["uncoded_accuracy"] == 1


def outcome(**fields: Any) -> Outcome:
    return Outcome(rows=100, **fields)


def test_escapes_are_counted_among_the_runs_with_a_fault() -> None:
    wrong = {"w1": [Wrong(8, 2, finite=True)]}
    pairs = [
        (outcome(wrong={}, wrong_rows=0), outcome()),  # w0 returns nothing wrong
        (outcome(wrong=wrong), outcome(wrong_rows=2)),
        (outcome(wrong={"w2": [Wrong(8, 8, finite=True)]}), outcome(convicted=["w2"])),
        (outcome(), outcome(convicted=["w7"])),
    ]
    found = evasion.figures(pairs, check=4)
    assert found["without_fault"] == 2
    assert found["corrupted"] == 1
    assert found["escaped"] == 1
    assert found["expected"] == pytest.approx((20 / 56 + 0) / 2)
    assert (found["wrong_rows"], found["wrong_rows_max"]) == (1, 2)
    assert found["wrong_rows_exact"]
    assert found["honest_convicted"] == 1
    left = evasion.figures([pairs[0], (pairs[1][0], outcome(wrong_rows=1))], check=4)
    assert not left["wrong_rows_exact"]


def test_escapes_have_faults_of_both_kinds() -> None:
    cells = measured()["escapes"]["cells"]
    assert [cell["cautious"] for cell in cells] == [True, True, True, False]
    for cell in cells[:2]:
        assert cell["corrupted"] > 1
        assert cell["escaped"] == cell["wrong_rows_max"] == 0
    assert cells[2]["expected"] > 0
    assert all(cell["honest_convicted"] == 0 for cell in cells)


def test_a_long_run_has_a_hundred_shares_for_each_worker() -> None:
    longer = evasion.long_run(subject()).recording
    assert 4 * len(longer.members) == 12 * 100
    assert sorted(np.unique(longer.rows)) == list(range(ROWS))
    np.testing.assert_array_equal(longer.plain, subject().recording.plain[longer.rows[:, 0]])


def test_clean_runs_convict_nobody_and_cost_what_is_checked() -> None:
    short, many = measured()["clean"]
    assert short["convictions"] == short["wrong_rows"] == many["convictions"] == 0
    assert short["checks"] == 2 * 84, "of 84 shares, the last of which have two rows"
    assert short["evaluations_per_query"] == (84 * 3 + 168) / 250
    assert (many["checks"], many["evaluations_per_query"]) == (40, 1.02)
    # Batches of 64: two for a share; at most one for each checker and two share times.
    assert 40 / 2600 < many["checking_time"] < 0.3


def test_the_published_experiment_compares_locators() -> None:
    (found,) = measured()["published"]["settings"]
    assert found["n"] == 26
    weak, gross = found["wrong"]
    assert (weak["sigma"], gross["sigma"]) == (1, 100)
    assert abs(gross["suspects, 64"] - gross["known"]) < 0.02
    assert found["honest"]["no fault, suspects out"] > found["honest"]["no fault"] - 0.02


def test_the_json_has_what_the_tables_print() -> None:
    printed = describe(measured())
    assert describe(json.loads(json.dumps(measured()))) == printed
    for words in ("one of 12 workers is faulty", "left wrong by others", "Real workers",
                  "No faulty worker", "a check may miss", "now and then",
                  "code: 307 MNIST rows"):  # fmt: skip
        assert words in printed
    assert describe({"seconds": {}}).strip() == "measured in:"


def test_a_picture_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "new" / "picture.png"
    draw(measured(), target)
    assert target.read_bytes().startswith(b"\x89PNG")
    assert str(target) in capsys.readouterr().out
    draw({"clean": []}, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_shares_returned_before_the_conviction_are_counted() -> None:
    def group(kind: str, *attempts: tuple[str, str, float | None]) -> dict[str, Any]:
        names = ("worker", "fate", "stop")
        tried = [dict(zip(names, attempt, strict=True)) for attempt in attempts]
        return {"event": "group", "kind": kind, "attempts": tried}

    events = [
        group("coded", ("w1", "used", 1.0), ("w2", "used", 1.0)),
        group("check", ("w1", "used", 1.5)),
        {"event": "conviction", "time": 3.0, "member": {"name": "w1"}},
        group("coded", ("w1", "spare", 3.0), ("w1", "dropped", 2.0), ("w1", "unstarted", None)),
        group("repair", ("w1", "used", 3.5)),
    ]
    assert live.returned(events, "w1") == 2
    assert live.returned(events, "w2") == 1


@pytest.mark.slow
def test_real_workers_are_convicted_too() -> None:
    some = np.random.default_rng(0).normal(size=(600, 6)).astype(np.float32)
    with live.real_workers() as client:
        (one,) = live.measure(
            client, some, project(some), Tolerance(1e-5, np.ones(10)), project, names=("zeros",),
            stuck=subject().weight, k=4, block=5, check=2, seeds=1, begin=begin,
        )  # fmt: skip
    assert one["convicted"] == one["runs"] == 1
    assert one["shares"]["max"] < 15
    assert one["honest_convicted"] == one["wrong_rows"] == 0
    assert 1.3 < one["evaluations_per_query"]["mean"] < 2


@pytest.mark.parametrize("processes", [1, 2])
def test_a_pool_keeps_the_order(processes: int) -> None:
    with process_pool(10, processes) as call:
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
    toy = source(name="MNIST", chosen=np.arange(ROWS), order="natural")
    monkeypatch.setattr(byzantine, "sources", lambda *_: iter([toy]))
    short = replace(subject(), recording=repeated(subject().recording, 480, block=3, seed=0))
    monkeypatch.setattr(evasion, "long_run", lambda _: short)
    many = partial(false_alarms.measure_many, rows=1200, block=100)
    monkeypatch.setattr(false_alarms, "measure_many", many)
    monkeypatch.setattr(byzantine, "record_subject", lambda _: subject())
    monkeypatch.setattr(byzantine, "ERRORS", (1,))
    monkeypatch.setattr(byzantine, "FAULTS", ("zeros", "NaN"))
    target = tmp_path / "r.json"
    given = ["--seeds", "1", "--rival-seeds", "1", "--runs", "1", "--processes", "1"]
    sections = ["--sections", "faults", "clean", "escapes", "published"]
    command = ["--data", str(tmp_path), "--model", "toy.pt2", *given, *sections]
    assert byzantine.main([*command, "--out", str(target)]) == 0
    printed = capsys.readouterr()
    assert "No faulty worker" in printed.out
    steps = [line.partition("]")[0] for line in printed.err.splitlines() if line.startswith("[")]
    assert steps == [f"[{number}/6" for number in range(1, 7)]
    results = json.loads(target.read_text())
    assert results["seconds"].keys() == {"faults", "clean", "escapes", "published"}
    assert [one["fault"] for one in results["faults"][0]["faults"]] == ["zeros", "NaN"]
