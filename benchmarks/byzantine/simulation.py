"""One run against Byzantine workers, played from recorded outputs, without a cluster.

Everything that decides is the engine's own: the placement of shares (`placement`), the choice of
rows to check and of their checkers (`IntegrityMonitor`, `Checking`), the decision which worker is
wrong (`Referee`), exclusions (`Membership`), what is taken in, taken back and run again
(`decode_group`, `Collector`, `Window`). Only the workers are played: they return what was recorded,
or a corruption of it. To this end a row's number stands for the row itself.

Groups come one after the other. Rows to check wait in their queues for so many groups, not for so
many seconds; what goes out is answered before the next group. In the engine some groups are under
way meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from itertools import count
from math import ceil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from approxifer.benchmarks.byzantine.outcome import Outcome, Wrong
from approxifer.benchmarks.byzantine.replay import Fault, Replay
from approxifer.benchmarks.recording import Recording
from approxifer.coding import CodeSpec, block_rows
from approxifer.models import Runner
from approxifer.pipeline.byzantine.hardware import hardware_class
from approxifer.pipeline.byzantine.membership import Membership
from approxifer.pipeline.byzantine.spot_checks import proofs
from approxifer.pipeline.byzantine.tolerance import Tolerance
from approxifer.pipeline.client.checking import QUEUE_TIMES
from approxifer.pipeline.client.collect import Collector, RowGroup, decode_group
from approxifer.pipeline.client.dispatch import GroupTransfer
from approxifer.pipeline.client.integrity import IntegrityMonitor
from approxifer.pipeline.client.single_shares import SingleResult
from approxifer.pipeline.client.window import Window
from approxifer.pipeline.client.windows import tainted_rows
from approxifer.pipeline.planning.partition import micro_batch
from approxifer.pipeline.protocol import Attempt, Complete
from approxifer.pipeline.records import AttemptOutcome, ShareOutput, Status
from approxifer.pipeline.scheduler.placement import Candidate, place
from approxifer.pipeline.stream import BlockStream

PLAIN = CodeSpec(scheme="uncoded", k=1).build()
#: Workers of a run.
WORKERS = 12
#: Those of them that may be Byzantine: E.
BYZANTINE = 1


def groups_waited(shares: int, workers: int = WORKERS) -> int:
    """The groups of so many shares that the workers run while the engine's queues wait."""
    return ceil(QUEUE_TIMES * workers / shares)


def simulate(
    recording: Recording,
    *,
    tolerance: Tolerance,
    check: int,
    seed: int,
    faults: Mapping[str, Fault] | None = None,
    workers: int = WORKERS,
    cautious: bool = False,
    wait: int = 1,
) -> Outcome:
    """Score a recording with workers ``w0``, ``w1`` ..., equally loaded, and E=1.

    Parameters
    ----------
    recording : Recording
        Of a code without parity for E: ``uncoded``.
    tolerance : Tolerance
        Of the referee, which is the client.
    check : int
        Rows of each share that are checked; 0: none.
    seed : int
        Of the placement, the checks, and the faults; each has a stream of its own. So the groups of
        two runs with one seed are placed alike until a worker is convicted.
    faults : mapping of worker name to Fault, optional
    workers : int
    cautious : bool
        Whether faulty workers are honest where they check others. They cannot know that they do;
        but the probability to escape is stated for their own shares.
    wait : int
        Groups after which the queues of rows to check are sent, full or not.

    Raises
    ------
    TrustError
        More workers are convicted than E.
    """
    run = _Run(recording, tolerance, check, seed, faults or {}, workers, cautious, wait)
    return asyncio.run(run.play())


class _Context:
    """As much of the engine's `Context` as the monitor uses: all is done at once."""

    def __init__(self, **setup: Any) -> None:
        self.setup = SimpleNamespace(**setup)
        self.connection = SimpleNamespace(call=self._notified)
        self.events: list[dict[str, Any]] = []
        self._tasks: deque[asyncio.Task[None]] = deque()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def quiet(self) -> None:
        """Wait until nothing is under way."""
        while self._tasks:
            await self._tasks.popleft()

    async def compute(self, call: Callable[..., Any], *args: Any) -> Any:
        return call(*args)

    write = compute

    def journal(self, event: str, *, fsync: bool = False, **fields: Any) -> None:
        self.events.append({"event": event, **fields})

    async def _notified(self, *_: Any, **__: Any) -> None:
        """Take no notice of exclusions, which `_Run` looks up itself."""


