"""Whom to doubt: what is wrong on the face of it, what is suspicious, what is drawn."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from approxifer.coding import Code, CodeSpec
from approxifer.pipeline import trust as trust_module
from approxifer.pipeline.audits import FIRST, RANDOM, AuditRule
from approxifer.pipeline.suspicion import Suspect
from approxifer.pipeline.tolerance import Tolerance
from approxifer.pipeline.trust import Doubt, ShareRef, Trust, worst

CODE = CodeSpec(scheme="systematic", k=2, stragglers=0, byzantine=1).build()  # four shares
NOTHING = AuditRule(0.0, first=False, least=0)
MEMBERS = np.arange(6)


class FakeSuspicion:
    """Suspects whom the test names, when the test says so."""

    def __init__(self, code: object) -> None:
        self.watched: frozenset[str] = frozenset()
        self.seen: list[tuple[int, dict[int, str]]] = []
        self.plain: list[tuple[int, str]] = []
        self.was_cleared: list[str] = []
        self.forgotten: list[str] = []
        self.next: list[Suspect] = []

    def suspect(self, group: int, share: int, worker: str = "w", score: float = 4.0) -> None:
        """Suspect a share at the next call."""
        self.next.append(Suspect(group, share, worker, "it looks odd", score))

    def add(
        self, group: int, outputs: Mapping[int, Any], workers: Mapping[int, str]
    ) -> list[Suspect]:
        assert outputs.keys() == workers.keys()
        self.seen.append((group, dict(workers)))
        return self._told()

    def add_plain(self, group: int, output: Any, worker: str) -> list[Suspect]:
        self.plain.append((group, worker))
        return self._told()

    def _told(self) -> list[Suspect]:
        told, self.next = self.next, []
        return told

    def cleared(self, worker: str) -> None:
        self.was_cleared.append(worker)
        self.watched -= {worker}

    def forget(self, worker: str) -> None:
        self.forgotten.append(worker)


@pytest.fixture(autouse=True)
def no_real_suspicion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust_module, "Suspicion", FakeSuspicion)


def make(
    rule: AuditRule = NOTHING, seed: int = 0, code: Code = CODE
) -> tuple[Trust, FakeSuspicion]:
    made = Trust(
        code,
        rule=rule,
        tolerance=Tolerance(1e-3, np.ones(2)),
        rng=np.random.default_rng(seed),
    )
    assert isinstance(made.suspicion, FakeSuspicion)
    return made, made.suspicion


def share(
    number: int, worker: str = "", *, group: int = 0, output: Any = None, **fields: Any
) -> ShareRef:
    found = np.ones((3, 2), np.float32) if output is None else np.asarray(output)
    return ShareRef(group, number, worker or f"w{number}", CODE, MEMBERS, (0, 6), found, **fields)


def group_of(number: int = 0, **special: ShareRef) -> list[ShareRef]:
    """A whole group; ``s1=``: another share 1 than the usual."""
    return [special.get(f"s{i}") or share(i, group=number) for i in range(4)]


def told(doubts: Sequence[Doubt]) -> dict[tuple[int, int], tuple[str, bool]]:
    found = {(d.ref.group, d.ref.share): (d.why, d.held) for d in doubts}
    assert len(found) == len(doubts), "a share is doubted twice"
    return found


# ---- on the face of it ---------------------------------------------------------------------------


def test_an_ordinary_group_is_not_doubted() -> None:
    made, suspicion = make()
    assert made.inspect(group_of(5), coded=True) == []
    assert suspicion.seen == [(5, {i: f"w{i}" for i in range(4)})]
    assert made.suspected == Counter()


def test_adaptive_copies_that_agree_are_not_held_against_any_history() -> None:
    code = CodeSpec("replication", k=2, stragglers=0, byzantine=1, adaptive=True).build()
    made, suspicion = make(AuditRule(1.0, first=False, least=0), code=code)
    assert len(made.inspect(group_of(5), coded=True)) == 4, "drawn"
    assert suspicion.seen == []
    made.inspect([share(0)], coded=False)
    assert suspicion.plain == [(0, "w0")]


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_doubted_at_once(number: float) -> None:
    made, suspicion = make()
    output = np.ones((3, 2), np.float32)
    output[1:, 0] = number
    (doubt,) = made.inspect(group_of(s2=share(2, output=output)), coded=True)
    assert (doubt.ref.share, doubt.why, doubt.held) == (2, "2 rows are not finite", True)
    assert doubt.score == np.inf
    assert suspicion.seen == [(0, {0: "w0", 1: "w1", 3: "w3"})]  # no word of the others with it
    assert made.suspected == {"w2": 1}


def test_another_shape_or_dtype_is_doubted_at_once() -> None:
    made, suspicion = make()
    bad = share(1, malformed="output (3,) instead of (3, 2)", output=np.full((3, 2), np.nan))
    (doubt,) = made.inspect(group_of(s1=bad), coded=True)
    assert (doubt.ref, doubt.why, doubt.held) == (bad, bad.malformed, True)
    assert doubt.score == np.inf
    assert 1 not in suspicion.seen[0][1]


@pytest.mark.parametrize("dtype", ["int64", "bool"])
@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 2, 2)])
def test_outputs_of_any_shape_and_number(dtype: str, shape: tuple[int, ...]) -> None:
    made, _ = make()
    whole = [share(i, output=np.ones(shape, dtype)) for i in range(4)]
    assert made.inspect(whole, coded=True) == []
    wide = np.ones(shape)
    wide[0, ...] = np.nan
    (doubt,) = made.inspect([share(0, output=wide)], coded=True)
    assert doubt.why == "1 rows are not finite"


def test_rows_whose_input_is_not_finite_may_give_anything_in_a_plain_share() -> None:
    made, suspicion = make()
    output = np.array([[np.nan, 1], [1, 1], [1, 1]])
    finite = np.array([False, True, True])
    assert made.inspect([share(0, output=output)], coded=False, finite=finite[None]) == []
    assert suspicion.plain == [(0, "w0")]
    output = output.copy()
    output[2, 1] = np.inf
    (doubt,) = made.inspect([share(0, output=output)], coded=False, finite=finite[None])
    assert (doubt.why, doubt.held) == ("1 rows are not finite", True)
    assert suspicion.plain == [(0, "w0")]
    assert suspicion.seen == []


def test_a_group_of_which_nothing_came_back_is_no_matter() -> None:
    made, _ = make()
    assert made.inspect([], coded=True) == []
    assert made.inspect([], coded=False) == []


# ---- suspicion -----------------------------------------------------------------------------------


def test_a_suspected_share_is_held() -> None:
    made, suspicion = make()
    suspicion.suspect(3, 2)
    (doubt,) = made.inspect(group_of(3), coded=True)
    assert (doubt.ref.share, doubt.why, doubt.held, doubt.score) == (2, "it looks odd", True, 4.0)
    assert made.suspected == {"w2": 1}


def test_a_suspected_plain_share_is_held() -> None:
    made, suspicion = make()
    suspicion.suspect(900, 0)
    (doubt,) = made.inspect([share(0, "a", group=900)], coded=False)
    assert (doubt.ref.worker, doubt.why, doubt.held) == ("a", "it looks odd", True)


def test_the_shares_of_watched_workers_are_held() -> None:
    made, suspicion = make()
    suspicion.watched = frozenset({"w1", "w9"})
    found = told(made.inspect(group_of(), coded=True))
    assert found == {(0, 1): ("suspicion of its worker added up", True)}
    plain = told(made.inspect([share(0, "w9", group=77)], coded=False))
    assert plain == {(77, 0): ("suspicion of its worker added up", True)}
    suspicion.watched = frozenset({"w1"})
    suspicion.suspect(1, 1)  # the better reason goes first
    assert told(made.inspect(group_of(1), coded=True)) == {(1, 1): ("it looks odd", True)}
    assert made.suspected == {"w1": 2, "w9": 1}


def test_clean_audits_clear_a_watched_worker_only() -> None:
    made, suspicion = make()
    suspicion.watched = frozenset({"w1"})
    for number in range(Trust.CLEARED):
        assert suspicion.was_cleared == [], "who lies now and then passes a single one"
        (doubt,) = made.inspect(group_of(number), coded=True)
        for one in (Doubt(share(0), RANDOM, held=False), doubt):
            made.began(one)
            made.clean(one, "w3")
    assert suspicion.was_cleared == ["w1"]


@pytest.mark.parametrize("earlier", [1, 19, 60])
def test_early_shares_are_tested_once_there_is_a_history(earlier: int) -> None:
    """However long that takes: groups too short to learn from do not count."""
    made, suspicion = make()
    for number in range(earlier):
        assert made.inspect(group_of(number), coded=True) == []
    suspicion.suspect(0, 1)
    suspicion.suspect(earlier, 3)
    found = told(made.inspect(group_of(earlier), coded=True))
    # The group of the earlier one is decoded long since: it cannot be held any more.
    assert found == {(0, 1): ("it looks odd", False), (earlier, 3): ("it looks odd", True)}
    assert made.suspected == {"w1": 1, "w3": 1}
    suspicion.suspect(0, 1)
    assert made.inspect(group_of(earlier + 1), coded=True) == []  # once is enough


def test_early_shares_of_convicted_workers_are_forgotten() -> None:
    made, suspicion = make()
    made.inspect(group_of(0), coded=True)
    made.convict(frozenset({"w1", "w2"}))
    assert sorted(suspicion.forgotten) == ["w1", "w2"]
    suspicion.suspect(0, 1)
    suspicion.suspect(0, 3)
    assert list(told(made.inspect(group_of(1), coded=True))) == [(0, 3)]


def test_early_plain_shares_are_tested_too() -> None:
    made, suspicion = make()
    for number in range(40):
        made.inspect(group_of(number), coded=True)
    for number in range(100, 119):
        made.inspect([share(0, group=number)], coded=False)
    suspicion.suspect(103, 0)
    assert told(made.inspect([share(0, group=119)], coded=False)) == {
        (103, 0): ("it looks odd", False)
    }


@pytest.mark.parametrize("coded", [True, False])
@pytest.mark.parametrize("rows", [1_000, 1])
def test_shares_are_let_go(rows: int, coded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they hold beside their outputs, some 1,000 bytes, is memory too."""
    monkeypatch.setattr(Trust, "EARLY_BYTES", 2**19)
    made, _ = make(AuditRule(0.0, first=False))
    kept = []
    for number in range(1_500):
        output = np.ones((rows, 2), np.float32)
        ref = share(0, group=number, output=output)
        kept.append(weakref.ref(ref))
        made.inspect([ref], coded=coded)
    del ref
    gc.collect()
    alive = sum(ref() is not None for ref in kept)
    assert alive > 10
    assert alive * (8 * rows + 500) < 1.2 * 2**19


