"""Doubts settled: who runs a share again, who is convicted, and when the run has to end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import pytest

from approxifer.coding import CodeSpec
from approxifer.errors import TrustError
from approxifer.pipeline.audits import RANDOM, AuditRule
from approxifer.pipeline.court import Bailiff, Court
from approxifer.pipeline.records import Testimony as Answered  # pytest takes Test* for tests
from approxifer.pipeline.referee import ClientReferee
from approxifer.pipeline.roster import Conviction, Evidence, Roster
from approxifer.pipeline.tolerance import Tolerance
from approxifer.pipeline.trust import Doubt, ShareRef, Trust

CODE = CodeSpec(scheme="uncoded", k=1).build()
ROWS = np.arange(12.0).reshape(6, 2)
TOLERANCE = Tolerance(1e-3, np.ones(2))
EVIDENCE = Evidence(0, 0, 1, 1, 1.0, 0.1, "client", RANDOM)
#: Rows in, outputs out.
Answer = Callable[[np.ndarray], np.ndarray]


def model(rows: np.ndarray) -> np.ndarray:
    return 2 * rows


def negative(rows: np.ndarray) -> np.ndarray:
    return -2 * rows - 1


def last_row(rows: np.ndarray) -> np.ndarray:
    found = model(rows)
    found[-1, 1] += 5
    return found


def constant(rows: np.ndarray) -> np.ndarray:
    return np.full_like(rows, 7.0)


@dataclass
class Bench:
    """A court whose bailiff asks workers in the order in which they are given."""

    answers: dict[str, Answer]
    byzantine: int = 1
    quorum: bool = False
    quarantine: Any = None
    hosts: Mapping[str, str] = field(default_factory=dict)
    malformed: frozenset[str] = frozenset()
    audits: bool = True
    #: On whom the model raises.
    raises: frozenset[str] = frozenset()
    #: What the client finds.
    truth: Answer = model
    #: Called after each run with its number: what happens elsewhere meanwhile.
    meanwhile: Callable[[int], Any] = lambda number: None
    asked: list[tuple[str, frozenset[str]]] = field(default_factory=list)
    executed: list[Conviction] = field(default_factory=list)
    journal: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.roster = Roster("s", quarantine=self.quarantine)
        for name in self.answers:
            self.roster.heard(name, self.hosts.get(name, "n1"), "cpu")
        rng = np.random.default_rng(0)
        rule = AuditRule(0.05) if self.audits else AuditRule(0.0, first=False, least=0)
        self.trust = Trust(CODE, rule=rule, tolerance=TOLERANCE, rng=rng)
        self._number = count()
        self.court = Court(
            self.trust,
            self.roster,
            byzantine=self.byzantine,
            referee=None if self.quorum else ClientReferee(self.truth, TOLERANCE, rng),
            bailiff=Bailiff(
                run=self._run, call=self._call, journal=self._note, execute=self._execute
            ),
        )

    async def _run(self, rows: np.ndarray, forbid: frozenset[str]) -> Answered | None:
        np.testing.assert_array_equal(rows, ROWS)
        await asyncio.sleep(0)
        free = [
            name for name in self.answers
            if name not in forbid and not self.roster.is_convicted(name)
        ]  # fmt: skip
        assert free, "on a cluster a share that nobody may run waits for ever"
        self.asked.append((free[0], forbid))
        found = None if free[0] in self.raises else self.testimony(free[0])
        self.meanwhile(next(self._number))
        return found

    def testimony(self, name: str) -> Answered:
        if name in self.malformed:
            return Answered(name, np.full_like(ROWS, np.nan), "another shape")
        return Answered(name, self.answers[name](ROWS))

    async def _call(self, call: Callable[..., Any], *args: Any) -> Any:
        await asyncio.sleep(0)
        return call(*args)

    def _note(self, event: str, **fields: Any) -> None:
        self.journal.append({"event": event} | fields)

    async def _execute(self, conviction: Conviction) -> None:
        await asyncio.sleep(0)
        self.executed.append(conviction)

    def doubt(self, name: str, why: str = RANDOM, group: int = 4) -> Doubt:
        first = self.testimony(name)
        ref = ShareRef(group, 0, name, CODE, np.arange(6), (0, 6), first.output, first.malformed)
        return Doubt(ref, why, held=False)

    def arbitrate(self, *names: str) -> set[str]:
        """Decide between these workers' copies of a block; whose do not stand."""
        copies = [
            ShareRef(4, share, name, CODE, np.arange(6), (0, 6), told.output, told.malformed)
            for share, name in enumerate(names)
            for told in [self.testimony(name)]
        ]
        return {names[share] for share in asyncio.run(self.court.arbitrate(copies, ROWS))}

    def settle(self, *names: str, why: str = RANDOM) -> list[bool]:
        """Settle doubts about a share of each of these workers, all at once."""

        async def run() -> list[bool]:
            doubts = [self.doubt(name, why) for name in names]
            return await asyncio.gather(*(self.court.settle(doubt, ROWS) for doubt in doubts))

        return asyncio.run(run())

    @property
    def convicted(self) -> list[str]:
        return [conviction.member.name for conviction in self.executed]

    @property
    def auditors(self) -> list[str]:
        return [name for name, _ in self.asked]


