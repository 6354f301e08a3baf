"""Stores at a URL: a limit on the time of each read, and another try where that can help.

Libraries below differ in both: aiohttp waits for five minutes for a server that never answers, and
never tries again. So the store is wrapped, whatever its protocol.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore, WrapperStore

from approxifer.errors import ConfigError
from approxifer.text import one_line

#: The key of ``storage_options`` that is ours: seconds that one read may take.
LIMIT = "read_timeout"
#: Its default: long enough for a chunk of 100 MB on a slow line.
READ_SECONDS = 30.0
#: Tries of one read, unless they have taken twice the limit before.
TRIES = 5
#: Seconds before the second try; twice as long before each further one.
PAUSE = 0.2

_BUSY = {408, 425, 429, 500, 502, 503, 504}
_REFUSED = {401, 403, 407}
#: Options that carry credentials, by the URL's scheme.
_CREDENTIALS = {
    "s3": "{'key': ..., 'secret': ...}, or {'anon': True} for a public bucket",
    "gs": "{'token': ...}, or {'token': 'anon'} for a public bucket",
    "gcs": "{'token': ...}, or {'token': 'anon'} for a public bucket",
    "abfs": "{'account_name': ..., 'account_key': ...}",
    "az": "{'account_name': ..., 'account_key': ...}",
    "http": "{'headers': {'Authorization': ...}}",
    "https": "{'headers': {'Authorization': ...}}",
}

T = TypeVar("T")


def is_url(location: str) -> bool:
    """True for an fsspec URL, chained ones too."""
    return "://" in location or "::" in location


def open_url(url: str, options: Mapping[str, Any] | None) -> Store:
    """Open a store for reading.

    Parameters
    ----------
    url
        An fsspec URL.
    options
        ``storage_options``: `LIMIT`, and what fsspec's file system takes.

    Raises
    ------
    ConfigError
        A limit that is no positive number.
    """
    rest = dict(options or {})
    seconds = rest.pop(LIMIT, READ_SECONDS)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        raise ConfigError(
            f"storage_options has {LIMIT}={seconds!r}; give the seconds that one read may take, "
            "more than 0"
        )
    return PatientStore(FsspecStore.from_url(url, storage_options=rest, read_only=True), seconds)


class PatientStore(WrapperStore[Store]):
    """A store each read of which ends in time, and is tried again after a passing failure.

    Parameters
    ----------
    store
    seconds
        Limit of one try.
    """

    def __init__(self, store: Store, seconds: float = READ_SECONDS) -> None:
        super().__init__(store)
        self._seconds = seconds

    def _with_store(self, store: Store) -> PatientStore:
        return type(self)(store, self._seconds)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        return await self._patiently(lambda: self._store.get(key, prototype, byte_range))

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        ranges = list(key_ranges)
        return await self._patiently(lambda: self._store.get_partial_values(prototype, ranges))

    async def exists(self, key: str) -> bool:
        return await self._patiently(lambda: self._store.exists(key))

    async def list(self) -> AsyncIterator[str]:
        for name in await self._patiently(lambda: _all(self._store.list())):
            yield name

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for name in await self._patiently(lambda: _all(self._store.list_prefix(prefix))):
            yield name

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        for name in await self._patiently(lambda: _all(self._store.list_dir(prefix))):
            yield name

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        began = time.monotonic()
        for turn in range(TRIES):
            try:
                return await self._in_time(ask())
            except Exception as error:
                spent = time.monotonic() - began
                if turn == TRIES - 1 or spent >= 2 * self._seconds or not _passing(error):
                    raise
            await asyncio.sleep(PAUSE * 2**turn)
        raise AssertionError("not reached")

    async def _in_time(self, answer: Awaitable[T]) -> T:
        try:
            return await asyncio.wait_for(answer, self._seconds)
        except TimeoutError as error:
            raise TimeoutError(f"the server gave no answer within {self._seconds:g} s") from error


async def _all(names: AsyncIterator[str]) -> tuple[str, ...]:
    return tuple([name async for name in names])


def _passing(error: Exception) -> bool:
    """True for a failure that another try may not meet: a busy server, a dropped connection."""
    status = _status(error)
    if status is not None:
        return status in _BUSY
    if isinstance(error, PermissionError | FileNotFoundError | ImportError | ValueError):
        return False
    return isinstance(error, OSError | EOFError) or type(error).__module__.startswith("aiohttp")


def _status(error: BaseException) -> int | None:
    """HTTP's status of an answer, where there is one."""
    status = getattr(error, "status", None)
    return status if isinstance(status, int) and status > 0 else None


def reason(error: BaseException, url: str) -> str:
    """One line on why a read of a URL failed, and on the setting that mends it, where one does."""
    for one in _causes(error):
        named = type(one).__name__
        if _status(one) in _REFUSED or isinstance(one, PermissionError) or "Credentials" in named:
            scheme = url.split("://")[0].rpartition("::")[2]
            example = _CREDENTIALS.get(scheme, "those of its fsspec file system")
            return (
                f"access was refused ({one_line(one)}). Give credentials with storage_options=, "
                f"for {scheme or 'this URL'}: {example}"
            )
        if isinstance(one, TimeoutError) and str(one):
            return (
                f"{one_line(one)}, several times. Try later, or allow for more time with "
                f"storage_options={{'{LIMIT}': seconds}}"
            )
    return one_line(error) or type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
