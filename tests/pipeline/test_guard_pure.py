"""What Byzantine workers change on the way of a group, without a cluster: when it is complete, who
may run it, and what the guard has done about it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from approxifer.coding import Code, CodeSpec, gather
from approxifer.datasets import Journal, OutputStore, open_source
from approxifer.models import Runner
from approxifer.pipeline import guard as guard_module
from approxifer.pipeline.audits import AuditRule
from approxifer.pipeline.courier import GroupRun
from approxifer.pipeline.guard import Guard
from approxifer.pipeline.intake import Batch
from approxifer.pipeline.placement import Candidate, place
from approxifer.pipeline.plan import conflicting, workers_needed
from approxifer.pipeline.policy import COMPLETE, WAIT, AttemptState, GroupState, Policy, decide
from approxifer.pipeline.records import Status
from approxifer.pipeline.roster import Conviction, Evidence, Member, Roster
from approxifer.pipeline.window import Window


def build(scheme: str = "systematic", k: int = 4, stragglers: int = 0, byzantine: int = 1) -> Code:
    return CodeSpec(scheme=scheme, k=k, stragglers=stragglers, byzantine=byzantine).build()


# ---- policy: when a group is complete ------------------------------------------------------------


class Idle:
    """A worker with nothing to do."""

    queued = 0

    def stuck(self, now: float, limit: float) -> bool:
        return False


def ask(code: Code, back: set[int], *, patience: float = 1.0) -> Any:
    group = GroupState(0, code, rows=8, priority=0)
    for share in range(code.n):
        group.attempts.append(
            AttemptState(share, 0, f"a{share}", f"w{share}", 0.0, start=0.0, returned=share in back)
        )
    workers = {f"a{share}": Idle() for share in range(code.n)}
    return decide(group, 0.5, policy=Policy(patience=patience), typical=1.0, workers=workers)


@pytest.mark.parametrize("patience", [0.0, 1.0])
@pytest.mark.parametrize(("stragglers", "byzantine"), [(0, 1), (1, 1), (2, 2)])
def test_the_queries_alone_do_not_complete_a_group(
    stragglers: int, byzantine: int, patience: float
) -> None:
    """K exact outputs are there, but nobody can tell whether one of them is wrong."""
    code = build("systematic", 4, stragglers, byzantine)
    queries = {share for share in range(code.n) if code.carries[share] is not None}
    parities = sorted(set(range(code.n)) - queries)
    assert (len(queries), code.n) == (4, 4 + stragglers + 2 * byzantine)
    for more in range(2 * byzantine):
        assert ask(code, queries | set(parities[:more]), patience=patience) == WAIT
    assert ask(code, queries | set(parities[: 2 * byzantine]), patience=patience) == COMPLETE


def test_a_query_that_is_still_out_is_waited_for() -> None:
    code = build("systematic", 4, 1, 1)
    missing = next(share for share in range(code.n) if code.carries[share] is not None)
    enough = set(range(code.n)) - {missing}
    assert ask(code, enough) == WAIT
    assert ask(code, enough, patience=0.0) == COMPLETE


def test_each_query_needs_a_majority_of_its_copies() -> None:
    code = build("replication", 2, 1, 1)  # four copies of each
    for back in ({0, 1}, {0, 2, 1, 3}, {0, 2, 4, 1, 3}):
        assert ask(code, back) == WAIT
    assert ask(code, {0, 2, 4, 1, 3, 5}) == COMPLETE


@pytest.mark.parametrize("scheme", ["systematic", "berrut", "replication", "uncoded"])
def test_a_run_needs_workers_to_convict_and_one_to_audit(scheme: str) -> None:
    for byzantine in (0, 1, 2):
        spec = CodeSpec(scheme=scheme, k=3, stragglers=1, byzantine=byzantine)
        spare = byzantine + 1 if byzantine else 0
        assert workers_needed(spec) == conflicting(spec) + spare
    assert workers_needed(CodeSpec(scheme="systematic", k=8, stragglers=0, byzantine=1)) == 12


# ---- placement: nobody has an index to itself ----------------------------------------------------


def placed_often(code: Code, candidates: list[Candidate], runs: int = 1_500) -> np.ndarray:
    counts = np.zeros((len(candidates), code.n))
    for seed in range(runs):
        placed = place(range(code.n), code, candidates, rng=np.random.default_rng(seed))
        assert len(placed) == code.n
        for share, address in placed.items():
            counts[int(address[1:]), share] += 1
    return counts


@pytest.mark.parametrize("workers", [6, 8])
def test_each_worker_holds_each_share_equally_often(workers: int) -> None:
    code = build()
    counts = placed_often(code, [Candidate(f"a{i}", f"w{i}", 0.0, 1.0) for i in range(workers)])
    expected = counts.sum() / counts.size
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    freedom = (workers - 1) * code.n
    assert chi_square < freedom + 5 * np.sqrt(2 * freedom)


def test_a_slow_worker_holds_each_share_as_often_as_any_other() -> None:
    """Its time is no reason for giving it parity: then their history would be its own."""
    code = build()
    candidates = [Candidate(f"a{i}", f"w{i}", 3.0 * (i == 2), 1.0 + 3 * (i == 2)) for i in range(6)]
    counts = placed_often(code, candidates)
    expected = counts[2].sum() / code.n
    assert expected == 1_500 / code.n
    chi_square = float(((counts[2] - expected) ** 2 / expected).sum())
    assert chi_square < code.n - 1 + 5 * np.sqrt(2 * (code.n - 1))


# ---- windows -------------------------------------------------------------------------------------


def a_window(rows: int = 8, index: int = 0) -> Window:
    queries = np.arange(index * rows, (index + 1) * rows, dtype=np.float32)[:, None] + 1
    return Window(
        index, index * rows, queries, np.arange(rows), np.full((rows, 1), np.nan, np.float32)
    )


def test_a_window_is_not_whole_while_an_audit_is_under_way() -> None:
    window = a_window()
    window.put(np.arange(8), np.ones((8, 1)), status=Status.EXACT, worker=0)
    window.audits = 2
    assert not window.whole
    window.audits = 0
    assert window.whole


def test_rows_taken_back_are_pending_and_run_again() -> None:
    window = a_window()
    window.put(np.arange(8), np.ones((8, 1)), status=Status.EXACT, worker=0)
    window.take_back(np.isin(np.arange(8), [2, 5, 6]))
    assert np.flatnonzero(window.status == Status.PENDING).tolist() == [2, 5, 6]
    (repair,) = window.due_repairs(4)
    assert (repair.rows.tolist(), repair.status, repair.avoid) == ([2, 5, 6], 3, frozenset())


def test_a_window_reopened_runs_its_pending_rows_and_keeps_the_others() -> None:
    before = {
        "prediction": np.arange(8, dtype=np.float32)[:, None],
        "status": np.array([1, 0, 3, 4, 0, 2, 1, 0], np.uint8),
        "group": np.full(8, 7, np.int32),
        "worker": np.arange(8, dtype=np.int32),
        "residual": np.full(8, 0.5, np.float32),
    }
    kept = {name: values.copy() for name, values in before.items()}
    window = Window.reopened(3, 24, np.zeros((8, 1), np.float32), before)
    assert (window.index, window.start, window.stop, window.coded_left) == (3, 24, 32, 0)
    for name, values in kept.items():
        np.testing.assert_array_equal(getattr(window, name), values)
    rows = [repair.rows.tolist() for repair in window.due_repairs(2)]
    assert rows == [[1, 4], [7]]
    window.put(np.array([1]), np.full((1, 1), 9.0), status=Status.REPAIRED, worker=0)
    for name, values in kept.items():  # what was read is not written to
        np.testing.assert_array_equal(before[name], values)


# ---- the guard -----------------------------------------------------------------------------------

CODE = build("systematic", 2)  # four shares
ROWS = 24


def model(rows: np.ndarray) -> np.ndarray:
    return 3 * rows


def raising(rows: np.ndarray) -> np.ndarray:
    raise MemoryError("out of memory")


Answer = Callable[[np.ndarray], np.ndarray]


class Scene:
    """A guard, with workers that answer at once, a store on the disk, and a note of all that is
    said and done. As a courier it asks the first worker that is neither forbidden nor barred."""

    def __init__(
        self, store: OutputStore, answers: dict[str, Answer], code: Code | None = None, **setup: Any
    ) -> None:
        self.store = store
        self.code = code or CODE
        self.answers = answers
        self.done: list[Any] = []
        self.closed: list[int] = []
        self.taken_back: dict[int, list[int]] = {}
        self.failed: dict[int, list[int]] = {}
        self.audited: list[np.ndarray] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.roster = Roster("s", setup.pop("past", ()))
        for number, name in enumerate(answers):
            self.roster.heard(name, "n1", "cpu", number)
        self.windows = [a_window(8, index) for index in range(3)]
        everything = np.concatenate([window.queries for window in self.windows])
        context = SimpleNamespace(
            setup=SimpleNamespace(
                store=store,
                layout=SimpleNamespace(micro_batch=8, block=2),
                spec=self.code.spec,
                handle=None,
                threads=1,
                load=lambda start, stop: everything[start:stop],
                **({"rule": AuditRule(0.0, first=False, least=0, assurance=None)} | setup),
                referee="client",
            ),
            session=SimpleNamespace(tell=self._tell, ready=len(answers)),
            compute=self._now,
            read=self._now,
            write=self._now,
            spawn=self._spawn,
            journal=self._journal,
            journal_group=lambda group, **fields: None,
            blank=lambda rows: np.full((rows, 1), np.nan, np.float32),
            rank=lambda first: 0,
            numbers=count(100),
        )
        self.guard = Guard(
            context,  # type: ignore[arg-type]
            self.code,
            self,  # type: ignore[arg-type]
            self.roster,
            spans=[(window.index, window.start, window.stop) for window in self.windows],
            close=self._close,
            taken_back=lambda index, s, failed: (self.failed if failed else self.taken_back).update(
                {index: s.tolist()}
            ),
        )

    async def _now(self, call: Callable[..., Any], *args: Any) -> Any:
        await asyncio.sleep(0)
        return call(*args)

    async def _tell(self, what: str, **fields: Any) -> None:
        self.done.append((what, fields))

    def _spawn(self, work: Any) -> None:
        self.tasks.append(asyncio.create_task(work))

    def _journal(self, event: str, *, fsync: bool = False, **fields: Any) -> None:
        self.done.append((event, fields | {"fsync": fsync}))
        if event == "conviction":
            self.done.append(("pending then", int((self.store.status() == 0).sum())))

    async def _close(self, window: Window) -> None:
        self.closed.append(window.index)

    async def take(
        self,
        group: GroupRun,
        *,
        code: str,
        first: bool,
        avoid: frozenset[str] = frozenset(),
        forbid: frozenset[int] = frozenset(),
    ) -> None:
        free = [name for number, name in enumerate(self.answers) if number not in forbid]
        name = next(name for name in free if not self.roster.is_convicted(name))
        assert code == "plain"
        self.audited.append(group.shares[0])
        attempt = {
            "share": 0, "attempt": 0, "worker": name, "member": 1, "fate": "used", "error": None,
        }  # fmt: skip
        try:
            group.outputs[0, 0] = self.answers[name](group.shares[0])
        except MemoryError as error:
            attempt |= {"fate": "failed", "error": str(error)}
        group.completion = {
            "used": list(group.outputs),
            "attempts": [attempt],
        }
        asyncio.get_running_loop().create_task(group.finish(group))

    def group(self, number: int, window: Window, members: list[int], **lies: Any) -> Any:
        """A coded group as its workers a, b, c, d answered; ``b=``: what b said."""
        shares = self.code.encode(gather(window.queries, np.array(members), self.code.k))
        outputs = {(i, 0): lies.get(name, model(shares[i])) for i, name in enumerate("abcd")}
        attempts = [
            {"share": i, "attempt": 0, "worker": name, "member": i, "fate": "used", "error": None}
            for i, name in enumerate("abcd")
        ]
        run = GroupRun(number, shares, finish=None, outputs=outputs)  # type: ignore[arg-type]
        run.completion = {"used": [[i, 0] for i in range(4)], "attempts": attempts}
        return Batch(number, self.code, window, np.array(members), Status.EXACT, coded=True), run

    def play(self, *steps: Callable[[], Any]) -> list[Any]:
        """Open the guard, do these things one after the other, and wait for what they began."""

        async def run() -> list[Any]:
            await self.guard.open(6)  # three windows of two groups
            found = [await step() for step in steps]
            while self.tasks:
                await self.tasks.pop()
            return found

        return asyncio.run(run())

    def events(self, kind: str) -> list[Any]:
        return [fields for what, fields in self.done if what == kind]


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Scene]]:
    runner = Runner("toy", "f", "float32", "cpu", 1, None, model)
    monkeypatch.setattr(guard_module.cache, "ensure", lambda handle, threads: runner)
    source = open_source(xr.DataArray(np.zeros((ROWS, 1), np.float32), dims=("sample", "x")))
    attrs: dict[str, Any] = {"code": {}, "layout": {}, "model": "m", "input": "i"}
    with OutputStore.create(
        tmp_path / "out.zarr",
        source=source,
        output_shape=(1,),
        output_dtype="float32",
        chunk=8,
        attrs=attrs,
    ) as store:
        Journal(store.path).close()
        yield lambda answers, *code, **setup: Scene(store, answers, *code, **setup)


def honest(names: str = "abcdef") -> dict[str, Answer]:
    return dict.fromkeys(names, model)


NAN = np.full((2, 1), np.nan, np.float32)
ALWAYS = AuditRule(1.0, first=False, least=0)
NEVER = AuditRule(1e-12, first=False, least=0)


def test_workers_that_are_believed_are_not_asked_about(scene: Callable[..., Scene]) -> None:
    made = scene(honest(), rule=None)
    guilty = made.play(
        lambda: made.guard.hear(*made.group(0, made.windows[0], [0, 1, 2, 3], b=NAN))
    )
    assert guilty == [frozenset()]
    assert made.done == []


def test_nodes_convicted_earlier_are_shut_out_at_the_opening(scene: Callable[..., Scene]) -> None:
    evidence = Evidence(0, 0, 1, 1, 1.0, 0.1, "client", "random")
    past = Conviction("node", Member("s0", "x", "n7", "cpu"), evidence)
    made = scene(honest(), past=[{"event": "conviction"} | past.event()])
    made.play()
    assert made.done == [("bar", {"bars": past.bars})]


def test_a_share_in_doubt_is_settled_before_its_group_is_decoded(
    scene: Callable[..., Scene],
) -> None:
    made = scene(honest(), rule=NEVER)
    window = made.windows[1]
    written = np.ones((8, 1), np.float32)
    worker = np.array([made.roster.index("a"), made.roster.index("b")] * 4)
    made.store.write_window(0, 8, prediction=written, status=1, worker=worker, group=0)
    (guilty,) = made.play(lambda: made.guard.hear(*made.group(4, window, [0, 1, 2, 3], b=NAN)))
    assert guilty == {1}
    assert [c.member.name for c in made.roster.convictions] == ["b"]
    assert window.audits == 0
    # The input of share 1 was run elsewhere.
    np.testing.assert_array_equal(made.audited[0], window.queries[[1, 3]])
    # It is shut out, the conviction is on the disk, and then its rows are taken back.
    order = [what for what, _ in made.done]
    assert order.index("suspect") < order.index("audit") < order.index("bar")
    assert order.index("bar") < order.index("conviction") < order.index("pending then")
    (event,) = made.events("conviction")
    told = {name: value for name, value in event.items() if name != "fsync"}
    assert made.events("bar") == [{"bars": [{"name": "b"}], "conviction": told}]
    assert event["fsync"]
    assert Conviction.of(event).member.name == "b"
    assert made.events("pending then") == [16]  # the windows that are not written yet
    assert made.store.status()[:8].tolist() == [1, 0] * 4
    assert made.taken_back == {0: [1] * 4}


def test_a_share_in_doubt_that_is_confirmed_stands(scene: Callable[..., Scene]) -> None:
    made = scene(dict.fromkeys("abcdef", lambda rows: np.full_like(rows, np.nan)), rule=NEVER)
    window = made.windows[0]
    batch = made.group(0, window, [0, 1, 2, 3], **dict.fromkeys("abcd", NAN))
    assert made.play(lambda: made.guard.hear(*batch)) == [frozenset()]
    assert len(made.events("audit")) == 4
    assert made.roster.convictions == []


def test_drawn_audits_hold_nothing_up_but_the_writing_of_the_window(
    scene: Callable[..., Scene],
) -> None:
    lie = model(np.array([[2], [4]], np.float32)) + 1
    made = scene(honest(), rule=ALWAYS)
    window = made.windows[0]
    batch = made.group(0, window, [0, 1, 2, 3], b=lie)
    seen = []

    async def hear() -> Any:
        guilty = await made.guard.hear(*batch)
        seen.append((window.audits, made.audited.copy()))
        return guilty

    assert made.play(hear) == [frozenset()]
    assert seen == [(4, [])]
    assert window.audits == 0
    assert made.closed == [0] * 4
    assert [c.member.name for c in made.roster.convictions] == ["b"]
    assert made.events("suspect") == []


def test_what_convicted_workers_returned_is_not_looked_at(scene: Callable[..., Scene]) -> None:
    made = scene(honest(), rule=ALWAYS)
    evidence = Evidence(0, 0, 1, 1, 1.0, 0.1, "client", "random")
    made.roster.convict("b", evidence)
    made.play(lambda: made.guard.hear(*made.group(0, made.windows[0], [0, 1, 2, 3], b=NAN)))
    assert sorted(event["worker"] for event in made.events("audit")) == ["a", "c", "d"]
    assert made.events("suspect") == []


def test_without_audits_suspects_are_left_out_unheard(scene: Callable[..., Scene]) -> None:
    made = scene(honest(), rule=AuditRule(0.0, first=False, least=0))
    batch = made.group(0, made.windows[0], [0, 1, 2, 3], c=NAN)
    assert made.play(lambda: made.guard.hear(*batch), made.guard.last_audits) == [{2}, None]
    assert made.audited == []
    assert made.roster.convictions == []


def test_before_the_end_each_worker_has_had_its_audits(scene: Callable[..., Scene]) -> None:
    """The shares' inputs are encoded again: their windows are gone."""
    made = scene(honest(), rule=AuditRule(1e-12, first=False, least=2))
    orders = np.array([(0, 1, 2, 3), (7, 4, 5, 6)])  # the rows of the two groups of a window

    def group(number: int) -> Any:
        index, second = divmod(number, 2)
        return made.group(number, made.windows[index], orders[second].tolist())

    steps = [lambda number=number: made.guard.hear(*group(number)) for number in range(6)]
    made.play(*steps, made.guard.last_audits)
    audits = made.events("audit")
    assert sorted(event["worker"] for event in audits) == sorted("abcd" * 2)
    assert made.roster.convictions == []
    expected = []
    for event in audits:
        index, second = divmod(event["group"], 2)
        queries = gather(made.windows[index].queries, orders[second], CODE.k)
        expected.append(CODE.encode(queries)[event["share"]].ravel().tolist())
    assert sorted(rows.ravel().tolist() for rows in made.audited) == sorted(expected)


