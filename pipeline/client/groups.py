"""The groups of a run's windows: sent out, decoded when they are back, repaired.

Groups of one code (RowGroup) go out as shares (GroupTransfer) and come back as rows (DecodedGroup).
A repair is a group of the `uncoded` code with K = 1.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import numpy as np

from approxifer.coding import CodeSpec, gather
from approxifer.coding import groups as cut_groups
from approxifer.coding.fitted import FittedDecoder
from approxifer.models import cache, run_rows
from approxifer.pipeline.byzantine.membership import Membership
from approxifer.pipeline.client.collect import Collector, DecodedGroup, RowGroup, decode_group
from approxifer.pipeline.client.context import Context
from approxifer.pipeline.client.dispatch import Dispatcher, GroupTransfer
from approxifer.pipeline.client.integrity import IntegrityMonitor
from approxifer.pipeline.client.used_rows import DrawnRows
from approxifer.pipeline.client.window import Window
from approxifer.pipeline.client.windows import Windows
from approxifer.pipeline.planning.partition import groups_in_flight
from approxifer.pipeline.records import ShareOutput, Status
from approxifer.pipeline.share_rows import ShareRows, describe

#: Rows on their own, outside any codeword.
PLAIN = CodeSpec(scheme="uncoded", k=1)


class Groups:
    """The groups of one run.

    Attributes
    ----------
    decoder : FittedDecoder or None
        None: Berrut's weights.
    """

    def __init__(
        self,
        context: Context,
        dispatcher: Dispatcher,
        collector: Collector,
        integrity: IntegrityMonitor,
        windows: Windows,
        *,
        per_window: int,
    ) -> None:
        self.decoder: FittedDecoder | None = None
        self._context, self._dispatcher, self._collector = context, dispatcher, collector
        self._integrity, self._windows = integrity, windows
        self._members: Membership = integrity.members
        self._code, self._plain = integrity.code, PLAIN.build()
        self._per_window = per_window
        self._in_flight = 0
        self._room = asyncio.Event()

    # ---- out ------------------------------------------------------------------------------------

    async def feed(self, window: Window) -> None:
        """Send a window's groups out, as many at a time as are to be in flight."""
        self._windows.open.append(window)
        await self.repair(window)
        spans = cut_groups(len(window.order), self._code.k, self._context.setup.layout.block)
        for i, span in enumerate(spans):
            await self._wait_for_room()
            rows = window.order[span.start : span.stop]
            number = window.index * self._per_window + i
            await self._send(RowGroup(number, self._code, window, rows, Status.EXACT, coded=True))
        self._windows.changed(window)  # its rows may all be there already

    async def _wait_for_room(self) -> None:
        """Wait until one more group may be in flight: as many as keep the workers that are there
        busy, and as memory allows."""
        setup, connection = self._context.setup, self._context.connection
        while self._in_flight >= min(
            setup.most_in_flight,
            groups_in_flight(self._code.n, connection.ready, setup.in_flight),
        ):
            self._room.clear()
            await self._room.wait()
        self._in_flight += 1

    def look_for_room(self) -> None:
        """There may be other workers."""
        self._room.set()

    async def repair(self, window: Window) -> None:
        """Run plainly what is due: decoded rows under ``repair="exact"`` or in doubt, rows with
        NaN, rows of groups that could not be decoded, rows that a convicted worker touched."""
        self._collector.decide(window)
        for repair in list(window.due_repairs(self._context.setup.layout.block)):
            batch = RowGroup(
                next(self._context.numbers),
                self._plain,
                window,
                repair.rows,
                repair.status,
                coded=False,
            )
            await self._send(batch, avoid=repair.avoid)

    async def _send(self, batch: RowGroup, avoid: frozenset[str] = frozenset()) -> None:
        group = GroupTransfer(
            batch.number,
            await self._context.compute(share_rows, batch),
            partial(self._finish, batch),
            batch.code.models,
        )
        await self._dispatcher.dispatch(
            group,
            code="coded" if batch.coded else "plain",
            first=not batch.coded,  # repairs: so that the oldest windows close first
            avoid=tuple(avoid),
        )

    # ---- and back -------------------------------------------------------------------------------

    async def _finish(self, batch: RowGroup, group: GroupTransfer) -> None:
        """Decode a group, take its rows in, and order its repairs."""
        window = batch.window
        out = await self._integrity.left_out(batch, group)
        while True:
            returned = group.share_outputs
            out |= {s for s, one in returned.items() if self._members.is_convicted(one.member)}
            used = {share: one for share, one in returned.items() if share not in out}
            evicted = frozenset(returned[share].worker for share in out)
            decoded, drawn = await self._context.compute(self._decode, batch, group, used, evicted)
            if not any(self._members.is_convicted(one.member) for one in used.values()):
                break
        self._integrity.start(batch, group, drawn)
        known = len(self._collector.failures)
        self._collector.take(decoded)
        for row, error in self._collector.failures[known:]:
            self._context.journal("failed", row=row, error=error)
        if batch.coded:
            window.coded_left -= 1
            self._in_flight -= 1
            self._room.set()
        kind = "coded" if batch.coded else "repair"
        # Of a repair also the coded groups that its rows were in: when was such a group whole?
        of = {} if batch.coded else {"of": _groups(window.group[batch.members])}
        self._context.journal_group(group, used=decoded.used, window=window.index, kind=kind, **of)
        self._context.spawn(self._context.connection.settle(batch.number))
        await self._try_here()
        await self.repair(window)
        self._windows.changed(window)

    def _decode(
        self,
        batch: RowGroup,
        group: GroupTransfer,
        used: dict[int, ShareOutput],
        evicted: frozenset[str],
    ) -> tuple[DecodedGroup, list[DrawnRows]]:
        """Decode a group, and draw the rows of it that are checked."""
        results = self._context.setup.results
        decoded = decode_group(
            batch,
            used,
            history=group.history,
            evicted=evicted,
            decoder=self.decoder,
            doubtful=self._collector.doubts is not None,
            stored=results.stored if results.then is not None else None,
        )
        return decoded, self._integrity.draw(batch, group, decoded)

    async def _try_here(self) -> None:
        """Try rows on the client on which the model raised, on too few workers to be sure."""
        while self._collector.unsure:
            window, row, status, error = self._collector.unsure.pop()
            try:
                output, kept = await self._context.compute(self._run_here, window.start + row)
            except Exception as raised:  # the user's model
                self._context.journal("failed", row=window.start + row, error=error)
                self._collector.give_up(window, row, error or str(raised))
            else:
                self._collector.put(window, row, output, kept, status)
            self._windows.changed(window)

    def _run_here(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """The output of one row, and what is stored of it."""
        setup = self._context.setup
        queries = setup.load(row, row + 1)
        runner = cache.ensure(setup.handle, setup.threads)
        output = run_rows(runner, queries, setup.layout.micro_batch)
        return output[0], setup.results.stored(output)[0]


def share_rows(batch: RowGroup) -> Sequence[ShareRows]:
    """The rows of a group's shares: described where workers read them, else encoded here."""
    window, code = batch.window, batch.code
    if window.queries is not None:
        return list(code.encode(gather(window.queries, batch.members, code.k)))
    numbers = window.start + np.arange(len(window.prediction))
    return describe(code, gather(numbers, batch.members, code.k))


def _groups(numbers: np.ndarray) -> list[int]:
    """The groups that rows were in, each once; -1, in none, left out."""
    return [int(number) for number in np.unique(numbers) if number >= 0]
