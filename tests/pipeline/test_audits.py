"""Audits: which shares are drawn, who still needs some, and what the clean ones prove."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from approxifer.pipeline.audits import (
    CONFIDENCE,
    FIRST,
    RANDOM,
    AuditBook,
    AuditRule,
    audits_for,
    bound,
)

Book = AuditBook[tuple[str, int]]


def book(rule: AuditRule, seed: int = 0) -> Book:
    return AuditBook(rule, np.random.default_rng(seed))


def only_random(rate: float, **fields: object) -> AuditRule:
    return AuditRule(rate, **({"first": False, "least": 0} | fields))  # type: ignore[arg-type]


def pass_audit(of: Book, worker: str, why: str = RANDOM, auditor: str = "auditor") -> None:
    """An audit from its beginning to its good end."""
    of.began(worker, why)
    of.clean(worker, auditor, why)


def run(of: Book, worker: str, shares: int, *, lies: set[int] | None = None) -> list[int]:
    """A worker's whole life, the end of the run included: its shares audited, to the first lie."""
    found = []

    def audit(share: int, why: str) -> bool:
        found.append(share)
        of.began(worker, why)
        if lies and share in lies:
            of.void(worker, why)
            of.convict(worker)
            return False
        of.clean(worker, "auditor", why)
        return True

    for share in range(shares):
        why = of.draw(worker, to_come=shares - share)
        if why is None:
            of.keep(worker, (worker, share))
        elif not audit(share, why):
            return found
    while due := of.due():
        for _, share in due:
            if not audit(share, RANDOM):
                return found
    return found


def limits(trials: int, chance: float) -> tuple[float, float]:
    """Between these a count lies but for one time in 10,000."""
    low, high = stats.binom.interval(1 - 1e-4, trials, chance)
    return float(low), float(high)


# ---- the bound -----------------------------------------------------------------------------------


@pytest.mark.parametrize("clean", [1, 2, 3, 14, 58, 59, 300])
def test_a_worker_that_lies_at_the_bound_is_caught_with_the_stated_confidence(clean: int) -> None:
    assert (1 - bound(clean)) ** clean == pytest.approx(1 - CONFIDENCE)
    assert bound(clean + 1) < bound(clean)


def test_no_audit_proves_nothing() -> None:
    assert bound(0) == 1.0


def test_the_audits_for_a_bound_are_the_fewest_that_give_it() -> None:
    for assurance in [*np.linspace(0.001, 0.999, 97), *map(bound, range(1, 100))]:
        needed = audits_for(float(assurance))
        assert bound(needed) <= assurance
        assert needed == 1 or bound(needed - 1) > assurance - 1e-12


def test_a_rule_needs_the_larger_of_its_two_numbers() -> None:
    assert AuditRule(0.05).needed == 3
    assert AuditRule(0.05, assurance=0.05).needed == audits_for(0.05) == 59
    assert AuditRule(0.05, least=5, assurance=0.9).needed == 5
    assert AuditRule(0.0, first=False, least=0).needed == 0


def test_a_rule_without_any_audit_says_so() -> None:
    assert not AuditRule(0.0, first=False, least=0).any
    assert AuditRule(0.01, first=False, least=0).any
    assert AuditRule(0.0, first=True, least=0).any
    assert AuditRule(0.0, first=False, least=0, assurance=0.5).any


# ---- draws ---------------------------------------------------------------------------------------


def test_each_workers_first_share_is_drawn_and_no_other_for_that_reason() -> None:
    made = book(AuditRule(0.0, least=0))
    names = ["a", "b", "a", "c", "b", "a"]
    assert [made.draw(name) for name in names] == [FIRST, FIRST, None, FIRST, None, None]
    never = book(only_random(0.0))
    assert [never.draw(name) for name in names] == [None] * 6


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.5])
def test_shares_are_drawn_at_the_rate(rate: float) -> None:
    made, shares = book(only_random(rate), seed=1), 20_000
    drawn = np.array([made.draw(f"w{i % 7}") == RANDOM for i in range(shares)])
    low, high = limits(shares, rate)
    assert low <= drawn.sum() <= high
    # Not by turns: the shares from one drawn to the next vary as much as chance has them vary.
    gaps = np.diff(np.flatnonzero(drawn))
    assert gaps.std() == pytest.approx(np.sqrt(1 - rate) / rate, rel=0.1)
    # Of each worker alike.
    counts = Counter(i % 7 for i in np.flatnonzero(drawn))
    assert stats.chisquare([counts[i] for i in range(7)]).pvalue > 1e-4


