"""The client's loop: windows in, coded groups out to the workers, decoded rows back and written.

It runs on the client's event loop and never blocks it: reading, ordering, encoding, decoding and
writing go to threads; sending and fetching are tasks of their own, each with one worker. What to do
with a group is decided on the scheduler (`plugin`, by `policy`); this side follows its news:

``send``      give shares to workers      ``in``    a share's output can be fetched
``complete``  no more shares: decode      ``worker``  one became ready, hung, or left
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import count
from math import ceil
from typing import Any

import numpy as np
from distributed import Client, Future

from approxifer.coding import Code, CodeSpec, block_rows, gather, order_rows
from approxifer.coding import groups as cut_groups
from approxifer.datasets import Journal, OutputStore
from approxifer.errors import ClusterError
from approxifer.models import ModelHandle
from approxifer.pipeline import transport
from approxifer.pipeline.keys import Key, input_key, share_key
from approxifer.pipeline.plan import Layout, conflicting, groups_in_flight
from approxifer.pipeline.plugin import PLUGIN, StragglerPlugin
from approxifer.pipeline.policy import Policy
from approxifer.pipeline.records import Block, Fate, Status, WorkerRecord
from approxifer.pipeline.stream import BlockStream
from approxifer.pipeline.window import Window
from approxifer.pipeline.worker import ModelOnWorker
from approxifer.version import __version__

logger = logging.getLogger(__name__)

#: Rank of repairs above all fresh groups, so that the oldest windows close first.
REPAIRS_FIRST = 10**9
#: Seconds to wait for the rest of the workers once enough for an output are ready.
STRAGGLING_START = 10.0
#: Seconds to wait for workers to load the model at all.
SLOWEST_START = 300.0


@dataclass
class GroupRun:
    """A group on the client: its shares, and the outputs that are back."""

    number: int
    code: Code
    window: Window
    members: np.ndarray  #: rows of the window, codeword by codeword
    shares: np.ndarray  #: (N, B, *feature)
    status: Status  #: of its exact rows: EXACT, or REPAIRED where it is a repair
    coded: bool  #: false for rows that are run plainly: repairs, rows with NaN
    outputs: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)
    futures: dict[Key, list[Future]] = field(default_factory=dict)
    completion: dict[str, Any] | None = None
    done: bool = False


@dataclass(frozen=True)
class Setup:
    """What a run works with and how."""

    client: Client
    store: OutputStore
    journal: Journal
    load: Callable[[int, int], np.ndarray]  #: rows [start, stop) as the model takes them
    handle: ModelHandle
    threads: int
    spec: CodeSpec
    layout: Layout
    policy: Policy
    repair: str
    restart: bool
    session: str
    workers: Sequence[str] = ()  #: names that earlier sessions gave an index to


class Engine:
    """One run. `run` does it; the counters may be read from another thread meanwhile."""

    def __init__(self, setup: Setup, stream: BlockStream) -> None:
        self.setup = setup
        self.stream = stream
        self.run_id = setup.session.rpartition("-")[2]
        self.code = setup.spec.build()
        self.plain = CodeSpec(scheme="uncoded", k=1).build()
        self.groups: dict[int, GroupRun] = {}
        #: The store's ``worker`` holds indices into this; new names go to the journal first.
        self.workers: list[str] = list(setup.workers)
        self.ledger: dict[str, Any] = {"workers": [], "typical": None, "unready": {}}
        self.ready = 0
        self.counts = dict.fromkeys(("exact", "decoded", "repaired", "failed"), 0)
        self.provisional = 0
        self.windows_done = 0
        self.opened = 0.0  #: when the session began for the scheduler: zero of the journal's times
        self.started: float | None = None
        self.finished: float | None = None
        self._sequence = count()
        self._loaders = ThreadPoolExecutor(1, "approxifer-read")
        self._coders = ThreadPoolExecutor(2, "approxifer-code")
        self._writers = ThreadPoolExecutor(1, "approxifer-write")

        layout, status = setup.layout, setup.store.status()
        spans = [
            (i, start, min(start + layout.window, setup.store.rows))
            for i, start in enumerate(range(0, setup.store.rows, layout.window))
        ]
        self.windows = len(spans)
        #: The windows that no earlier session has committed.
        self.pending = [span for span in spans if (status[span[1] : span[2]] == 0).any()]
        self.resumed = setup.store.rows - sum(stop - start for _, start, stop in self.pending)
        self.groups_per_window = ceil(layout.window / (layout.block * self.code.k))
        #: Repairs are numbered behind all coded groups.
        self._repair_numbers = count(self.windows * self.groups_per_window)

    # ---- the run --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Score every pending window.

        Raises
        ------
        ClusterError
            The scheduler is gone, or too few workers get ready.
        """
        try:
            async with self._registered(), asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                news = tasks.create_task(self._follow_news())
                await self._enough_ready()
                self.started = time.monotonic()
                await self._score()
                news.cancel()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group
        finally:
            self.finished = time.monotonic()

    def close(self) -> None:
        """Wait for the threads: what is being written is written to its end."""
        for pool in (self._loaders, self._coders, self._writers):
            pool.shutdown(wait=True, cancel_futures=True)

    @contextlib.asynccontextmanager
    async def _registered(self) -> AsyncIterator[None]:
        """Register the run on the scheduler and its model on the workers; undo both."""
        setup, scheduler = self.setup, self.setup.client.scheduler
        policy = asdict(setup.policy)
        opened = None
        for _ in range(2):  # between the two calls the last other run may take the plugin with it
            await setup.client.register_plugin(StragglerPlugin(), name=PLUGIN)
            with contextlib.suppress(AttributeError, KeyError, ValueError):
                opened = await scheduler.approxifer_open(
                    run=self.run_id,
                    client=setup.client.id,
                    codes={"coded": asdict(setup.spec), "plain": asdict(self.plain.spec)},
                    policy=policy,
                    fingerprint=setup.handle.fingerprint,
                    seed=setup.layout.seed,
                    restart=setup.restart,
                )
                self.opened = time.monotonic()
                break
        if opened is None or opened["version"] != __version__:
            there = opened["version"] if opened else "unknown"
            raise ClusterError(
                f"approxifer {there} on the scheduler, {__version__} here: install the same version"
            )
        model = ModelOnWorker(self.run_id, setup.handle, setup.threads)
        # Not awaited: one hung worker would hold it up for ever. Workers announce themselves.
        loading = asyncio.ensure_future(setup.client.register_plugin(model, name=model.name))
        loading.add_done_callback(_swallow)
        try:
            yield
        finally:
            loading.cancel()
            for group in self.groups.values():
                _release(group)
            with contextlib.suppress(OSError, TimeoutError, AttributeError):
                closing = scheduler.approxifer_close(run=self.run_id)
                self.ledger |= await asyncio.wait_for(closing, 10)

    async def _enough_ready(self) -> None:
        """Wait until the workers have the model: all of them, or after a while enough for an
        output."""
        needed = conflicting(self.setup.spec)
        enough = max(1, needed - self.setup.spec.stragglers)
        begin, since = time.monotonic(), None
        while True:
            now = time.monotonic()
            present = len(self.setup.client.scheduler_info(n_workers=-1)["workers"])
            unready = self.ledger["unready"]
            if self.ready >= max(needed, present):
                return
            if self.ready >= enough:
                since = since or now
                if now - since > STRAGGLING_START:
                    return
            hopeless = len(unready) and self.ready + present - len(unready) < enough
            if hopeless or now - begin > SLOWEST_START:
                reasons = "; ".join(f"{name}: {why}" for name, why in unready.items())
                raise ClusterError(
                    f"only {self.ready} of {present} workers got the model ready, {enough} are "
                    f"needed ({reasons or 'the others did not answer'}): approxifer "
                    f"{__version__} and what the model imports must be installed on all workers"
                )
            await asyncio.sleep(0.02)

    async def _score(self) -> None:
        self._open_windows = asyncio.Semaphore(2)
        self._flight = asyncio.Semaphore(groups_in_flight(self.code.n, max(self.ready, 1)))
        self._all_done = asyncio.Event()
        self._left = len(self.pending)
        if not self.pending:
            return
        loaded: asyncio.Queue[Window] = asyncio.Queue()
        self._spawn(self._load_windows(loaded))
        for _ in self.pending:
            window = await loaded.get()
            await self._feed(window)
        await self._all_done.wait()

    async def _load_windows(self, loaded: asyncio.Queue[Window]) -> None:
        for index, start, stop in self.pending:
            await self._open_windows.acquire()
            loaded.put_nowait(await self._in(self._loaders, self._load_window, index, start, stop))

    def _load_window(self, index: int, start: int, stop: int) -> Window:
        setup, layout = self.setup, self.setup.layout
        queries = setup.load(start, stop)
        coded = np.arange(len(queries))
        mixes = any(block is None for block in self.code.carries)
        if mixes and not np.isfinite(queries).all():
            # One NaN would spoil its whole codeword.
            finite = np.isfinite(queries.reshape(len(queries), -1)).all(axis=1)
            coded = np.flatnonzero(finite)
        rows = queries if len(coded) == len(queries) else queries[coded]
        order = coded[
            order_rows(
                rows if layout.order == "similar" else len(rows),
                self.code.k,
                how=layout.order,
                block=layout.block,
                seed=layout.seed + index,
            )
        ]
        window = Window(
            index=index,
            start=start,
            queries=queries,
            order=order,
            prediction=self._blank(len(queries)),
        )
        window.coded_left = len(cut_groups(len(order), self.code.k, layout.block))
        plain = np.setdiff1d(np.arange(len(queries)), coded)
        window.ask_repair(plain, Status.EXACT, frozenset())
        return window

    async def _feed(self, window: Window) -> None:
        """Send a window's groups out, as many at a time as are to be in flight."""
        layout = self.setup.layout
        await self._repair(window)
        spans = cut_groups(len(window.order), self.code.k, layout.block)
        for i, span in enumerate(spans):
            await self._flight.acquire()
            members = window.order[span.start : span.stop]
            number = window.index * self.groups_per_window + i
            await self._open(window, number, self.code, members, Status.EXACT)

    async def _repair(self, window: Window) -> None:
        """Run plainly what is due: decoded rows under ``repair="exact"``, rows with NaN, rows of
        groups that could not be decoded."""
        for repair in list(window.due_repairs(self.setup.layout.block)):
            number = next(self._repair_numbers)
            await self._open(
                window, number, self.plain, repair.rows, repair.status, avoid=repair.avoid
            )

    async def _open(
        self,
        window: Window,
        number: int,
        code: Code,
        members: np.ndarray,
        status: Status,
        avoid: frozenset[str] = frozenset(),
    ) -> None:
        def encode() -> np.ndarray:
            return code.encode(gather(window.queries, members, code.k))

        shares = await self._in(self._coders, encode)
        coded = code is self.code
        self.groups[number] = GroupRun(number, code, window, members, shares, status, coded)
        rank = -next(self._sequence) + (0 if coded else REPAIRS_FIRST)
        opening = {
            "group": number,
            "code": "coded" if coded else "plain",
            "rows": shares.shape[1],
            "priority": rank,
            "avoid": sorted(avoid),
        }
        await self._tell(self.setup.client.scheduler.approxifer_groups, groups=[opening])

    # ---- following the scheduler's plugin -------------------------------------------------------

    async def _follow_news(self) -> None:
        while True:
            reply = await self._tell(self.setup.client.scheduler.approxifer_poll)
            events = reply.pop("events")
            self.ready = reply.pop("ready")
            self.ledger |= reply
            for event in events:
                self._hear(event)

    def _hear(self, event: dict[str, Any]) -> None:
        if event["op"] == "worker":
            fields = {"worker": event["worker"], "what": event["what"]}
            self._journal("worker", time=event["time"], **fields)
            return
        group = self.groups.get(event["group"])
        if group is None:
            return
        if event["op"] == "send":
            self._spawn(self._send(group, event["to"]))
        elif event["op"] == "in":
            self._spawn(self._fetch(group, event["share"], event["attempt"], event["address"]))
        elif event["op"] == "complete":
            group.completion = event
            self._finish_if_whole(group)

    async def _send(self, group: GroupRun, to: list[tuple[int, int, str]]) -> None:
        """Lay the inputs on their workers, and submit each share as soon as its input is there."""
        client = self.setup.client
        pushes = {}
        for share, attempt, address in to:
            key = input_key(self.run_id, group.number, share, attempt)
            push = transport.push(client, address, key, group.shares[share])
            pushes[asyncio.ensure_future(push)] = (share, attempt, address)
        pending = set(pushes)
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if pending:  # those that are nearly there come along
                more, pending = await asyncio.wait(pending, timeout=0.005)
                done |= more
            arrived = []
            for push in done:
                if push.exception() is None:
                    arrived.append(pushes[push])
                else:
                    await self._lost(group, *pushes[push], f"not sent: {push.exception()!r}")
            await self._submit(group, arrived)

    async def _submit(self, group: GroupRun, arrived: Sequence[tuple[int, int, str]]) -> None:
        if not arrived:
            return
        setup, run = self.setup, self.run_id
        nbytes = group.shares[0].nbytes
        held = {
            input_key(run, group.number, share, attempt): (address, nbytes)
            for share, attempt, address in arrived
        }
        try:
            inputs = await transport.announce(setup.client, held)
        except KeyError:  # a worker has left meanwhile: one by one, to find out which
            if len(arrived) == 1:
                await self._lost(group, *arrived[0], "its worker left")
                return
            for one in arrived:
                await self._submit(group, [one])
            return
        if group.done:
            for future in inputs:
                future.release()
            return
        keys = [share_key(run, group.number, share, attempt) for share, attempt, _ in arrived]
        futures = transport.submit(
            setup.client,
            inputs,
            keys,
            fingerprint=setup.handle.fingerprint,
            micro_batch=setup.layout.micro_batch,
        )
        for key, *pair in zip(keys, inputs, futures, strict=True):
            group.futures[key] = pair

    async def _fetch(self, group: GroupRun, share: int, attempt: int, address: str) -> None:
        key = share_key(self.run_id, group.number, share, attempt)
        rows = group.shares.shape[1]
        expected = (rows, *self.setup.store.output_shape)
        try:
            nbytes = self._blank(rows).nbytes
            output = await transport.fetch(self.setup.client, address, key, nbytes)
            if not isinstance(output, np.ndarray) or output.shape != expected:
                found = getattr(output, "shape", type(output).__name__)
                raise ValueError(f"output {found} instead of {expected}")
        except (OSError, KeyError, ValueError) as error:
            if not group.done:
                if group.completion is not None:
                    used = [tuple(pair) for pair in group.completion["used"]]
                    if (share, attempt) in used:
                        group.completion = None
                await self._lost(group, share, attempt, address, f"not fetched: {error!r}")
            return
        for future in group.futures.pop(key, ()):
            future.release()
        if not group.done:
            group.outputs[share, attempt] = output
            self._finish_if_whole(group)

    async def _lost(
        self, group: GroupRun, share: int, attempt: int, address: str, why: str
    ) -> None:
        key = share_key(self.run_id, group.number, share, attempt)
        await self._tell(self.setup.client.scheduler.approxifer_report, lost=[(key, address, why)])

    # ---- outputs --------------------------------------------------------------------------------

    def _finish_if_whole(self, group: GroupRun) -> None:
        if group.done or group.completion is None:
            return
        used = [tuple(pair) for pair in group.completion["used"]]
        if all(pair in group.outputs for pair in used):
            group.done = True
            self._spawn(self._finish(group, {s: group.outputs[s, a] for s, a in used}))

    async def _finish(self, group: GroupRun, outputs: dict[int, np.ndarray]) -> None:
        """Decode a group, take its rows in, order its repairs, and write its window if that was
        the last of it."""
        assert group.completion is not None
        _release(group)
        self.groups.pop(group.number)
        window = group.window
        names = self._names(group)
        decoded, residual = await self._in(self._coders, _decode, group.code, outputs)
        failed = frozenset(
            a["worker"]
            for a in group.completion["attempts"]
            if a["fate"] in (Fate.DROPPED, Fate.LOST, Fate.FAILED)
        )
        blocks = block_rows(group.members, group.code.k)
        final = self.setup.repair == "none"
        for j, rows in enumerate(blocks):
            if len(rows) == 0:
                continue
            if decoded is not None and decoded.exact[j]:
                worker = self._index(names, group.code, outputs, j)
                self._take(window, rows, decoded.blocks[j], group.status, worker)
            elif decoded is not None and final:
                self._take(window, rows, decoded.blocks[j], Status.DECODED, -1)
            elif decoded is not None:
                self.provisional += len(rows)
                self._stream(window, rows, decoded.blocks[j], Status.DECODED, provisional=True)
                window.ask_repair(rows, Status.REPAIRED, failed)
            elif group.coded:  # not decodable whatever was tried
                self._partial(group, rows, outputs, names, j, failed)
            else:
                window.fail(rows)
                self.counts["failed"] += len(rows)
            if group.coded:
                window.group[rows] = group.number
                if decoded is not None:
                    window.residual[rows] = residual[: len(rows)]
        self._journal(
            "group",
            group=group.number,
            window=window.index,
            kind="coded" if group.coded else "repair",
            shares={str(s): names[s] for s in sorted(outputs)},
            attempts=group.completion["attempts"],
        )
        if group.coded:
            window.coded_left -= 1
            self._flight.release()
        await self._tell(self.setup.client.scheduler.approxifer_report, done=[group.number])
        await self._repair(window)
        if window.whole and not window.closing:  # two groups may end in one turn
            window.closing = True
            await self._commit(window)

    def _partial(
        self,
        group: GroupRun,
        rows: np.ndarray,
        outputs: dict[int, np.ndarray],
        names: dict[int, str],
        block: int,
        failed: frozenset[str],
    ) -> None:
        """A block of a group that cannot be decoded: its own share, or a plain run."""
        for share, output in outputs.items():
            if group.code.carries[share] == block:
                worker = self._index(names, group.code, outputs, block)
                self._take(group.window, rows, output, Status.EXACT, worker)
                return
        group.window.ask_repair(rows, Status.REPAIRED, failed)

    def _take(
        self, window: Window, rows: np.ndarray, block: np.ndarray, status: Status, worker: int
    ) -> None:
        prediction = block[: len(rows)]
        window.put(rows, prediction, status=status, worker=worker)
        self.counts[status.name.lower()] += len(rows)
        if status is Status.REPAIRED:
            self.provisional = max(0, self.provisional - len(rows))
        self._stream(window, rows, prediction, status)

    def _stream(
        self,
        window: Window,
        rows: np.ndarray,
        block: np.ndarray,
        status: Status,
        *,
        provisional: bool = False,
    ) -> None:
        self.stream.put(
            window.index,
            Block(
                rows=window.start + rows,
                predictions=block[: len(rows)],
                status=np.full(len(rows), status, np.uint8),
                provisional=provisional,
            ),
        )

    async def _commit(self, window: Window) -> None:
        """Write a window: the journal's groups and the data first, its status last."""

        def write() -> None:
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

        await self._in(self._writers, write)
        self._journal("window", window=window.index, rows=[window.start, window.stop])
        self.stream.committed(window.index, window.start, window.stop)
        self.windows_done += 1
        self._open_windows.release()
        self._left -= 1
        if self._left == 0:
            self._all_done.set()

    # ---- small things ---------------------------------------------------------------------------

    def _names(self, group: GroupRun) -> dict[int, str]:
        """Which worker's output was used for each share."""
        assert group.completion is not None
        used = {tuple(pair) for pair in group.completion["used"]}
        return {
            a["share"]: a["worker"]
            for a in group.completion["attempts"]
            if (a["share"], a["attempt"]) in used
        }

    def _index(
        self, names: dict[int, str], code: Code, outputs: dict[int, np.ndarray], block: int
    ) -> int:
        """The index, in the store's list of workers, of the one whose share carried a block."""
        name = next(names[s] for s in sorted(outputs) if code.carries[s] == block)
        if name not in self.workers:
            self._journal("name", index=len(self.workers), worker=name)
            self.workers.append(name)
        return self.workers.index(name)

    def _journal(self, event: str, **fields: Any) -> None:
        seconds = round(time.monotonic() - self.opened, 4)
        self.setup.journal.append(
            {"event": event, "session": self.setup.session, "time": seconds} | fields
        )

    def _spawn(self, work: Any) -> None:
        self._tasks.create_task(work)

    async def _in(self, pool: ThreadPoolExecutor, call: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, call, *args)

    async def _tell(self, call: Callable[..., Any], **fields: Any) -> Any:
        try:
            return await call(run=self.run_id, **fields)
        except OSError as error:
            raise ClusterError(
                "the scheduler is gone; what is written stays, and the same command goes on from "
                f"there ({error})"
            ) from error

    def _blank(self, rows: int) -> np.ndarray:
        """Outputs not there: NaN, or 0 where the dtype has none."""
        store = self.setup.store
        nothing = np.nan if store.output_dtype.kind in "fc" else 0
        return np.full((rows, *store.output_shape), nothing, store.output_dtype)

    def read_back(self, start: int, stop: int) -> Block:
        """Committed rows, from the store."""
        store = self.setup.store
        return Block(
            rows=np.arange(start, stop),
            predictions=store.read_prediction(start, stop),
            status=store.status()[start:stop],
        )

    def worker_records(self) -> dict[str, WorkerRecord]:
        """The ledger, by worker name."""
        return {fields["name"]: WorkerRecord(**fields) for fields in self.ledger["workers"]}


def _decode(code: Code, outputs: dict[int, np.ndarray]) -> tuple[Any, Any]:
    """Decode, where there are enough shares: (None, None) otherwise."""
    if not code.decodable(outputs.keys()):
        return None, None
    return code.decode(outputs), code.residual(outputs)


def _release(group: GroupRun) -> None:
    for pair in group.futures.values():
        for future in pair:
            future.release()
    group.futures.clear()


def _swallow(task: asyncio.Future[Any]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.debug("registering the model: %r", task.exception())
