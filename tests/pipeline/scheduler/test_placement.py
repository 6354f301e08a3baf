"""The places of shares: never two that conflict on one worker, and evenly over all."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from approxifer.coding import Code, CodeSpec
from approxifer.pipeline.scheduler.placement import Candidate, place
from approxifer.pipeline.worker import NODE_VARIABLES, node_name

SCHEMES = ("uncoded", "replication", "systematic", "berrut")


def build(scheme: str = "systematic", k: int = 4, stragglers: int = 1) -> Code:
    return CodeSpec(scheme=scheme, k=k, stragglers=stragglers).build()


def equal(count: int, *, wait: float = 0.0, time: float = 1.0) -> list[Candidate]:
    return [Candidate(f"a{i}", f"w{i}", wait, time) for i in range(count)]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def rivals(code: Code, share: int) -> set[int]:
    return {other for conflict in code.conflicts if share in conflict for other in conflict} - {
        share
    }


# ---- conflicts -----------------------------------------------------------------------------------


@settings(derandomize=True, max_examples=100, deadline=None)
@given(data=st.data())
def test_conflicting_shares_never_share_a_worker(data: st.DataObject) -> None:
    code = build(
        data.draw(st.sampled_from(SCHEMES)),
        data.draw(st.integers(1, 8)),
        data.draw(st.integers(0, 3)),
    )
    count = data.draw(st.integers(0, 12))
    candidates = [
        Candidate(f"a{i}", f"w{i}", data.draw(st.floats(0, 20)), data.draw(st.floats(0.1, 10)))
        for i in range(count)
    ]
    addresses = [c.address for c in candidates]
    held = {
        share: {data.draw(st.sampled_from(addresses))}
        for share in (data.draw(st.sets(st.integers(0, code.n - 1))) if addresses else ())
    }
    live = {share: held[share] for share in held if data.draw(st.booleans())}
    reuse = data.draw(st.booleans())
    shares = data.draw(st.permutations(range(code.n)))
    placed = place(
        shares,
        code,
        candidates,
        rng=rng(data.draw(st.integers(0, 99))),
        held=held,
        live=live,
        avoid=data.draw(
            st.sets(st.sampled_from([c.name for c in candidates])) if count else st.just(())
        ),
        reuse=reuse,
    )
    assert set(placed.values()) <= set(addresses)
    shut = live if reuse else held
    for share, address in placed.items():
        for other in rivals(code, share):
            assert placed.get(other) != address
            assert address not in shut.get(other, ())
        assert address not in live.get(share, ())
    # A share is left out only if each worker holds it, or one that conflicts with it.
    where = {
        s: set(shut.get(s, ())) | ({placed[s]} if s in placed else set()) for s in range(code.n)
    }
    for share in set(shares) - set(placed):
        full = set().union(*(where[s] for s in {share} | rivals(code, share)))
        assert full >= set(addresses)


@pytest.mark.parametrize("workers", [0, 1, 3, 5, 7])
def test_too_few_workers_leave_shares_out(workers: int) -> None:
    placed = place(range(6), build("systematic", 4, 2), equal(workers), rng=rng())
    assert len(placed) == min(workers, 6)
    assert len(set(placed.values())) == len(placed)


def test_it_is_not_always_the_same_shares_that_are_left_out() -> None:
    code = build("berrut", 4, 1)
    out = {min(set(range(5)) - set(place(range(5), code, equal(4), rng=rng(s)))) for s in range(60)}
    assert out == {0, 1, 2, 3, 4}


def test_data_is_placed_before_parity_where_not_all_fits() -> None:
    for seed in range(20):
        placed = place([5, 4, 3, 2, 1, 0], build("systematic", 4, 2), equal(4), rng=rng(seed))
        assert set(placed) == {0, 1, 2, 3}


def test_shares_that_do_not_conflict_may_share_a_worker() -> None:
    assert place(range(4), build("uncoded"), equal(1), rng=rng()) == dict.fromkeys(range(4), "a0")
    placed = place(range(4), build("replication", 2, 1), equal(2), rng=rng())
    assert placed[0] != placed[2]
    assert placed[1] != placed[3]


# ---- the least loaded ----------------------------------------------------------------------------


def test_the_least_loaded_comes_first() -> None:
    candidates = [
        Candidate(f"a{i}", f"w{i}", float(wait), 1.0) for i, wait in enumerate([3, 0, 5, 1])
    ]
    code = build("uncoded", 1)
    for seed in range(10):
        assert place([0], code, candidates, rng=rng(seed)) == {0: "a1"}


def test_what_is_placed_counts_as_load() -> None:
    for seed in range(10):
        placed = place(range(8), build("uncoded", 8), equal(4), rng=rng(seed))
        assert sorted(Counter(placed.values()).values()) == [2, 2, 2, 2]
    # one share takes three times as long there
    candidates = [*equal(2), Candidate("slow", "slow", 0.0, 3.0)]
    placed = place(range(7), build("uncoded", 7), candidates, rng=rng())
    assert Counter(placed.values())["slow"] == 1


def test_the_slow_worker_gets_the_parity() -> None:
    candidates = [*equal(4), Candidate("slow", "slow", 0.0, 4.0)]
    for seed in range(30):
        placed = place(range(5), build("systematic", 4, 1), candidates, rng=rng(seed))
        assert placed[4] == "slow"


def test_the_full_worker_gets_the_parity() -> None:
    candidates = [*equal(4), Candidate("full", "full", 3.0, 1.0)]
    for seed in range(30):
        placed = place(range(5), build("systematic", 4, 1), candidates, rng=rng(seed))
        assert placed[4] == "full"


def test_nearly_equal_loads_are_ties() -> None:
    """Workers' paces are never equal; a few percent must not fix who holds what."""
    candidates = [Candidate(f"a{i}", f"w{i}", 0.0, 1.0 + 0.02 * i) for i in range(5)]
    parity = {place(range(5), build(), candidates, rng=rng(seed))[4] for seed in range(60)}
    assert len(parity) == 5


