"""Members of a store, convictions, and the reach of each."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from approxifer.errors import ConfigError
from approxifer.pipeline.byzantine.membership import Conviction, Evidence, Member, Membership

EVIDENCE = Evidence(
    group=7,
    share=3,
    rows=2,
    of=8,
    deviation=0.25,
    allowed=1e-4,
    referee="client",
    suspicion="random",
)


def event(what: str, session: str, /, **fields: Any) -> dict[str, Any]:
    """As it comes back from the disk."""
    found: dict[str, Any] = json.loads(
        json.dumps({"event": what, "session": session} | fields, allow_nan=False)
    )
    return found


def name_event(member: Member) -> dict[str, Any]:
    return event("name", member.session, **member.event())


def conviction_event(conviction: Conviction) -> dict[str, Any]:
    return event("conviction", conviction.member.session, **conviction.event())


def of_node(host: str, session: str = "s1", name: str = "w1") -> Conviction:
    return Conviction("node", Member(session, name, host, "cpu", incarnation=9), EVIDENCE)


def of_worker(name: str, session: str = "s1", host: str = "n1") -> Conviction:
    return Conviction("worker", Member(session, name, host, "cpu", incarnation=9), EVIDENCE)


def members(hosts: dict[str, str] | None = None, **options: Any) -> Membership:
    """Members of the session s2, in which workers have joined, by name, on hosts: incarnation 0 is
    the first of them."""
    made = Membership("s2", options.pop("past", ()), **options)
    for number, (name, host) in enumerate((hosts or {}).items()):
        join(made, number, name, host)
    return made


def join(
    made: Membership, number: int, name: str, host: str, node: str = "", device: str = "cpu"
) -> None:
    made.joined(number, name, host=host, node=node, device=device, hardware="cpu | any")


# ---- indices -------------------------------------------------------------------------------------


def test_workers_get_indices_as_they_contribute() -> None:
    seen: list[tuple[int, Member]] = []
    made = members(
        {"a": "n1", "b": "n1", "c": "n2"}, on_new=lambda index, member: seen.append((index, member))
    )
    assert [made.index(number) for number in (1, 0, 1, 0)] == [0, 1, 0, 1]
    assert [member.name for member in made.members] == ["b", "a"]
    assert seen == list(enumerate(made.members))
    assert made.index(2) == 2
    assert made.index(-1) == -1, "the client is no member"


def test_a_name_that_comes_back_is_another_member() -> None:
    """Also at the same place: what the first process returned is not the second one's."""
    old = Member("s1", "a", "n1", "cpu", incarnation=0)
    made = members({"a": "n1"}, past=[name_event(old)])
    assert made.index(0) == 1
    join(made, 5, "a", "n9")
    assert made.index(5) == 2
    join(made, 6, "a", "n1")
    assert made.index(6) == 3
    assert made.index(0) == 1, "and the first keeps its own"


def test_what_a_worker_says_of_its_place_first_is_kept() -> None:
    made = members({"a": "n1"})
    join(made, 0, "b", "n7", "elsewhere", "cuda")
    assert made.member(0) == Member("s2", "a", "n1", "cpu", "", 0, "cpu | any")


def test_names_of_older_stores_have_no_place() -> None:
    old = [{"event": "name", "session": "s1", "index": 0, "worker": "a"}, {"event": "worker"}]
    old.append({"event": "name", "session": "s1", "worker": "b", "host": "n1", "device": "cpu"})
    made = members(past=old)
    assert made.members == [Member("s1", "a"), Member("s1", "b", "n1", "cpu")]
    assert made.tainted() == frozenset()


# ---- the reach of a conviction -------------------------------------------------------------------


def test_of_one_host_the_worker_is_convicted_of_several_the_node() -> None:
    assert members({"a": "n1", "b": "n1"}).kind == "worker"
    assert members({"a": "n1", "b": "n2"}).kind == "node"
    assert members({"a": "n1", "b": "n2"}, quarantine="worker").kind == "worker"
    assert members({"a": "n1", "b": "n1"}, quarantine="node").kind == "node"


def test_a_worker_is_convicted_in_all_its_incarnations_and_counts_once() -> None:
    made = members({"a": "n1", "b": "n1"})
    conviction = made.convict(made.index(0), EVIDENCE)
    assert conviction is not None
    assert conviction.bar_fields() == [{"name": "a"}]
    join(made, 7, "a", "n1")  # its nanny has restarted it
    assert made.is_convicted(7)
    assert made.convict(made.index(7), EVIDENCE) is None
    assert made.tainted() == {made.index(0), made.index(7)}
    assert made.convicted_here == made.convictions == [conviction]
    assert not made.is_convicted(1)


