"""``signals``: exact chances against draws, statistics on toy outputs, and equal cost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from approxifer.benchmarks import (
    signals,
    signals_contest,
    signals_features,
    signals_methods,
    signals_ridge,
    signals_story,
)
from approxifer.benchmarks.faulty import STUCK, WORKERS
from approxifer.benchmarks.recorded import record
from approxifer.benchmarks.signals_chances import Outcome, missed, play, played
from approxifer.benchmarks.signals_contest import WAYS, choose, contest, geometric, tune
from approxifer.benchmarks.signals_methods import ALL, METHODS, Furthest, NearNull
from approxifer.benchmarks.signals_report import describe, page, pairs
from approxifer.benchmarks.signals_ridge import foretold
from approxifer.benchmarks.signals_story import Cell, Look, Material, Story, cells, clean, tell
from approxifer.coding import CodeSpec
from approxifer.pipeline.lies import Noise, NotANumber, Roll, ShuffleRows
from approxifer.pipeline.referee import Tolerance

RNG = np.random.default_rng
K, BLOCK, SIDE = 4, 8, 8
ROWS = 60 * K * BLOCK
TOLERANCE = Tolerance(1e-5, np.ones(5))
SPECS = {
    "natural": (CodeSpec("uncoded", K), "natural"),
    "similar": (CodeSpec("uncoded", K), "similar"),
    "parity": (CodeSpec("systematic", K, 1), "similar"),
}


def model(rows: np.ndarray) -> np.ndarray:
    """(n, 8, 8) to (n, 5), whose sum is all but zero."""
    flat = rows.reshape(len(rows), -1)
    weights = RNG(1).normal(size=(SIDE * SIDE, 5)).astype(np.float32)
    found = np.tanh(flat @ weights / 8) + flat @ weights / 8
    some: np.ndarray = found - found.mean(axis=1, keepdims=True) + np.float32(1e-3) * found
    return some


@cache
def rows() -> np.ndarray:
    return RNG(5).normal(size=(ROWS, SIDE, SIDE)).astype(np.float32)


@cache
def material(name: str = "natural", start: int = 0, stop: int = ROWS) -> Material:
    spec, order = SPECS[name]
    some = rows()[start:stop]
    made, stuck = (
        record("toy", some, run, spec, block=BLOCK, order=order)
        for run in (model, lambda given: model(given) + np.float32(1))
    )
    flat = some.reshape(len(some), -1)
    features = {"no input": signals_features.nothing(some), "waves": flat, "patches": flat}
    return Material.of(made, TOLERANCE, stuck=stuck, features=features)


# ---- chances -------------------------------------------------------------------------------------


def test_the_chance_to_miss_is_that_of_all_draws() -> None:
    for total, wrong, drawn in ((7, 2, 3), (7, 0, 3), (7, 7, 1), (5, 1, 5), (5, 3, 0), (4, 4, 9)):
        draws = list(combinations(range(total), min(drawn, total)))
        right = np.mean([min(draw, default=wrong) >= wrong for draw in draws])
        assert missed(np.array(total), np.array(wrong), drawn) == pytest.approx(right)
    between = 0.75 * missed(np.array(7), np.array(2), 2) + 0.25 * missed(
        np.array(7), np.array(2), 3
    )
    assert missed(np.array(7), np.array(2), 2.25) == pytest.approx(between)


def drawn(story: Story, look: Look, check: float, usual: float, rng: np.random.Generator) -> Any:
    """One run with every draw played: evaluations, whether convicted, wrong rows left."""
    groups, n, block = story.wrong.shape
    k, ran, done, convicted = story.of.code.k, 0, story.wrong.size, False
    passed: dict[tuple[int, int], np.ndarray] = {}
    for group in range(groups):
        theirs = story.owners[group] == story.liar
        ran += int(theirs[:k].sum()) * block
        found = False
        for share in range(n):
            random = np.flatnonzero(~look.forced[group, share])
            count = int(check) + (rng.random() < check % 1) if share < k else 0
            count = min(count, len(random))
            done += count
            passed[group, share] = rng.permutation(random)
            found |= bool(story.wrong[group, share, passed[group, share][:count]].any())
            passed[group, share] = passed[group, share][count:]
        if convicted:
            done += usual
            continue
        for at in np.argwhere(look.when == group).tolist():
            more = passed[at[0], at[1]][: look.more[at[0], at[1]]]
            rows = np.concatenate([more, np.flatnonzero(look.forced[at[0], at[1]])])
            done += len(rows)
            found |= bool(story.wrong[at[0], at[1], rows].any())
        if found:
            convicted, done = True, done + ran
    left = 0 if convicted else story.wrong[:, :k].sum()
    return done / (groups * k * block), convicted, left


@pytest.mark.parametrize("name", ["natural", "parity"])
def test_expectations_are_what_draws_come_to(name: str) -> None:
    story = tell(material(name, 0, 12 * K * BLOCK), Roll(shares=0.7, rows=1 / BLOCK), 3)
    rng = RNG(0)
    look = Look.nothing(story)
    look.forced[rng.random(look.forced.shape) < 0.02] = True
    look.more[rng.random(look.more.shape) < 0.05] = 2
    look.when[:] = np.maximum(look.when, 6)
    runs = np.array([drawn(story, look, 0.5, 7.0, rng) for _ in range(600)], float)
    found = play(story, look, 0.5, usual=7.0)
    exact = [found.evaluations, found.convicted, found.wrong_rows]
    error = runs.std(axis=0) / np.sqrt(len(runs))
    assert 0.1 < found.convicted < 0.9995
    assert np.all(np.abs(runs.mean(axis=0) - exact) < 4 * error + 1e-9)


def test_a_lie_in_all_rows_is_over_at_once() -> None:
    for fault in (Noise(1.0), NotANumber(), material().stuck):
        story = tell(material(), fault, 1)
        first = int(np.flatnonzero((story.owners == 1).any(axis=1))[0])
        assert played(story) == first + 1
        found = play(story, Look.nothing(story), 1)
        assert (found.convicted, found.wrong_rows, found.suspected) == (1, 0, 0)
        once = 1 + 1 / BLOCK + (first + 1) / ROWS * BLOCK
        assert found.evaluations <= once


def test_parity_is_run_and_not_checked() -> None:
    found = play(clean(material("parity"), 0), Look.nothing(clean(material("parity"), 0)), 2)
    assert found == Outcome(pytest.approx(5 / 4 + 2 / BLOCK), 0, 0, 0)


# ---- runs ----------------------------------------------------------------------------------------


def test_only_the_liar_is_wrong_and_codes_of_one_order_tell_the_same() -> None:
    told = {name: tell(material(name), Roll(shares=0.3, rows=1 / BLOCK), 14) for name in SPECS}
    for name, story in told.items():
        assert story.liar == 14 % WORKERS
        assert not story.wrong[story.owners != story.liar].any()
        assert set(story.wrong.sum(axis=2).ravel().tolist()) == {0, 1}
        assert all(len(set(group)) == len(group) for group in story.owners.tolist())
        np.testing.assert_array_equal(
            story.outputs[~story.wrong], material(name).outputs[~story.wrong]
        )
    data = told["parity"].outputs[:, :K]
    np.testing.assert_array_equal(data, told["similar"].outputs)
    np.testing.assert_array_equal(told["parity"].owners[:, :K], told["natural"].owners)


def test_rows_are_where_their_outputs_are() -> None:
    for name in ("natural", "similar"):
        np.testing.assert_array_equal(
            material(name).recording.plain[material(name).rows], material(name).outputs
        )


def test_cells_are_all_faults_and_the_sparse_ones() -> None:
    found = cells(("zeros", STUCK))
    assert len(found) == len({cell.says for cell in found}) == 2 + 6 * 3 + 7 * 2
    assert sum(cell.sparse for cell in found) == 6 * 3 + 6 * 2
    rare = Cell("zeros", 0.01)
    told = 0.01 * ROWS / BLOCK / WORKERS
    assert rare.seeds(material(), 4) == 4 * min(5, int(np.ceil(1 / told))) > 4
    assert Cell("zeros").seeds(material(), 4) == 4


# ---- statistics ----------------------------------------------------------------------------------


def test_near_null_directions_give_a_rolled_row_with_another_sum_away() -> None:
    of = material()
    setting = NearNull(1e-3, 0.01)
    story = tell(of, Noise(0.1, rows=1 / BLOCK), 2)
    (look,) = METHODS["near-null"].looks(story, [setting])
    assert look.forced[story.wrong].mean() > 0.95
    honest = look.forced[: played(story)][story.owners[: played(story)] != story.liar]
    assert honest.mean() < 0.05
    (none,) = METHODS["near-null"].looks(story, [NearNull(1e-9, 0.01)])
    assert not none.suspect.any()
    (free,) = METHODS["near-null"].looks(clean(of, 0), [setting])
    assert 0.002 < free.forced.mean() < 0.03


def test_suspicion_has_more_rows_checked_of_a_gross_liar() -> None:
    story = tell(material(), Noise(1e4, rows=1 / BLOCK), 2)
    some, every = METHODS["suspicion"].looks(story, [2, ALL])
    theirs = story.owners == story.liar
    end = played(story)
    assert some.suspect[:end][theirs[:end]].mean() > 0.9
    assert some.suspect[:end][~theirs[:end]].mean() < 0.1
    assert play(story, every, 1).wrong_rows < play(story, some, 1).wrong_rows
    assert play(story, some, 1).wrong_rows < play(story, Look.nothing(story), 1).wrong_rows
    both = METHODS["furthest and suspicion"]
    (look,) = both.looks(story, [(Furthest("no input", 1, True), 2)])
    np.testing.assert_array_equal(look.suspect, some.suspect)
    assert look.forced[story.wrong].mean() > 0.95
    assert "2 rows more" in both.says((Furthest("no input", 1, True), 2))
    early = theirs & some.suspect & (np.arange(len(theirs))[:, None] < 15)
    assert (some.when[early] == 19).all(), "nothing is known before the 20th group"


def test_the_estimate_finds_the_row_that_its_input_does_not_have() -> None:
    of = material()
    story = tell(of, ShuffleRows(shares=0.5, rows=1 / BLOCK), 2)
    settings = [Furthest("waves", 1, white=True), Furthest("no input", 1, white=True)]
    ours, blind = (
        look.forced[story.wrong].mean() for look in METHODS["waves"].looks(story, settings)
    )
    assert ours > 0.9
    assert blind < 0.4
    for setting in METHODS["patches"].settings:
        (look,) = METHODS["patches"].looks(story, [setting])
        assert (look.forced.sum(axis=2) == setting.rows).all()
        assert not look.suspect.any()
    gone = tell(of, NotANumber(), 2)
    (look,) = METHODS["waves"].looks(gone, settings[:1])
    assert look.forced[gone.wrong].all()


def test_errors_are_those_of_a_fit_without_the_row() -> None:
    rng = RNG(0)
    known = rng.normal(size=(40, 3)).astype(np.float32)
    known -= known.mean(axis=0)
    plain = known @ rng.normal(size=(3, 2)) + rng.normal(size=(40, 2))
    plain -= plain.mean(axis=0)
    every = np.arange(40)
    fit = signals_ridge._Ridge.learn(known, plain, every, known.T @ known)
    penalty = signals_ridge.PENALTY * 40 * np.eye(3)
    for row in (0, 7):
        rest = np.delete(every, row)
        weights = np.linalg.solve(
            known[rest].T @ known[rest] + penalty, known[rest].T @ plain[rest]
        )
        right = plain[row] - known[row] @ weights
        np.testing.assert_allclose(fit.errors(every[[row]])[0], right, rtol=1e-4)


def test_what_is_foretold_of_the_liar_is_learnt_from_the_others() -> None:
    said = foretold(material(), 2, "waves")
    changed = replace(material(), outputs=material().outputs.copy())
    at = np.nonzero(changed.owners(2) == 2)
    changed.recording.plain.setflags(write=True)
    other = replace(changed.recording, plain=changed.recording.plain.copy())
    other.plain[changed.rows[at].ravel()] += 100
    again = foretold(replace(changed, recording=other), 2, "waves")
    np.testing.assert_allclose(again.center, said.center, atol=1e-6)


def test_features_are_standardised_and_foretell() -> None:
    pictures = RNG(0).normal(size=(300, SIDE, SIDE, 3)).astype(np.float32)
    for kind, make in signals_features.FEATURES.items():
        made = make(pictures)
        assert len(made) == 300
        if kind != "no input":
            spread = made.std(axis=0)
            np.testing.assert_allclose(spread[spread > 0.5], 1, atol=1e-3)
            assert (spread > 0.5).mean() > 0.9


# ---- the contest ---------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two sparse lies, and few seeds."""
    monkeypatch.setattr(signals_story, "SPARSE", ("zeros", "clustered flips"))
    monkeypatch.setattr(signals_story, "FRACTIONS", (0.2,))
    monkeypatch.setattr(signals_contest, "CLEAN", range(5000, 5002))
    monkeypatch.setattr(signals_contest, "HELD", range(9000, 9001))
    yield
    signals_methods._suspects.cache_clear()


