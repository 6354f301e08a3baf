"""Runs on a virtual clock: the engine's own ledger and policy, driven by simulated workers.

What decides is the code that decides in a real run: `ledger.RunState` (with `policy.decide`,
`placement.place` and `Hedge`), and `Window`, which gathers repairs. What is simulated is what they
decide about: the workers (`simulated_workers`), and the client's loop, which
opens windows and groups as `engine.Engine` does. Fetching, decoding and writing take no time.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from approxifer.benchmarks.stragglers import latency, simulated_dask
from approxifer.benchmarks.stragglers.schedules import SCHEDULES, Schedule
from approxifer.benchmarks.stragglers.setup import SCHEMES, Shape, Site
from approxifer.benchmarks.stragglers.simulated_workers import Clock, Delays, Workers
from approxifer.coding import CodeSpec, block_rows
from approxifer.pipeline.client.window import Window
from approxifer.pipeline.client.windows import OPEN_WINDOWS
from approxifer.pipeline.planning.partition import IN_FLIGHT, groups_in_flight
from approxifer.pipeline.protocol import Attempt, Complete, Send
from approxifer.pipeline.records import AttemptOutcome, Status
from approxifer.pipeline.scheduler.plugin import TICK
from approxifer.pipeline.scheduler.policy import Policy
from approxifer.pipeline.scheduler.run_state import RunState
from approxifer.pipeline.scheduler.state import GroupState, WorkerState


@dataclass(frozen=True)
class Played:
    """A run: its journal, its seconds, its evaluations per query."""

    events: list[dict[str, Any]]
    seconds: float
    evaluations_per_query: float


def play(
    spec: CodeSpec,
    policy: Policy,
    *,
    repair: bool,
    groups: int,
    shape: Shape,
    schedule: Schedule,
    seed: int,
    delays: Delays,
    in_flight: float = IN_FLIGHT,
) -> Played:
    """Play a run.

    Parameters
    ----------
    spec : CodeSpec
    policy : Policy
        As `Options.policy` has it.
    repair : bool
        Whether decoded rows are run again.
    groups : int
    shape : Shape
    schedule, seed
        Of slow workers.
    delays : Delays
    in_flight : float
        Shares for each worker, as `approxifer.score` has it.

    Returns
    -------
    Played
    """
    clock = Clock()
    run = RunState(
        run="virtual",
        client="",
        codes={"coded": spec.build(), "plain": CodeSpec("uncoded", 1).build()},
        policy=policy,
        fingerprint="",
        seed=seed,
        restart=False,
        began=0.0,
        workers={
            f"a{number}": WorkerState(
                f"a{number}", f"worker-{number}", "here", 1, seen=0.0, ready={"virtual"}
            )
            for number in range(shape.workers)
        },
        block=shape.block,
        micro_batch=shape.micro_batch,
    )
    workers = Workers(clock, run, schedule, seed, shape.block, shape.micro_batch, delays)
    client = _Client(clock, run, workers, spec, repair, groups, shape, in_flight)
    client.play()
    evaluations = sum(one["evaluations"] for one in run.summary()["workers"])
    rows = groups * spec.k * shape.block
    return Played(client.events, clock.now, evaluations / rows)


def simulate(site: Site, fault: str, name: str, groups: int, delays: Delays) -> dict[str, Any]:
    """One scheme under one schedule, on the virtual clock."""
    scheme, schedule = SCHEMES[name], SCHEDULES[fault]
    common: dict[str, Any] = {
        "groups": groups, "shape": site.shape, "schedule": schedule, "seed": site.seed,
        "delays": delays,
    }  # fmt: skip
    if scheme.options is None:
        found, seconds = simulated_dask.play(site.k, **common)
        evaluations = 1.0
    else:
        asked = scheme.checked(site.k)
        played = play(
            scheme.spec(site.k), asked.policy, repair=scheme.finals, in_flight=asked.in_flight,
            **common,
        )  # fmt: skip
        found, seconds = latency.read(played.events), played.seconds
        evaluations = played.evaluations_per_query
    return {
        **latency.summary(found, finals=scheme.finals),
        "seconds": seconds,
        "evaluations_per_query": evaluations,
        "tail": latency.tail([one.decodable for one in found]),
        "final_tail": latency.tail([one.final for one in found]) if scheme.finals else None,
    }


class _Client:
    """The client's loop and the plugin's clock."""

    def __init__(
        self,
        clock: Clock,
        run: RunState,
        workers: Workers,
        spec: CodeSpec,
        repair: bool,
        groups: int,
        shape: Shape,
        in_flight: float,
    ) -> None:
        self.events: list[dict[str, Any]] = [{"event": "session", "code": asdict(spec)}]
        self._clock, self._run, self._workers = clock, run, workers
        self._spec, self._repair, self._shape = spec, repair, shape
        self._most = groups_in_flight(spec.n, shape.workers, in_flight)
        self._in_flight = 0
        self._numbers = itertools.count(groups)
        self._fresh: deque[int] = deque(range(groups))
        self._windows: dict[int, Window] = {}  #: open ones
        #: Of each group in flight: its window, its rows there, and whether it is coded.
        self._batches: dict[int, tuple[Window, np.ndarray, bool]] = {}

    def play(self) -> None:
        """Until the last window is whole."""
        self._tick()
        self._feed()
        self._follow()
        while self._windows:
            if not self._clock.step():
                raise RuntimeError("nothing is under way, and windows are open")
            self._follow()

    def _tick(self) -> None:
        now = self._clock.now
        for worker in self._run.workers.values():
            worker.seen = now
        for worker in list(self._run.hung_workers(now)):
            self._workers.give_up(worker)
        for group in list(self._run.groups.values()):
            self._workers.advance(group)
        self._clock.after(TICK, self._tick)

    def _feed(self) -> None:
        """Open fresh groups, as many as may be in flight, out of as many windows."""
        while self._fresh and self._in_flight < self._most:
            number = self._fresh[0]
            index = number // self._shape.window
            if index not in self._windows:
                if len(self._windows) == OPEN_WINDOWS:
                    return
                self._windows[index] = self._load(index)
            self._fresh.popleft()
            self._in_flight += 1
            size = self._spec.k * self._shape.block
            first = number % self._shape.window * size
            rows = np.arange(first, first + size)
            self._open(number, self._windows[index], rows, coded=True)

    def _load(self, index: int) -> Window:
        groups = min(self._shape.window, len(self._fresh))
        rows = groups * self._spec.k * self._shape.block
        nothing = np.empty((rows, 0), np.float32)
        return Window(index, 0, nothing, np.arange(rows), nothing.copy(), coded_left=groups)

    def _open(
        self,
        number: int,
        window: Window,
        rows: np.ndarray,
        *,
        coded: bool,
        avoid: frozenset[str] = frozenset(),
    ) -> None:
        self._batches[number] = (window, rows, coded)
        code = self._run.codes["coded" if coded else "plain"]
        group = GroupState(
            group=number,
            code=code,
            rows=self._shape.block,
            priority=self._run.rank(code.n, first=not coded, others=()),
            avoid=avoid,
        )
        self._run.open_group(group)
        self._workers.advance(group)

    def _follow(self) -> None:
        while self._run.events:
            news, self._run.events = self._run.events, []
            for event in news:
                if isinstance(event, Send):
                    self._workers.send(one.key for one in event.to)
                elif isinstance(event, Complete):
                    self._finish(event)

    def _finish(self, event: Complete) -> None:
        number = event.group
        window, rows, coded = self._batches.pop(number)
        code = self._run.codes["coded" if coded else "plain"]
        of = [] if coded else sorted({int(group) for group in window.group[rows]})
        self.events.append(
            {
                "event": "group",
                "group": number,
                "kind": "coded" if coded else "repair",
                "attempts": [asdict(attempt) for attempt in event.attempts],
                "of": of,
            }
        )
        if coded:
            window.group[rows] = number
            window.coded_left -= 1
            self._in_flight -= 1
        present = {share for share, _ in event.used}
        exact = code.exact(present)
        broken = not code.decodable(present)
        for block, members in enumerate(block_rows(rows, code.k)):
            if exact[block] or not (broken or self._repair):
                window.put(members, window.prediction[members], status=Status.EXACT)
            else:
                window.ask_repair(members, Status.REPAIRED, _not_back(event.attempts))
        self._run.settle(number)
        for repair in list(window.due_repairs(self._shape.block)):
            self._open(next(self._numbers), window, repair.rows, coded=False, avoid=repair.avoid)
        if window.whole:
            self._windows.pop(window.index)
        self._feed()


def _not_back(attempts: Iterable[Attempt]) -> frozenset[str]:
    """The workers that did not bring their share back."""
    bad = (AttemptOutcome.DROPPED, AttemptOutcome.LOST, AttemptOutcome.FAILED)
    return frozenset(attempt.worker for attempt in attempts if attempt.fate in bad)