def honest(*names: str) -> dict[str, Answer]:
    return dict.fromkeys(names, model)


# ---- two workers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("quorum", [False, True])
def test_an_output_that_another_worker_confirms_stands(quorum: bool) -> None:
    bench = Bench(honest("a", "b", "c"), quorum=quorum)
    assert bench.settle("a") == [True]
    assert bench.asked == [("b", frozenset({"a"}))]
    assert bench.executed == []
    assert bench.journal == [
        {
            "event": "audit",
            "group": 4,
            "share": 0,
            "worker": "a",
            "auditor": "b",
            "why": RANDOM,
            "clean": True,
        }
    ]
    assert (bench.trust.audits.audited["a"], bench.trust.audits.counted("a")) == (1, 1)


@pytest.mark.parametrize("quorum", [False, True])
def test_a_worker_that_lies_is_convicted_with_the_evidence(quorum: bool) -> None:
    bench = Bench({"a": last_row} | honest("b", "c", "d"), quorum=quorum)
    assert bench.settle("a", why="it looks odd") == [False]
    assert bench.convicted == ["a"]
    (conviction,) = bench.roster.convictions
    expected = Evidence(
        group=4,
        share=0,
        rows=1,
        of=6 if quorum else 1,
        deviation=5.0,
        allowed=pytest.approx(2 * 11 * 1e-3),
        referee="b and c" if quorum else "client",
        suspicion="it looks odd",
    )
    assert conviction.evidence == expected
    assert bench.journal[0]["clean"] is False
    assert bench.trust.audits.counted("a") == 0
    assert bench.roster.is_convicted("a")


@pytest.mark.parametrize("quorum", [False, True])
def test_an_auditor_that_lies_is_convicted_and_the_share_run_by_a_third(quorum: bool) -> None:
    bench = Bench({"a": model, "liar": negative} | honest("c", "d"), quorum=quorum)
    assert bench.settle("a") == [True]
    assert bench.convicted == ["liar"]
    (conviction,) = bench.roster.convictions
    assert conviction.evidence.suspicion == "its audit of a"
    assert conviction.evidence.rows == 6
    assert bench.auditors[0] == "liar"
    assert bench.auditors[-1] == "c"
    assert [event["clean"] for event in bench.journal] == [False, True]
    book = bench.trust.audits
    assert (book.audited["a"], book.counted("a"), book.missing("a")) == (1, 1, 2)


def test_both_may_lie() -> None:
    bench = Bench({"a": last_row, "b": negative} | honest("c"), byzantine=2)
    assert bench.settle("a") == [False]
    assert sorted(bench.convicted) == ["a", "b"]
    evidence = {c.member.name: c.evidence for c in bench.roster.convictions}
    assert evidence["b"].suspicion == "its audit of a"
    assert evidence["a"].suspicion == RANDOM
    assert bench.trust.audits.missing("a") == 3  # nothing under way