def test_a_share_that_is_run_anew_takes_the_place_of_the_old_one() -> None:
    """All rows of a window were taken back, and its groups run under the same numbers."""
    made, suspicion = make()
    made.inspect(group_of(0), coded=True)
    again = group_of(s1=share(1, "another"))
    made.inspect(again, coded=True)
    suspicion.suspect(0, 1)
    (doubt,) = made.inspect(group_of(1), coded=True)
    assert doubt.ref is again[1]


# ---- draws ---------------------------------------------------------------------------------------


def test_draws_are_not_held() -> None:
    made, _ = make(AuditRule(0.0, least=0))
    found = told(made.inspect(group_of(), coded=True))
    assert found == {(0, i): (FIRST, False) for i in range(4)}
    assert made.inspect(group_of(1), coded=True) == []
    always, _ = make(AuditRule(1.0, first=False))
    found = told(always.inspect(group_of(), coded=True))
    assert found == {(0, i): (RANDOM, False) for i in range(4)}
    assert always.suspected == Counter()


def test_a_share_in_doubt_is_not_drawn_as_well() -> None:
    made, suspicion = make(AuditRule(1.0, first=False))
    suspicion.suspect(0, 2)
    found = told(made.inspect(group_of(s1=share(1, output=[[np.nan] * 2] * 3)), coded=True))
    assert {key[1]: why for key, (why, _) in found.items()} == {
        0: RANDOM,
        1: "3 rows are not finite",
        2: "it looks odd",
        3: RANDOM,
    }