def test_another_generator_draws_other_shares() -> None:
    draws = [
        [book.draw("w") for _ in range(200)]
        for book in (book(only_random(0.2), seed) for seed in (1, 1, 2))
    ]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


@pytest.mark.parametrize(("lies", "rate"), [(10, 0.05), (20, 0.05), (20, 0.1), (10, 0.02)])
def test_a_liar_escapes_random_audits_as_often_as_is_said(lies: int, rate: float) -> None:
    """(1 - a)^m, for m lies among shares of which the fraction a is audited."""
    trials, escaped = 2_000, 0
    for seed in range(trials):
        made = book(only_random(rate), seed)
        escaped += not any(made.draw("w") for _ in range(lies))
    low, high = limits(trials, (1 - rate) ** lies)
    assert low <= escaped <= high


@pytest.mark.parametrize("fraction", [0.03, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("rule", [AuditRule(0.05), AuditRule(0.02, assurance=0.1)])
def test_the_bound_is_honoured(rule: AuditRule, fraction: float) -> None:
    """Of workers that lie in that fraction of their shares, at most one in twenty goes uncaught
    with a bound below it."""
    trials, shares, broken = 300, 120, 0
    rng = np.random.default_rng(5)
    for seed in range(trials):
        made = book(rule, seed)
        lies = set(rng.permutation(shares)[: round(fraction * shares)].tolist())
        caught = not lies.isdisjoint(run(made, "w", shares, lies=lies))
        broken += not caught and made.bound("w") < fraction
    assert broken <= limits(trials, 1 - CONFIDENCE)[1]


# ---- assurance -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shares", [80, 200, 1000])
def test_assurance_is_reached_and_not_overdone(shares: int) -> None:
    rule = only_random(0.0, assurance=0.05)
    for seed in range(10):
        made = book(rule, seed)
        audited = run(made, "w", shares)
        assert len(set(audited)) == len(audited) == made.counted("w") == rule.needed == 59
        assert made.bound("w") <= 0.05


def test_a_worker_with_too_few_shares_has_all_of_them_audited() -> None:
    made = book(AuditRule(0.0, assurance=0.05))
    assert sorted(run(made, "w", 20)) == list(range(20))
    assert made.counted("w") == 19  # its first does not count: the worker could foresee it
    assert made.bound("w") == 0.0  # there is nothing left in which it might have lied


def test_under_assurance_each_share_is_as_likely_as_any_other() -> None:
    """A worker that turns bad late is seen as well as one that is bad from the start."""
    shares, places = 100, Counter[int]()
    for seed in range(300):
        places.update(run(book(only_random(0.0, assurance=0.2), seed), "w", shares))
    tenths = [sum(places[10 * i + j] for j in range(10)) for i in range(10)]
    assert sum(tenths) == 300 * audits_for(0.2)
    assert stats.chisquare(tenths).pvalue > 1e-4


def test_audits_under_way_are_taken_for_clean() -> None:
    made = book(only_random(0.0, assurance=0.9))  # two audits
    assert made.missing("w") == 2
    assert made.draw("w", to_come=1) == RANDOM
    made.began("w", RANDOM)
    assert made.missing("w") == 1
    assert made.draw("w", to_come=1) == RANDOM
    made.began("w", RANDOM)
    assert made.missing("w") == 0
    assert made.draw("w", to_come=1) is None
    made.void("w", RANDOM)
    assert made.missing("w") == 1
    assert made.draw("w", to_come=1) == RANDOM


# ---- what counts ---------------------------------------------------------------------------------


def test_only_random_audits_count_for_the_bound() -> None:
    made = book(AuditRule(0.05))
    for _ in range(50):
        made.draw("w")
    for why in (FIRST, "3 rows are not finite", "residual", FIRST):
        pass_audit(made, "w", why)
    assert (made.audited["w"], made.counted("w"), made.bound("w")) == (4, 0, 1.0)
    assert made.missing("w") == 3
    pass_audit(made, "w")
    assert (made.audited["w"], made.counted("w"), made.bound("w")) == (5, 1, bound(1))
    assert (made.counted("idle"), made.bound("idle")) == (0, None)


def test_where_each_share_was_audited_there_is_no_lie_left() -> None:
    made = book(AuditRule(0.0, least=0))
    assert [made.draw("w") for _ in range(2)] == [FIRST, None]
    pass_audit(made, "w", FIRST, auditor="a")
    assert made.bound("w") == 1.0
    pass_audit(made, "w", "residual", auditor="b")
    assert made.bound("w") == 0.0
    made.convict("a")
    assert made.bound("w") == 1.0


def test_what_a_convicted_worker_audited_counts_no_longer() -> None:
    made = book(AuditRule(0.0, first=False))
    for share in range(6):
        assert made.draw("w") is None
        made.keep("w", ("w", share))
    for auditor in ("a", "a", "b"):
        pass_audit(made, "w", auditor=auditor)
    assert (made.counted("w"), made.missing("w"), made.due()) == (3, 0, [])
    made.convict("a")
    assert (made.counted("w"), made.bound("w")) == (1, bound(1))
    assert len(made.due()) == 2
    pass_audit(made, "w", auditor="a")  # it was under way
    assert made.counted("w") == 1


# ---- at the end ----------------------------------------------------------------------------------


def test_shares_are_kept_for_the_end_uniformly() -> None:
    runs, shares, counts = 4_000, 20, Counter[int]()
    for seed in range(runs):
        made = book(only_random(0.0, least=3), seed)
        for share in range(shares):
            made.keep("w", ("w", share))
        due = made.due()
        assert len(set(due)) == 3
        counts.update(share for _, share in due)
    assert stats.chisquare([counts[share] for share in range(shares)]).pvalue > 1e-4


def test_at_the_end_each_worker_gets_what_it_lacks_as_far_as_there_are_shares() -> None:
    made = book(AuditRule(0.0))
    for worker, shares in (("many", 9), ("had one", 9), ("had all", 9), ("few", 2)):
        for share in range(shares):
            made.keep(worker, (worker, share))
    pass_audit(made, "had one")
    for _ in range(3):
        pass_audit(made, "had all")
    due = made.due()
    assert Counter(worker for worker, _ in due) == {"many": 3, "had one": 2, "few": 2}
    assert len(set(due)) == len(due)


def test_what_is_under_way_is_not_asked_for_twice() -> None:
    made = book(AuditRule(0.0, assurance=0.5))  # five audits
    for share in range(9):
        made.keep("w", ("w", share))
    first = made.due()
    assert len(first) == 5
    for _ in first:
        made.began("w", RANDOM)
    assert made.due() == []
    made.void("w", RANDOM)  # its auditor was convicted
    (more,) = made.due()
    assert more not in first


def test_audits_at_the_end_by_a_liar_are_made_up_for() -> None:
    made = book(AuditRule(0.0))
    for share in range(50):
        made.keep("w", ("w", share))
    for _ in made.due():
        pass_audit(made, "w", auditor="liar")
    made.convict("liar")
    assert len(made.due()) == 3


def test_nothing_is_due_of_a_convicted_worker() -> None:
    made = book(AuditRule(0.0))
    for worker in ("good", "bad"):
        for share in range(5):
            made.keep(worker, (worker, share))
    made.convict("bad")
    assert Counter(worker for worker, _ in made.due()) == {"good": 3}
