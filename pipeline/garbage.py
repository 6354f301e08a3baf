"""Python's garbage collector, kept from making stragglers.

A full collection walks every object of a process. With torch and Dask imported that takes a tenth
of a second or more, in which nothing else happens: workers that began together pause together, and
on a scheduler in the client's process the clock stands still. Workers forked from one process copy
the memory that they share, besides. So what is there when a run begins, imports above all, is set
aside while any run lasts; what runs make meanwhile is collected as ever.

What a run leaves is collected before the next one: a torch module refers to itself, and what it
weighs is freed in no other way. Not at its end, when a cluster may be closing.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.RLock()
_users = 0
_left = False  #: whether a run has been here since the last full collection
_frozen = False  #: by us: what somebody else has frozen stays so


def collect_leftovers() -> None:
    """Collect what earlier runs in this process have left, unless another one lasts."""
    global _left
    with _lock:
        if _left and _users == 0:
            gc.collect()
            _left = False


@contextmanager
def set_aside() -> Iterator[None]:
    """Keep what is there now out of collections, until the last that asked for it is through."""
    global _users, _left, _frozen
    with _lock:
        collect_leftovers()
        _users += 1
        if _users == 1 and gc.get_freeze_count() == 0:
            gc.freeze()
            _frozen = True
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            _left = True
            if _users == 0 and _frozen:
                gc.unfreeze()
                _frozen = False
