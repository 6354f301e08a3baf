"""All runs on one scheduler: the clients' calls, the workers' reports, the clock. Free of Dask.

What needs Dask is done by `Actions`, which the plugin has.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, Protocol

from approxifer.coding import CodeSpec
from approxifer.pipeline.keys import Key, as_key, run_of
from approxifer.pipeline.protocol import (
    ConvictedElsewhere,
    Ended,
    GroupRequest,
    Ready,
    Started,
    Unready,
    WorkerReport,
    to_wire,
)
from approxifer.pipeline.records import AttemptOutcome
from approxifer.pipeline.scheduler.policy import Policy
from approxifer.pipeline.scheduler.run_state import RunState
from approxifer.pipeline.scheduler.state import Bar, GroupState, WorkerState
from approxifer.version import __version__

POLL = 1.0  #: seconds after which a poll without events returns
BUNDLE = 0.004  #: seconds that an event waits for others, to be sent with them
SUMMARY = 0.25  #: seconds between two summaries of the ledger
#: How often one worker (by name) is restarted in one run before it is left alone.
MAX_RESTARTS = 3


class Actions(Protocol):
    """Calls of Dask."""

    def drop(self, client: str, keys: list[Key]) -> None:
        """Take keys from the client that wants them."""

    def later(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Call at the next turn of the scheduler's loop."""

    async def killed_for_memory(self, worker: WorkerState) -> bool:
        """True if a worker that has left was ended because of its memory."""

    def restart_worker(self, address: str) -> None:
        """Have a worker's nanny replace it."""


