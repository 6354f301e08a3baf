"""Schedules, latencies and the virtual clock, against cases computed by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from approxifer.benchmarks.common import write_json
from approxifer.benchmarks.stragglers import __main__ as stragglers
from approxifer.benchmarks.stragglers import latency, simulated_dask, simulation
from approxifer.benchmarks.stragglers.latency import Latency
from approxifer.benchmarks.stragglers.live import Outcome, delays
from approxifer.benchmarks.stragglers.report import describe, page
from approxifer.benchmarks.stragglers.schedules import SCHEDULES, Schedule, Service
from approxifer.benchmarks.stragglers.setup import SCHEMES, Scheme, Shape, Site
from approxifer.benchmarks.stragglers.simulated_workers import Delays
from approxifer.benchmarks.stragglers.simulation import Played

#: A share takes 4 * 25 ms, and nothing else takes any time.
PURE = Delays(sleep=0.025, forward=(0.0,), gap=0.0, send=0.0)


def played(name: str, schedule: Schedule, *, groups: int, workers: int, k: int = 4) -> Played:
    scheme = SCHEMES[name]
    return simulation.play(
        scheme.spec(k),
        scheme.checked(k).policy,
        repair=scheme.finals,
        groups=groups,
        shape=Shape(block=32, micro_batch=8, window=4, workers=workers),
        schedule=schedule,
        seed=0,
        delays=PURE,
    )


# ---- the schedule --------------------------------------------------------------------------------


def test_a_schedule_draws_its_part_of_the_shares_and_is_repeated() -> None:
    few = SCHEDULES["few"]
    drawn = [few.slow(0, worker, n) for worker in range(10) for n in range(1000)]
    assert np.mean(drawn) == pytest.approx(0.02, abs=0.005)
    assert drawn == [few.slow(0, worker, n) for worker in range(10) for n in range(1000)]
    assert drawn[:1000] != [few.slow(1, 0, n) for n in range(1000)]


def test_who_is_slow_when() -> None:
    worker, span, hung = SCHEDULES["worker"], SCHEDULES["span"], SCHEDULES["hung"]
    assert [worker.slow(0, n, 5) for n in range(5)] == [False, False, False, True, False]
    assert worker.stretch(True, 3, 0.0) == 10
    assert [span.stretch(False, 2, t) for t in (9.9, 10.0, 39.9, 40.0)] == [1, 5, 5, 1]
    assert span.stretch(False, 1, 20.0) == 1
    assert (hung.stretch(False, 3, 0.0), hung.stretch(False, 2, 0.0)) == (inf, 1)


def test_a_workers_share_sleeps_as_long_as_its_number_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("approxifer.benchmarks.stragglers.schedules.time.sleep", slept.append)
    half = Schedule("half of them", share=0.5, factor=10.0)
    serve = Service(half, 7, 2, 0.5).bind(np.random.default_rng())
    for _ in range(20):
        served = serve(lambda rows: rows + 1)
        assert served(np.zeros(1)) == 1
        served(np.zeros(1))
    expected = [5.0 if half.slow(7, 2, n) else 0.5 for n in range(20)]
    assert slept == [seconds for seconds in expected for _ in range(2)]
    assert len(set(expected)) == 2


# ---- latencies -----------------------------------------------------------------------------------


def attempt(share: int, start: float, stop: float, fate: str = "used") -> dict[str, Any]:
    return {"share": share, "attempt": 0, "worker": "w", "fate": fate, "start": start, "stop": stop}


def test_latencies_from_a_journal() -> None:
    """K=2, S=1: decodable with two of three; block 1 of group 0 is repaired."""
    spec = SCHEMES["exact-1"].spec(2)
    lost = [attempt(0, 1.0, 2.0), attempt(1, 1.5, 3.0, "dropped"), attempt(2, 1.0, 2.5)]
    whole = [attempt(0, 2.0, 3.0), attempt(1, 2.0, 4.0), attempt(2, 2.0, 3.5, "spare")]
    events = [
        {"event": "session", "code": spec.__dict__},
        {"event": "group", "group": 1, "kind": "coded", "attempts": whole},
        {"event": "group", "group": 0, "kind": "coded", "attempts": lost},
        {"event": "group", "group": 9, "kind": "repair", "attempts": [attempt(0, 3, 6)], "of": [0]},
    ]
    assert latency.read(events) == [Latency(1.5, 5.0), Latency(1.5, 2.0)]
    assert latency.read(events[:3])[0] == Latency(1.5, inf)


def test_quantiles_are_of_enough_groups_and_infinite_ones_count() -> None:
    values = [1.0] * 1970 + [5.0] * 20 + [inf] * 10
    found = latency.quantiles(values)
    assert found == {"p50": 1.0, "p99": 5.0, "p99.9": None}
    assert latency.quantiles(values[:1990])["p99"] is None
    assert latency.quantiles(values + [inf] * 40)["p99"] is None
    assert latency.quantiles([1.0] * 10_000)["p99.9"] == 1.0


def test_a_tail_goes_down_to_one_group() -> None:
    tail = latency.tail([*range(1, 100), inf])
    assert tail[0] == (99.0, 0.02)
    assert tail[-1] == (1.0, 1.0)


# ---- the virtual clock ---------------------------------------------------------------------------


def test_without_faults_every_share_takes_its_time() -> None:
    one = played("hedged", SCHEDULES["none"], groups=1, workers=4)
    (found,) = latency.read(one.events)
    assert (found.decodable, found.final) == pytest.approx((0.1, 0.1))
    assert (one.seconds, one.evaluations_per_query) == pytest.approx((0.1, 1.0))
    more = played("hedged", SCHEDULES["none"], groups=8, workers=4)
    assert more.seconds == pytest.approx(0.8)
    assert all(one.final < 0.21 for one in latency.read(more.events))


def test_without_repair_a_slow_worker_is_dropped_and_stops_at_its_micro_batch() -> None:
    """With six shares of which four are needed, nothing waits for worker 0."""
    slow = replace(SCHEDULES["worker"], worker=0)
    one = played("none", slow, groups=1, workers=6)
    (found,) = latency.read(one.events)
    assert found.decodable == pytest.approx(0.1)
    attempts = {a["worker"]: a["fate"] for a in one.events[1]["attempts"]}
    assert attempts["worker-0"] == "dropped"
    assert list(attempts.values()).count("used") == 4
    more = played("none", slow, groups=40, workers=6)
    # The slow one sleeps 250 ms at a time: it begins its next micro-batch in vain.
    assert 1.0 < more.evaluations_per_query < 1.4
    assert more.seconds < 40 * 0.15


def test_with_repair_all_groups_end_final_under_every_schedule() -> None:
    for fault, schedule in SCHEDULES.items():
        for name in ("exact", "replication", "hedged"):
            one = played(name, schedule, groups=12, workers=8)
            found = latency.read(one.events)
            assert len(found) == 12, (fault, name)
            assert all(one.decodable <= one.final < inf for one in found), (fault, name)


def test_plain_dask_waits_behind_a_slow_share() -> None:
    """Two workers of two places each, four shares of two groups: worker 0 is slow, 1 is not."""
    shape = Shape(block=32, micro_batch=8, window=4, workers=2)
    slow = replace(SCHEDULES["worker"], worker=0)
    common: dict[str, Any] = {"groups": 2, "shape": shape, "seed": 0, "delays": PURE}
    found, seconds = simulated_dask.play(2, schedule=slow, **common)
    assert [one.final for one in found] == pytest.approx([1.0, 1.9])
    assert seconds == pytest.approx(2.0)
    hung = replace(SCHEDULES["hung"], hung=0)
    found, _ = simulated_dask.play(2, schedule=hung, **common)
    assert [one.final for one in found] == [inf, inf]


def test_delays_are_found_again_in_what_was_played_with_them() -> None:
    given = Delays(sleep=0.025, forward=(0.02,), gap=0.004, send=0.004)
    scheme = SCHEMES["hedged"]
    shape = Shape(block=32, micro_batch=8, window=4, workers=4)
    one = simulation.play(
        scheme.spec(4), scheme.checked(4).policy, repair=True, groups=12, shape=shape,
        schedule=SCHEDULES["none"], seed=0, delays=given,
    )  # fmt: skip
    site = Site(Path(), Path(), Path(), Path(), np.empty(0), 4, shape, 0.025, 0)
    found = delays(one.events, site)
    assert found.gap == pytest.approx(0.004, abs=1e-3)
    assert found.forward == pytest.approx([0.02] * 48, abs=1e-3)


# ---- the page ------------------------------------------------------------------------------------


def figures(p50: float, p99: float | None, *, final: bool = True, **more: Any) -> dict[str, Any]:
    both = {"p50": p50, "p99": p99, "p99.9": None}
    made = {
        "groups": 2000, "decodable": both, "final": both if final else None, "seconds": 9.0,
        "whole": True, "evaluations_per_query": 1.25, "agreement": 0.97,
    }  # fmt: skip
    return made | more


def test_goals_are_compared() -> None:
    few = {
        "dask": figures(0.2, 1.6),
        "replication": figures(0.2, 0.4),
        "none": figures(0.2, 0.4, final=False),
        "prompt": figures(0.2, 0.5, final=False),
        "exact": figures(0.2, 0.51),
    }
    hung = {
        label: {"seconds": s, "whole": s < 300, "evaluations_per_query": 1.0}
        for label, s in {
            "fault-free": 100.0, 'heal="restart"': 119.0, 'heal="avoid"': 131.0,
            "plain Dask, fault-free": 90.0, "plain Dask": 300.0,
        }.items()
    }  # fmt: skip
    text = describe({"groups": {"few": few}, "hung": hung, "seconds": {"hung": 60.0}})
    goals = text[text.index("The goals") :]
    assert re.findall("reached|MISSED", goals) == [
        "reached", "reached", "reached", "MISSED", "MISSED", "reached", "MISSED", "reached",
        "reached", "MISSED",
    ]  # fmt: skip
    assert "did not end within 5 min" in text


def test_the_page_is_generated_from_its_figures() -> None:
    """``stragglers --out docs/stragglers.json --report docs/stragglers.md`` made it."""
    docs = Path(__file__).parents[3] / "docs"
    results = json.loads((docs / "stragglers.json").read_text(encoding="utf-8"))
    assert (docs / "stragglers.png").exists()
    assert (docs / "stragglers.md").read_text(encoding="utf-8") == page(results)


# ---- the command ---------------------------------------------------------------------------------


def test_all_sections_with_workers_that_are_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever would run on real workers is simulated instead."""
    shape = Shape(block=8, micro_batch=8, window=3, workers=10)
    site = Site(tmp_path, tmp_path, tmp_path, tmp_path, np.zeros(192, int), 8, shape, 0.1, 0)
    asked: list[tuple[str, int, dict[str, Any]]] = []

    @contextmanager
    def fresh_workers(workers: int) -> Iterator[tuple[None, None]]:
        yield None, None

    def run(
        cluster: None, client: None, site: Site, scheme: Scheme, schedule: Schedule, **given: Any
    ) -> Outcome:
        groups = given.pop("groups")
        asked.append((schedule.label, groups, given))
        one = Delays(site.sleep, (0.0,), 0.0, 0.0)
        common = {"groups": groups, "shape": site.shape, "schedule": schedule, "seed": 0}
        if scheme.options is None:
            found, seconds = simulated_dask.play(8, delays=one, **common)
            return Outcome(found, seconds, schedule.hung is None, 1.0, 1.0, 0, [])
        made = simulation.play(
            scheme.spec(8), scheme.checked(8).policy, repair=scheme.finals, delays=one, **common
        )
        found = latency.read(made.events)
        return Outcome(found, made.seconds, True, made.evaluations_per_query, 1.0, 0, made.events)

    monkeypatch.setattr(stragglers, "build", lambda *args, **given: site)
    monkeypatch.setattr(stragglers, "trained", lambda *args, **given: Path("model.pt2"))
    monkeypatch.setattr(stragglers.live, "fresh_workers", fresh_workers)
    monkeypatch.setattr(stragglers.live, "run", run)
    monkeypatch.setattr(stragglers, "HUNG_GROUPS", 30)
    out, report = tmp_path / "s.json", tmp_path / "s.md"
    arguments = [
        "--groups", "40", "--other-groups", "20", "--simulated-groups", "30", "--processes", "1",
        "--faults", "none", "few", "hung", "--out", str(out), "--report", str(report),
    ]  # fmt: skip
    assert stragglers.main(arguments) == 0
    results = json.loads(out.read_text())
    assert report.read_text() == page(results, name="s")
    assert report.with_suffix(".png").stat().st_size > 10_000
    counts = [(label, groups) for label, groups, _ in asked]
    assert counts.count(("2 % of shares 10x slow", 40)) == 7
    assert counts.count(("no faults", 20)) == 7
    assert [given for *_, given in asked[21:]] == [
        {}, {"heal": "restart"}, {"heal": "avoid"}, {}, {"limit": 300.0, "idle": 300.0},
    ]  # fmt: skip
    assert results["hung"]["plain Dask"]["whole"] is False
    assert set(results["simulated"]["few"]) == set(results["groups"]["few"])
    printed = capsys.readouterr().out
    assert "did not end within" in printed
    assert 'makespan, one worker hung, heal="avoid"' in printed


def test_sections_that_were_measured_before_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "s.json"
    now = {"seed": 0, "hung": {"plain Dask": 2}, "seconds": {"hung": 20.0}}
    assert stragglers.with_earlier(now, str(out)) == now

    spent = {"groups": 5.0, "hung": 9.0}
    write_json(out, {"seed": 0, "groups": {"few": 1}, "hung": {"plain Dask": 1}, "seconds": spent})
    kept = stragglers.with_earlier(now, str(out))
    assert kept == {**now, "groups": {"few": 1}, "seconds": {"groups": 5.0, "hung": 20.0}}

    other = {**now, "seed": 1}
    assert stragglers.with_earlier(other, str(out)) == other


def test_quick_asks_for_less(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(stragglers, "run", lambda **given: asked.append(given) or {})
    for given in ([], ["--quick"]):
        assert stragglers.main(given) == 0
    full, quick = asked
    assert {name for name in full if full[name] != quick[name]} == {*stragglers.QUICK, "quick"}