# ---- chance --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_same_generator_gives_the_same_placement(scheme: str) -> None:
    code, candidates = build(scheme), equal(9)
    first = [place(range(code.n), code, candidates, rng=rng(seed)) for seed in range(8)]
    again = [place(range(code.n), code, candidates, rng=rng(seed)) for seed in range(8)]
    assert first == again
    assert any(placed != first[0] for placed in first)


@pytest.mark.parametrize(
    ("scheme", "workers"), [("systematic", 6), ("berrut", 6), ("systematic", 9)]
)
def test_each_worker_holds_each_share_equally_often(scheme: str, workers: int) -> None:
    code, runs = build(scheme, 4, 2), 1800
    counts = np.zeros((workers, code.n))
    for seed in range(runs):
        for share, address in place(range(code.n), code, equal(workers), rng=rng(seed)).items():
            counts[int(address[1:]), share] += 1
    assert counts.sum() == runs * code.n
    expected = runs / workers
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    freedom = (workers - 1) * code.n
    assert chi_square < freedom + 5 * np.sqrt(2 * freedom)
    assert chi_square > 1  # nor by turns


# ---- avoiding, and taking again ------------------------------------------------------------------


def test_avoided_workers_are_used_only_where_no_other_is_left() -> None:
    code = build("systematic", 4, 1)
    for seed in range(20):
        placed = place(range(4), code, equal(6), rng=rng(seed), avoid={"w0", "w3"})
        assert set(placed.values()) == {"a1", "a2", "a4", "a5"}
        placed = place(range(5), code, equal(6), rng=rng(seed), avoid={"w0", "w3"})
        assert len(set(placed.values()) & {"a0", "a3"}) == 1
    assert place([0], code, equal(1), rng=rng(), avoid={"w0"}) == {0: "a0"}


def test_avoiding_goes_before_load() -> None:
    candidates = [Candidate("a0", "w0", 0.0, 1.0), Candidate("a1", "w1", 50.0, 1.0)]
    assert place([0], build("uncoded"), candidates, rng=rng(), avoid={"w0"}) == {0: "a1"}


def test_a_share_goes_to_another_worker_than_before() -> None:
    code = build("uncoded", 2)
    for seed in range(10):
        assert place([0], code, equal(2), rng=rng(seed), held={0: {"a0"}}) == {0: "a1"}


def test_a_worker_whose_share_is_in_is_taken_again_only_with_reuse() -> None:
    code = build("systematic", 2, 1)
    held = {0: {"a0"}, 1: {"a1"}, 2: {"a2"}}
    live = {0: {"a0"}, 2: {"a2"}}  # share 1 is in
    for seed in range(10):
        keywords = {"held": held, "live": live}
        assert place([0], code, equal(3), rng=rng(seed), reuse=False, **keywords) == {}
        assert place([0], code, equal(3), rng=rng(seed), reuse=True, **keywords) == {0: "a1"}
        # A worker that had nothing of the group goes first.
        assert place([0], code, equal(4), rng=rng(seed), reuse=True, **keywords) == {0: "a3"}