def test_a_lie_found_before_the_end_is_taken_back(scene: Callable[..., Scene]) -> None:
    made = scene(honest(), rule=AuditRule(1e-12, first=False, least=1))
    batch, run = made.group(0, made.windows[0], [0, 1, 2, 3])
    run.outputs[3, 0] = run.outputs[3, 0] + 1
    worker = np.array([made.roster.index(name) for name in "abcdabcd"])
    status = np.full(8, Status.EXACT)

    async def write() -> None:
        made.store.write_window(
            0, 8, prediction=np.ones((8, 1), np.float32), status=status, worker=worker, group=0
        )

    made.play(lambda: made.guard.hear(batch, run), write, made.guard.last_audits)
    assert [c.member.name for c in made.roster.convictions] == ["d"]
    assert made.taken_back == {0: [1, 1]}
    assert np.flatnonzero(made.store.status()[:8] == 0).tolist() == [3, 7]


def test_rows_of_open_windows_are_looked_through_for_the_convicted(
    scene: Callable[..., Scene],
) -> None:
    made = scene(honest())
    window = made.windows[0]
    indices = [made.roster.index(name) for name in "ab"]
    window.put(np.arange(6), np.ones((6, 1)), status=Status.EXACT, worker=indices[0])
    window.put(np.array([1, 4]), np.ones((2, 1)), status=Status.REPAIRED, worker=indices[1])
    window.put(np.array([6, 7]), np.ones((2, 1)), status=Status.DECODED)
    window.group[:] = 5
    assert made.guard.tainted(window) is None
    evidence = Evidence(0, 0, 1, 1, 1.0, 0.1, "client", "random")
    made.roster.convict("b", evidence)
    found = made.guard.tainted(window)
    assert found is not None
    assert np.flatnonzero(found).tolist() == [1, 4]
    with Journal(made.store.path) as journal:
        shares = {"0": "a", "1": "b"}
        journal.append(
            {"event": "group", "session": "s", "group": 5, "kind": "coded", "shares": shares}
        )
    found = made.guard.tainted(window)
    assert found is not None
    assert np.flatnonzero(found).tolist() == [1, 4, 6, 7]


