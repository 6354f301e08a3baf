"""Who contributed to a store, who is convicted, and whom a conviction is about."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from approxifer.errors import ConfigError
from approxifer.pipeline.roster import Conviction, Evidence, Member, Roster

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


def name_event(index: int, session: str, worker: str, host: str = "n1") -> dict[str, Any]:
    return {
        "event": "name",
        "session": session,
        "index": index,
        "worker": worker,
        "host": host,
        "device": "cpu",
    }


def conviction_event(conviction: Conviction) -> dict[str, Any]:
    """As it comes back from the disk."""
    event = {"event": "conviction", "session": conviction.member.session} | conviction.event()
    found: dict[str, Any] = json.loads(json.dumps(event, allow_nan=False))
    return found


def of_node(host: str, session: str = "s1", name: str = "w1") -> Conviction:
    return Conviction("node", Member(session, name, host, "cpu"), EVIDENCE)


def of_worker(name: str, session: str = "s1", host: str = "n1") -> Conviction:
    return Conviction("worker", Member(session, name, host, "cpu"), EVIDENCE)


def roster(hosts: dict[str, str] | None = None, **options: Any) -> Roster:
    """A roster of the session s2 that has heard of workers, by name, on hosts."""
    made = Roster("s2", options.pop("past", ()), **options)
    for name, host in (hosts or {}).items():
        made.heard(name, host, "cpu")
    return made


# ---- indices -------------------------------------------------------------------------------------


def test_workers_get_indices_as_they_contribute() -> None:
    told: list[tuple[int, Member]] = []
    made = roster(
        {"a": "n1", "b": "n1", "c": "n2"}, on_new=lambda index, member: told.append((index, member))
    )
    assert [made.index(name) for name in ("b", "a", "b", "a")] == [0, 1, 0, 1]
    assert made.members == [Member("s2", "b", "n1", "cpu"), Member("s2", "a", "n1", "cpu")]
    assert told == list(enumerate(made.members))
    assert made.index("c") == 2


def test_the_same_name_is_another_worker_in_another_session_or_on_another_host() -> None:
    made = roster({"a": "n1"}, past=[name_event(0, "s1", "a"), name_event(1, "s1", "b")])
    assert made.index("a") == 2
    made.heard("a", "n9", "cpu")  # restarted elsewhere under its name
    assert made.index("a") == 3
    made.heard("a", "n1", "cpu")
    assert made.index("a") == 2
    made.heard("a", "n1", "cuda")
    assert made.index("a") == 4


def test_names_of_older_stores_have_no_host() -> None:
    old = [{"event": "name", "session": "s1", "index": 0, "worker": "a"}, {"event": "worker"}]
    made = roster(past=[*old, name_event(1, "s1", "b")])
    assert made.members == [Member("s1", "a"), Member("s1", "b", "n1", "cpu")]
    assert made.tainted() == frozenset()


# ---- whom a conviction is about ------------------------------------------------------------------


def test_of_one_host_the_worker_is_convicted_of_several_the_node() -> None:
    assert roster({"a": "n1", "b": "n1"}).kind == "worker"
    assert roster({"a": "n1", "b": "n2"}).kind == "node"
    assert roster({"a": "n1", "b": "n2"}, quarantine="worker").kind == "worker"
    assert roster({"a": "n1", "b": "n1"}, quarantine="node").kind == "node"


def test_a_worker_is_convicted_by_session_and_name() -> None:
    conviction = of_worker("w1", host="n1")
    assert conviction.covers(Member("s1", "w1", "n2", "cuda"))
    assert not conviction.covers(Member("s1", "w2", "n1", "cpu"))
    assert not conviction.covers(Member("s2", "w1", "n1", "cpu"))
    assert conviction.bars == [{"name": "w1"}]


def test_a_node_is_convicted_by_host_and_device() -> None:
    conviction = of_node("n1")
    assert conviction.covers(Member("s9", "anybody", "n1", "cpu"))
    assert not conviction.covers(Member("s1", "w1", "n2", "cpu"))
    assert not conviction.covers(Member("s1", "w1", "n1", "cuda:0"))
    assert conviction.bars == [
        {"node": "n1", "device": "cpu"},
        {"node": "", "host": "n1", "device": "cpu"},
    ]


def test_a_worker_of_this_session_is_convicted_once() -> None:
    made = roster({"a": "n1", "b": "n1"})
    conviction = made.convict("a", EVIDENCE)
    assert conviction == Conviction("worker", Member("s2", "a", "n1", "cpu"), EVIDENCE)
    assert made.convict("a", EVIDENCE) is None
    assert made.is_convicted("a")
    assert not made.is_convicted("b")
    assert made.convicted_now == made.convictions == [conviction]
    made.heard("a", "n1", "cpu")  # its nanny has restarted it
    assert made.is_convicted("a")


def test_all_workers_of_a_convicted_node_are_convicted_with_it() -> None:
    made = roster({"a": "n1", "b": "n1", "c": "n2"})
    conviction = made.convict("a", EVIDENCE)
    assert conviction is not None
    assert conviction.kind == "node"
    assert [made.is_convicted(name) for name in "abc"] == [True, True, False]
    assert made.convict("b", EVIDENCE) is None
    made.heard("d", "n1", "cpu")  # a job that comes later
    assert made.is_convicted("d")
    assert len(made.convicted_now) == 1


def test_workers_that_have_left_are_no_witnesses_but_known() -> None:
    made = roster({"a": "n1", "b": "n1", "c": "n2"})
    made.left("b")
    made.left("nobody heard of it")
    assert made.witnesses({"a"}) == ["c"]
    assert made.alike("a") == {"a", "b"}
    assert made.index("b") == 0
    assert made.members == [Member("s2", "b", "n1", "cpu")]
    made.left("c")
    assert made.kind == "node"  # where its workers were counts, for good
    made.heard("b", "n1", "cpu")
    assert made.witnesses(()) == ["a", "b"]


def test_workers_that_fall_together_are_no_witnesses_for_each_other() -> None:
    made = roster({"a": "n1", "b": "n1", "c": "n2", "d": "n3"})
    assert made.alike("a") == {"a", "b"}
    assert made.alike("c") == {"c"}
    assert made.alike("nobody heard of it") == {"nobody heard of it"}
    assert made.witnesses(made.alike("a")) == ["c", "d"]
    made.convict("c", EVIDENCE)
    assert made.witnesses(made.alike("a")) == ["d"]
    one_host = roster({"a": "n1", "b": "n1"})
    assert one_host.alike("a") == {"a"}
    assert one_host.witnesses({"a"}) == ["b"]


# ---- later sessions ------------------------------------------------------------------------------


def test_a_healthy_job_that_inherits_a_convicted_name_is_not_shut_out() -> None:
    made = roster(
        {"w1": "n2", "w2": "n3"}, past=[name_event(0, "s1", "w1"), conviction_event(of_node("n1"))]
    )
    assert not made.is_convicted("w1")
    assert made.tainted() == {0}
    assert made.index("w1") == 1
    assert made.tainted() == {0}


def test_a_job_of_a_convicted_node_is_whatever_it_is_called() -> None:
    made = roster({"new": "n1", "w2": "n3"}, past=[conviction_event(of_node("n1"))])
    assert made.is_convicted("new")
    assert made.witnesses({"w2"}) == []
    assert [c.member.host for c in made.shut_out] == ["n1"]
    assert made.convicted_now == []  # E counts the convictions of one session


def test_a_worker_convicted_by_name_is_another_one_in_the_next_session() -> None:
    made = roster(
        {"w1": "n1", "w2": "n1"},
        past=[name_event(0, "s1", "w1"), conviction_event(of_worker("w1"))],
    )
    assert not made.is_convicted("w1")
    assert made.shut_out == []
    assert made.tainted() == {0}  # what it did is taken back all the same
    assert made.index("w1") == 1
    assert made.tainted() == {0}


def test_what_convicted_workers_of_any_session_did_is_tainted() -> None:
    past = [
        name_event(0, "s0", "x", "n1"),
        name_event(1, "s1", "w1", "n1"),
        name_event(2, "s1", "w2", "n2"),
        conviction_event(of_node("n1")),
    ]
    made = roster({"w1": "n5", "w2": "n6"}, past=past, quarantine="worker")
    for name in ("w1", "w2"):
        made.index(name)
    assert made.tainted() == {0, 1}
    made.convict("w2", EVIDENCE)
    assert made.tainted() == {0, 1, 4}
    assert made.is_tainted("s0", ["x"])
    assert made.is_tainted("s1", ["w2", "w1"])
    assert not made.is_tainted("s1", ["w2"])
    assert made.is_tainted("s2", ["w2"])
    assert not made.is_tainted("s2", ["w1"])
    assert not made.is_tainted("s2", [])


# ---- forgiving -----------------------------------------------------------------------------------


def test_a_forgiven_node_may_work_again() -> None:
    past = [conviction_event(of_node("n1")), conviction_event(of_node("n2"))]
    made = roster({"a": "n1", "b": "n2", "c": "n3"}, past=past, forgive=["n1"])
    assert [made.is_convicted(name) for name in "abc"] == [False, True, False]
    assert [c.member.host for c in made.shut_out] == ["n2"]
    later = roster({"a": "n1"}, past=[*past, {"event": "forgiven", "host": "n1"}])
    assert not later.is_convicted("a")
    assert roster({"b": "n2"}, past=past).is_convicted("b")


def test_only_what_was_convicted_can_be_forgiven() -> None:
    past = [conviction_event(of_node("n1")), conviction_event(of_worker("w4", host="n4"))]
    for host in ("n4", "n9"):
        with pytest.raises(ConfigError, match=rf"forgive=\['{host}'\].*nodes \['n1'\]"):
            roster(past=past, forgive=["n1", host])
    with pytest.raises(ConfigError, match="none"):
        roster(forgive=["n1"])


def test_a_forgiven_node_is_convicted_again_for_another_lie() -> None:
    made = roster({"a": "n1", "b": "n2"}, past=[conviction_event(of_node("n1"))], forgive=["n1"])
    assert made.convict("a", EVIDENCE) is not None
    assert made.is_convicted("a")
    assert len(made.convicted_now) == 1


def test_what_a_node_does_once_forgiven_stands() -> None:
    """Else its rows are taken back whenever their window is to be written, without an end."""
    past = [name_event(0, "s1", "w1", "n1"), conviction_event(of_node("n1"))]
    made = roster({"a": "n1", "b": "n2"}, past=past, forgive=["n1"])
    assert (made.index("a"), made.index("b")) == (1, 2)
    assert made.tainted() == {0}
    later = [*past, {"event": "forgiven", "session": "s2", "host": "n1"}]
    later.append(name_event(1, "s2", "a", "n1"))
    assert roster(past=later).tainted() == {0}


def test_a_node_is_forgiven_what_it_had_done_before() -> None:
    past = [
        conviction_event(of_node("n1", "s0")),
        {"event": "forgiven", "session": "s1", "host": "n1"},
        conviction_event(of_node("n1", "s1")),
    ]
    assert roster({"a": "n1"}, past=past).is_convicted("a")
    assert not roster({"a": "n1"}, past=past, forgive=["n1"]).is_convicted("a")


# ---- in the journal, and to be read --------------------------------------------------------------


@pytest.mark.parametrize("deviation", [0.25, np.inf])
@pytest.mark.parametrize("make", [of_node, of_worker])
def test_a_conviction_comes_back_from_the_journal(make: Any, deviation: float) -> None:
    conviction = make("x")
    evidence = Evidence(**{**vars(EVIDENCE), "deviation": deviation})
    conviction = Conviction(conviction.kind, conviction.member, evidence)
    assert Conviction.of(conviction_event(conviction)) == conviction


def test_a_conviction_can_be_read() -> None:
    text = str(of_worker("w4", host="n4"))
    assert text == (
        "w4 on n4: share 3 of group 7 (random) was wrong in 2 of 8 rows looked at, by up to 0.25 "
        "where 0.0001 is allowed; referee: client"
    )
    assert str(of_node("n1")).startswith("node n1 (cpu; worker w1): share 3 of group 7")
    blank = Evidence(**{**vars(EVIDENCE), "deviation": np.inf, "allowed": 0.0})
    assert "by up to inf where 0 is allowed" in str(Conviction("worker", Member("s", "w"), blank))
