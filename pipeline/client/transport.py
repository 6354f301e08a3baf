"""The Dask calls that move shares, chosen because none of them can be stalled by one hung worker.

``Client.scatter`` waits for ever for a stopped target, and ``Client.gather`` merges what is asked
for in one turn of the loop, so that a hung worker holds up, or cancels, everybody else. Here each
worker is called alone, under a time limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
from distributed import Client, Future
from distributed.protocol.serialize import to_serialize
from distributed.worker import get_data_from_worker

from approxifer.pipeline.client.connection import Connection
from approxifer.pipeline.keys import Key, proof_handler, put_handler, read_handler, run_of
from approxifer.pipeline.share_rows import Description
from approxifer.pipeline.worker import MISSING, run_share

#: Seconds that a push or a fetch may take, and the slowest network (bytes/s) it allows for.
PATIENCE = 5.0
SLOWEST = 5e6
#: Seconds that a worker may take to read a share's input. Others run the share meanwhile, if late.
READING = 60.0


def time_limit(nbytes: int) -> float:
    """Seconds after which moving that much counts as failed."""
    return PATIENCE + nbytes / SLOWEST


async def push(
    client: Client,
    address: str,
    key: Key,
    rows: np.ndarray,
    blank: Sequence[int] = (),
    stale: Sequence[Key] = (),
) -> None:
    """Lay a share's input on its worker, which may forget those of ``stale`` shares.

    ``blank``: see `worker.ShareInput`.

    Dask's scheduler never sees inputs. If it held them it would move them when their worker
    retires, and its bookkeeping of scattered data that gets lost meanwhile can fail.

    Raises
    ------
    OSError, TimeoutError
        The worker cannot be reached, or does not answer.
    """
    put = getattr(client.rpc(address), put_handler(run_of(key)))
    call = put(share=key, rows=to_serialize(rows), blank=list(blank), stale=list(stale))
    await asyncio.wait_for(call, time_limit(rows.nbytes))


async def describe(
    client: Client, address: str, key: Key, rows: Description, stale: Sequence[Key] = ()
) -> str:
    """Have a worker read a share's input by itself; the reason for which it cannot, or "".

    Raises
    ------
    OSError, TimeoutError
        The worker cannot be reached, or does not answer.
    """
    read = getattr(client.rpc(address), read_handler(run_of(key)))
    call = read(share=key, described=rows.wire(), stale=list(stale))
    return str(await asyncio.wait_for(call, READING))


async def proof(client: Client, address: str, run: str) -> list[str]:
    """Ask a worker what it reads: see `ModelOnWorker.proof`.

    Raises
    ------
    OSError, TimeoutError
        As above.
    """
    call = getattr(client.rpc(address), proof_handler(run))()
    digest, why = await asyncio.wait_for(call, READING)
    return [str(digest), str(why)]


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


class Readers:
    """The readers of one run. Each worker process is asked once, before its first share.

    Parameters
    ----------
    connection
    own
        Makes the client's proof: see `queries.Recipe.proof`.
    notes : list of str
        Gets a sentence for each reason for which workers do not read.
    """

    def __init__(
        self, connection: Connection, own: Callable[[], Awaitable[str]], notes: list[str]
    ) -> None:
        self._connection, self._make, self._notes = connection, own, notes
        self._own: asyncio.Future[str] | None = None
        self._asked: dict[str, asyncio.Future[bool]] = {}
        self._names: dict[str, list[str]] = {}  #: of workers that do not, by reason
        self._places: dict[str, int] = {}  #: of the reasons' notes

    async def reads(self, address: str, name: str) -> bool:
        """Ask whether a worker reads what the client does."""
        if address not in self._asked:
            self._asked[address] = asyncio.ensure_future(self._ask(address, name))
        return await asyncio.shield(self._asked[address])

    def give_up(self, address: str, name: str, why: str) -> None:
        """Send a worker its rows from now on."""
        refused: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        refused.set_result(False)
        self._asked[address] = refused
        why = "chunks of the input are missing there" if why == MISSING else why
        names = self._names.setdefault(why, [])
        if name not in names:
            names.append(name)
        several = len(names) > 1
        note = (
            f"worker{'s' * several} {', '.join(names)} {'are' if several else 'is'} sent the rows, "
            f"instead of reading them: {why}"
        )
        if why in self._places:
            self._notes[self._places[why]] = note
        else:
            self._places[why] = len(self._notes)
            self._notes.append(note)

    async def _ask(self, address: str, name: str) -> bool:
        if self._own is None:
            self._own = asyncio.ensure_future(self._make())
        own = await asyncio.shield(self._own)
        try:
            digest, why = await proof(self._connection.client, address, self._connection.run)
        except TimeoutError:
            digest, why = "", "it does not answer when it is asked to"
        except OSError:  # it is gone
            return False
        if digest == own:
            return True
        why = why or "other data lies there than where the client reads"
        self.give_up(address, name, why)
        return False