def test_honest_runs_that_round_apart_convict_nobody() -> None:
    """More than twice the tolerance from each other, but neither from the client."""

    def above(rows: np.ndarray) -> np.ndarray:
        return model(rows) + 0.99e-3 * np.maximum(model(rows), 1)

    def below(rows: np.ndarray) -> np.ndarray:
        return model(rows) - 0.99e-3 * np.maximum(model(rows), 1)

    tight = Bench({"a": above, "b": below, "c": model})
    tight.trust.tolerance = Tolerance(0.9e-3, np.ones(2))
    assert tight.settle("a") == [True]
    assert tight.journal[0]["clean"] is False
    assert tight.executed == []


@pytest.mark.parametrize("quorum", [False, True])
def test_what_all_workers_find_is_true_however_odd(quorum: bool) -> None:
    """NaN that comes from the data: the same wherever it is run."""

    def holes(rows: np.ndarray) -> np.ndarray:
        found = model(rows)
        found[2] = np.nan
        return found

    bench = Bench({"a": holes, "b": holes}, quorum=quorum)
    assert bench.settle("a", why="1 rows are not finite") == [True]
    assert bench.executed == []


@pytest.mark.parametrize("quorum", [False, True])
@pytest.mark.parametrize("liar", ["a", "b"])
def test_an_output_of_another_shape_is_a_lie(liar: str, quorum: bool) -> None:
    bench = Bench(honest("a", "b", "c", "d"), malformed=frozenset({liar}), quorum=quorum)
    assert bench.settle("a") == [liar != "a"]
    assert bench.convicted == [liar]
    assert bench.roster.convictions[0].evidence.deviation == np.inf


@pytest.mark.parametrize("quarantine", ["worker", "node"])
def test_another_dtype_is_a_lie_even_if_its_stand_in_is_the_true_answer(quarantine: str) -> None:
    """Of integers the stand-in is zeros. Whether a witness tells (worker) or the client (node)."""
    answers: dict[str, Answer] = {"a": np.zeros_like, "b": np.zeros_like}
    bench = Bench(answers, truth=np.zeros_like, quarantine=quarantine)
    ref = ShareRef(4, 0, "a", CODE, np.arange(6), (0, 6), np.zeros_like(ROWS), "int32")
    stands = asyncio.run(bench.court.settle(Doubt(ref, "int32", held=True), ROWS))
    assert not stands
    assert bench.convicted == ["a"]


# ---- meanwhile -----------------------------------------------------------------------------------


def test_a_doubt_about_a_convicted_worker_is_settled_at_once() -> None:
    bench = Bench(honest("a", "b"))
    bench.roster.convict("a", EVIDENCE)
    assert bench.settle("a") == [False]
    assert bench.asked == bench.journal == []
    assert bench.trust.audits.missing("a") == 3


def test_the_word_of_an_auditor_convicted_meanwhile_is_worth_nothing() -> None:
    bench = Bench(honest("a", "b", "c"))
    bench.meanwhile = lambda number: bench.roster.convict("b", EVIDENCE)
    assert bench.settle("a") == [True]
    assert bench.auditors == ["b", "c"]
    assert [event["auditor"] for event in bench.journal] == ["c"]


def test_a_worker_convicted_meanwhile_does_not_stand() -> None:
    bench = Bench(honest("a", "b", "c"))
    bench.meanwhile = lambda number: bench.roster.convict("a", EVIDENCE)
    assert bench.settle("a") == [False]
    assert bench.journal == []


def test_several_doubts_about_one_liar_convict_it_once() -> None:
    for byzantine in (1, 2):
        bench = Bench({"a": negative} | honest("b", "c"), byzantine=byzantine)
        assert bench.settle("a", "a", "a", "b") == [False, False, False, True]
        assert bench.convicted == ["a"]
        assert len(bench.roster.convictions) == 1


def test_what_a_convicted_worker_had_audited_does_not_count() -> None:
    for hosts in ({}, {"a": "n1", "b": "n2", "b2": "n2", "c": "n3"}):
        bench = Bench({"a": model, "b": model, "b2": model, "c": model}, hosts=hosts)
        assert bench.settle("a") == [True]
        assert (bench.auditors, bench.trust.audits.counted("a")) == (["b"], 1)
        bench.answers["b2" if hosts else "b"] = negative  # it turns bad, or its neighbour is
        assert bench.settle("b2" if hosts else "b") == [False]
        assert bench.trust.audits.counted("a") == 0


