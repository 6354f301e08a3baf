"""Rows and predictions as they return, for ``async for block in job``, in bounded memory.

Blocks that nobody has taken when their window is written are forgotten and read back from the store
when their turn comes, so a slow reader, or none, costs no memory.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable

from approxifer.pipeline.records import Block

#: Reads the committed rows [start, stop) back as blocks' material.
ReadBack = Callable[[int, int], Block]


class BlockStream:
    """Filled by the engine's thread, emptied by any number of loops in other threads."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._items: deque[tuple[int, Block | tuple[int, int]]] = deque()
        self._closed = False
        self._error: BaseException | None = None
        self.read_back: ReadBack | None = None

    def put(self, window: int, block: Block) -> None:
        """Add a block of an open window."""
        with self._lock:
            self._items.append((window, block))
            self._lock.notify_all()

    def committed(self, window: int, start: int, stop: int, *, again: bool = False) -> None:
        """A window is written: what is left of its blocks is read from the store from now on, or
        ``again`` all of it, its blocks having been provisional."""
        with self._lock:
            left = [item for item in self._items if item[0] == window]
            if left or again:
                self._items = deque(item for item in self._items if item[0] != window)
                self._items.append((window, (start, stop)))
                self._lock.notify_all()

    def close(self, error: BaseException | None = None) -> None:
        """No more blocks: iteration ends, or raises ``error``."""
        with self._lock:
            self._closed, self._error = True, error
            self._lock.notify_all()

    def _wait(self, timeout: float) -> None:
        with self._lock:
            if not self._items and not self._closed:
                self._lock.wait(timeout)

    def _take(self) -> Block | tuple[int, int] | None:
        with self._lock:
            return self._items.popleft()[1] if self._items else None

    async def blocks(self) -> AsyncIterator[Block]:
        """Yield blocks until the run ends.

        Rows of a window that was written before its blocks were taken come once more, whole.
        """
        while True:
            ended = self._closed  # before looking: what was put before it is still yielded
            await asyncio.to_thread(self._wait, 0.2)
            item = self._take()  # here: a reader that is cancelled while it waits takes nothing
            if isinstance(item, Block):
                yield item
            elif item is not None and self.read_back is not None:
                yield await asyncio.to_thread(self.read_back, *item)
            elif ended and self._error is not None:
                raise self._error
            elif ended:
                return