class _Measured(IntegrityMonitor):
    """The monitor, to which the client's model and tolerance are given."""

    def __init__(
        self, measured: tuple[Runner, np.ndarray, Tolerance], *args: Any, **named: Any
    ) -> None:
        super().__init__(*args, **named)
        self._measured = measured

    def _measure(self) -> tuple[Runner, np.ndarray, Tolerance]:
        return self._measured


class _Run:
    def __init__(
        self,
        recording: Recording,
        tolerance: Tolerance,
        check: int,
        seed: int,
        faults: Mapping[str, Fault],
        workers: int,
        cautious: bool,
        wait: int,
    ) -> None:
        self.recording, self.tolerance = recording, tolerance
        self.cautious, self.wait = cautious, wait
        self.replay = Replay(recording)
        self.placing, self.elsewhere, checking, faulty = (
            np.random.default_rng([seed, stream]) for stream in range(4)
        )
        self.answers = {name: self.replay.answer(f, faulty) for name, f in faults.items()}
        self.names = [f"w{number}" for number in range(workers)]
        runner = Runner("recorded", "", "float32", "cpu", 1, None, self._honest)
        self.members = Membership("simulated", quarantine="worker")
        place = {"host": "one", "node": "", "device": "cpu"}
        hardware = hardware_class(runner, 1)  # all alike, and like the client
        for number, name in enumerate(self.names):
            self.members.joined(number, name, **place, hardware=hardware)
        self.micro_batch = micro_batch(recording.block)
        layout = SimpleNamespace(micro_batch=self.micro_batch)
        self.context: Any = _Context(
            layout=layout, byzantine=BYZANTINE if check else 0, check=check, threads=1,
            referee="client", repair="exact", session="simulated", store=None,
            results=SimpleNamespace(travel=None),
        )  # fmt: skip
        plain = self.replay.plain(np.arange(len(recording.plain)))
        self.window = Window(
            index=0,
            start=0,
            queries=plain[:, None],
            order=np.concatenate(recording.members),
            prediction=np.zeros_like(recording.plain),
            coded_left=len(recording.members),
        )
        elsewhere: Any = self
        windows: Any = SimpleNamespace(
            open=[self.window], changed=self._closed_by_play, sweep=self._nothing_written,
            fail=self._never, set_pending=self._never, spans=[],
        )  # fmt: skip
        self.integrity = _Measured(
            (runner, plain[:1, None], tolerance),
            self.context, recording.code, elsewhere, self.members, windows, rng=checking,
        )  # fmt: skip
        self.collector = Collector(
            BlockStream(),
            keep_decoded=False,
            blank=lambda rows: np.zeros_like(recording.plain[:rows]),
            index=self.members.index,
        )
        self.numbers = count(len(recording.members))
        self.done = Outcome(rows=len(recording.plain))

    async def play(self) -> Outcome:
        """Do it, as the engine's `_score` and `_close` do."""
        await self.integrity.open()
        for number, members in enumerate(self.recording.members):
            code = self.recording.code
            await self._run(RowGroup(number, code, self.window, members, Status.EXACT, coded=True))
            self.window.coded_left -= 1
            if (number + 1) % self.wait == 0:
                self.integrity.flush(self.window)
            await self.context.quiet()
        while True:
            await self._repair()
            self.integrity.flush(self.window)
            await self.context.quiet()
            if (tainted := tainted_rows(self.window, self.members, Path())) is None:
                return self._finished()
            self.window.take_back(tainted)

    async def _repair(self) -> None:
        for repair in list(self.window.due_repairs(self.recording.block)):
            number = next(self.numbers)
            await self._run(
                RowGroup(number, PLAIN, self.window, repair.rows, repair.status, coded=False)
            )

    async def _run(self, batch: RowGroup) -> None:
        """Run a group, take its rows in, and have some checked."""
        group = self._group(batch)
        decoded = decode_group(batch, group.share_outputs, history=group.history)
        self.integrity.start(batch, group, self.integrity.draw(batch, group, decoded))
        self.collector.take(decoded)

    def _group(self, batch: RowGroup) -> GroupTransfer:
        """Have workers run its shares."""
        code = batch.code
        present = [n for n in range(len(self.names)) if not self.members.is_convicted(n)]
        candidates = [Candidate(str(n), self.names[n], 0.0, 1.0) for n in present]
        rng = self.placing if batch.coded else self.elsewhere
        placed = place(range(code.n), code, candidates, rng=rng)
        rows = [self._rows(batch, share) for share in range(code.n)]
        group = GroupTransfer(
            batch.number, [one[:, None] for one in rows], self._never, code.models
        )
        attempts = []
        for share, address in sorted(placed.items()):
            name = self.names[int(address)]
            group.outputs[share, 0] = output = self._ask(name, rows[share])
            self.done.shares[name] += 1
            self._look(batch, share, name, rows[share], output)
            attempts.append(Attempt(share, 0, name, int(address), AttemptOutcome.USED))
        group.completion = Complete(batch.number, False, tuple(group.outputs), tuple(attempts))
        return group

    def _rows(self, batch: RowGroup, share: int) -> np.ndarray:
        if batch.code is PLAIN:
            return self.replay.plain(batch.members)
        return self.replay.share(batch.number, share)

    def _ask(self, name: str, rows: np.ndarray, *, check: bool = False) -> np.ndarray:
        """The outputs that a worker returns for rows, by their numbers."""
        filled = self.micro_batch * ceil(len(rows) / self.micro_batch)
        self.done.evaluations += len(rows)
        self.done.padded += filled
        if check:
            self.done.checks += len(rows)
            self.done.checks_padded += filled
        right = self._honest(rows)
        if name not in self.answers or (check and self.cautious):
            return right
        output = self.answers[name](rows)
        if self.tolerance.differs(output, right).any():
            self.done.corrupted.add(name)
        return output

    def _honest(self, rows: np.ndarray) -> np.ndarray:
        outputs: np.ndarray = self.replay.honest[rows.reshape(len(rows))]
        return outputs

    def _look(
        self, batch: RowGroup, share: int, name: str, rows: np.ndarray, output: np.ndarray
    ) -> None:
        """Count what is wrong in a share, for the outcome alone."""
        block = batch.code.carries[share]
        assert block is not None, "uncoded"
        written = len(block_rows(batch.members, batch.code.k)[block])
        if name in self.answers and written:
            right = self._honest(rows)
            differs = self.tolerance.differs(output[:written], right[:written])
            if differs.any():
                finite = bool(np.isfinite(output[:written]).all())
                found = self.done.wrong.setdefault(name, [])
                found.append(Wrong(written, int(differs.sum()), finite))

    async def run(self, rows: np.ndarray, *, kind: str, only: int, model: int) -> SingleResult:
        """As `SingleShares.run`: on this worker."""
        name = self.names[only]
        output = self._ask(name, rows[:, 0], check=True)
        return SingleResult(ShareOutput(name, output, member=only), raised=False)

    def _closed_by_play(self, window: Window) -> None:
        """`play` closes the window."""

    async def _nothing_written(self) -> None:
        """No row is in a store."""

    def _never(self, *_: Any) -> Any:
        raise AssertionError("one window, and a model that never raises")

    def _finished(self) -> Outcome:
        done, plain = self.done, self.recording.plain
        assert self.window.whole, "each row has its output, and no check is under way"
        done.wrong_rows = int(self.tolerance.differs(self.window.prediction, plain).sum())
        done.convicted = [one.member.name for one in self.members.convictions]
        tainted = self.members.tainted()
        proved = proofs(self.context.events, tainted)
        for index in sorted(proved.keys() - tainted):
            name, proof = self.members.members[index].name, proved[index]
            if done.left(name) > proof.bound * proof.rows:
                done.beyond.append(name)
        return done
