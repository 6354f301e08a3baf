"""Settings of the whole process that several threads want for a while."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack


class SharedContext(AbstractContextManager[None]):
    """A context that the first of any number of threads enters, and the last leaves.

    Each for itself, of two threads that overlap the first to go would take the setting from under
    the other, which then would put it back for good.

    Parameters
    ----------
    make : callable
        Makes the context: called for the first thread, and again once all have left.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[object]]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._users = 0
        self._entered = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._entered.enter_context(self._make())
            self._users += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._entered.close()