# ---- too many ------------------------------------------------------------------------------------


@pytest.mark.parametrize("byzantine", [0, 1, 2])
def test_more_convictions_than_e_end_the_run_once_they_are_executed(byzantine: int) -> None:
    liars = [f"liar {i}" for i in range(byzantine + 1)]
    bench = Bench(honest("a", "b", "c") | dict.fromkeys(liars, negative), byzantine=byzantine)
    for name in liars[:-1]:
        assert bench.settle(name) == [False]
    with pytest.raises(TrustError, match=f"{byzantine + 1} workers are convicted") as caught:
        bench.settle(liars[-1])
    assert bench.convicted == liars
    for name in liars:
        assert f"{name} on n1: share 0 of group 4" in str(caught.value)


def test_both_lying_beyond_e_are_both_taken_to_account() -> None:
    bench = Bench({"a": constant, "b": negative} | honest("c"), byzantine=1)
    with pytest.raises(TrustError, match="2 workers are convicted"):
        bench.settle("a")
    assert sorted(bench.convicted) == ["a", "b"]


# ---- a quorum ------------------------------------------------------------------------------------


@pytest.mark.parametrize("accused", ["honest", "liar"])
def test_a_third_worker_decides_between_two(accused: str) -> None:
    answers = {"honest": model, "liar": negative} | honest("c", "d", "e")
    bench = Bench(answers, quorum=True)
    assert bench.settle(accused) == [accused == "honest"]
    assert bench.convicted == ["liar"]
    assert bench.auditors[:2] == ["liar" if accused == "honest" else "honest", "c"]
    assert bench.asked[1][1] == {"honest", "liar"}


@pytest.mark.parametrize("byzantine", [1, 2, 3])
@pytest.mark.parametrize("quorum", [False, True])
def test_colluders_up_to_e_never_have_an_honest_worker_convicted(
    byzantine: int, quorum: bool
) -> None:
    """Whoever is asked, in whatever order, about whose share."""
    liars = [f"liar {i}" for i in range(byzantine)]
    others = [f"honest {i}" for i in range(byzantine + 2)]
    for seed in range(10):
        order = np.random.default_rng(seed).permutation([*liars, *others]).tolist()
        answers = {name: negative if name in liars else model for name in order}
        bench = Bench(answers, byzantine=byzantine, quorum=quorum)
        stand = dict(zip(order, bench.settle(*order), strict=True))
        assert all(stand[name] for name in others)
        assert set(bench.convicted) <= set(liars)
        # A liar's share stands only if its accomplice was asked about it.
        if byzantine == 1:
            assert not any(stand[name] for name in liars)


def test_two_liars_of_different_minds_are_both_convicted() -> None:
    bench = Bench(
        {"a": model, "x": negative, "y": constant} | honest("b", "c"), byzantine=2, quorum=True
    )
    assert bench.settle("a") == [True]
    assert sorted(bench.convicted) == ["x", "y"]
    (evidence, _) = (conviction.evidence for conviction in bench.roster.convictions)
    assert evidence.referee == "a and b and c"


@pytest.mark.parametrize("byzantine", [1, 2])
def test_without_a_quorum_nobody_is_convicted_and_the_run_ends(byzantine: int) -> None:
    """All disagree: 2E + 1 are asked, and no more."""
    answers: dict[str, Answer] = {
        f"w{i}": lambda rows, i=i: rows + 10.0 * i for i in range(2 * byzantine + 3)
    }
    bench = Bench(answers, byzantine=byzantine, quorum=True)
    most = 2 * byzantine + 1
    with pytest.raises(TrustError, match=f"{most} workers ran the same share, and no"):
        bench.settle("w0")
    assert len(bench.asked) == most - 1
    assert bench.executed == []


def test_a_quorum_that_cannot_be_had_for_want_of_workers_ends_the_run() -> None:
    bench = Bench({"a": model, "b": negative}, quorum=True)
    with pytest.raises(TrustError, match="2 workers ran the same share"):
        bench.settle("a")
    assert bench.executed == []


