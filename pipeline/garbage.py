"""Python's garbage collector, kept from making stragglers.

A full collection walks every object of a process. With torch and Dask imported that takes a tenth
of a second or more, in which nothing else happens: workers that began together pause together, and
on a scheduler in the client's process the clock stands still. Workers forked from one process copy
the memory that they share, besides. So what is there when a run begins, imports above all, is set
aside while any run lasts; what runs make meanwhile is collected as ever.

Afterwards there is one full collection: a torch module refers to itself, and what it weighs is
freed only by one.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_users = 0
_frozen = False  #: by us: what somebody else has frozen stays so


@contextmanager
def set_aside() -> Iterator[None]:
    """Keep what is there now out of collections, until the last that asked for it is through; then
    collect."""
    global _users, _frozen
    with _lock:
        _users += 1
        if _users == 1 and gc.get_freeze_count() == 0:
            gc.freeze()
            _frozen = True
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                if _frozen:
                    gc.unfreeze()
                    _frozen = False
                gc.collect()
