"""Carries a group's shares to the workers and its outputs back, each share on its own.

It follows the plugin's events: `Send` gives shares to workers, `Returned` means that an output can
be fetched, `Complete` that no more shares are wanted.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from distributed import Future

from approxifer.errors import ApproxiferError
from approxifer.pipeline.client import transport
from approxifer.pipeline.client.connection import Connection
from approxifer.pipeline.client.transport import Readers
from approxifer.pipeline.keys import Key
from approxifer.pipeline.protocol import Attempt, Complete, GroupRequest, Returned, Send, Sent
from approxifer.pipeline.records import ShareOutput
from approxifer.pipeline.share_rows import Description, ShareRows
from approxifer.pipeline.worker import MISSING
from approxifer.text import duration

Spawn = Callable[[Coroutine[Any, Any, None]], None]


#: Bytes by which an output may be larger than twice what is expected and still be received.
SLACK = 10**6
#: Seconds that a share which may run waits for others, to be submitted with them.
BUNDLE = 0.003


@dataclass
class GroupTransfer:
    """A group on the client: its shares, and the outputs that are back."""

    number: int
    shares: Sequence[ShareRows]  #: N of B rows each
    finish: Callable[[GroupTransfer], Coroutine[Any, Any, None]]  #: called once it is complete
    models: Sequence[int]  #: of each share: 0 is the user's model, r + 1 parity model r
    outputs: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)
    #: Outputs of another type, shape, dtype or size, for which a stand-in is in ``outputs``.
    malformed: dict[tuple[int, int], str] = field(default_factory=dict)
    sent: dict[Key, Sent] = field(default_factory=dict)  #: and not back yet
    futures: dict[Key, Future[Any]] = field(default_factory=dict)
    completion: Complete | None = None  #: once no more shares are wanted
    done: bool = False

    @property
    def rows(self) -> int:
        """B, rows of one share."""
        return len(self.shares[0])

    @property
    def used(self) -> set[tuple[int, int]]:
        """The shares, and which attempt of each, that are to be decoded from."""
        return set(self.completion.used) if self.completion else set()

    @property
    def share_outputs(self) -> dict[int, ShareOutput]:
        """By share: what is to be decoded from, and who returned it."""
        by = {(a.share, a.attempt): a for a in self.history}
        return {
            place[0]: ShareOutput(
                by[place].worker, self.outputs[place], self.malformed.get(place), by[place].member
            )
            for place in sorted(self.used)
        }

    @property
    def history(self) -> tuple[Attempt, ...]:
        """The end of each attempt at each share."""
        return self.completion.attempts if self.completion else ()

    def asked(self, share: int) -> frozenset[int]:
        """The incarnations that a share was sent to, whatever became of it."""
        return frozenset(a.member for a in self.history if a.share == share)

    def release(self) -> None:
        """Let the scheduler forget what is left of it."""
        for future in self.futures.values():
            future.release()
        self.futures.clear()


class Dispatcher:
    """The groups in flight.

    Parameters
    ----------
    fingerprints
        Of the models: the user's, then the parity models.
    readers
        The workers that read what shares describe.
    made
        Reads it for the others.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        fingerprints: Sequence[str],
        micro_batch: int,
        output_shape: tuple[int, ...],
        output_dtype: np.dtype[Any],
        spawn: Spawn,
        readers: Readers,
        made: Callable[[Description], Awaitable[tuple[np.ndarray, list[int], bool]]],
        keep_malformed: bool,
    ) -> None:
        self.groups: dict[int, GroupTransfer] = {}
        self._connection = connection
        self._client = connection.client
        self._fingerprints = fingerprints
        self._micro_batch = micro_batch
        self._output_shape = output_shape
        self._output_dtype = output_dtype
        self._spawn = spawn
        self._readers, self._made = readers, made
        self._keep_malformed = keep_malformed
        self._ready: list[tuple[GroupTransfer, Key]] = []  #: to be submitted
        #: By address: shares whose inputs may be there for nothing. They go with the next input.
        self._stale: dict[str, list[Key]] = defaultdict(list)

    async def dispatch(self, group: GroupTransfer, *, code: str, **asked: Any) -> None:
        """Have the plugin place a group's shares, as ``asked``: see `GroupRequest`."""
        self.groups[group.number] = group
        request = GroupRequest(group=group.number, code=code, rows=group.rows, **asked)
        await self._connection.call("groups", groups=[asdict(request)])

    def handle(self, event: Send | Returned | Complete) -> None:
        """Act on one event."""
        group = self.groups.get(event.group)
        if group is None:
            return
        match event:
            case Send():
                group.sent |= {one.key: one for one in event.to}
                for one in event.to:
                    self._spawn(self._send(group, one, self._stale.pop(one.address, ())))
            case Returned():
                self._spawn(self._fetch(group, event))
            case Complete():
                group.completion = event
                self._finish_if_whole(group)

    def release(self) -> None:
        """Drop every group in flight."""
        for group in self.groups.values():
            group.done = True
            group.release()
        self.groups.clear()

    # ---- there ----------------------------------------------------------------------------------

    async def _send(self, group: GroupTransfer, one: Sent, stale: Sequence[Key]) -> None:
        """Have a share's input laid on its worker, and submit it as soon as it is there.

        Raises
        ------
        ApproxiferError
            The client cannot read the input either.
        """
        try:
            await self._push(one, group.shares[one.share], stale)
        except ApproxiferError:
            raise
        except Exception as error:  # of the connection, or of what the worker answers
            await self._lost(one.key, f"not sent: {error!r}")
        else:
            self._ready.append((group, one.key))
            if len(self._ready) == 1:  # the first takes along those that are ready meanwhile
                await asyncio.sleep(BUNDLE)
                ready, self._ready = self._ready, []
                self._submit(ready)

    async def _push(self, one: Sent, rows: ShareRows, stale: Sequence[Key]) -> None:
        """Have a worker read a share's input, or send it."""
        blank, why = list[int](), ""
        if isinstance(rows, Description):
            if await self._readers.reads(one.address, one.worker):
                try:
                    why = await transport.describe(self._client, one.address, one.key, rows, stale)
                except TimeoutError:
                    why = f"reading took more than {duration(transport.READING)}"
                if not why:
                    return
            rows, blank, missing = await self._made(rows)
            if why and not (why == MISSING and missing):
                self._readers.give_up(one.address, one.worker, why)
        await transport.push(self._client, one.address, one.key, rows, blank, stale)

    def _submit(self, ready: Sequence[tuple[GroupTransfer, Key]]) -> None:
        """Submit shares whose inputs are there: one graph for all, for each costs the scheduler
        some milliseconds."""
        for group, key in ready:
            if group.done:
                self._give_up_inputs(group, [key])
        wanted = [(group, key) for group, key in ready if not group.done]
        if not wanted:
            return
        keys = [key for _, key in wanted]
        models = [self._fingerprints[group.models[group.sent[key].share]] for group, key in wanted]
        futures = transport.submit(self._client, keys, models, micro_batch=self._micro_batch)
        for (group, key), future in zip(wanted, futures, strict=True):
            group.futures[key] = future

    # ---- and back -------------------------------------------------------------------------------

    async def _fetch(self, group: GroupTransfer, event: Returned) -> None:
        key, nbytes = event.key, event.nbytes
        sent = group.sent[key]
        place = (sent.share, sent.attempt)
        shape, dtype = (group.rows, *self._output_shape), self._output_dtype
        expected = int(np.prod(shape)) * dtype.itemsize
        why, strange = None, None
        output: Any = None
        if nbytes > 2 * expected + SLACK:
            strange = f"an output of {nbytes:,} bytes instead of {expected:,}"
        else:
            try:
                if event.output is not None:
                    output = event.output.array()
                else:
                    output = await transport.fetch(self._client, sent.address, key, expected)
            except Exception as error:  # what a worker sends may be unreadable in any way
                why = f"not fetched: {type(error).__name__}"
            else:
                strange = unlike(output, shape, dtype)
        if strange is not None and self._keep_malformed:
            group.malformed[place] = strange
            output = blank(shape, dtype)
        elif strange is not None:
            why = strange
        if group.done:
            return
        if why is not None:
            if place in group.used:
                group.completion = None  # the plugin opens the group again
            await self._lost(key, why)
            return
        group.futures.pop(key).release()
        group.sent.pop(key)
        group.outputs[place] = output
        self._finish_if_whole(group)

    def _finish_if_whole(self, group: GroupTransfer) -> None:
        if group.done or group.completion is None or not group.used <= group.outputs.keys():
            return
        group.done = True
        group.release()
        self._give_up_inputs(group, group.sent)
        self.groups.pop(group.number)
        self._spawn(group.finish(group))

    def _give_up_inputs(self, group: GroupTransfer, keys: Iterable[Key]) -> None:
        for key in keys:
            self._stale[group.sent[key].address].append(key)

    async def _lost(self, key: Key, why: str) -> None:
        await self._connection.call("report", lost=[(key, why)])


def unlike(output: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> str | None:
    """The fault of an output that is to be a plain array of that shape and dtype; None if
    nothing is.

    Subclasses (masked arrays, for one) compare in their own way: what is masked equals everything.
    """
    if type(output) is not np.ndarray:
        return f"an output of type {type(output).__name__[:80]!r} instead of 'ndarray'"
    if output.shape != shape or output.dtype != dtype:
        return f"output {output.shape} {str(output.dtype)[:80]} instead of {shape} {dtype}"
    return None


def blank(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """Outputs not there: NaN, or 0 where the dtype has none."""
    return np.full(shape, np.nan if dtype.kind in "fc" else 0, dtype)
