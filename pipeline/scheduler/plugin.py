"""The scheduler plugin: pins shares, drops stragglers, keeps the ledger, heals hung workers.

One per scheduler, shared by all runs, gone with the last of them. It is thin: hooks translate what
Dask does into calls of `ledger.RunState`, and carry out what the policy answers. Clients talk to it
by RPC handlers (``approxifer_open``, ``_groups``, ``_report``, ``_bar``, ``_poll``, ``_close``).

Nothing acts from inside ``transition``: cancelling a key that is in transition breaks the scheduler
(KeyError, a healthy worker thrown out), so drops are deferred to the next turn of its loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections import defaultdict
from functools import partial
from typing import Any

from distributed import Scheduler, SchedulerPlugin, Status

from approxifer.coding import CodeSpec
from approxifer.pipeline.handlers import Handler
from approxifer.pipeline.keys import PLUGIN, TOPIC, Key, as_key, model_plugin_name, run_of
from approxifer.pipeline.protocol import (
    ConvictedElsewhere,
    Ended,
    GroupRequest,
    Ready,
    Started,
    Unready,
    read_report,
    to_wire,
)
from approxifer.pipeline.records import AttemptOutcome
from approxifer.pipeline.scheduler.policy import GroupState, Policy
from approxifer.pipeline.scheduler.run_state import MAX_RESTARTS, RunState
from approxifer.pipeline.scheduler.state import Bar, WorkerState
from approxifer.version import __version__

logger = logging.getLogger(__name__)

TICK = 0.025  #: seconds between two looks at the clock
POLL = 1.0  #: seconds after which a poll without news returns
SUMMARY = 0.25  #: seconds between two summaries of the ledger


class StragglerPlugin(SchedulerPlugin):
    """See the module's docstring."""

    name = PLUGIN
    idempotent = True

    def __init__(self) -> None:
        self.runs: dict[str, RunState] = {}
        self.workers: dict[str, WorkerState] = {}
        self._news: dict[str, asyncio.Event] = {}
        self._seen: dict[str, float] = {}
        self._summed: dict[str, float] = {}
        self._due: set[tuple[str, int]] = set()
        self._convicted: list[Bar] = []
        self._incarnations = itertools.count(1)
        self._pinned = itertools.count()

    async def start(self, scheduler: Scheduler) -> None:
        """Learn the workers, offer the handlers, start the clock."""
        self.scheduler = scheduler
        for address in scheduler.workers:
            self.add_worker(scheduler, address)
        scheduler.handlers.update(self._handlers())
        self._clock = asyncio.create_task(self._tick_for_ever())

    def _handlers(self) -> dict[str, Handler]:
        return {
            "approxifer_open": Handler(self.open_run),
            "approxifer_groups": Handler(self.open_groups),
            "approxifer_report": Handler(self.report),
            "approxifer_bar": Handler(self.bar),
            "approxifer_poll": Handler(self.poll),
            "approxifer_close": Handler(self.close_run),
        }

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
        self.runs[run] = RunState(
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
            barred=set(self._convicted),
        )
        self._news[run] = asyncio.Event()
        return {"version": __version__, "workers": len(self.workers)}

    async def open_groups(self, run: str, groups: list[dict[str, Any]]) -> None:
        """Take groups in: the fields of `GroupRequest`."""
        state = self.runs[run]
        others = [other for other in self.runs.values() if other is not state]
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
        state = self.runs[run]
        for group in done or ():
            state.settle(group)
        for key, why in lost or ():
            self._lose(state, as_key(key), why)

    async def bar(
        self, run: str, bars: list[dict[str, Any]], conviction: dict[str, Any] | None = None
    ) -> None:
        """Shut workers out of the run; ``bars``: the fields of `Bar`.

        With the ``conviction`` that they are shut out for, out of every run on this scheduler, also
        those that begin while one of them lasts.
        """
        named = [Bar(**fields) for fields in bars]
        if conviction is None:
            self._shut_out(self.runs[run], named)
            return
        self._convicted += named
        for state in self.runs.values():
            self._shut_out(state, named)
            if state.run != run:
                state.events.append(ConvictedElsewhere(tuple(bars), conviction))

    def _shut_out(self, state: RunState, bars: list[Bar]) -> None:
        for key in state.bar(bars, time.monotonic()):
            self._lose(state, key, "its worker is convicted")
        self._news[state.run].set()

    async def poll(self, run: str) -> dict[str, Any]:
        """The run's news, at once where there is any."""
        state, news = self.runs[run], self._news[run]
        if not state.events:
            news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), POLL)
        events, state.events = [to_wire(event) for event in state.events], []
        reply = {"events": events, "ready": state.ready_workers(), "present": len(self.workers)}
        if (now := time.monotonic()) - self._summed.get(run, 0.0) > SUMMARY:
            self._summed[run] = now
            reply |= state.summary()
        return reply

    async def close_run(self, run: str) -> dict[str, Any]:
        """End a run: drop what is left of it, free what it kept, return its ledger."""
        state = self.runs.pop(run)
        self._news.pop(run)
        self._summed.pop(run, None)
        self._drop(state, state.close())
        for worker in self.workers.values():
            worker.ready.discard(run)
        if not self.runs:
            self._stop()
        forget = self.scheduler.unregister_worker_plugin(comm=None, name=model_plugin_name(run))
        # A hung worker does not answer, one that leaves closes the connection (TimeoutError is an
        # OSError, too); or the plugin was never registered.
        with contextlib.suppress(OSError, ValueError):
            await asyncio.wait_for(forget, 2)
        return state.summary()

    def _stop(self) -> None:
        self._clock.cancel()
        if self.scheduler.plugins.get(self.name) is self:
            self.scheduler.remove_plugin(name=self.name)
            for name in self._handlers():
                self.scheduler.handlers.pop(name, None)

    # ---- the scheduler's hooks ------------------------------------------------------------------

    def update_graph(self, scheduler: Scheduler, *, tasks: list[Any], **kwargs: Any) -> None:
        """Pin each share to the worker that holds its input, and rank it.

        Work stealing leaves a strictly restricted task alone; without its worker it would wait for
        ever, and ends as an erasure (`transition`).
        """
        late: dict[str, list[Key]] = defaultdict(list)
        for key in tasks:
            state = self._run_of(key)
            task = scheduler.tasks.get(key)
            if state is None or task is None:
                continue
            found = state.by_key.get(key)
            task.loose_restrictions = False
            if found is None or not found[1].live:  # its group was complete before it arrived
                task.worker_restrictions = {NOWHERE}
                late[state.run].append(key)
                continue
            group, attempt = found
            task.worker_restrictions = {attempt.address}
            rank = group.priority - (IDLE if attempt.lazy else 0)
            task.priority = (-rank, next(self._pinned))
        for run, keys in late.items():
            scheduler.loop.add_callback(self._drop, self.runs[run], keys)

    def transition(
        self, key: Any, start: str, finish: str, *args: Any, stimulus_id: str, **kwargs: Any
    ) -> None:
        """See shares return, fail, and get lost."""
        state = self._run_of(key)
        if state is None or key not in state.by_key or not state.by_key[key][1].live:
            return  # what came back is lost only if the client says so
        task = self.scheduler.tasks.get(key)
        if finish == "memory":
            nbytes = task.nbytes if task else 0
            self._look(state, state.returned(key, time.monotonic(), nbytes=nbytes))
        elif finish == "erred":
            text = (task.exception_text if task else "") or "the task failed"
            self._lose(state, key, text, fate=AttemptOutcome.FAILED)
        elif start == "processing" or finish in ("no-worker", "forgotten"):
            died = state.died_at_it(key)
            fate = AttemptOutcome.FAILED if died else AttemptOutcome.LOST
            self._lose(state, key, DIED if died else "its worker left", fate=fate)

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Learn of a worker. It is given shares once it says that it has the model."""
        ws = scheduler.workers[worker]
        self.workers[worker] = WorkerState(
            address=worker,
            name=str(ws.name),
            host=ws.host,
            slots=ws.nthreads,
            seen=time.monotonic(),
            incarnation=next(self._incarnations),
        )

    def remove_worker(self, scheduler: Scheduler, worker: str, **kwargs: Any) -> None:
        """A worker has left or died: all it had is lost."""
        gone = self.workers.pop(worker, None)
        if gone is None:
            return
        self._seen.pop(worker, None)
        now = time.monotonic()
        for state in self.runs.values():
            for group in state.worker_gone(worker, now):
                self._look(state, state.groups.get(group))
            if state.run in gone.ready and not gone.hung:
                state.notify(gone, "gone", now)
                self._news[state.run].set()

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """A client has left or died: its runs end."""
        for state in list(self.runs.values()):
            if state.client == client:
                scheduler.loop.add_callback(self._abandon, state.run)

    async def _abandon(self, run: str) -> None:
        if run in self.runs:
            await self.close_run(run)

    def log_event(self, topic: str, msg: Any) -> None:
        """Take a worker's report: model loaded or not, share started, share ended.

        Dask puts the sender's address into each message; the rest of it may be anything.
        """
        if topic != TOPIC or (report := read_report(msg)) is None:
            return
        now, address = time.monotonic(), msg.get("worker")
        worker = self.workers.get(address) if isinstance(address, str) else None
        if worker is None:
            return
        match report:
            case Ready() | Unready() if report.run in self.runs:
                self.runs[report.run].model_loaded(worker, report, now)
                self._news[report.run].set()
            case Started(key) if state := self._run_of(key):
                state.started(key, worker.address, now)
            case Ended(key, rows, whole) if state := self._run_of(key):
                state.ended(key, worker.address, now, rows=rows, whole=whole)
            case Ended(key):
                worker.running.pop(key, None)  # of a run that is over

    # ---- acting ---------------------------------------------------------------------------------

    def _run_of(self, key: Any) -> RunState | None:
        return self.runs.get(run_of(key))

    def _lose(
        self, state: RunState, key: Key, why: str, *, fate: AttemptOutcome = AttemptOutcome.LOST
    ) -> None:
        group = state.lost(key, time.monotonic(), fate=fate, error=why)
        if group is not None:
            self.scheduler.loop.add_callback(self._drop, state, [key])
            self._look(state, group)

    def _look(self, state: RunState, group: GroupState | None) -> None:
        """Look at a group on the loop's next turn, once for all that has happened to it."""
        if group is None:
            return
        self._news[state.run].set()
        if not self._due:
            self.scheduler.loop.add_callback(self._look_now)
        self._due.add((state.run, group.group))

    def _look_now(self) -> None:
        due, self._due = self._due, set()
        for run, number in due:
            state = self.runs.get(run)
            group = state.groups.get(number) if state else None
            if state is not None and group is not None:
                self._advance(state, group)

    def _advance(self, state: RunState, group: GroupState) -> None:
        dropped = state.advance(group, time.monotonic())
        if dropped:
            self._drop(state, dropped)
        if state.events:
            self._news[state.run].set()

    def _drop(self, state: RunState, keys: list[Key]) -> None:
        """Take keys from the client that wants them; what runs them stops at its next micro-batch.

        ``client_releases_keys`` alone would leave the client's futures pending for ever.
        """
        live = []
        for key in keys:
            task = self.scheduler.tasks.get(key)
            if task is not None and task.who_wants and task.state not in ("memory", "erred"):
                live.append(key)
        if not live or state.client not in self.scheduler.clients:
            return
        self.scheduler.client_releases_keys(
            keys=live, client=state.client, stimulus_id=f"approxifer-drop-{time.time()}"
        )
        self.scheduler.report(
            {
                "op": "cancelled-keys",
                "keys": live,
                "reason": "dropped",
                "msg": "the group is complete without this share",
            },
            client=state.client,
        )

    async def _tick_for_ever(self) -> None:
        """By the monotonic clock: tornado's PeriodicCallback goes by the time of day, and stands
        still for an hour where that is set back by an hour."""
        while True:
            await asyncio.sleep(TICK)
            try:
                self._tick()
            except Exception:
                logger.exception("approxifer's look at the clock failed")

    def _tick(self) -> None:
        now = time.monotonic()
        for address, worker in self.workers.items():
            ws = self.scheduler.workers.get(address)
            if ws is None:
                continue
            worker.closed = ws not in self.scheduler.running
            worker.retiring |= ws.status is Status.closing_gracefully
            if ws.last_seen != self._seen.get(address):
                self._seen[address] = ws.last_seen
                worker.seen = now
            if worker.hung and not worker.running and not worker.silent(now):
                worker.hung = False
                for state in self.runs.values():
                    if state.run in worker.ready:
                        state.notify(worker, "ready", now)
        for state in list(self.runs.values()):
            for worker in list(state.hung_workers(now)):
                self._give_up(worker, now)
                if state.restart and self.scheduler.workers[worker.address].nanny:
                    self._restart(state, worker, now)
            for group in list(state.groups.values()):
                self._advance(state, group)
            state.look_for_stall(now)
            if state.events:
                self._news[state.run].set()

    def _give_up(self, worker: WorkerState, now: float) -> None:
        """A worker hangs: its shares are erasures, and it gets no more until it moves again."""
        worker.hung = True
        for state in self.runs.values():
            for key, (_, attempt) in list(state.by_key.items()):
                if attempt.address == worker.address and attempt.live:
                    self._lose(state, key, "its worker hangs")
            if state.run in worker.ready:
                state.notify(worker, "hung", now)

    def _restart(self, state: RunState, worker: WorkerState, now: float) -> None:
        barred = any(other.is_barred(worker) for other in self.runs.values())
        if barred or state.record(worker.name).restarts >= MAX_RESTARTS:
            return
        state.notify(worker, "restarting", now)
        restart = partial(
            self.scheduler.restart_workers,
            [worker.address],
            wait_for_workers=False,
            on_error="return",
            timeout=30,
            stimulus_id=f"approxifer-heal-{time.time()}",
        )
        self.scheduler.loop.add_callback(restart)


#: No worker's address: what is pinned there does not run until it is dropped.
NOWHERE = "nowhere"
#: What is said of a share that may have killed its worker.
DIED = "its worker died while it ran the share"
#: How far parity shares that run on idle time rank below every other share in flight.
IDLE = 10**12
