"""The Dask calls that move shares, chosen because none of them can be stalled by one hung worker.

``Client.scatter`` waits for ever for a stopped target, and ``Client.gather`` merges what is asked
for in one turn of the loop, so that a hung worker holds up, or cancels, everybody else. Here each
worker is spoken to alone, under a time limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from distributed import Client, Future, as_completed
from distributed.protocol.serialize import to_serialize
from distributed.worker import get_data_from_worker

from approxifer.pipeline.keys import Key
from approxifer.pipeline.worker import run_share

#: Seconds that a push or a fetch may take, and the slowest network (bytes/s) it allows for.
PATIENCE = 5.0
SLOWEST = 5e6


def time_limit(nbytes: int) -> float:
    """Seconds after which moving that much counts as failed."""
    return PATIENCE + nbytes / SLOWEST


async def push(client: Client, address: str, key: Key, rows: np.ndarray) -> None:
    """Lay a share's input on its worker.

    Raises
    ------
    OSError, TimeoutError
        The worker cannot be reached, or does not answer.
    """
    worker: Any = client.rpc(address)
    call = worker.update_data(data={key: to_serialize(rows)})
    await asyncio.wait_for(call, time_limit(rows.nbytes))


async def announce(client: Client, held: Mapping[Key, tuple[str, int]]) -> list[Future[Any]]:
    """Tell the scheduler which worker holds which input (address, bytes); the client wants them.

    Raises
    ------
    KeyError
        One of the workers has left meanwhile.
    """
    scheduler: Any = client.scheduler
    await scheduler.update_data(
        who_has={key: [address] for key, (address, _) in held.items()},
        nbytes={key: nbytes for key, (_, nbytes) in held.items()},
        client=client.id,
    )
    return [Future(key, client) for key in held]


def submit(
    client: Client,
    inputs: Sequence[Future[Any]],
    keys: Sequence[Key],
    fingerprints: Sequence[str],
    *,
    micro_batch: int,
) -> list[Future[Any]]:
    """Have shares run, each by its model; the scheduler's plugin pins each to the worker that holds
    its input."""
    futures: list[Future[Any]] = client.map(
        run_share,
        inputs,
        fingerprints,
        key=list(keys),
        pure=False,
        micro_batch=micro_batch,
    )
    return futures


async def refused(futures: Sequence[Future[Any]]) -> bool:
    """Wait for the first of what was submitted together to end, in whatever way; whether nothing of
    it was taken in. The scheduler refuses a graph whole of which one input has been lost."""
    async for _ in as_completed(futures[:1], loop=futures[0].client.loop):
        pass
    return all(future.cancelled() for future in futures)


async def fetch(client: Client, address: str, key: Key, nbytes: int) -> Any:
    """The output of a share, from its worker.

    Raises
    ------
    OSError, TimeoutError
        The worker cannot be reached, or does not answer.
    KeyError
        It no longer has the key.
    """
    async with asyncio.timeout(time_limit(nbytes)):
        while True:
            response = await get_data_from_worker(client.rpc, keys=[key], worker=address)
            if response["status"] == "OK":
                return response["data"][key]
            await asyncio.sleep(0.05)  # the worker serves others just now