def test_a_node_is_convicted_with_all_workers_on_it() -> None:
    made = members({"a": "n1", "b": "n1", "c": "n2"})
    conviction = made.convict(made.index(0), EVIDENCE)
    assert conviction is not None
    assert conviction.bar_fields() == [{"host": "n1", "node": "", "device": "cpu"}]
    assert [made.is_convicted(number) for number in range(3)] == [True, True, False]
    assert made.convict(made.index(1), EVIDENCE) is None
    join(made, 8, "d", "n1")  # a job that comes later
    assert made.is_convicted(8)


def test_a_name_that_moved_is_not_convicted_with_the_node_it_left() -> None:
    """What it did is scored again, wherever it was; where it is now it goes on, and that stands."""
    made = members({"a": "n1", "b": "n2", "c": "n3"})
    first = made.index(0)
    join(made, 5, "a", "n9")
    before = made.index(5)
    conviction = made.convict(first, EVIDENCE)
    assert conviction is not None
    assert made.is_convicted(0)
    assert not made.is_convicted(5)
    assert made.tainted() == {first, before}
    after = made.index(5)
    assert after not in (first, before)
    assert made.tainted() == {first, before}
    past = [name_event(member) for member in made.members[:2]]
    past += [conviction_event(conviction), name_event(made.members[after])]
    assert Membership("s3", past).tainted() == {0, 1}


def test_nobody_is_dragged_along_by_naming_their_node() -> None:
    """Three workers at one address state where they are; w3 names the honest w0's node."""
    made = Membership("s2")
    for number, node in enumerate(("node-0", "node-1", "node-2", "node-0")):
        join(made, number, f"w{number}", "127.0.0.1", node)
    conviction = made.convict(made.index(3), EVIDENCE)
    assert conviction is not None
    assert conviction.bar_fields() == [
        {"name": "w3", "host": "127.0.0.1", "node": "node-0", "device": "cpu"}
    ]
    assert [made.is_convicted(number) for number in range(4)] == [False, False, False, True]
    assert made.tainted() == {made.index(3)}


def test_devices_of_one_host_are_convicted_one_by_one() -> None:
    made = Membership("s2")
    for number, device in enumerate(("cuda:0", "cuda:1")):
        join(made, number, f"w{number}", "n1", device=device)
    join(made, 2, "w2", "n2")
    made.convict(made.index(1), EVIDENCE)
    assert [made.is_convicted(number) for number in range(3)] == [False, True, False]


def test_who_may_check() -> None:
    made = members({"a": "n1", "b": "n1", "c": "n2", "d": "n3"})
    assert made.checkers({0}) == [2, 3], "b is on a's node"
    assert made.checkers({0}, tried={3}) == [2]
    join(made, 7, "a", "n5")
    assert made.checkers({0}) == [2, 3], "a again, under its name"
    made.departed(2)
    assert made.checkers({0}) == [3]
    made.convict(made.index(3), EVIDENCE)
    assert made.checkers({0}) == []
    one_host = members({"a": "n1", "b": "n1"})
    assert one_host.checkers({0}) == [1]
    assert one_host.checkers({0, 1}) == []


def test_who_has_left_is_still_known() -> None:
    made = members({"a": "n1", "b": "n2"})
    made.departed(1)
    made.departed(99)
    assert made.index(1) == 0
    assert made.kind == "node", "its node counts, for good"


def test_another_run_s_conviction_and_hardware_do_not_count_against_byzantine() -> None:
    made = members({"a": "n1", "b": "n2", "c": "n3"})
    made.convict(made.index(0), EVIDENCE, here=False)
    made.convict(made.index(1), EVIDENCE, aside=True)
    assert made.convicted_here == []
    assert [c.member.name for c in made.convicted_now] == ["a"]
    assert made.is_convicted(0)
    assert made.is_convicted(1), "shut out all the same"
    assert made.convictions[1].sentence.startswith("set aside (its hardware may be the cause): ")


# ---- later sessions ------------------------------------------------------------------------------


def test_a_healthy_job_that_inherits_a_convicted_name_is_not_shut_out() -> None:
    old = Member("s1", "w1", "n1", "cpu", incarnation=9)
    past = [name_event(old), conviction_event(of_node("n1"))]
    made = members({"w1": "n2", "w2": "n3"}, past=past)
    assert not made.is_convicted(0)
    assert made.tainted() == {0}
    assert made.index(0) == 1
    assert made.tainted() == {0}


