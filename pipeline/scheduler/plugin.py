"""The scheduler plugin: Dask's hooks and calls, translated for `Runs`, and what that has done.

One per scheduler, shared by all runs, gone with the last of them. Clients call it by RPC handlers
(``approxifer_open``, ``_groups``, ``_report``, ``_bar``, ``_poll``, ``_close``).

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
from collections.abc import Callable
from functools import partial
from typing import Any

from distributed import Scheduler, SchedulerPlugin, Status

from approxifer.pipeline.handlers import Handler
from approxifer.pipeline.keys import PLUGIN, TOPIC, Key, model_plugin_name
from approxifer.pipeline.protocol import read_report
from approxifer.pipeline.records import AttemptOutcome
from approxifer.pipeline.scheduler.runs import Runs
from approxifer.pipeline.scheduler.starting import killed_for_memory
from approxifer.pipeline.scheduler.state import WorkerState

logger = logging.getLogger(__name__)

TICK = 0.025  #: seconds between two looks at the clock
NANNY = 2.0  #: seconds that a nanny is given to answer
#: No worker's address: what is pinned there does not run until it is dropped.
NOWHERE = "nowhere"
#: The error of a share that may have killed its worker.
DIED = "its worker died while it ran the share"
#: How far parity shares that run on idle time rank below every other share in flight.
IDLE = 10**12


class StragglerPlugin(SchedulerPlugin):
    """See the module's docstring."""

    name = PLUGIN
    idempotent = True

    def __init__(self) -> None:
        self.runs = Runs(self)
        self._seen: dict[str, float] = {}
        self._incarnations = itertools.count(1)
        self._pinned = itertools.count()

    async def start(self, scheduler: Scheduler) -> None:
        """Take in the workers, offer the handlers, start the clock."""
        self.scheduler = scheduler
        for address in scheduler.workers:
            self.add_worker(scheduler, address)
        scheduler.handlers.update(self._handlers())
        self._clock = asyncio.create_task(self._tick_for_ever())

    def _handlers(self) -> dict[str, Handler]:
        return {
            "approxifer_open": Handler(self.runs.open_run),
            "approxifer_groups": Handler(self.runs.open_groups),
            "approxifer_report": Handler(self.runs.report),
            "approxifer_bar": Handler(self.runs.bar),
            "approxifer_poll": Handler(self.runs.poll),
            "approxifer_close": Handler(self.close_run),
        }

    async def close_run(self, run: str) -> dict[str, Any]:
        """End a run: drop what is left of it, free what it kept, return its ledger."""
        summary = self.runs.close(run)
        if not self.runs.states:
            self._stop()
        forget = self.scheduler.unregister_worker_plugin(comm=None, name=model_plugin_name(run))
        # A hung worker does not answer, one that leaves closes the connection (TimeoutError is an
        # OSError, too); or the plugin was never registered.
        with contextlib.suppress(OSError, ValueError):
            await asyncio.wait_for(forget, 2)
        return summary

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
            state, task = self.runs.of_key(key), scheduler.tasks.get(key)
            if state is None or task is None:
                continue
            found = state.attempts.by_key.get(key)
            task.loose_restrictions = False
            if found is None or not found[1].live:  # its group was complete before it arrived
                task.worker_restrictions = {NOWHERE}
                late[state.client].append(key)
                continue
            group, attempt = found
            task.worker_restrictions = {attempt.address}
            rank = group.priority - (IDLE if attempt.lazy else 0)
            task.priority = (-rank, next(self._pinned))
        for client, keys in late.items():
            self.later(self.drop, client, keys)

    def transition(
        self, key: Any, start: str, finish: str, *args: Any, stimulus_id: str, **kwargs: Any
    ) -> None:
        """See shares return, fail, and get lost."""
        state = self.runs.of_key(key)
        found = state.attempts.by_key.get(key) if state is not None else None
        if state is None or found is None or not found[1].live:
            return  # what came back is lost only if the client reports it
        task = self.scheduler.tasks.get(key)
        if finish == "memory":
            self.runs.returned(state, key, task.nbytes if task else 0)
        elif finish == "erred":
            text = (task.exception_text if task else "") or "the task failed"
            self.runs.lose(state, key, text, fate=AttemptOutcome.FAILED)
        elif start == "processing" or finish in ("no-worker", "forgotten"):
            if state.attempts.died_while_running(key):
                self.runs.lose(state, key, DIED, fate=AttemptOutcome.FAILED)
            else:
                self.runs.lose(state, key, "its worker left")

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Take in a worker. It is given shares once it reports that it has the model."""
        ws = scheduler.workers[worker]
        self.runs.workers[worker] = WorkerState(
            address=worker,
            name=str(ws.name),
            host=ws.host,
            slots=ws.nthreads,
            seen=time.monotonic(),
            incarnation=next(self._incarnations),
            nanny=ws.nanny or "",
            pid=ws.pid,
            memory=ws.memory_limit or 0,
        )

    def remove_worker(self, scheduler: Scheduler, worker: str, **kwargs: Any) -> None:
        """A worker has left or died."""
        self._seen.pop(worker, None)
        self.runs.worker_gone(worker)

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """A client has left or died: its runs end."""
        for state in list(self.runs.states.values()):
            if state.client == client:
                self.later(self._abandon, state.run)

    async def _abandon(self, run: str) -> None:
        if run in self.runs.states:
            await self.close_run(run)

    def log_event(self, topic: str, msg: Any) -> None:
        """Take a worker's report. Dask puts the sender's address into each message; the rest of it
        may be anything."""
        if topic == TOPIC and (report := read_report(msg)) is not None:
            self.runs.handle(report, msg.get("worker"))

    # ---- the clock ------------------------------------------------------------------------------

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
        for address, worker in self.runs.workers.items():
            ws = self.scheduler.workers.get(address)
            if ws is None:
                continue
            worker.closed = ws not in self.scheduler.running
            worker.paused = ws.status is Status.paused
            worker.retiring |= ws.status is Status.closing_gracefully
            if ws.last_seen != self._seen.get(address):
                self._seen[address] = ws.last_seen
                worker.seen = now
        self.runs.tick(now)

    # ---- acting (`Actions`) ---------------------------------------------------------------------

    def later(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Call at the next turn of the scheduler's loop."""
        self.scheduler.loop.add_callback(call, *arguments)

    def drop(self, client: str, keys: list[Key]) -> None:
        """Take keys from the client that wants them; what runs them stops at its next micro-batch.

        ``client_releases_keys`` alone would leave the client's futures pending for ever.
        """
        live = []
        for key in keys:
            task = self.scheduler.tasks.get(key)
            if task is not None and task.who_wants and task.state not in ("memory", "erred"):
                live.append(key)
        if not live or client not in self.scheduler.clients:
            return
        self.scheduler.client_releases_keys(
            keys=live, client=client, stimulus_id=f"approxifer-drop-{time.time()}"
        )
        self.scheduler.report(
            {
                "op": "cancelled-keys",
                "keys": live,
                "reason": "dropped",
                "msg": "the group is complete without this share",
            },
            client=client,
        )

    async def killed_for_memory(self, worker: WorkerState) -> bool:
        """Ask the nanny of a worker that has left whether it ended it because of its memory."""
        if not worker.nanny:
            return False
        try:
            logs = await asyncio.wait_for(self.scheduler.rpc(worker.nanny).get_logs(), NANNY)
        except OSError:  # TimeoutError is one, too
            return False
        return killed_for_memory(logs, worker.pid)

    def restart_worker(self, address: str) -> None:
        """Have a worker's nanny replace it."""
        restart = partial(
            self.scheduler.restart_workers,
            [address],
            wait_for_workers=False,
            on_error="return",
            timeout=30,
            stimulus_id=f"approxifer-heal-{time.time()}",
        )
        self.later(restart)