class Runs:
    """See the module's docstring.

    Attributes
    ----------
    states : dict
        By the run's name.
    workers : dict
        By address.
    """

    def __init__(self, actions: Actions) -> None:
        self.states: dict[str, RunState] = {}
        self.workers: dict[str, WorkerState] = {}
        self._actions = actions
        self._news: dict[str, asyncio.Event] = {}
        self._summed: dict[str, float] = {}
        self._due: set[tuple[str, int]] = set()
        self._convicted: list[Bar] = []

    def of_key(self, key: Any) -> RunState | None:
        """The run that a share belongs to; None where the key is somebody else's."""
        return self.states.get(run_of(key))

    # ---- the clients' calls ---------------------------------------------------------------------

    async def open_run(
        self,
        run: str,
        client: str,
        codes: dict[str, dict[str, Any]],
        policy: dict[str, Any],
        fingerprint: str,
        seed: int,
        restart: bool,
        block: int,
        micro_batch: int,
    ) -> dict[str, Any]:
        """Begin a run. ``codes``: the fields of a `CodeSpec` under each name that groups use;
        ``block``: rows of a full share, which are run ``micro_batch`` at a time."""
        state = RunState(
            run=run,
            client=client,
            codes={name: CodeSpec(**fields).build() for name, fields in codes.items()},
            policy=Policy.of(policy),
            fingerprint=fingerprint,
            seed=seed,
            restart=restart,
            began=time.monotonic(),
            workers=self.workers,
            block=block,
            micro_batch=micro_batch,
            barred=self._convicted,
        )
        self.add(state)
        return {"version": __version__, "workers": len(self.workers)}

    def add(self, state: RunState) -> None:
        """Take in a run."""
        self.states[state.run], self._news[state.run] = state, asyncio.Event()

    async def open_groups(self, run: str, groups: list[dict[str, Any]]) -> None:
        """Take groups in: the fields of `GroupRequest`."""
        state = self.states[run]
        others = [other for other in self.states.values() if other is not state]
        for fields in groups:
            asked = GroupRequest(**fields)
            code = state.codes[asked.code]
            group = GroupState(
                group=asked.group,
                code=code,
                rows=asked.rows,
                priority=state.rank(code.n, first=asked.first, others=others),
                avoid=frozenset(asked.avoid),
                forbid=frozenset(asked.forbid),
                only=asked.only,
                check=asked.check,
            )
            state.open_group(group)
            self._advance(state, group)

    async def report(
        self,
        run: str,
        done: list[int] | None = None,
        lost: list[tuple[Key, str]] | None = None,
    ) -> None:
        """Take a client's report: groups it is done with; shares (key, why) that it could not
        send or fetch."""
        state = self.states[run]
        for group in done or ():
            state.settle(group)
        for key, why in lost or ():
            self.lose(state, as_key(key), why)

    async def bar(
        self, run: str, bars: list[dict[str, Any]], conviction: dict[str, Any] | None = None
    ) -> None:
        """Shut workers out of the run; ``bars``: the fields of `Bar`.

        With the ``conviction`` that they are shut out for, out of every run on this scheduler, also
        those that begin while one of them lasts.
        """
        named = [Bar(**fields) for fields in bars]
        if conviction is None:
            self._shut_out(self.states[run], named)
            return
        self._convicted += named
        for state in self.states.values():
            self._shut_out(state, named)
            if state.run != run:
                state.events.append(ConvictedElsewhere(tuple(bars), conviction))

    def _shut_out(self, state: RunState, bars: list[Bar]) -> None:
        for key in state.bar(bars, time.monotonic()):
            self.lose(state, key, "its worker is convicted")
        self._news[state.run].set()

    async def poll(self, run: str) -> dict[str, Any]:
        """The run's events, at once where there are any."""
        state, news = self.states[run], self._news[run]
        if not state.events:
            news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), POLL)
            await asyncio.sleep(BUNDLE)
        events, state.events = [to_wire(event) for event in state.events], []
        ready, present = state.ledger.ready_workers(), len(self.workers)
        reply = {"events": events, "ready": ready, "present": present}
        if (now := time.monotonic()) - self._summed.get(run, 0.0) > SUMMARY:
            self._summed[run] = now
            reply |= state.summary()
        return reply

    def close(self, run: str) -> dict[str, Any]:
        """End a run: drop what is left of it, return its ledger."""
        state = self.states.pop(run)
        self._news.pop(run)
        self._summed.pop(run, None)
        self._actions.drop(state.client, state.attempts.close())
        for worker in self.workers.values():
            worker.ready.discard(run)
        return state.summary()

    # ---- workers --------------------------------------------------------------------------------

    def handle(self, report: WorkerReport, address: Any) -> None:
        """Take a worker's report, from whatever Dask names as its sender."""
        worker = self.workers.get(address) if isinstance(address, str) else None
        if worker is None:
            return
        now = time.monotonic()
        match report:
            case Ready() | Unready() if state := self.states.get(report.run):
                state.model_loaded(worker, report, now)
                self._news[report.run].set()
            case Started(key) if state := self.of_key(key):
                state.attempts.started(key, worker.address, now)
            case Ended(key, rows, whole, output) if state := self.of_key(key):
                state.attempts.ended(
                    key, worker.address, now, rows=rows, whole=whole, output=output
                )
            case Ended(key):
                worker.running.pop(key, None)  # of a run that is over

    def worker_gone(self, address: str) -> None:
        """A worker has left or died: all it had is lost."""
        gone = self.workers.pop(address, None)
        if gone is None:
            return
        now = time.monotonic()
        loading = [
            run
            for run, state in self.states.items()
            if run not in gone.ready and gone.name not in state.ledger.unready
        ]
        if loading and not gone.retiring:
            self._actions.later(self._ended_loading, gone, loading)
        for state in self.states.values():
            for group in state.attempts.worker_gone(address, now):
                self.look(state, state.groups.get(group))
            if state.run in gone.ready and not gone.hung:
                state.notify(gone, "gone", now)
                self._news[state.run].set()

    async def _ended_loading(self, gone: WorkerState, runs: list[str]) -> None:
        memory = await self._actions.killed_for_memory(gone)
        for run in runs:
            if (state := self.states.get(run)) is not None:
                state.ledger.starts.ended(gone, memory=memory, now=time.monotonic())
                self._news[run].set()

    def tick(self, now: float) -> None:
        """Look at the clock: workers that hang or move again, groups that wait, runs that stall."""
        for worker in self.workers.values():
            alive = worker.seen > worker.hung_at and not worker.silent(now)
            if worker.hung and not worker.running and alive:
                worker.hung = False
                self._notify(worker, "ready", now)
        for state in list(self.states.values()):
            for worker in list(state.hung_workers(now)):
                self._give_up(worker, now)
                if state.restart and worker.nanny:
                    self._restart(state, worker, now)
            for group in list(state.groups.values()):
                self._advance(state, group)
            state.look_for_stall(now)
            state.ledger.starts.look(state.run, self.workers.values(), now)
            if state.events:
                self._news[state.run].set()

    def _notify(self, worker: WorkerState, what: str, now: float) -> None:
        for state in self.states.values():
            if state.run in worker.ready:
                state.notify(worker, what, now)

    def _give_up(self, worker: WorkerState, now: float) -> None:
        """A worker hangs: its shares are erasures, and it gets no more until it moves again."""
        worker.hung, worker.hung_at = True, now
        for state in self.states.values():
            for key in state.attempts.live_at({worker.address}):
                self.lose(state, key, "its worker hangs")
        self._notify(worker, "hung", now)

    def _restart(self, state: RunState, worker: WorkerState, now: float) -> None:
        barred = any(other.ledger.is_barred(worker) for other in self.states.values())
        if not barred and state.ledger.record(worker.name).restarts < MAX_RESTARTS:
            state.notify(worker, "restarting", now)
            self._actions.restart_worker(worker.address)

    # ---- shares ---------------------------------------------------------------------------------

    def returned(self, state: RunState, key: Key, nbytes: int) -> None:
        """An output is on its worker."""
        self.look(state, state.returned(key, time.monotonic(), nbytes=nbytes))

    def lose(
        self, state: RunState, key: Key, why: str, *, fate: AttemptOutcome = AttemptOutcome.LOST
    ) -> None:
        """A share will not come back, or cannot be fetched."""
        group = state.attempts.lost(key, time.monotonic(), fate=fate, error=why)
        if group is not None:
            self._actions.later(self._actions.drop, state.client, [key])
            self.look(state, group)

    def look(self, state: RunState, group: GroupState | None) -> None:
        """Look at a group on the loop's next turn, once for all that has happened to it."""
        if group is None:
            return
        self._news[state.run].set()
        if not self._due:
            self._actions.later(self._look_now)
        self._due.add((state.run, group.group))

    def _look_now(self) -> None:
        due, self._due = self._due, set()
        for run, number in due:
            state = self.states.get(run)
            group = state.groups.get(number) if state else None
            if state is not None and group is not None:
                self._advance(state, group)

    def _advance(self, state: RunState, group: GroupState) -> None:
        if dropped := state.advance(group, time.monotonic()):
            self._actions.drop(state.client, dropped)
        if state.events:
            self._news[state.run].set()