def test_a_job_of_a_convicted_node_is_shut_out_whatever_it_is_called() -> None:
    made = members({"new": "n1", "w2": "n3"}, past=[conviction_event(of_node("n1"))])
    assert made.is_convicted(0)
    assert made.checkers({1}) == []
    assert [c.member.host for c in made.shut_out] == ["n1"]
    assert made.convicted_now == [], "E counts the convictions of one session"


def test_a_node_convicted_before_there_were_incarnations_is_known_by_its_name() -> None:
    old = Conviction("node", Member("s1", "w1", "n1", "cpu"), EVIDENCE)
    made = Membership("s2", [conviction_event(old)])
    join(made, 0, "job-3", "10.0.0.4", node="n1")
    join(made, 1, "job-4", "10.0.0.5", node="n2")
    (bad,) = made.shut_out
    assert {"node": "n1", "device": "cpu"} in bad.bar_fields()
    assert [made.is_convicted(number) for number in range(2)] == [True, False]


def test_a_worker_convicted_by_name_is_another_one_in_the_next_session() -> None:
    old = Member("s1", "w1", "n1", "cpu", incarnation=9)
    past = [name_event(old), conviction_event(of_worker("w1"))]
    made = members({"w1": "n1", "w2": "n1"}, past=past)
    assert not made.is_convicted(0)
    assert made.shut_out == []
    made.index(0)
    assert made.tainted() == {0}, "what it did is taken back all the same"


def test_a_member_of_an_earlier_session_can_be_convicted() -> None:
    old = Member("s1", "w1", "n1", "cpu", incarnation=9)
    made = members({"w1": "n1"}, past=[name_event(old)], quarantine="worker")
    assert made.convict(0, EVIDENCE) is not None
    assert made.tainted() == {0}
    assert not made.is_convicted(0)
    assert made.convicted_here == []


# ---- forgiving -----------------------------------------------------------------------------------


def test_a_forgiven_node_may_work_again() -> None:
    past = [conviction_event(of_node("n1")), conviction_event(of_node("n2"))]
    made = members({"a": "n1", "b": "n2", "c": "n3"}, past=past, forgive=["n1"])
    assert [made.is_convicted(number) for number in range(3)] == [False, True, False]
    assert [c.member.host for c in made.shut_out] == ["n2"]
    later = members({"a": "n1"}, past=[*past, event("forgiven", "s2", host="n1")])
    assert not later.is_convicted(0)
    assert made.convict(made.index(0), EVIDENCE) is not None, "for another corruption"
    assert made.is_convicted(0)


def test_only_what_was_convicted_can_be_forgiven() -> None:
    past = [conviction_event(of_node("n1")), conviction_event(of_worker("w4", host="n4"))]
    for host in ("n4", "n9"):
        with pytest.raises(ConfigError, match=rf"forgive=\['{host}'\].*nodes \['n1'\]"):
            members(past=past, forgive=["n1", host])
    with pytest.raises(ConfigError, match="none"):
        members(forgive=["n1"])


def test_forgiving_revives_nothing_and_what_comes_later_stands() -> None:
    old = Member("s1", "w1", "n1", "cpu", incarnation=9)
    past = [name_event(old), conviction_event(of_node("n1"))]
    made = members({"a": "n1", "b": "n2"}, past=past, forgive=["n1"])
    assert (made.index(0), made.index(1)) == (1, 2)
    assert made.tainted() == {0}
    later = [*past, event("forgiven", "s2", host="n1"), name_event(made.members[1])]
    assert members(past=later).tainted() == {0}


# ---- in the journal, and to be read --------------------------------------------------------------


@pytest.mark.parametrize("deviation", [0.25, np.inf])
@pytest.mark.parametrize("make", [of_node, of_worker])
def test_a_conviction_comes_back_from_the_journal(make: Any, deviation: float) -> None:
    conviction = replace(make("x"), evidence=replace(EVIDENCE, deviation=deviation), alone=True)
    assert Conviction.of(conviction_event(conviction)) == conviction


def test_a_conviction_can_be_read() -> None:
    assert str(of_worker("w4", host="n4")) == (
        "w4 on n4: share 3 of group 7 (random) was wrong in 2 of 8 rows looked at, by up to 0.25 "
        "where 0.0001 is allowed; referee: client"
    )
    assert str(of_node("n1")).startswith("node n1 (cpu; worker w1): share 3 of group 7")
    blank = replace(EVIDENCE, deviation=np.inf, allowed=0.0)
    assert "by up to inf where 0 is allowed" in str(Conviction("worker", Member("s", "w"), blank))