def test_an_auditor_that_cannot_run_the_share_is_not_convicted(
    scene: Callable[..., Scene],
) -> None:
    """Out of memory on each smaller machine that was tried, say: then the client looks."""
    made = scene({"small": raising} | honest(), rule=ALWAYS)
    lie = model(np.array([[3], [4]], np.float32)) + 1
    made.play(lambda: made.guard.hear(*made.group(0, made.windows[0], [0, 1, 2, 3], d=lie)))
    assert [c.member.name for c in made.roster.convictions] == ["d"]
    audits = {event["worker"]: event for event in made.events("audit")}
    assert {name: event["clean"] for name, event in audits.items()} == {
        "a": True, "b": True, "c": True, "d": False
    }  # fmt: skip
    assert {event["auditor"] for event in audits.values()} == {"client"}


def test_an_output_that_nobody_can_confirm_does_not_stay(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model raises on these rows wherever it is run; one worker returned numbers for them."""
    made = scene({"a": model, "b": raising, "c": raising, "d": raising}, rule=ALWAYS)
    monkeypatch.setattr(guard_module, "run_rows", lambda runner, rows, micro_batch: raising(rows))
    plain = CodeSpec(scheme="uncoded", k=1).build()
    rows = np.array([0, 1])
    index = made.roster.index("a")

    def hear(window: Window) -> Any:
        attempt = {
            "share": 0, "attempt": 0, "worker": "a", "member": 1, "fate": "used", "error": None,
        }  # fmt: skip
        said = -model(window.queries[rows])
        group = GroupRun(90 + window.index, window.queries[None, rows], None, {(0, 0): said})  # type: ignore[arg-type]
        group.completion = {"used": [[0, 0]], "attempts": [attempt]}
        batch = Batch(group.number, plain, window, rows, Status.EXACT, coded=False)
        return made.guard.hear(batch, group)

    open_, written, other = made.windows
    assert made.play(lambda: hear(open_), lambda: hear(written)) == [frozenset()] * 2
    assert made.roster.convictions == []
    # As the engine goes on: the one is asked about before it is written, the other was just before.
    open_.put(np.arange(8), np.ones((8, 1), np.float32), status=Status.EXACT, worker=index)
    assert np.flatnonzero(made.guard.unconfirmed(open_)).tolist() == [0, 1]
    assert not made.guard.unconfirmed(open_).any()
    assert not made.guard.unconfirmed(other).any()
    made.store.write_window(
        written.start, written.stop, prediction=np.ones((8, 1)), status=1, worker=index
    )
    asyncio.run(made.guard.last_audits())
    assert made.failed == {1: [1, 1]}
    found = made.store.read_window(written.start, written.stop)
    assert found["status"].tolist() == [4, 4] + [1] * 6
    assert np.isnan(found["prediction"][:2]).all()
    assert (found["prediction"][2:] == 1).all()
    assert found["worker"].tolist() == [-1, -1] + [index] * 6


def test_audits_for_assurance_are_spread_over_all_windows(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the bound says nothing of a worker that turns bad after the first window. Told to the
    draw of each group: how many shares a worker will still run."""
    made = scene(honest(), rule=AuditRule(0.0, assurance=0.5))
    told = []

    def inspect(self: object, refs: object, **options: Any) -> list[Any]:
        told.append(options["to_come"])
        return []

    monkeypatch.setattr(guard_module.Trust, "inspect", inspect)
    window = made.windows[0]
    made.play(
        *[
            lambda number=number: made.guard.hear(*made.group(number, window, [0, 1, 2, 3]))
            for number in range(6)
        ]
    )
    each = CODE.n / len(made.answers)
    assert told == pytest.approx([left * each for left in (5, 4, 3, 2, 1, 0)])


#: Two blocks, the first with a and c, the second with b and d.
ADAPTIVE = CodeSpec("replication", k=2, stragglers=0, byzantine=1, adaptive=True).build()


@pytest.mark.parametrize("audits", [False, True])
def test_adaptive_copies_that_differ_are_settled_before_their_group_is_decoded(
    audits: bool, scene: Callable[..., Scene]
) -> None:
    rule = NEVER if audits else AuditRule(0.0, first=False, least=0)
    made = scene(honest(), ADAPTIVE, rule=rule)
    wrong = np.full((2, 1), 5.0, np.float32)
    found = made.play(
        lambda: made.guard.hear(*made.group(0, made.windows[0], [0, 1, 2, 3])),
        lambda: made.guard.hear(*made.group(1, made.windows[0], [4, 5, 6, 7], d=wrong)),
    )
    assert found == [frozenset(), {3}]
    assert made.roster.is_convicted("d") == audits
    assert len(made.audited) == (not audits), "the third copy, where the client does not decide"
    for rows in made.audited:
        np.testing.assert_array_equal(rows, made.windows[0].queries[[5, 7]])
    assert [e["worker"] for e in made.events("suspect")] == ["d"]


def test_adaptive_copies_that_agree_on_nan_stand(scene: Callable[..., Scene]) -> None:
    made = scene(honest(), ADAPTIVE)
    (found,) = made.play(
        lambda: made.guard.hear(*made.group(0, made.windows[0], [0, 1, 2, 3], a=NAN, c=NAN))
    )
    assert found == frozenset()
    assert made.audited == []


def a_repair(number: int, window: Window, worker: str, output: np.ndarray) -> Any:
    """The window's first rows, run plainly by one worker."""
    plain = build("uncoded", 1, byzantine=0)
    shares = plain.encode(window.queries[None, :2])
    run = GroupRun(number, shares, finish=None, outputs={(0, 0): output})  # type: ignore[arg-type]
    attempt = {
        "share": 0, "attempt": 0, "worker": worker, "member": 1, "fate": "used", "error": None,
    }  # fmt: skip
    run.completion = {"used": [[0, 0]], "attempts": [attempt]}
    return Batch(number, plain, window, np.arange(2), Status.REPAIRED, coded=False), run


@pytest.mark.parametrize("audits", [False, True])
def test_rows_run_plainly_have_their_copies_too_while_a_liar_may_be_at_large(
    audits: bool, scene: Callable[..., Scene]
) -> None:
    rule = NEVER if audits else AuditRule(0.0, first=False, least=0)
    made = scene(honest(), ADAPTIVE, rule=rule)
    window = made.windows[0]
    right = model(window.queries[:2])
    found = made.play(
        lambda: made.guard.hear(*a_repair(6, window, "b", right)),
        lambda: made.guard.hear(*a_repair(7, window, "b", right + 1)),
        lambda: made.guard.hear(*a_repair(8, window, "c", right)),
    )
    assert found == [frozenset(), {0}, frozenset()]
    assert made.roster.is_convicted("b") == audits
    # One more of each; a third of the second, or the client, decides; then there is no other liar.
    assert len(made.audited) == (2 if audits else 4)


def test_a_repair_that_nobody_else_can_run_stands(scene: Callable[..., Scene]) -> None:
    made = scene(dict.fromkeys("bcdef", raising) | {"a": model}, ADAPTIVE)
    window = made.windows[0]
    repair = a_repair(9, window, "a", model(window.queries[:2]))
    assert made.play(lambda: made.guard.hear(*repair)) == [frozenset()]
    assert len(made.audited) == 1
