"""Carries a group's shares to the workers and its outputs back, each share on its own.

It follows the plugin's news: ``send`` gives shares to workers, ``in`` says that an output can be
fetched, ``complete`` that no more shares are wanted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from distributed import Future

from approxifer.pipeline import transport
from approxifer.pipeline.keys import Key, input_key, share_key
from approxifer.pipeline.records import Testimony
from approxifer.pipeline.session import Session

Spawn = Callable[[Coroutine[Any, Any, None]], None]


@dataclass
class GroupRun:
    """A group on the client: its shares, and the outputs that are back."""

    number: int
    shares: np.ndarray  #: (N, B, *feature)
    finish: Callable[[GroupRun], Coroutine[Any, Any, None]]  #: called once it is complete
    outputs: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)
    #: Outputs of another shape or dtype, for which a stand-in is in ``outputs``.
    malformed: dict[tuple[int, int], str] = field(default_factory=dict)
    futures: dict[Key, tuple[Future[Any], Future[Any]]] = field(default_factory=dict)
    completion: dict[str, Any] | None = None  #: the plugin's word that no more shares are wanted
    done: bool = False
    code: str = ""  #: by its name, as the courier was asked to take it

    @property
    def used(self) -> set[tuple[int, int]]:
        """The shares, and which attempt of each, that are to be decoded from."""
        return {(s, a) for s, a in self.completion["used"]} if self.completion else set()

    @property
    def testimonies(self) -> dict[int, Testimony]:
        """By share: what is to be decoded from, and who returned it."""
        names = {(a["share"], a["attempt"]): a["worker"] for a in self.history}
        return {
            share: Testimony(
                names[share, attempt],
                self.outputs[share, attempt],
                self.malformed.get((share, attempt)),
            )
            for share, attempt in sorted(self.used)
        }

    @property
    def history(self) -> list[dict[str, Any]]:
        """What became of each attempt at each share, as the journal keeps it."""
        return list(self.completion["attempts"]) if self.completion else []

    def release(self) -> None:
        """Let the scheduler forget what is left of it."""
        for pair in self.futures.values():
            for future in pair:
                future.release()
        self.futures.clear()


class Courier:
    """The groups in flight.

    Parameters
    ----------
    fingerprints : mapping
        By a code's name: of the model that runs each of its shares.
    """

    def __init__(
        self,
        session: Session,
        *,
        fingerprints: Mapping[str, Sequence[str]],
        micro_batch: int,
        output_shape: tuple[int, ...],
        output_dtype: np.dtype[Any],
        spawn: Spawn,
        keep_malformed: bool,
    ) -> None:
        self.groups: dict[int, GroupRun] = {}
        self._session = session
        self._client = session.client
        self._fingerprints = fingerprints
        self._micro_batch = micro_batch
        self._output_shape = output_shape
        self._output_dtype = output_dtype
        self._spawn = spawn
        self._keep_malformed = keep_malformed

    async def take(
        self,
        group: GroupRun,
        *,
        code: str,
        priority: int,
        avoid: frozenset[str] = frozenset(),
        forbid: frozenset[str] = frozenset(),
    ) -> None:
        """Have the plugin place a group's shares: if it can be not on workers to ``avoid``, and
        never on those to ``forbid``."""
        self.groups[group.number] = group
        group.code = code
        opening = {
            "group": group.number,
            "code": code,
            "rows": group.shares.shape[1],
            "priority": priority,
            "avoid": sorted(avoid),
            "forbid": sorted(forbid),
        }
        await self._session.tell("groups", groups=[opening])

    def hear(self, event: dict[str, Any]) -> None:
        """Act on one piece of news."""
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

    def release(self) -> None:
        """Drop every group in flight."""
        for group in self.groups.values():
            group.done = True
            group.release()
        self.groups.clear()

    # ---- there ----------------------------------------------------------------------------------

    async def _send(self, group: GroupRun, to: list[tuple[int, int, str]]) -> None:
        """Lay the inputs on their workers, and submit each share as soon as its input is there."""
        pushes: dict[asyncio.Task[None], tuple[int, int, str]] = {}
        for share, attempt, address in to:
            key = input_key(self._session.run, group.number, share, attempt)
            push = transport.push(self._client, address, key, group.shares[share])
            pushes[asyncio.create_task(push)] = (share, attempt, address)
        pending = set(pushes)
        try:
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                if pending:  # those that are nearly there come along
                    more, pending = await asyncio.wait(pending, timeout=0.005)
                    done |= more
                arrived = []
                for task in done:
                    if task.exception() is None:
                        arrived.append(pushes[task])
                    else:
                        share, attempt, _ = pushes[task]
                        await self._lost(group, share, attempt, f"not sent: {task.exception()!r}")
                await self._submit(group, arrived)
        finally:
            for task in pending:
                task.cancel()

    async def _submit(self, group: GroupRun, arrived: Sequence[tuple[int, int, str]]) -> None:
        if not arrived:
            return
        run, nbytes = self._session.run, group.shares[0].nbytes
        held = {
            input_key(run, group.number, share, attempt): (address, nbytes)
            for share, attempt, address in arrived
        }
        try:
            inputs = await transport.announce(self._client, held)
        except KeyError:  # a worker has left meanwhile: one by one, to find out which
            if len(arrived) == 1:
                share, attempt, _ = arrived[0]
                await self._lost(group, share, attempt, "its worker left")
                return
            for one in arrived:
                await self._submit(group, [one])
            return
        if group.done:
            for future in inputs:
                future.release()
            return
        self._compute(group, [(s, a) for s, a, _ in arrived], inputs)

    def _compute(
        self, group: GroupRun, shares: Sequence[tuple[int, int]], inputs: Sequence[Future[Any]]
    ) -> None:
        run = self._session.run
        keys = [share_key(run, group.number, share, attempt) for share, attempt in shares]
        futures = transport.submit(
            self._client,
            inputs,
            keys,
            [self._fingerprints[group.code][share] for share, _ in shares],
            micro_batch=self._micro_batch,
        )
        group.futures |= dict(zip(keys, zip(inputs, futures, strict=True), strict=True))
        if len(shares) > 1:
            self._spawn(self._each_alone(group, shares, inputs, futures))

    async def _each_alone(
        self,
        group: GroupRun,
        shares: Sequence[tuple[int, int]],
        inputs: Sequence[Future[Any]],
        futures: Sequence[Future[Any]],
    ) -> None:
        """Submit shares again, each by itself, that were refused together because a worker left
        with the input of one; the plugin drops those that are not wanted any more."""
        if not await transport.refused(futures) or group.done:
            return
        for future in futures:
            future.release()
        await asyncio.sleep(0.01)  # until the client has forgotten them
        for share, put in zip(shares, inputs, strict=True):
            if not group.done and not put.cancelled():
                self._compute(group, [share], [put])

    # ---- and back -------------------------------------------------------------------------------

    async def _fetch(self, group: GroupRun, share: int, attempt: int, address: str) -> None:
        key = share_key(self._session.run, group.number, share, attempt)
        expected = (group.shares.shape[1], *self._output_shape)
        nbytes = int(np.prod(expected)) * self._output_dtype.itemsize
        why = None
        try:
            output = await transport.fetch(self._client, address, key, nbytes)
        except (OSError, KeyError) as error:  # TimeoutError is an OSError
            why = f"not fetched: {error!r}"
        else:
            found = (getattr(output, "shape", None), getattr(output, "dtype", None))
            if found != (expected, self._output_dtype):
                why = f"output {found} instead of {expected} {self._output_dtype}"
                if self._keep_malformed:
                    group.malformed[share, attempt], why = why, None
                    output = blank(expected, self._output_dtype)
        if group.done:
            return
        if why is not None:
            if (share, attempt) in group.used:
                group.completion = None  # the plugin opens the group again
            await self._lost(group, share, attempt, why)
            return
        for future in group.futures.pop(key, ()):
            future.release()
        group.outputs[share, attempt] = output
        self._finish_if_whole(group)

    def _finish_if_whole(self, group: GroupRun) -> None:
        if group.done or group.completion is None or not group.used <= group.outputs.keys():
            return
        group.done = True
        group.release()
        self.groups.pop(group.number)
        self._spawn(group.finish(group))

    async def _lost(self, group: GroupRun, share: int, attempt: int, why: str) -> None:
        key = share_key(self._session.run, group.number, share, attempt)
        await self._session.tell("report", lost=[(key, why)])


def blank(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """Outputs not there: NaN, or 0 where the dtype has none."""
    return np.full(shape, np.nan if dtype.kind in "fc" else 0, dtype)