def test_every_setting_costs_what_spot_checks_alone_cost() -> None:
    of = material()
    (alone,) = tune(None, [None], of, 3)
    assert alone.clean.evaluations == pytest.approx(1 + 3 / BLOCK)
    for method in METHODS.values():
        for plan in tune(method, method.settings, of, 3):
            assert plan.clean.evaluations == pytest.approx(alone.clean.evaluations, rel=1e-3)
            assert plan.check <= 3


@pytest.mark.usefixtures("small")
def test_the_setting_that_leaves_fewest_is_chosen() -> None:
    assert choose(METHODS["waves"], material()).white in (True, False)
    chosen = choose(METHODS["near-null"], material())
    assert chosen.faint >= 1e-6


def test_ratios_leave_out_what_the_rival_finds_too() -> None:
    assert geometric([1, 4, 7], [4, 4, 0.01]) == pytest.approx(0.5)
    assert geometric([0], [4]) == pytest.approx(signals_contest.FLOOR)
    assert geometric([], []) == 1


@pytest.mark.usefixtures("small")
def test_the_page_is_made_of_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    half = ROWS // 2 // (K * BLOCK) * (K * BLOCK)
    held = {name: material(name, 0, half) for name in SPECS}
    judged = {name: material(name, half) for name in SPECS}
    found = contest(held, judged, faults=("zeros", STUCK), seeds=2, begin=begun.append)
    assert len(begun) == len(WAYS) + 1
    for name, way in WAYS.items():
        for rival in way.rivals[:1]:
            spent, theirs = (found["ways"][one]["evaluations"] for one in (name, rival))
            assert spent == pytest.approx(theirs, rel=1e-3)
    figures = {cell["fault"]: cell["figures"] for cell in found["cells"]}
    assert figures["zeros, every share"]["spot"][1:3] == [1, 0]
    assert figures[f"{STUCK}, every share"]["parity suspicion"][1:3] == [1, 0]
    rare = figures["clustered flips, one row of 5 % of shares"]
    assert 0 < rare["spot"][1] < 1
    assert rare["spot"][2] > 0
    assert {fault for fault, *_ in pairs(found, "waves", "spot")} < figures.keys()
    costs = {"waves": 0.1, "patches": 1.0}
    results = {
        "commit": "abc", "workers": WORKERS, "k": K, "seeds": 2, "seconds": 1.0,
        "sets": [{"dataset": "toy", "costs": costs, **found}],
    }  # fmt: skip
    text = page(results)
    assert page(json.loads(json.dumps(results))) == text
    assert "at commit abc" in text
    assert text.count("\n## ") == 3
    assert "halve" in describe(results)