def test_a_share_on_which_the_model_raised_goes_to_another_name() -> None:
    """A worker that died of it comes back at another address."""
    code = build("uncoded", 2)
    again = Candidate("a9", "w0", 0.0, 1.0)
    busy = [Candidate("a1", "w1", 50.0, 1.0)]
    raised = {"raised": {0: {"w0"}}, "held": {0: {"a0"}}}
    for seed in range(10):
        assert place([0], code, [again, *busy], rng=rng(seed), **raised) == {0: "a1"}
        assert place([1], code, [again, *busy], rng=rng(seed), **raised) == {1: "a9"}
    assert place([0], code, [again], rng=rng(), **raised) == {0: "a9"}, "there is no other"
    # Rather to one whose own share is in.
    held = {0: {"a0"}, 1: {"a1"}, 2: {"a2"}}
    keywords = {"raised": {0: {"w0"}}, "held": held, "live": {2: {"a2"}}}
    three = [again, *equal(3)[1:]]
    assert place([0], build("systematic", 2, 1), three, rng=rng(), **keywords) == {0: "a1"}
    keywords["reuse"] = False
    assert place([0], build("systematic", 2, 1), three, rng=rng(), **keywords) == {0: "a9"}


def test_its_own_former_worker_comes_last() -> None:
    code = build("systematic", 2, 1)
    held = {0: {"a0"}, 1: {"a1"}, 2: {"a2"}}
    for seed in range(10):
        again = place([0], code, equal(3), rng=rng(seed), held=held, live={2: {"a2"}})
        assert again == {0: "a1"}  # not a0, where share 0 was lost
    everywhere = {0: {"a0", "a1"}, 1: {"a1"}, 2: {"a2"}}
    assert place([0], code, equal(3), rng=rng(), held=everywhere, live={2: {"a2"}})[0] in {
        "a0",
        "a1",
    }
    assert place([0], code, equal(1), rng=rng(), held={0: {"a0"}}) == {0: "a0"}
    assert place([0], code, equal(1), rng=rng(), held={0: {"a0"}}, live={0: {"a0"}}) == {}


def test_what_is_passed_in_is_not_changed() -> None:
    held, live = {0: {"a0"}}, {0: {"a0"}}
    candidates = equal(5)
    place([1, 2], build(), candidates, rng=rng(), held=held, live=live)
    assert (held, live, candidates) == ({0: {"a0"}}, {0: {"a0"}}, equal(5))


# ---- nodes ---------------------------------------------------------------------------------------


def on_nodes(count: int, per_node: int) -> list[Candidate]:
    """Workers that fill one node after the other."""
    return [Candidate(f"a{i}", f"w{i}", 0.0, 1.0, f"n{i // per_node}") for i in range(count)]


def nodes_of(placed: dict[int, str], candidates: list[Candidate]) -> Counter[str]:
    node = {c.address: c.node for c in candidates}
    return Counter(node[address] for address in placed.values())


@pytest.mark.parametrize("seed", range(20))
def test_with_enough_nodes_no_node_holds_two_conflicting_shares(seed: int) -> None:
    code, candidates = build(k=8), on_nodes(24, 2)
    placed = place(range(code.n), code, candidates, rng=rng(seed))
    assert len(placed) == 9
    assert set(nodes_of(placed, candidates).values()) == {1}


@pytest.mark.parametrize("seed", range(20))
def test_with_fewer_nodes_the_shares_are_spread_over_them(seed: int) -> None:
    code, candidates = build(k=8, stragglers=2), on_nodes(16, 4)
    placed = place(range(code.n), code, candidates, rng=rng(seed))
    assert len(set(placed.values())) == 10
    assert sorted(nodes_of(placed, candidates).values()) == [2, 2, 3, 3]


def test_a_share_sent_again_goes_to_a_node_without_its_rivals() -> None:
    code, candidates = build(k=4), on_nodes(12, 2)
    held = {share: {f"a{2 * share}"} for share in range(code.n)}
    for seed in range(10):
        placed = place([0], code, candidates, rng=rng(seed), held=held, live=held)
        assert nodes_of(placed, candidates) == {"n5": 1}


def test_a_node_that_is_much_busier_than_the_rest_is_not_waited_for() -> None:
    """Two copies of each block, nine workers on one node and one on the other."""
    code = build("replication", k=1)
    crowd = [Candidate(f"a{i}", f"w{i}", 0.0, 1.0, "n0") for i in range(9)]
    for wait, nodes in ((0.0, {"n0": 1, "n1": 1}), (2.0, {"n0": 1, "n1": 1}), (3.0, {"n0": 2})):
        candidates = [*crowd, Candidate("b", "v", wait, 1.0, "n1")]
        placed = place(range(code.n), code, candidates, rng=rng())
        assert nodes_of(placed, candidates) == nodes, wait


def test_a_workers_environment_may_name_its_node(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NODE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert node_name() == ""
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    assert node_name() == "n7"
    monkeypatch.setenv("APPROXIFER_NODE", "rack-2")
    assert node_name() == "rack-2"
