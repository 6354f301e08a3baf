"""Independent tasks, side by side in processes that hold something large in common."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context, parent_process
from typing import Any, Protocol, TypeVar

from threadpoolctl import threadpool_limits

Shared = TypeVar("Shared")
Result = TypeVar("Result")

_shared: Any = None  #: in each process


class Pool(Protocol):
    """Calls ``function(shared, *task)`` for each task; the results come in the tasks' order."""

    def __call__(
        self, function: Callable[..., Result], tasks: Iterable[tuple[Any, ...]]
    ) -> Iterator[Result]:
        """Begin with all of them."""


@contextmanager
def process_pool(shared: Any, processes: int) -> Iterator[Pool]:
    """Start processes, which end with the context.

    Parameters
    ----------
    shared
        Sent to each process once.
    processes : int
        1: all is done in this one.
    """
    if processes == 1:
        yield lambda function, tasks: (function(shared, *task) for task in tasks)
        return
    with ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=_take, initargs=(shared,)
    ) as pool:
        yield lambda function, tasks: pool.map(partial(_do, function), tasks)


def _take(shared: Any) -> None:
    """Begin a process: one thread, or the matrix products of several get into each other's way."""
    global _shared
    threadpool_limits(1)
    _shared = shared
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Do not wait for tasks for ever where the parent was killed."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _do(function: Callable[..., Result], task: tuple[Any, ...]) -> Result:
    return function(_shared, *task)
