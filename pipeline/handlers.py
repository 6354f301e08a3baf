"""Handlers that Dask's servers may call and need not keep alive."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any
from weakref import WeakMethod


class Handler:
    """A coroutine method, as a handler that does not hold the method's object.

    Dask remembers each handler that it has called, in a cache without bounds (whether it takes the
    connection). Methods themselves would keep every run's plugin, and its model on each worker, as
    long as the process lives. These are remembered once for each name.
    """

    def __init__(self, method: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        self.__name__ = method.__name__
        self._method = WeakMethod(method)

    async def __call__(self, **message: Any) -> Any:
        method = self._method()
        if method is None:
            raise RuntimeError(f"{self.__name__}: the run that this belongs to has ended")
        return await method(**message)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Handler) and other.__name__ == self.__name__

    def __hash__(self) -> int:
        return hash(self.__name__)
