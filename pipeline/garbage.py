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
from collections.abc import Iterator
from contextlib import contextmanager

from approxifer.together import SharedContext

_left = False  #: whether the last run has ended, and nothing was collected since


def collect_leftovers() -> None:
    """Collect what earlier runs in this process have left, unless another one lasts."""
    global _left
    if _left:
        gc.collect()
        _left = False


@contextmanager
def _frozen() -> Iterator[None]:
    global _left
    collect_leftovers()
    ours = gc.get_freeze_count() == 0  # what somebody else has frozen stays so
    if ours:
        gc.freeze()
    try:
        yield
    finally:
        if ours:
            gc.unfreeze()
        _left = True


_set_aside = SharedContext(_frozen)


def frozen_gc() -> SharedContext:
    """Keep what is there now out of collections, until the last that asked for it is through."""
    return _set_aside
