"""Suspicion over simulated runs: a small network along codewords, some of whose shares are lies."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection

import numpy as np
import pytest
from scipy.stats import binom

from approxifer.coding import CodeSpec
from approxifer.errors import ConfigError
from approxifer.pipeline import suspicion
from approxifer.pipeline.lies import Lie, Noise, SignFlip, Zeros
from approxifer.pipeline.suspicion import FALSE_WATCH, Stakes, Suspect, Suspicion

WORKERS = 9
SPEC = CodeSpec("systematic", k=4, stragglers=0, byzantine=1)
CODE = SPEC.build()


class Run:
    """Groups of a run: blocks of 6 codewords of queries that lie close together, 3 outputs."""

    def __init__(self, spec: CodeSpec = SPEC, *, seed: int = 0) -> None:
        self.code = spec.build()
        self.suspicion = Suspicion(self.code)
        self.rng = np.random.default_rng(seed)
        model = np.random.default_rng(99)
        self._first, self._second = model.normal(size=(10, 16)) / 2, model.normal(size=(16, 3))
        self._group = -1
        self.liars: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
        self.lied: list[tuple[int, int, str]] = []
        self.watches: list[str] = []

    def lies(self, lie: Lie, *workers: str) -> None:
        for number, worker in enumerate(workers):
            self.liars[worker] = lie.arm(np.random.default_rng(number)).lie

    def go(self, groups: int, *, missing: int = 0) -> list[Suspect]:
        """Run so many groups; who is watched is audited and found clean."""
        found = []
        for _ in range(groups):
            found += self.add(missing)
            for worker in self.suspicion.watched:
                self.watches.append(worker)
                self.suspicion.cleared(worker)
        return found

    def add(self, missing: int = 0) -> list[Suspect]:
        self._group += 1
        center = self.rng.normal(size=(1, 6, 10))
        queries = center + 0.4 * self.rng.normal(size=(self.code.k, 6, 10))
        outputs = np.tanh(self.code.encode(queries) @ self._first) @ self._second
        names = [f"w{w}" for w in self.rng.permutation(WORKERS)[: self.code.n]]
        back = sorted(self.rng.permutation(self.code.n)[missing:].tolist())
        given = {}
        for share in back:
            honest = outputs[share]
            said = self.liars[names[share]](honest) if names[share] in self.liars else honest
            given[share] = said
            if said is not honest:
                self.lied.append((self._group, share, names[share]))
        return self.suspicion.add(self._group, given, {share: names[share] for share in back})


def where(found: Collection[Suspect]) -> set[tuple[int, int, str]]:
    return {(one.group, one.share, one.worker) for one in found}


# ---- one group -----------------------------------------------------------------------------------


def test_nothing_is_suspected_before_twenty_groups_then_the_earlier_ones_too() -> None:
    run = Run()
    run.lies(Noise(100.0, shares=0.4), "w3")
    assert run.go(19) == []
    found = run.go(1)
    assert where(found) == set(run.lied)
    assert len({one.group for one in found}) > 1
    assert run.suspicion.suspected == {"w3": len(found)}


@pytest.mark.parametrize(
    "lie", [Noise(10.0, shares=0.2), Zeros(shares=0.2), SignFlip(shares=0.2)], ids=str
)
def test_a_liar_in_a_fifth_of_his_shares_is_named_and_hardly_anybody_else(lie: Lie) -> None:
    run = Run(seed=1)
    run.lies(lie, "w3")
    found = run.go(150)
    assert len(set(run.lied) & where(found)) > 0.8 * len(run.lied)
    assert len(where(found) - set(run.lied)) <= binom.ppf(0.99, 150, 0.01)


def test_a_liar_in_every_share_is_named_though_he_has_made_history() -> None:
    run = Run(seed=2)
    run.lies(Noise(30.0), "w3")
    found = run.go(60)
    assert len(set(run.lied) & where(found)) > 0.9 * len(run.lied)
    assert {one.worker for one in found} == {"w3"}


def test_clean_groups_are_suspected_no_more_often_than_stated() -> None:
    groups = suspected = watches = 0
    for seed in range(4):
        run = Run(seed=seed)
        found = run.go(150)
        groups += 150
        suspected += len({one.group for one in found})
        watches += len(run.watches)
    assert suspected <= binom.ppf(0.99, groups, 0.01)
    assert watches <= binom.ppf(0.99, groups * CODE.n, FALSE_WATCH)


def test_a_higher_rate_suspects_more() -> None:
    def suspects(rate: float) -> int:
        run = Run(seed=3)
        run.suspicion = Suspicion(CODE, rate=rate)
        return len(run.go(100))

    assert suspects(0.3) > suspects(0.01)


def test_two_liars_at_once() -> None:
    run = Run(CodeSpec("systematic", k=4, stragglers=0, byzantine=2), seed=4)
    run.lies(Noise(30.0, shares=0.2), "w1", "w2")
    found = run.go(150)
    assert len(set(run.lied) & where(found)) > 0.95 * len(run.lied)
    both = {g for g, _, w in run.lied if w == "w1"} & {g for g, _, w in run.lied if w == "w2"}
    named = [one.group for one in found]
    assert both
    assert all(named.count(group) == 2 for group in both)


def test_at_most_e_shares_of_a_group_are_suspected() -> None:
    run = Run(seed=5)
    run.lies(Noise(30.0, shares=0.2), "w1", "w2", "w3")
    named = [one.group for one in run.go(100)]
    assert max(named.count(group) for group in named) == 1


@pytest.mark.parametrize("missing", [1, 2])
def test_shares_that_did_not_come_back_are_done_without(missing: int) -> None:
    run = Run(CodeSpec("systematic", k=4, stragglers=2, byzantine=1), seed=6)
    run.lies(Noise(30.0, shares=0.2), "w1")
    found = run.go(100, missing=missing)
    assert len(set(run.lied) & where(found)) > 0.9 * len(run.lied)
    assert len(where(found) - set(run.lied)) <= binom.ppf(0.99, 100, 0.01)


def test_a_suspect_says_why() -> None:
    run = Run(seed=8)
    run.lies(Noise(100.0, shares=0.3), "w1")
    one = run.go(40)[-1]
    assert re.fullmatch(
        r"its [a-z ]+ is [\d.]+ spreads above the usual, as of one in \S+ honest shares", one.reason
    )
    assert one.score > -np.log10(0.01 / 2 / CODE.n)
    assert "\n" not in one.reason


def test_runs_repeat() -> None:
    def once() -> list[Suspect]:
        run = Run(seed=9)
        run.lies(Noise(1.0), "w1")
        return run.go(60)

    assert once() == once()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int64, np.complex128])
@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 2, 3)])
def test_any_outputs_are_taken(dtype: type, shape: tuple[int, ...]) -> None:
    rng, asked = np.random.default_rng(0), Suspicion(CODE)
    for group in range(30):
        outputs = (5 * rng.normal(size=(CODE.n, *shape))).astype(dtype)
        names = {share: f"w{share}" for share in range(CODE.n)}
        asked.add(group, dict(enumerate(outputs)), names)
    outputs[2] = 50 * np.ones(shape)
    found = asked.add(30, dict(enumerate(outputs)), names)
    assert [one.share for one in found] == [2]


def test_groups_of_which_nothing_came_back_and_short_ones_do_no_harm() -> None:
    run = Run(seed=10)
    for group in range(-5, 0):
        assert run.suspicion.add(group, {}, {}) == []
    run.go(30)
    rows = {share: np.ones((1, 3)) * share for share in range(CODE.n)}
    run.suspicion.add(99, rows, {share: f"w{share}" for share in rows})
    run.lies(Noise(100.0), "w1")
    run.go(10)
    assert set(run.suspicion.suspected) >= {"w1"}


# ---- outside any codeword ------------------------------------------------------------------------


def test_plain_shares_are_held_against_plain_shares() -> None:
    rng, asked = np.random.default_rng(0), Suspicion(CODE)
    for group in range(40):
        output = 1 + rng.normal(size=(20, 5))
        assert asked.add_plain(group, output, f"w{group % 5}") == []
    (found,) = asked.add_plain(40, np.zeros((20, 5)), "w1")
    assert (found.group, found.share, found.worker) == (40, 0, "w1")
    asked.forget("w1")
    assert asked.add_plain(41, np.zeros((20, 5)), "w1") == []


# ---- over groups ---------------------------------------------------------------------------------


def test_small_lies_add_up_until_their_worker_is_watched() -> None:
    run = Run(seed=11)
    run.lies(Noise(0.5, relative=True), "w4")
    found = run.go(150)
    assert len(where(found)) < 0.3 * len(run.lied)
    assert len(run.watches) > 1  # and again, once cleared
    assert set(run.watches) == {"w4"}
    run.suspicion.cleared("w4")
    assert run.suspicion.watched == frozenset()


@pytest.mark.parametrize("together", [False, True])
def test_false_watches_are_as_rare_as_stated(
    together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For uniform p-values, whatever the two of a share have in common. At a rate of one in a
    hundred, to have some to count: between them and the bound lies a factor of ten or so."""
    monkeypatch.setattr(suspicion, "FALSE_WATCH", 0.01)
    rng = np.random.default_rng(0)
    first, second = rng.uniform(size=(2, 50_000))
    stakes, watches = Stakes(), 0
    for pair in zip(first.tolist(), (first if together else second).tolist(), strict=True):
        stakes.add("honest", pair)
        if stakes.watched:
            watches += 1
            stakes.drop("honest")
    assert 0 < watches <= 0.01 * len(first)


