"""The client's loop: windows in, coded groups out to the workers, decoded rows back and written.

It runs on the client's event loop and never blocks it: reading, ordering, encoding, decoding and
writing go to threads; the `Dispatcher` sends and fetches. What to do with a group is decided on the
scheduler (`plugin`, by `policy`); which outputs to trust by the `IntegrityMonitor`.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from functools import partial
from math import ceil

import numpy as np

from approxifer.coding.berrut import InterpolatingCode
from approxifer.errors import ClusterError
from approxifer.pipeline.byzantine.membership import Member, Membership
from approxifer.pipeline.client.calibration import SelectiveRepair
from approxifer.pipeline.client.collect import Collector
from approxifer.pipeline.client.context import Context, Setup
from approxifer.pipeline.client.dispatch import Dispatcher
from approxifer.pipeline.client.groups import PLAIN, Groups
from approxifer.pipeline.client.integrity import IntegrityMonitor
from approxifer.pipeline.client.single_shares import SingleShares, learn_decoder
from approxifer.pipeline.client.transport import Readers
from approxifer.pipeline.client.window import Window
from approxifer.pipeline.client.windows import Windows
from approxifer.pipeline.planning.partition import fewest_workers, workers_needed
from approxifer.pipeline.protocol import (
    Complete,
    Contradiction,
    ConvictedElsewhere,
    Returned,
    RunEvent,
    Send,
    Stalled,
    WorkerChange,
)
from approxifer.pipeline.stream import BlockStream
from approxifer.pipeline.worker import ModelOnWorker


class Engine:
    """One run. `run` does it; the counters may be read from another thread meanwhile."""

    def __init__(self, setup: Setup, stream: BlockStream) -> None:
        self.setup = setup
        self.code = setup.spec.build()
        layout, store = setup.layout, setup.store
        spans = [(index, *span) for index, span in enumerate(store.grid.windows(layout.window))]
        longest = max(layout.window, *(stop - start for _, start, stop in spans))
        per_window = ceil(longest / (layout.block * self.code.k))
        self.members = Membership(
            setup.session,
            setup.past,
            quarantine=setup.quarantine,
            forgive=setup.forgive,
            on_new=self._new_member,
        )
        self.context = Context(
            setup, coded_groups=len(spans) * per_window, index=self.members.index
        )
        self.connection = self.context.connection
        self.dispatcher = Dispatcher(
            self.connection,
            fingerprints=[model.fingerprint for model in (setup.handle, *setup.parity)],
            micro_batch=layout.micro_batch,
            output_shape=setup.results.travel.shape,
            output_dtype=setup.results.travel.dtype,
            spawn=self.context.spawn,
            readers=Readers(self.connection, self._proof, setup.notes),
            made=partial(self.context.read, self.context.made),
            keep_malformed=bool(setup.check or setup.byzantine),
        )
        self.collector = Collector(
            stream,
            keep_decoded=setup.repair == "none",
            blank=self.context.blank,
            named=store.packing.named,
            index=self.members.index,
            checked=setup.check > 0,
            byzantine=setup.byzantine,
            doubts=self._doubts(),
        )
        self.windows = Windows(self.context, self.code, self.members, self.collector, spans)
        self._elsewhere = SingleShares(self.context, self.dispatcher)
        self.integrity = IntegrityMonitor(
            self.context, self.code, self._elsewhere, self.members, self.windows
        )
        self._groups = Groups(
            self.context,
            self.dispatcher,
            self.collector,
            self.integrity,
            self.windows,
            per_window=per_window,
        )
        self.trouble = ""  #: what a person should know while it lasts
        self.started: float | None = None
        self.finished: float | None = None
        self._adopting = 0  #: convictions by other runs
        self._adopted = asyncio.Event()

    def _doubts(self) -> SelectiveRepair | None:
        setup = self.setup
        if setup.agreement is None:
            return None
        return SelectiveRepair(setup.agreement, np.random.default_rng([setup.layout.seed, 1]))

    def _new_member(self, index: int, member: Member) -> None:
        fields = member.event()
        del fields["session"]  # each event has it
        self.context.journal("name", index=index, **fields)

    async def run(self) -> None:
        """Score every pending window.

        Raises
        ------
        ClusterError
            The scheduler is gone, or too few workers get ready.
        TrustError
            More workers are Byzantine than the run can stand.
        """
        setup, spec = self.setup, self.setup.spec
        model = ModelOnWorker(
            self.connection.run,
            (setup.handle, *setup.parity),
            setup.threads,
            setup.row,
            setup.layout.micro_batch,
            setup.recipe,
        )
        registered = self.connection.registered(
            codes={"coded": spec, "plain": PLAIN},
            policy=setup.policy,
            model=model,
            seed=setup.layout.seed,
            restart=setup.restart,
            block=setup.layout.block,
        )
        try:
            async with registered, asyncio.TaskGroup() as tasks:
                self.context.tasks = tasks
                try:
                    events = tasks.create_task(self.connection.poll_forever(self._handle))
                    await self.integrity.open()
                    await self.connection.wait_until_ready(
                        workers_needed(spec, setup.byzantine),
                        fewest_workers(spec, setup.byzantine),
                        patience=setup.policy.stall_after,
                        report=self._set_trouble,
                    )
                    self.trouble = ""
                    queues = tasks.create_task(self.integrity.send_old())
                    closing = tasks.create_task(self._close_windows())
                    self.started = time.monotonic()
                    await self.integrity.finish_verdicts()
                    self.windows.look_again()
                    if setup.decoder == "fitted" and self.windows.pending:
                        await self._learn()
                    await self._score()
                    for task in (events, queues, closing):
                        task.cancel()
                finally:
                    self.dispatcher.release()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group
        finally:
            self.finished = time.monotonic()

    async def _proof(self) -> str:
        assert self.context.reader is not None, "shares are described"
        found: str = await self.context.read(self.context.reader.proof)
        return found

    def close(self) -> None:
        """Wait for the threads: what is being written is written to its end."""
        self.context.close()

    async def _learn(self) -> None:
        assert isinstance(self.code, InterpolatingCode), "options allow no other"
        window = await self.windows.read(self.windows.pending[0])
        rng = np.random.default_rng([self.setup.layout.seed, 2])
        self._groups.decoder = await learn_decoder(self.code, window, self._elsewhere, rng)

    async def _score(self) -> None:
        """Score the pending windows; then again those in which rows were taken back."""
        spans = self.windows.pending
        while True:
            loaded = self.windows.load(spans)
            for _ in spans:
                await self._groups.feed(await loaded.get())
            await self.windows.all_written()
            await self.integrity.finish_checks()
            while self._adopting:
                self._adopted.clear()
                await self._adopted.wait()
            spans = self.windows.take_again()
            if not spans:
                return

    async def _close_windows(self) -> None:
        """Write windows once they are whole, for ever."""
        while True:
            await self._close(await self.windows.next_changed())

    async def _close(self, window: Window) -> None:
        if not window.whole:
            if window.scored and window is self.windows.open[0]:
                self.integrity.flush(window)
        elif not await self.windows.write(window):
            await self._groups.repair(window)

    # ---- the plugin's events --------------------------------------------------------------------

    def _handle(self, event: RunEvent) -> None:
        match event:
            case Stalled():
                self._stalled(event)
            case WorkerChange():
                self.context.journal(
                    "worker", time=event.time, worker=event.worker, what=event.what
                )
                place = {"host": event.host} | asdict(event.place)
                self.members.joined(event.incarnation, event.worker, **place)
                if event.what != "ready":
                    self.members.departed(event.incarnation)
                self._groups.look_for_room()
            case Contradiction():
                stated, kept = asdict(event.stated), asdict(event.kept)
                self.context.journal("changed", worker=event.worker, said=stated)
                self.setup.notes.append(
                    f"worker {event.worker} states another place than before, which is not "
                    f"trusted: {stated} instead of {kept}"
                )
            case ConvictedElsewhere():
                self._adopting += 1
                self.context.spawn(self._adopt(event))
            case Send() | Returned() | Complete():
                self.trouble = ""
                self.dispatcher.handle(event)

    async def _adopt(self, event: ConvictedElsewhere) -> None:
        await self.integrity.adopt_conviction(event.bars, event.conviction)
        self._adopting -= 1
        self._adopted.set()

    def _set_trouble(self, text: str) -> None:
        self.trouble = text

    def _stalled(self, event: Stalled) -> None:
        """No share has come back for long: show where shares are; the second time give up.

        Raises
        ------
        ClusterError
        """
        fields = asdict(event)
        del fields["final"]
        self.context.journal("stalled", **fields)
        self.trouble = str(event)
        if event.final:
            raise ClusterError(
                f"{self.trouble}. What is written stays, and the same command goes on from there: "
                "start workers, or a new cluster, and give it again (stall_after= sets the time)"
            )
