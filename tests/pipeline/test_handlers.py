"""Handlers that outlive what they belong to, as far as Dask is concerned."""

from __future__ import annotations

import asyncio
import weakref

import pytest
from distributed.core import _expects_comm

from approxifer.pipeline.handlers import Handler


class Run:
    """Something with a handler."""

    async def double(self, number: int) -> int:
        return 2 * number

    async def triple(self, number: int) -> int:
        return 3 * number


def test_it_is_called_as_dask_calls_handlers() -> None:
    run = Run()
    handler = Handler(run.double)
    assert not _expects_comm(handler)
    assert handler.__name__ == "double"
    result = handler(number=4)
    assert asyncio.iscoroutine(result)
    assert asyncio.run(result) == 8


def test_dask_keeps_one_of_each_name_and_no_run() -> None:
    size = _expects_comm.cache_info().currsize
    runs = [Run() for _ in range(5)]
    handlers = [Handler(method) for run in runs for method in (run.double, run.triple)]
    for handler in handlers:
        assert not _expects_comm(handler)
    assert _expects_comm.cache_info().currsize <= size + 2
    gone = weakref.ref(runs[0])
    del runs, handler
    assert gone() is None
    with pytest.raises(RuntimeError, match="double: the run that this belongs to has ended"):
        asyncio.run(handlers[0](number=1))