def test_the_steps_are_as_many_as_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def prepare(*given: Any) -> tuple[None, None]:
        given[-1]("held")
        given[-1]("reported")
        made = signals.Rows(
            "toy", rows(), model, model(rows()), {}, {}, TOLERANCE, model, model(rows())
        )
        assert made.materials(8)["parity"].outputs.shape == (ROWS // 2 // 64, 9, 8, 5)
        return made, made

    def contested(*_: Any, begin: Any, **__: Any) -> dict[str, Any]:
        for name in (*WAYS, "faults"):
            begin(name)
        return {"cells": []}

    class Handle:
        def load(self, threads: int) -> None:
            assert threads == 1

    monkeypatch.setattr(signals, "open_model", lambda _: Handle())
    monkeypatch.setattr(signals, "prepare", prepare)
    monkeypatch.setattr(signals, "contest", contested)
    monkeypatch.setattr(signals, "describe", lambda _: "a table")
    target = tmp_path / "r.json"
    given = ["--data", str(tmp_path), "--model", "toy.pt2", "--quick", "--out", str(target)]
    assert signals.main(given) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[")]
    steps = 2 + len(signals.BLOCKS) * (len(WAYS) + 1)
    assert [line.partition("]")[0] for line in lines] == [
        f"[{number}/{steps}" for number in range(1, steps + 1)
    ]
    assert len(json.loads(target.read_text())["sets"]) == len(signals.BLOCKS)