def test_what_was_not_drawn_may_be_at_the_end() -> None:
    made, _ = make(AuditRule(0.0, first=False))
    for number in range(10):
        made.inspect(group_of(number), coded=True)
    made.convict(frozenset({"w3"}))
    due = made.due()
    assert Counter(doubt.ref.worker for doubt in due) == {"w0": 3, "w1": 3, "w2": 3}
    assert len(told(due)) == 9
    assert {(doubt.why, doubt.held) for doubt in due} == {(RANDOM, False)}
    for doubt in due:
        made.began(doubt)
        made.clean(doubt, "w2" if doubt.ref.worker != "w2" else "w1")
    assert made.due() == []
    assert made.audits.audited == {"w0": 3, "w1": 3, "w2": 3}
    assert made.audits.counted("w0") == 3


def test_doubts_in_which_somebody_is_convicted_do_not_count() -> None:
    made, _ = make(AuditRule(0.0, first=False))
    for number in range(10):
        made.inspect(group_of(number), coded=True)
    for doubt in made.due():
        made.began(doubt)
        made.void(doubt)
    assert made.audits.counted("w0") == 0
    assert {doubt.ref.worker for doubt in made.due()} == {"w0", "w1", "w2", "w3"}


def test_no_share_is_audited_twice() -> None:
    """The second audit would prove nothing, but count: each share would seem audited."""
    made, suspicion = make(AuditRule(0.0, least=0))
    for number in range(2):
        for doubt in made.inspect([share(0, group=number)], coded=True):
            made.began(doubt)
            made.clean(doubt, "auditor")
    suspicion.suspect(0, 0)  # which was its first, and is audited
    for doubt in made.inspect([share(1, group=2)], coded=True):
        made.began(doubt)
        made.clean(doubt, "auditor")
    assert made.audits.bound("w0") == 1.0  # of its two shares one was never run again


