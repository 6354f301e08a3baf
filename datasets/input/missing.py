"""Chunks that a store does not hold, noted as they are read: Zarr gives the fill value for them.

A process that reads an old copy of a store, or one that is still being copied, sees such chunks
where others do not.
"""

from __future__ import annotations

from collections.abc import Callable

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

_METADATA = ("zarr.json", ".zgroup", ".zarray", ".zattrs", ".zmetadata")


class NotingStore(WrapperStore[Store]):
    """A store that calls ``missing`` with the key of each chunk that is asked for and not there."""

    def __init__(self, store: Store, missing: Callable[[str], None]) -> None:
        super().__init__(store)
        self._missing = missing

    def _with_store(self, store: Store) -> NotingStore:
        return type(self)(store, self._missing)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        found = await self._store.get(key, prototype, byte_range)
        if found is None and key.rpartition("/")[2] not in _METADATA:
            self._missing(key)
        return found
