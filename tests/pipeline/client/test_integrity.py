"""Spot checks, verdicts and what follows from them, on a store on the disk, without a cluster.

The workers answer when the test lets them; everything else is the run's own.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from approxifer.coding import Code, CodeSpec, gather
from approxifer.datasets import Journal, OutputStore, open_source
from approxifer.errors import TrustError
from approxifer.models import open_model
from approxifer.pipeline import records
from approxifer.pipeline.byzantine.membership import CLIENT, Membership
from approxifer.pipeline.byzantine.spot_checks import owed
from approxifer.pipeline.client import integrity as guard_module
from approxifer.pipeline.client.collect import RowGroup, decode_group
from approxifer.pipeline.client.dispatch import GroupTransfer
from approxifer.pipeline.client.integrity import Hooks, IntegrityMonitor
from approxifer.pipeline.client.single_shares import SingleResult
from approxifer.pipeline.client.window import Window
from approxifer.pipeline.protocol import Attempt, Complete
from approxifer.pipeline.records import AttemptOutcome, Status

ROWS, WINDOW = 24, 12


def model(rows: np.ndarray) -> np.ndarray:
    return 3 * rows


def lie(rows: np.ndarray) -> np.ndarray:
    return 3 * rows + 1


Run = Callable[[np.ndarray], np.ndarray]


class LateError(Exception):
    """The worker has not answered in time."""


class Scene:
    """A guard, and workers 0, 1, ... ``w0``, ``w1``, ...; what is done is noted in order."""

    def __init__(self, folder: Path, workers: int = 5, *, code: Code | None = None, **setup: Any):
        self.folder = folder
        self.code = code or CodeSpec("uncoded", 2).build()
        self.queries = np.arange(1, ROWS + 1, dtype=np.float32)[:, None]
        self.done: list[Any] = []
        self.runs: dict[int, Run] = dict.fromkeys(range(workers), model)
        self.asked: list[tuple[int, list[float]]] = []  #: checker, rows
        self.windows: list[Window] = []
        self.again: dict[int, list[int]] = {}
        self.alone = False  #: whether the clock sends old queues
        self._setup = setup

    def open(self, session: str = "s1") -> None:
        """Begin a session on the store, which is made by the first."""
        path = self.folder / "out.zarr"
        if path.exists():
            self.store = OutputStore.open(path)
        else:
            source = open_source(xr.DataArray(self.queries, dims=("n", "f"), name="x"))
            self.store = OutputStore.create(
                path, source=source, output_shape=(1,), output_dtype="float32", chunk=WINDOW,
                attrs={},
            )  # fmt: skip
        past = Journal.read(path)
        self.journal = Journal(path)
        self.journal.append({"event": "session", "session": session})
        spans = [(n, s, s + WINDOW) for n, s in enumerate(range(0, ROWS, WINDOW))]
        names = itertools.count()
        setup = SimpleNamespace(
            **{
                "check": 2, "byzantine": 1, "referee": "client", "assurance": None,
                "repair": "exact", "session": session, "store": self.store, "threads": 1,
                "load": self._load, "handle": open_model(model_in_place()),
                "layout": SimpleNamespace(micro_batch=8),
            } | self._setup
        )  # fmt: skip
        self.members = Membership(session, past, on_new=self._name, quarantine="worker")
        self.context = SimpleNamespace(
            setup=setup, numbers=itertools.count(1000), spawn=self._spawn, compute=call, read=call,
            write=call, journal=self._event, index=self.members.index,
            session=SimpleNamespace(
                ledger={"typical": 0.01}, call=self._call, worker_records=dict
            ),
        )  # fmt: skip
        self.tasks: set[asyncio.Task[Any]] = set()
        self.guard = IntegrityMonitor(
            self.context, self.code, SimpleNamespace(run=self._run), self.members, spans=spans,  # type: ignore[arg-type]
            hooks=Hooks(lambda: self.windows, self._close, self._failed, self._taken_back),
            rng=np.random.default_rng(0),
        )  # fmt: skip
        for number in self.runs:
            place = {"host": "h", "node": "", "device": "cpu", "hardware": "A"}
            self.members.joined(number, f"w{number}", **place)
        del names

    def turn_of(self, who: int) -> None:
        """From now on this worker checks all that it may."""
        turns = self.guard._checking.turns  # type: ignore[union-attr]
        turns.order = lambda allowed: sorted(allowed, key=lambda one: one != who)  # type: ignore[method-assign]

    def close(self) -> None:
        self.journal.close()
        self.store.release()

    def _load(self, start: int, stop: int) -> np.ndarray:
        return self.queries[start:stop].copy()

    def _event(self, event: str, *, fsync: bool = False, **fields: Any) -> None:
        session = self.context.setup.session
        self.done.append((event, "fsync") if fsync else (event,))
        self.journal.append({"event": event, "session": session} | fields, fsync=fsync)

    def _name(self, index: int, member: Any) -> None:
        self._event("name", **{k: v for k, v in member.event().items() if k != "session"})

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.add(asyncio.get_running_loop().create_task(work))

    async def _call(self, what: str, **fields: Any) -> None:
        self.done.append((what, fields))

    async def _run(
        self, rows: np.ndarray, *, kind: str, only: int, model: int = 0, forbid: Any = ()
    ) -> SingleResult:
        await asyncio.sleep(0)
        self.asked.append((only, rows[:, 0].tolist()))
        try:
            output = self.runs[only](rows)
        except LateError:
            return SingleResult(None, False)
        except Exception:
            return SingleResult(None, True)
        malformed = None if output.shape == rows.shape else "another shape"
        stand_in = output if malformed is None else np.full_like(rows, np.nan)
        return SingleResult(records.ShareOutput(f"w{only}", stand_in, malformed, only), False)

    async def _close(self, window: Window) -> None:
        """As the engine writes a window; its rows that were taken back stay pending."""
        if window.closing or not window.scored:
            return
        if window.checks:
            if window is self.windows[0]:
                self.guard.flush(window)
            return
        if (rows := self.guard.tainted(window)) is not None:
            window.take_back(rows)
            self.done.append(("taken back", window.index, np.flatnonzero(rows).tolist()))
            return
        window.closing = True
        fields = ("prediction", "status", "group", "worker", "residual")
        self.store.write_window(
            window.start, window.stop, **{name: getattr(window, name) for name in fields}
        )
        self.done.append(("written", window.index))
        self.windows.remove(window)
        if self.windows:
            await self._close(self.windows[0])

    def _failed(self, window: Window, rows: np.ndarray) -> None:
        self.done.append(("failed", np.flatnonzero(rows).tolist()))
        window.status[rows] = Status.FAILED

    def _taken_back(self, index: int, statuses: np.ndarray) -> None:
        self.done.append(("pending", index))
        self.again.setdefault(index, []).extend(statuses.tolist())

    # ---- what a test does -----------------------------------------------------------------------

    def window(self, index: int = 0, rows: int = WINDOW) -> Window:
        start = index * WINDOW
        queries = self._load(start, start + rows)
        blank = np.full((rows, 1), np.nan, np.float32)
        made = Window(index, start, queries, np.arange(rows), blank)
        self.windows.append(made)
        return made

    async def back(
        self,
        window: Window,
        members: list[int],
        by: dict[int, int],
        *,
        number: int = 0,
        outputs: dict[int, np.ndarray] | None = None,
    ) -> None:
        """A group comes back: rows of the window, who ran each share, and with what result."""
        code = self.code
        order = np.asarray(members)
        shares = code.encode(gather(window.queries, order, code.k))
        group = GroupTransfer(number, shares, None, code.models)  # type: ignore[arg-type]
        told = {}
        attempts = []
        for share, who in by.items():
            output = (outputs or {}).get(share)
            output = self.runs[who](shares[share]) if output is None else output
            told[share] = records.ShareOutput(f"w{who}", output, None, who)
            attempts.append(Attempt(share, 0, f"w{who}", who, AttemptOutcome.USED))
        used = tuple((share, 0) for share in by)
        group.completion = Complete(number, False, used, tuple(attempts))
        batch = RowGroup(number, code, window, order, Status.EXACT, coded=True)
        returned = decode_group(batch, told, history=attempts)
        drawn = self.guard.draw(batch, group, returned)
        self.guard.start(batch, group, drawn)
        assert returned.decoded is not None
        for block in range(code.k):
            rows = order[block :: code.k]
            carrier = returned.carrier(block)
            if carrier is None:
                window.put(rows, returned.decoded.blocks[block], status=Status.DECODED)
            else:
                worker = self.members.index(told[carrier].member)
                window.put(rows, told[carrier].output, status=Status.EXACT, worker=worker)
            window.group[rows] = number
        names = {str(s): one.worker for s, one in told.items()}
        indices = {str(s): self.members.index(one.member) for s, one in told.items()}
        self._event("group", group=number, kind="coded", shares=names, members=indices)
        await self._close(window)

    async def all_back(self, window: Window, by: dict[int, int], **more: Any) -> None:
        """One group of all rows of a window."""
        await self.back(window, list(range(len(window.queries))), by, **more)

    async def rest(self) -> None:
        """Let everything that is under way come to its end."""
        while self.tasks:
            tasks, self.tasks = self.tasks, set()
            await asyncio.gather(*tasks)

    def kinds(self, *wanted: str) -> list[str]:
        return [one[0] for one in self.done if one[0] in wanted]

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in Journal.read(self.store.path) if event["event"] == kind]

    def convicted(self) -> list[str]:
        return [conviction.member.name for conviction in self.members.convictions]


async def call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def model_in_place() -> Any:
    import toy_models

    return toy_models.tripled


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    made: list[Scene] = []

    def make(workers: int = 5, **setup: Any) -> Scene:
        one = Scene(tmp_path, workers, **setup)
        one.open()
        made.append(one)
        return one

    yield make
    for one in made:
        one.close()


def run(play: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(play())


# ---- windows close -------------------------------------------------------------------------------


def test_a_window_is_written_once_its_checks_are_in(scene: Any) -> None:
    on = scene()

    async def play() -> None:
        await on.guard.open()
        window = on.window()
        await on.all_back(window, {0: 0, 1: 1})
        assert window.checks == 4
        assert on.kinds("written") == []
        await on.rest()
        assert on.kinds("check", "written") == ["check", "check", "written"]

    run(play)
    assert sum(len(rows) for _, rows in on.asked) == 4
    for event in on.events("check"):
        assert (event["of"], len(event["rows"]), event["rate"]) == (6, 2, pytest.approx(1 / 6))


@pytest.mark.parametrize("rows", [1, 3, 5, WINDOW])
def test_a_tail_is_checked_without_its_padding(scene: Any, rows: int) -> None:
    """Fewer rows than a micro-batch, and a last codeword that is not full."""
    on = scene(check=9)

    async def play() -> None:
        await on.guard.open()
        await on.all_back(on.window(0, rows), {0: 0, 1: 1})
        await on.rest()

    run(play) if rows == WINDOW else None
    if rows < WINDOW:  # the store takes whole chunks: look at the checks alone
        on.store.write_window = lambda *_, **__: None
        run(play)
    checked = sorted(row for event in on.events("check") for (row,) in event["rows"])
    assert checked == list(range(rows)), "each real row once"


def test_two_windows_do_not_wait_for_each_other(scene: Any) -> None:
    """The older goes out although the younger has nothing but checks to wait for."""
    on = scene()

    async def play() -> None:
        await on.guard.open()
        older, younger = on.window(0), on.window(1)
        await on.all_back(younger, {0: 0, 1: 1}, number=1)
        await on.rest()
        assert on.kinds("written") == []
        await on.all_back(older, {0: 2, 1: 3})
        await on.rest()

    run(play)
    assert on.kinds("written") == ["written", "written"]


def test_the_clock_sends_rows_that_wait_for_a_window_which_is_not_whole(scene: Any) -> None:
    on = scene()

    async def play() -> None:
        await on.guard.open()
        window = on.window()
        await on.back(window, [0, 1, 2, 3], {0: 0, 1: 1})
        clock = asyncio.create_task(on.guard.send_old())
        async with asyncio.timeout(10):
            while window.checks:
                await asyncio.sleep(0.01)
        clock.cancel()
        assert on.kinds("written") == []

    run(play)


# ---- checkers ------------------------------------------------------------------------------------


def test_a_share_is_not_checked_by_who_ran_it_or_a_copy_of_it(scene: Any) -> None:
    on = scene(4, check=6)

    async def play() -> None:
        await on.guard.open()
        await on.all_back(on.window(), {0: 0, 1: 1})
        await on.rest()

    run(play)
    checkers = Counter(who for who, rows in on.asked for _ in rows)
    assert set(checkers) <= {0, 1, 2, 3}
    for event in on.events("check"):
        assert event["member"] not in event["checkers"]


def test_a_checker_that_hangs_is_replaced_and_nobody_is_convicted(scene: Any) -> None:
    on = scene(4)

    def silent(rows: np.ndarray) -> np.ndarray:
        raise LateError

    async def play() -> None:
        await on.guard.open()
        on.turn_of(2)
        on.runs[2] = silent
        for number, window in enumerate((on.window(0), on.window(1))):
            await on.all_back(window, {0: 0, 1: 1}, number=number)
            await on.rest()

    run(play)
    assert on.kinds("written") == ["written", "written"]
    assert on.convicted() == []
    assert 2 in {who for who, _ in on.asked}
    assert all(on.members.index(2) not in event["checkers"] for event in on.events("check"))


def test_where_no_worker_may_check_the_client_does(scene: Any) -> None:
    on = scene(1)

    async def play() -> None:
        await on.guard.open()
        await on.all_back(on.window(), {0: 0, 1: 0})
        await on.rest()

    run(play)
    assert on.asked == []
    assert on.kinds("written") == ["written"]
    assert {who for event in on.events("check") for who in event["checkers"]} == {CLIENT}


def test_where_no_worker_may_check_a_quorum_cannot_be_had(scene: Any) -> None:
    on = scene(1, referee="quorum")

    async def play() -> None:
        await on.guard.open()
        await on.all_back(on.window(), {0: 0, 1: 0})

    with pytest.raises(TrustError, match="no worker is left that could check"):
        run(play)


# ---- a lie ---------------------------------------------------------------------------------------


def test_the_way_of_a_conviction(scene: Any) -> None:
    """Evidence and verdict on the disk, then the bar, then the sweep; nothing wrong is written."""
    on = scene()

    async def play() -> None:
        await on.guard.open()
        first, second = on.window(0), on.window(1)
        await on.all_back(first, {0: 0, 1: 1})
        await on.rest()
        on.runs[1] = lie
        await on.all_back(second, {0: 0, 1: 1}, number=1)
        await on.rest()

    run(play)
    assert on.convicted() == ["w1"]
    order = [one[:2] for one in on.done if one[0] in ("mismatch", "conviction", "bar", "pending")]
    assert order[:2] == [("mismatch", "fsync"), ("conviction", "fsync")]
    assert [one[0] for one in order[2:4]] == ["bar", "pending"]
    assert on.done[-1] == ("taken back", 1, list(range(1, 12, 2)))
    status = on.store.status()
    assert (status[1:12:2] == Status.PENDING).all(), "what it wrote before its lie, too"
    assert (status[0:12:2] == Status.EXACT).all()
    (mismatch,) = on.events("mismatch")[:1]
    assert mismatch["rows"][0] % 2 == 1
    assert on.events("verdict")[0]["of"] == ["s1", 0]


def test_a_checker_that_lies_is_convicted_and_its_checks_are_made_again(scene: Any) -> None:
    on = scene()

    async def play() -> None:
        await on.guard.open()
        on.runs[2] = lie
        for number, window in enumerate((on.window(0), on.window(1))):
            await on.all_back(window, {0: 0, 1: 1}, number=number)
            await on.rest()

    run(play)
    assert on.convicted() == ["w2"]
    assert on.kinds("written") == ["written", "written"]
    bad = on.members.index(2)
    for event in on.events("check"):
        assert bad not in event["checkers"]
        assert len(event["rows"]) == 2
    assert "its check of w" in str(on.members.convictions[0])


def test_an_output_that_is_none_is_judged_like_a_wrong_one(scene: Any) -> None:
    on = scene()

    async def play() -> None:
        await on.guard.open()
        on.turn_of(2)
        on.runs[2] = lambda rows: rows[:-1]
        await on.all_back(on.window(), {0: 0, 1: 1})
        await on.rest()

    run(play)
    assert on.convicted() == ["w2"]
    assert on.kinds("written") == ["written"]


def test_more_than_e_convictions_end_the_run(scene: Any) -> None:
    on = scene(byzantine=0)

    async def play() -> None:
        await on.guard.open()
        on.runs[1] = lie
        await on.all_back(on.window(), {0: 0, 1: 1})
        await on.rest()

    with pytest.raises(TrustError, match="1 workers are convicted, and byzantine=0"):
        run(play)
    assert on.kinds("written") == []


# ---- rows on which the model raises --------------------------------------------------------------


def test_a_row_fails_where_e_plus_one_workers_raise_on_it_alone(scene: Any) -> None:
    """One worker answers for a row that nobody else can run: that is no output."""
    on = scene(6, check=6)

    def raising(rows: np.ndarray) -> np.ndarray:
        if (rows == 2.0).any():
            raise ValueError("two")
        return 3 * rows

    async def play() -> None:
        await on.guard.open()
        for number in range(2, 6):
            on.runs[number] = raising
        await on.all_back(on.window(), {0: 0, 1: 1})
        on.runs[0] = on.runs[1] = raising
        await on.rest()

    run(play)
    assert on.convicted() == []
    assert ("failed", [1]) in on.done
    alone = {who for who, rows in on.asked if rows == [2.0]}
    assert len(alone) >= 2
    assert on.kinds("written") == ["written"]
    assert on.store.status().tolist()[:3] == [1, 4, 1]


def test_one_that_raises_at_will_is_passed_over(scene: Any) -> None:
    on = scene(5)

    def raising(rows: np.ndarray) -> np.ndarray:
        raise ValueError("no")

    async def play() -> None:
        await on.guard.open()
        on.runs[2] = raising
        for number, window in enumerate((on.window(0), on.window(1))):
            await on.all_back(window, {0: 0, 1: 1}, number=number)
            await on.rest()

    run(play)
    assert on.convicted() == []
    assert on.kinds("failed") == []
    assert on.kinds("written") == ["written", "written"]


# ---- void checks ---------------------------------------------------------------------------------


class Vouching:
    """A worker that says what the liar says, wherever it is asked."""

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        return np.where((rows.astype(int) - 1) % 2 == 1, 3 * rows + 1, 3 * rows)


def test_what_an_accomplice_vouched_for_is_checked_again_once_it_is_convicted(
    scene: Any, tmp_path: Path
) -> None:
    """Of the first window all checks fall to the accomplice: nobody else may check."""
    on = scene(3, byzantine=2, check=2)

    async def play() -> None:
        await on.guard.open()
        first = on.window(0)
        on.runs[1] = Vouching()  # its share is of the odd rows
        on.runs[2] = Vouching()
        await on.all_back(first, {0: 0, 1: 1})
        await on.rest()

    run(play)
    # Three checkers a share, one of them honest or the client: the lie is out at once.
    assert "w1" in on.convicted()
    assert (on.store.status()[1:12:2] != Status.EXACT).all()


def test_checks_of_an_open_window_are_made_again_once_their_checker_is_convicted(
    scene: Any,
) -> None:
    on = scene(5, check=3)

    async def play() -> None:
        await on.guard.open()
        on.turn_of(2)
        window = on.window(0)
        await on.back(window, list(range(6)), {0: 0, 1: 1})
        on.guard.flush(window)
        await on.rest()
        on.runs[2] = lie
        await on.back(window, list(range(6, 12)), {0: 2, 1: 3}, number=1)
        await on.rest()

    run(play)
    assert on.convicted() == ["w2"]
    bad = on.members.index(2)
    checks = on.events("check")
    assert any(bad in event["checkers"] for event in checks), "it had checked others"
    assert owed(checks, {bad}) == {}
    assert any(event["why"] == "again" for event in checks)


def test_a_session_later_void_checks_are_made_up_before_the_store_is_whole(
    tmp_path: Path,
) -> None:
    """w2 checked w1's written rows, and is convicted in the next session by another run's word."""
    one = Scene(tmp_path, 3)
    one.open("s1")

    async def first() -> None:
        await one.guard.open()
        one.members.departed(0)  # so that w2 alone may check w1, and w1 alone w2
        on_window = one.window(0)
        wrong = lie(gather(on_window.queries, np.arange(12), 2)[1])
        one.runs[2] = Vouching()
        await one.all_back(on_window, {0: 2, 1: 1}, outputs={1: wrong})
        await one.rest()

    asyncio.run(first())
    assert one.convicted() == []
    assert (one.store.status()[:12] == Status.EXACT).all()
    assert one.store.read_prediction(1, 2)[0, 0] == 7.0, "2 -> 6, and one too large"
    accomplice = next(m for m in one.members.members if m.name == "w2")
    journal = one.journal
    evidence = {
        "group": 9, "share": 0, "rows": 1, "of": 1, "deviation": 1.0, "allowed": 0.0,
        "referee": "client", "suspicion": "another run",
    }  # fmt: skip
    member = accomplice.event() | {"name": "w2"}
    journal.append(
        {
            "event": "conviction", "session": "s1", "kind": "worker", "evidence": evidence,
            "member": member,
        }
    )  # fmt: skip
    one.close()

    two = Scene(tmp_path, 3)
    two.open("s2")

    async def second() -> None:
        await two.guard.open()
        await two.guard.finish_checks()
        await two.rest()

    asyncio.run(second())
    try:
        assert sorted(two.convicted()) == ["w1", "w2"]
        assert two.again[0], "and its rows are pending"
        assert (two.store.status()[1:12:2] == Status.PENDING).all()
        assert two.members.convicted_here == [], "they are workers of another session"
    finally:
        two.close()


def test_rows_that_are_no_share_s_output_cannot_be_checked_again(tmp_path: Path) -> None:
    """A decoded row whose checker is convicted is run again."""
    code = CodeSpec("systematic", 2, 1).build()
    one = Scene(tmp_path, 3, code=code, repair="none")
    one.open("s1")
    data = [share for share in range(3) if code.carries[share] is not None]
    parity = next(share for share in range(3) if code.carries[share] is None)

    async def first() -> None:
        await one.guard.open()
        one.members.departed(0)
        window = one.window(0)
        await one.all_back(window, {data[0]: 1, parity: 1})
        await one.rest()
        index = one.members.index(2)
        one.runs[2] = lie
        one.journal.sync()
        assert (one.store.status()[:12] == Status.DECODED).sum() == 6
        mixed = [e for e in one.events("check") if any(len(rows) == 2 for rows in e["rows"])]
        assert all(who == index for event in mixed for who in event["checkers"])
        # Found out in its next share.
        await one.all_back(one.window(1), {data[0]: 2, data[1]: 1}, number=1)
        await one.rest()
        await one.guard.finish_checks()
        await one.rest()

    asyncio.run(first())
    try:
        assert one.convicted() == ["w2"]
        checked = {row for e in one.events("check") for rows in e["rows"] for row in rows}
        status = one.store.status()[:12]
        decoded = {row for row in range(12) if status[row] == Status.DECODED}
        for event in one.events("check"):
            for rows in event["rows"]:
                if len(rows) == 2 and event["group"] == 0:
                    assert not decoded & set(rows)
        assert checked
        assert (status == Status.PENDING).any()
    finally:
        one.close()


# ---- crashes -------------------------------------------------------------------------------------


def test_a_mismatch_without_a_verdict_is_decided_by_the_next_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Scene(tmp_path, 4)
    one.open("s1")

    async def first() -> None:
        await one.guard.open()
        await one.all_back(one.window(0), {0: 0, 1: 1})
        await one.rest()
        one.runs[1] = lie

        async def dies(*_: Any) -> None:
            raise MemoryError("killed here")

        assert one.guard._checking is not None
        one.guard._checking.referee.judge = dies  # type: ignore[method-assign,assignment]
        await one.all_back(one.window(1), {0: 0, 1: 1}, number=1)
        await one.rest()

    with pytest.raises(MemoryError):
        asyncio.run(first())
    assert one.events("mismatch")
    assert one.events("verdict") == []
    assert (one.store.status()[:12] == Status.EXACT).all()
    one.close()

    two = Scene(tmp_path, 4)
    two.open("s2")

    async def second() -> None:
        await two.guard.open()
        await two.guard.finish_verdicts()

    asyncio.run(second())
    try:
        assert two.convicted() == ["w1"]
        assert (two.store.status()[1:12:2] == Status.PENDING).all()
        assert len(two.events("verdict")) == len(two.events("mismatch"))
    finally:
        two.close()


# ---- bounds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("assurance", [0.6, 0.2])
def test_assurance_draws_from_what_each_member_has_written(scene: Any, assurance: float) -> None:
    on = scene(check=1, assurance=assurance)

    async def play() -> None:
        await on.guard.open()
        await on.all_back(on.window(0), {0: 0, 1: 1})
        await on.all_back(on.window(1), {0: 2, 1: 3}, number=1)
        await on.rest()
        await on.guard.finish_checks()
        await on.rest()

    run(play)
    _, proofs = on.guard.records()
    assert len(proofs) == 4
    assert all(proof.bound <= assurance for _, proof in proofs)
    if assurance == 0.2:  # more than there are: each is checked whole
        assert all(proof.whole for _, proof in proofs)


def test_the_sample_for_the_tolerance_is_what_the_model_takes() -> None:
    def some(rows: np.ndarray) -> np.ndarray:
        if (rows > 20).any():
            raise ValueError
        return rows

    rows = np.arange(24.0)[:, None]
    assert len(guard_module._that_it_takes(some, rows)) == 21