def test_one_worker_is_no_quorum_against_another() -> None:
    bench = Bench({"liar": negative} | honest("b", "c"), byzantine=0, quorum=True)
    with pytest.raises(TrustError):
        bench.settle("liar")
    assert "b" not in bench.convicted


# ---- nodes ---------------------------------------------------------------------------------------

NODES = {"a": "n1", "b": "n1", "c": "n2", "d": "n2", "e": "n3"}


@pytest.mark.parametrize("quorum", [False, True])
def test_workers_of_one_node_are_never_asked_about_each_other(quorum: bool) -> None:
    answers: dict[str, Answer] = {"a": negative, "b": negative} | honest("c", "d", "e")
    bench = Bench(answers, hosts=NODES, quorum=quorum)
    assert bench.settle("a", "c") == [False, True]
    for name, forbid in bench.asked:
        assert name not in forbid
    assert {"a", "b"} <= bench.asked[0][1]
    (conviction,) = bench.roster.convictions
    assert (conviction.kind, conviction.member.host) == ("node", "n1")
    assert bench.roster.is_convicted("b")
    assert bench.settle("b") == [False]  # nothing to be asked any more
    assert len(bench.executed) == 1


def test_a_quorum_is_of_several_nodes() -> None:
    bench = Bench(
        {"c": model, "a": negative, "b": negative} | honest("d", "e"), hosts=NODES, quorum=True
    )
    assert bench.settle("c") == [True]
    assert bench.auditors[:2] == ["a", "e"]
    assert bench.roster.convictions[0].evidence.referee == "c and e"


# ---- nobody to ask -------------------------------------------------------------------------------


def alone(answer: Answer, **options: Any) -> Bench:
    """All workers are of one node, and fall together."""
    return Bench({"a": answer, "b": model}, quarantine="node", **options)


def test_where_no_witness_is_left_the_client_looks() -> None:
    bench = alone(model)
    assert bench.settle("a") == [True]
    assert (bench.asked, bench.executed) == ([], [])
    assert [(event["auditor"], event["clean"]) for event in bench.journal] == [("client", True)]
    bench = alone(last_row)
    assert bench.settle("a", why="it looks odd") == [False]
    assert bench.convicted == ["a"]
    evidence = bench.roster.convictions[0].evidence
    assert (evidence.referee, evidence.rows, evidence.of) == ("client", 1, 6)
    assert evidence.suspicion == "it looks odd"
    assert [event["clean"] for event in bench.journal] == [False]
    bench = alone(model, malformed=frozenset({"a"}))
    assert bench.settle("a") == [False]
    assert bench.convicted == ["a"]


def test_the_last_node_that_is_not_convicted_is_audited_by_the_client() -> None:
    bench = Bench({"a": model, "b": model, "c": negative}, hosts=NODES)
    assert bench.settle("c") == [False]
    asked = len(bench.asked)
    assert bench.settle("a", "b") == [True, True]
    assert len(bench.asked) == asked


def test_workers_that_have_left_are_no_witnesses() -> None:
    bench = Bench(honest("a", "b"))
    bench.roster.left("b")
    assert bench.settle("a") == [True]
    assert bench.asked == []
    assert bench.journal[0]["auditor"] == "client"


@pytest.mark.parametrize("quorum", [False, True])
def test_a_worker_on_which_the_model_raises_is_no_witness(quorum: bool) -> None:
    bench = Bench(honest("a", "b", "c"), raises=frozenset({"b"}), quorum=quorum)
    assert bench.settle("a") == [not quorum]
    assert bench.executed == []
    bench = Bench({"a": last_row} | honest("b", "c"), raises=frozenset({"b"}), quorum=quorum)
    assert bench.settle("a") == [False]
    assert bench.convicted == ([] if quorum else ["a"])


def test_an_output_that_nobody_can_confirm_does_not_stand_and_convicts_nobody() -> None:
    def raising(rows: np.ndarray) -> np.ndarray:
        raise MemoryError("out of memory")

    bench = Bench(honest("a", "b"), raises=frozenset({"b"}), truth=raising)
    assert bench.settle("a") == [False]
    assert bench.executed == bench.journal == []
    assert bench.trust.audits.missing("a") == 3