def test_who_is_watched_stays_so_until_cleared() -> None:
    stakes = Stakes()
    for _ in range(20):
        stakes.add("liar", [0.001, 0.5])
    for _ in range(500):
        stakes.add("liar", [1.0, 1.0])
        stakes.add("honest", [1.0, 1.0])
    assert stakes.watched == {"liar"}
    stakes.drop("liar")
    assert stakes.watched == frozenset()


def test_a_convicted_worker_leaves_the_history() -> None:
    with_liar, clean = Run(seed=12), Run(seed=12)
    with_liar.lies(Noise(100.0), "w1")
    with_liar.go(40)
    clean.go(40)
    assert with_liar.suspicion.suspected["w1"] > 20
    for run in (with_liar, clean):
        run.suspicion.forget("w1")
        run.liars.clear()
        run.suspicion.suspected.clear()
        run.lies(Noise(1.0), "w2")
        run.go(60)
    assert "w1" not in with_liar.suspicion.suspected
    # What it made history of is forgotten: another one is found as well as without it.
    hits = [run.suspicion.suspected["w2"] for run in (with_liar, clean)]
    assert abs(hits[0] - hits[1]) <= 0.1 * hits[1]
    with_liar.lies(Noise(100.0), "w1")
    with_liar.go(20)
    assert "w1" not in with_liar.suspicion.suspected
    assert "w1" not in with_liar.suspicion.watched


def test_forgetting_before_there_is_anything() -> None:
    run = Run(seed=13)
    run.go(10)
    run.suspicion.forget("w1")
    run.suspicion.cleared("w2")
    run.go(20)
    assert run.suspicion.watched == frozenset()


def test_two_threads() -> None:
    runs = [Run(seed=14), Run(seed=15)]
    runs[1].suspicion = runs[0].suspicion
    runs[1]._group = 1000
    for run in runs:
        run.lies(Noise(100.0, shares=0.2), "w1")
    threads = [threading.Thread(target=run.go, args=(80,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lied = len(runs[0].lied) + len(runs[1].lied)
    # All that it lied about, whoever came first; a false suspicion may be among them.
    assert lied <= runs[0].suspicion.suspected["w1"] <= lied + 2


@pytest.mark.parametrize(
    ("wrong", "message"), [({"rate": 0.0}, "rate=0.0"), ({"burn_in": 4}, "burn_in=4")]
)
def test_what_is_no_rate_or_history_is_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Suspicion(CODE, **wrong)  # type: ignore[arg-type]