def test_a_share_suspected_late_is_not_drawn_at_the_end() -> None:
    made, suspicion = make(AuditRule(0.0, first=False))
    for number in range(3):
        made.inspect([share(0, group=number)], coded=True)
    suspicion.suspect(1, 0)
    (doubt,) = made.inspect([share(1, group=3)], coded=True)
    made.began(doubt)
    made.clean(doubt, "auditor")
    due = [doubt for doubt in made.due() if doubt.ref.worker == "w0"]
    assert {doubt.ref.group for doubt in due} == {0, 2}
    suspicion.suspect(0, 0)  # nor suspected while it is audited
    assert made.inspect([share(1, group=4)], coded=True) == []


# ---- how it came out -----------------------------------------------------------------------------


def test_rows_are_disputed_that_differ_by_more_than_twice_the_tolerance() -> None:
    made, _ = make()
    again = np.ones((3, 2), np.float32)
    output = again.copy()
    output[0, 0], output[1, 1], output[2, 0] = 1 + 1.9e-3, 1 + 2.1e-3, np.nan
    ref = share(0, output=output)
    assert made.disputed(ref, again, None).tolist() == [False, True, True]
    assert made.disputed(ref, output, None).tolist() == [False] * 3
    assert made.disputed(ref, output, "another dtype").tolist() == [True] * 3
    assert made.disputed(share(0, output=output, malformed="x"), output, None).all()


# ---- without audits ------------------------------------------------------------------------------


def doubt(number: int, score: float, *, held: bool = True) -> Doubt:
    return Doubt(share(number), "why", held=held, score=score)


def test_without_audits_the_most_suspicious_shares_are_left_out() -> None:
    doubts = [doubt(0, 3.0), doubt(1, 9.0), doubt(2, 0.0), doubt(3, 99.0, held=False)]
    assert [worst(doubts, most) for most in range(4)] == [set(), {1}, {0, 1}, {0, 1, 2}]
    assert worst([], 2) == frozenset()


def test_without_audits_what_is_wrong_on_the_face_of_it_is_left_out_in_any_case() -> None:
    doubts = [doubt(0, 3.0), doubt(1, np.inf), doubt(2, np.inf)]
    assert worst(doubts, 0) == worst(doubts, 1) == worst(doubts, 2) == {1, 2}
    assert worst(doubts, 3) == {0, 1, 2}
