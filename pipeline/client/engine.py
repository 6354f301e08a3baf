"""The client's loop: windows in, coded groups out to the workers, decoded rows back and written.

It runs on the client's event loop and never blocks it: reading, ordering, encoding, decoding and
writing go to threads; the `courier` sends and fetches. What to do with a group is decided on the
scheduler (`plugin`, by `policy`); whom to believe by the `guard`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from math import ceil
from typing import Any

import numpy as np

from approxifer.coding import CodeSpec, gather, order_rows
from approxifer.coding import groups as cut_groups
from approxifer.coding.berrut import InterpolatingCode
from approxifer.coding.fitted import FittedDecoder
from approxifer.errors import ClusterError
from approxifer.models import cache, run_rows
from approxifer.pipeline.byzantine.membership import Member, Membership
from approxifer.pipeline.byzantine.taint import sweep
from approxifer.pipeline.client.calibration import SelectiveRepair
from approxifer.pipeline.client.collect import Collector, DecodedGroup, RowGroup, decode_group
from approxifer.pipeline.client.context import Context, Setup
from approxifer.pipeline.client.dispatch import Dispatcher, GroupTransfer
from approxifer.pipeline.client.integrity import Hooks, IntegrityMonitor
from approxifer.pipeline.client.single_shares import SingleShares
from approxifer.pipeline.client.stream import BlockStream
from approxifer.pipeline.client.used_rows import DrawnRows
from approxifer.pipeline.client.window import Window
from approxifer.pipeline.planning.partition import fewest_workers, groups_in_flight, workers_needed
from approxifer.pipeline.records import Block, ShareOutput, Status
from approxifer.pipeline.scheduler.stall import tell
from approxifer.pipeline.worker import ModelOnWorker

#: Codewords of which all shares are run first, for ``decoder="fitted"``.
LEARNT = 25
#: Rows on their own, outside any codeword.
PLAIN = CodeSpec(scheme="uncoded", k=1)

#: Windows held at one time: one computed, the next one read.
OPEN_WINDOWS = 2


class Engine:
    """One run. `run` does it; the counters may be read from another thread meanwhile."""

    def __init__(self, setup: Setup, stream: BlockStream) -> None:
        self.setup = setup
        self.stream = stream
        self.code = setup.spec.build()
        self.decoder: FittedDecoder | None = None  #: None: Berrut's weights
        self.plain = PLAIN.build()
        spans = [
            (index, *span)
            for index, span in enumerate(setup.store.grid.windows(setup.layout.window))
        ]
        longest = max(setup.layout.window, *(stop - start for _, start, stop in spans))
        self.groups_per_window = ceil(longest / (setup.layout.block * self.code.k))
        self.members = Membership(
            setup.session,
            setup.past,
            quarantine=setup.quarantine,
            forgive=setup.forgive,
            on_new=self._new_member,
        )
        self.context = Context(
            setup, coded_groups=len(spans) * self.groups_per_window, index=self.members.index
        )
        self.session = self.context.session
        models = (setup.handle, *setup.parity)
        self.courier = Dispatcher(
            self.session,
            fingerprints=[model.fingerprint for model in models],
            micro_batch=setup.layout.micro_batch,
            output_shape=setup.store.output_shape,
            output_dtype=setup.store.output_dtype,
            spawn=self.context.spawn,
            keep_malformed=bool(setup.check or setup.byzantine),
        )
        self.elsewhere = SingleShares(self.context, self.courier)
        self.open: list[Window] = []  #: the oldest first
        self.guard = IntegrityMonitor(
            self.context,
            self.code,
            self.elsewhere,
            self.members,
            spans=spans,
            hooks=Hooks(lambda: self.open, self._close, self._failed, self._taken_back),
        )
        self.intake = Collector(
            stream,
            keep_decoded=setup.repair == "none",
            blank=self.context.blank,
            index=self.members.index,
            checked=setup.check > 0,
            byzantine=setup.byzantine,
            doubts=self._doubts(),
        )
        self.windows = len(spans)
        self.windows_done = 0
        self.trouble = ""  #: what a person should know while it lasts
        self.started: float | None = None
        self.finished: float | None = None
        self._in_flight = 0
        self._hearings = 0  #: of other runs' convictions
        self._news = asyncio.Event()
        self._open_windows = asyncio.Semaphore(OPEN_WINDOWS)
        self._spans = spans
        self._windows_left = 0
        self._all_done = asyncio.Event()
        self._committed: set[int] = set()  #: windows written by this session
        self._again: set[int] = set()  #: written windows with rows that were taken back

        if self.members.convictions:  # the session that convicted may have been stopped before it
            sweep(setup.store, spans, self.members)
        status = setup.store.status()
        if setup.retry_failed and (failed := np.flatnonzero(status == Status.FAILED)).size:
            setup.store.set_pending(failed)
        #: The windows that no earlier session has committed whole.
        self.pending = self._pending()
        self.resumed = int((setup.store.status() != Status.PENDING).sum())

    def _pending(self) -> list[tuple[int, int, int]]:
        status = self.setup.store.status()
        return [s for s in self._spans if (status[s[1] : s[2]] == Status.PENDING).any()]

    def _doubts(self) -> SelectiveRepair | None:
        setup = self.setup
        if setup.agreement is None:
            return None
        return SelectiveRepair(setup.agreement, np.random.default_rng([setup.layout.seed, 1]))

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
        registered = self.session.registered(
            codes={"coded": spec, "plain": PLAIN},
            policy=setup.policy,
            model=ModelOnWorker(
                self.session.run,
                (setup.handle, *setup.parity),
                setup.threads,
                setup.row,
                setup.layout.micro_batch,
            ),
            seed=setup.layout.seed,
            restart=setup.restart,
            block=setup.layout.block,
        )
        try:
            async with registered, asyncio.TaskGroup() as tasks:
                self.context.tasks = tasks
                try:
                    news = tasks.create_task(self.session.poll_forever(self._handle))
                    await self.guard.open()
                    await self.session.wait_until_ready(
                        workers_needed(spec, setup.byzantine), fewest_workers(spec, setup.byzantine)
                    )
                    queues = tasks.create_task(self.guard.send_old())
                    self.started = time.monotonic()
                    await self.guard.finish_verdicts()
                    self.pending = self._pending()
                    self._again.clear()  # these are among them
                    if setup.decoder == "fitted" and self.pending:
                        await self._learn()
                    await self._score()
                    news.cancel()
                    queues.cancel()
                finally:
                    self.courier.release()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group
        finally:
            self.finished = time.monotonic()

    def close(self) -> None:
        """Wait for the threads: what is being written is written to its end."""
        self.context.close()

    async def _learn(self) -> None:
        """Run all shares of some codewords of the first window, and fit the decoder to them."""
        code = self.code
        assert isinstance(code, InterpolatingCode), "options allow no other"
        window = await self.context.read(self._load_window, *self.pending[0])
        whole = len(window.order) // code.k
        rng = np.random.default_rng([self.setup.layout.seed, 2])
        chosen = np.sort(rng.permutation(whole)[:LEARNT])
        if not len(chosen):
            return
        members = window.order[: whole * code.k].reshape(whole, code.k)[chosen].ravel()
        queries = gather(window.queries, members, code.k)
        mixed = [share for share, block in enumerate(code.carries) if block is None]
        shares = np.concatenate([queries, code.encode(queries)[mixed]])
        run = (self.elsewhere.run(rows, kind="learning") for rows in shares)
        ends = [end.testimony for end in await asyncio.gather(*run)]
        told = [one.output for one in ends if one is not None]
        if len(told) < len(shares):  # the model raised on some of them
            return
        outputs = np.stack(told)
        finite = np.isfinite(outputs.reshape(*outputs.shape[:2], -1)).all(axis=(0, 2))
        if not finite.any():
            return
        outputs = outputs[:, finite]
        blocks = outputs[: code.k]
        rest = iter(outputs[code.k :])
        all_shares = [next(rest) if j is None else blocks[j] for j in code.carries]
        self.decoder = FittedDecoder(code)
        self.decoder.learn(np.stack(all_shares), blocks)

    # ---- windows in, groups out -----------------------------------------------------------------

    async def _score(self) -> None:
        """Score the pending windows; then again those in which rows were taken back."""
        spans = self.pending
        while True:
            loaded: asyncio.Queue[Window] = asyncio.Queue()
            self._windows_left = len(spans)
            self._all_done.clear()
            self.context.spawn(self._load_windows(spans, loaded))
            for _ in spans:
                await self._feed(await loaded.get())
            if spans:
                await self._all_done.wait()
            await self.guard.finish_checks()
            while self._hearings:
                self._news.clear()
                await self._news.wait()
            spans = [span for span in self._spans if span[0] in self._again]
            if not spans:
                return
            self.windows_done -= len(spans)
            self._again.clear()

    async def _load_windows(
        self, spans: Sequence[tuple[int, int, int]], loaded: asyncio.Queue[Window]
    ) -> None:
        for span in spans:
            await self._open_windows.acquire()
            loaded.put_nowait(await self.context.read(self._load_window, *span))

    def _load_window(self, index: int, start: int, stop: int) -> Window:
        layout = self.setup.layout
        queries = self.setup.load(start, stop)
        before = self.setup.store.read_window(start, stop)
        if before["status"].any():  # written, but for rows that a convicted worker had touched
            return Window.reopened(index, start, queries, before)
        coded = np.arange(len(queries))
        mixes = any(block is None for block in self.code.carries)
        if mixes and not np.isfinite(queries).all():  # one NaN would spoil its whole codeword
            coded = np.flatnonzero(np.isfinite(queries.reshape(len(queries), -1)).all(axis=1))
        rows = queries if len(coded) == len(queries) else queries[coded]
        order = order_rows(
            self.setup.compared(rows) if layout.order == "similar" else len(rows),
            self.code.k,
            how=layout.order,
            block=layout.block,
            seed=layout.seed + index,
        )
        window = Window(
            index=index,
            start=start,
            queries=queries,
            order=coded[order],
            prediction=self.context.blank(len(queries)),
            coded_left=len(cut_groups(len(order), self.code.k, layout.block)),
        )
        plain = np.setdiff1d(np.arange(len(queries)), coded)
        window.ask_repair(plain, Status.EXACT, frozenset())
        return window

    async def _feed(self, window: Window) -> None:
        """Send a window's groups out, as many at a time as are to be in flight."""
        self.open.append(window)
        await self._repair(window)
        spans = cut_groups(len(window.order), self.code.k, self.setup.layout.block)
        for i, span in enumerate(spans):
            await self._room()
            members = window.order[span.start : span.stop]
            number = window.index * self.groups_per_window + i
            await self._open(RowGroup(number, self.code, window, members, Status.EXACT, coded=True))
        await self._close(window)  # its rows may all be there already

    async def _room(self) -> None:
        """Wait until one more group may be in flight: as many as keep the workers that are there
        busy, and as memory allows."""
        while self._in_flight >= min(
            self.setup.most_in_flight,
            groups_in_flight(self.code.n, self.session.ready, self.setup.in_flight),
        ):
            self._news.clear()
            await self._news.wait()
        self._in_flight += 1

    async def _repair(self, window: Window) -> None:
        """Run plainly what is due: decoded rows under ``repair="exact"`` or in doubt, rows with
        NaN, rows of groups that could not be decoded, rows that a convicted worker touched."""
        self.intake.decide(window)
        for repair in list(window.due_repairs(self.setup.layout.block)):
            number = next(self.context.numbers)
            batch = RowGroup(
                number,
                self.plain,
                window,
                repair.rows,
                repair.status,
                coded=False,
                again=bool(repair.avoid),
            )
            await self._open(batch, avoid=repair.avoid)

    async def _open(self, batch: RowGroup, avoid: frozenset[str] = frozenset()) -> None:
        def encode() -> np.ndarray:
            queries = gather(batch.window.queries, batch.members, batch.code.k)
            return batch.code.encode(queries)

        await self.courier.dispatch(
            GroupTransfer(
                batch.number,
                await self.context.compute(encode),
                partial(self._finish, batch),
                batch.code.models,
            ),
            code="coded" if batch.coded else "plain",
            first=not batch.coded,  # repairs: so that the oldest windows close first
            avoid=avoid,
        )

    def _handle(self, event: dict[str, Any]) -> None:
        if event["op"] == "stalled":
            self._stalled(event)
        elif event["op"] == "worker":
            name, what, incarnation = event["worker"], event["what"], event["incarnation"]
            self.context.journal("worker", time=event["time"], worker=name, what=what)
            place = {key: event[key] for key in ("host", "node", "device", "hardware")}
            self.members.joined(incarnation, name, **place)
            if what != "ready":
                self.members.departed(incarnation)
            self._news.set()
        elif event["op"] == "changed":
            self.context.journal("changed", worker=event["worker"], said=event["said"])
            self.setup.notes.append(
                f"worker {event['worker']} says another place of itself than before, and is not "
                f"believed: {event['said']} instead of {event['kept']}"
            )
        elif event["op"] == "conviction":
            self._hearings += 1
            self.context.spawn(self._hear_of_conviction(event["bars"], event["conviction"]))
        else:
            self.trouble = ""
            self.courier.handle(event)

    async def _hear_of_conviction(self, bars: list[dict[str, Any]], event: dict[str, Any]) -> None:
        await self.guard.adopt_conviction(bars, event)
        self._hearings -= 1
        self._news.set()

    def _stalled(self, event: dict[str, Any]) -> None:
        """No share has come back for long: say who holds what; the second time give up.

        Raises
        ------
        ClusterError
        """
        found = {name: event[name] for name in ("shares", "unplaced")}
        counts = {name: event[name] for name in ("ready", "present")}
        self.context.journal("stalled", seconds=event["seconds"], **found, **counts)
        self.trouble = tell(event["seconds"], found, **counts)
        if event["final"]:
            raise ClusterError(
                f"{self.trouble}. What is written stays, and the same command goes on from there: "
                "start workers, or a new cluster, and give it again (stall_after= sets the time)"
            )

    # ---- outputs back, windows written ----------------------------------------------------------

    async def _finish(self, batch: RowGroup, group: GroupTransfer) -> None:
        """Decode a group, take its rows in, order its repairs, and write its window if that was
        the last of it."""
        window = batch.window
        out = await self.guard.left_out(batch, group)
        while True:
            told = group.testimonies
            out |= {s for s, one in told.items() if self.members.is_convicted(one.member)}
            stand = {share: one for share, one in told.items() if share not in out}
            evicted = frozenset(told[share].worker for share in out)
            returned, drawn = await self.context.compute(self._weigh, batch, group, stand, evicted)
            if not any(self.members.is_convicted(one.member) for one in stand.values()):
                break
        self.guard.start(batch, group, drawn)
        known = len(self.intake.failures)
        self.intake.take(returned)
        for row, error in self.intake.failures[known:]:
            self.context.journal("failed", row=row, error=error)
        if batch.coded:
            window.coded_left -= 1
            self._in_flight -= 1
            self._news.set()
        kind = "coded" if batch.coded else "repair"
        # Of a repair also the coded groups that its rows were in: when was such a group whole?
        of = {} if batch.coded else {"of": _groups(window.group[batch.members])}
        self.context.journal_group(group, used=returned.told, window=window.index, kind=kind, **of)
        await self.session.call("report", done=[batch.number])
        await self._try_here()
        await self._repair(window)
        await self._close(window)

    def _weigh(
        self,
        batch: RowGroup,
        group: GroupTransfer,
        stand: dict[int, ShareOutput],
        evicted: frozenset[str],
    ) -> tuple[DecodedGroup, list[DrawnRows]]:
        """Decode a group, and draw the rows of it that are checked."""
        returned = decode_group(
            batch,
            stand,
            history=group.history,
            evicted=evicted,
            decoder=self.decoder,
            doubtful=self.intake.doubts is not None,
        )
        return returned, self.guard.draw(batch, group, returned)

    async def _try_here(self) -> None:
        """Try rows on the client on which the model raised, on too few workers to be sure."""
        while self.intake.unsure:
            window, row, status, error = self.intake.unsure.pop()
            queries = window.queries[row : row + 1]
            try:
                output = await self.context.compute(self._run_here, queries)
            except Exception as raised:  # the user's model
                self.context.journal("failed", row=window.start + row, error=error)
                self.intake.give_up(window, row, error or str(raised))
            else:
                self.intake.put(window, row, output, status)
            await self._close(window)

    def _run_here(self, queries: np.ndarray) -> np.ndarray:
        setup = self.setup
        runner = cache.ensure(setup.handle, setup.threads)
        output: np.ndarray = run_rows(runner, queries, setup.layout.micro_batch)[0]
        return output

    async def _close(self, window: Window) -> None:
        """Write a window if it is whole: the journal's groups and the data first, its status last.

        If a convicted worker touched some of its rows, it is not whole after all.
        """
        if window.closing:  # two groups may end in one turn
            return
        if not window.whole:
            if window.scored and window is self.open[0]:
                self.guard.flush(window)
            return
        window.closing = True

        def write() -> np.ndarray | None:
            if (tainted := self.guard.tainted(window)) is not None:
                return tainted
            self.setup.journal.sync()
            self.setup.store.write_window(
                window.start,
                window.stop,
                prediction=window.prediction,
                status=window.status,
                group=window.group,
                worker=window.worker,
                residual=window.residual,
            )
            rows = [window.start, window.stop]
            self.context.journal("window", window=window.index, rows=rows)
            return None

        tainted = await self.context.write(write)
        if tainted is not None:
            self.intake.take_back(window.status[tainted])
            window.take_back(tainted)
            window.closing = False
            await self._repair(window)
            return
        again = self.setup.check > 0
        self.stream.committed(window.index, window.start, window.stop, again=again)
        self._committed.add(window.index)
        self.open.remove(window)
        window.confirmed.clear()
        self.windows_done += 1
        self._windows_left -= 1
        self._open_windows.release()
        if self._windows_left == 0:
            self._all_done.set()
        if self.open:  # it may be the oldest now
            await self._close(self.open[0])

    def _failed(self, window: Window, rows: np.ndarray) -> None:
        """Rows of an open window that were there have failed after all: bool (W,)."""
        self.intake.fail(window, rows)

    def _taken_back(self, index: int, statuses: np.ndarray) -> None:
        """Rows of a written window that had these statuses are pending again."""
        self._again.add(index)
        if index in self._committed:
            self.intake.take_back(statuses)
        else:
            self.resumed -= len(statuses)

    def _new_member(self, index: int, member: Member) -> None:
        fields = member.event()
        del fields["session"]  # each event has it
        self.context.journal("name", index=index, **fields)

    def unchecked(self) -> dict[str, int]:
        """Rows of open windows by their status, where these wait for checks."""
        if not self.setup.check:
            return {}
        found: Counter[str] = Counter()
        for window in list(self.open):
            for value, rows in zip(*np.unique(window.status, return_counts=True), strict=True):
                found[Status(value).name.lower()] += int(rows)
        return dict(found)

    def read_back(self, start: int, stop: int) -> Block:
        """Committed rows, from the store."""
        store = self.setup.store
        return Block(
            rows=np.arange(start, stop),
            predictions=store.read_prediction(start, stop),
            status=store.status()[start:stop],
        )


def _groups(numbers: np.ndarray) -> list[int]:
    """The groups that rows were in, each once; -1, in none, left out."""
    return [int(number) for number in np.unique(numbers) if number >= 0]