def test_a_share_counts_as_audited_only_if_the_client_looked_at_all_of_it() -> None:
    rows = np.arange(1024.0).reshape(512, 2)
    output = model(rows)
    output[77] += 5
    bench = alone(model)
    ref = ShareRef(4, 0, "a", CODE, np.arange(512), (0, 512), output)
    stands = asyncio.run(bench.court.settle(Doubt(ref, RANDOM, held=False), rows))
    assert not stands or bench.trust.audits.counted("a") == 0


# ---- adaptive copies -----------------------------------------------------------------------------


def other_row(rows: np.ndarray) -> np.ndarray:
    found = model(rows)
    found[0, 0] -= 5
    return found


@pytest.mark.parametrize("audits", [False, True])
@pytest.mark.parametrize("quorum", [False, True])
def test_copies_that_agree_are_not_asked_about(quorum: bool, audits: bool) -> None:
    bench = Bench(honest("a", "b", "c"), quorum=quorum, audits=audits)
    assert bench.arbitrate("a", "b") == set()
    assert bench.arbitrate("a") == set()
    assert (bench.asked, bench.journal, bench.convicted) == ([], [], [])


@pytest.mark.parametrize("lie", [negative, last_row, constant])
@pytest.mark.parametrize("liar", ["a", "b"])
def test_without_audits_a_third_copy_decides_and_nobody_is_convicted(
    liar: str, lie: Answer
) -> None:
    bench = Bench(honest("a", "b", "c", "d") | {liar: lie}, audits=False)
    assert bench.arbitrate("a", "b") == {liar}
    assert bench.asked == [("c", frozenset({"a", "b"}))]
    assert bench.convicted == []
    assert bench.trust.suspected == {liar: 1}
    assert [(e["event"], e["worker"]) for e in bench.journal] == [("suspect", liar)]


@pytest.mark.parametrize("quorum", [False, True])
def test_with_audits_the_liar_is_convicted(quorum: bool) -> None:
    bench = Bench(honest("a", "b", "c", "d") | {"b": last_row}, quorum=quorum)
    assert bench.arbitrate("a", "b") == {"b"}
    assert bench.convicted == ["b"]
    assert bench.auditors == (["c"] if quorum else []), "the client needs no third copy"
    evidence = bench.executed[0].evidence
    assert (evidence.share, evidence.rows, evidence.suspicion) == (
        1,
        1,
        "copies of its block differ",
    )
    assert evidence.referee == ("a and c" if quorum else "client")
    assert bench.arbitrate("a", "b") == {"b"}
    assert len(bench.convicted) == 1


def test_two_liars_of_three_who_lie_about_different_rows() -> None:
    """The client looks again until the copies that stand agree."""
    for audits, quorum in ((True, False), (True, True), (False, False)):
        answers = honest("a", "b", "c", "d", "e") | {"a": other_row, "c": last_row}
        bench = Bench(answers, byzantine=2, audits=audits, quorum=quorum)
        assert bench.arbitrate("a", "b", "c") == {"a", "c"}
        assert sorted(bench.convicted) == (["a", "c"] if audits else [])
        assert bench.auditors == (["d", "e"] if quorum or not audits else [])


def test_the_third_who_lies_is_outvoted_by_the_fifth() -> None:
    answers = honest("a", "b", "c", "d", "e") | {"b": negative, "d": negative}
    bench = Bench(answers, byzantine=2, audits=False)
    assert bench.arbitrate("a", "b", "c") == {"b"}
    assert bench.auditors == ["d", "e"]


def test_a_malformed_copy_does_not_stand() -> None:
    for audits in (True, False):
        bench = Bench(honest("a", "b", "c"), malformed=frozenset("a"), audits=audits)
        assert bench.arbitrate("a", "b") == {"a"}
        assert bench.convicted == (["a"] if audits else [])


def test_more_liars_than_e_end_the_run() -> None:
    answers = {"a": model, "b": negative, "c": constant, "d": model}
    with pytest.raises(TrustError, match="no 2 of them agree"):
        Bench(answers, audits=False).arbitrate("a", "b")
    with pytest.raises(TrustError, match="2 workers are convicted, and byzantine=1"):
        Bench(answers | {"a": constant}).arbitrate("a", "b")
