"""The Dask calls that move shares, chosen because none of them can be stalled by one hung worker.

``Client.scatter`` waits for ever for a stopped target, and ``Client.gather`` merges what is asked
for in one turn of the loop, so that a hung worker holds up, or cancels, everybody else. Here each
worker is called alone, under a time limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from distributed import Client, Future
from distributed.protocol.serialize import to_serialize
from distributed.worker import get_data_from_worker

from approxifer.pipeline.keys import Key, put_handler, run_of
from approxifer.pipeline.worker import run_share

#: Seconds that a push or a fetch may take, and the slowest network (bytes/s) it allows for.
PATIENCE = 5.0
SLOWEST = 5e6


def time_limit(nbytes: int) -> float:
    """Seconds after which moving that much counts as failed."""
    return PATIENCE + nbytes / SLOWEST


async def push(
    client: Client, address: str, key: Key, rows: np.ndarray, stale: Sequence[Key] = ()
) -> None:
    """Lay a share's input on its worker, which may forget those of ``stale`` shares.

    Dask's scheduler never sees inputs. If it held them it would move them when their worker
    retires, and its bookkeeping of scattered data that gets lost meanwhile can fail.

    Raises
    ------
    OSError, TimeoutError
        The worker cannot be reached, or does not answer.
    """
    put = getattr(client.rpc(address), put_handler(run_of(key)))
    call = put(share=key, rows=to_serialize(rows), stale=list(stale))
    await asyncio.wait_for(call, time_limit(rows.nbytes))


def submit(
    client: Client, keys: Sequence[Key], fingerprints: Sequence[str], *, micro_batch: int
) -> list[Future[Any]]:
    """Have shares run, each by its model; the scheduler's plugin pins each to the worker that its
    input was sent to."""
    futures: list[Future[Any]] = client.map(
        run_share, fingerprints, key=list(keys), pure=False, micro_batch=micro_batch
    )
    return futures


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
