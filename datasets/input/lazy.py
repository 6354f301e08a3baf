"""Rows of a Dask array: each block of it is computed once while it is near at hand.

Blocks of a lazy array are computed by this process's threads. Those of a persisted one are results
on a cluster, and are read through the client that holds them.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import cloudpickle
import numpy as np
import xarray as xr
from dask._task_spec import Task
from dask.core import flatten

#: Bytes of computed blocks that are kept. The windows, the probe of the model and the fingerprint
#: read the same blocks; what made them may be dear.
KEPT_BYTES = 2**26
#: Seconds within which a result has to come over from the worker that holds it.
FETCH_SECONDS = 60.0
#: Pickled bytes of a lazy array with which every worker is sent it.
SENT_BYTES = 4 * 10**6
#: Tasks of all blocks, each made for itself, for each task of all together, that are put up with.
SHARED = 1.25
#: Dask's priority of what is read, on workers that have other work.
PRIORITY = 100


class DaskRows:
    """Rows along one axis of a Dask array.

    Parameters
    ----------
    data : dask.array.Array
    axis : int
    """

    def __init__(self, data: Any, axis: int) -> None:
        self._clients = clients_of(data)
        self._data = data
        self._axis = axis
        self._bounds = np.cumsum([0, *data.chunks[axis]])
        other = math.prod(size for at, size in enumerate(data.shape) if at != axis)
        self._row_bytes = max(1, other * data.dtype.itemsize)
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def keeps(self) -> bool:
        """True if a block of it is small enough to be kept."""
        return bool(np.diff(self._bounds).max() * self._row_bytes <= KEPT_BYTES)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop), with the rows' axis first."""
        if start == stop or not self.keeps:
            return self._compute(start, stop)
        first = int(np.searchsorted(self._bounds, start, "right")) - 1
        last = int(np.searchsorted(self._bounds, stop, "left"))
        with self._lock:
            blocks = self._blocks(range(first, last))
        offset = int(self._bounds[first])
        return np.concatenate(blocks)[start - offset : stop - offset]

    def slab(self, at: Sequence[slice]) -> np.ndarray:
        """A part of the array, its axes in place."""
        part = self._data[tuple(at)]
        if self._clients:
            return _unmasked(_fetched(part, self._clients[0]))
        return _unmasked(part.compute(scheduler="threads"))  # not on the cluster that is scoring

    def _blocks(self, numbers: range) -> list[np.ndarray]:
        missing = [number for number in numbers if number not in self._kept]
        found = {number: self._kept[number] for number in numbers if number in self._kept}
        while missing:  # neighbours together, for the threads' sake
            count = 1
            while count < len(missing) and missing[count] == missing[0] + count:
                count += 1
            run, missing = missing[:count], missing[count:]
            lows = self._bounds[run[0] : run[-1] + 2]
            rows = self._compute(int(lows[0]), int(lows[-1]))
            found |= dict(zip(run, np.split(rows, lows[1:-1] - lows[0]), strict=True))
        for number in numbers:
            self._keep(number, found[number])
        return [found[number] for number in numbers]

    def _keep(self, number: int, rows: np.ndarray) -> None:
        self._kept[number] = rows if rows.base is None else rows.copy()
        self._kept.move_to_end(number)
        while sum(one.nbytes for one in self._kept.values()) > KEPT_BYTES:
            self._kept.popitem(last=False)

    def _compute(self, start: int, stop: int) -> np.ndarray:
        at = (*[slice(None)] * self._axis, slice(start, stop))
        return np.moveaxis(self.slab(at), self._axis, 0)


def unsendable(data: xr.DataArray) -> str:
    """The reason for which other processes cannot read a lazy array as it is; "": they can.

    They can if it is small once it is pickled, and each of its blocks is made for itself: what all
    of them need, such as a mean of everything, each process would compute again.
    """
    if data.chunks is None:
        if isinstance(data.variable._data, np.ndarray):
            return "the input is an array in memory"
    elif clients_of(data.data):
        return "the input is persisted on a cluster"
    elif _shared(data.data):
        return "the blocks of the lazy input have work in common"
    try:
        size = len(cloudpickle.dumps(data.drop_vars(list(data.coords))))
    except Exception as error:
        return f"the input cannot be pickled: {type(error).__name__}"
    if size > SENT_BYTES:
        return f"the lazy input takes {size / 1e6:.0f} MB to describe"
    return ""


def _shared(data: Any) -> bool:
    """True if the blocks of a Dask array together take more work each for itself."""
    graph, keys = data.__dask_graph__(), list(flatten(data.__dask_keys__()))
    some = [keys[i] for i in np.linspace(0, len(keys) - 1, min(3, len(keys))).astype(int)]
    most = max(_work(graph, {key}) for key in some)
    return most * len(keys) > SHARED * _work(graph, set(keys))


def _work(graph: Any, keys: set[Any]) -> int:
    """The number of tasks that some results take, objects that are only handed on left out."""
    tasks = dict(graph.cull(keys)).values()
    return sum(isinstance(task, tuple | Task) for task in tasks)


def clients_of(data: Any) -> list[Any]:
    """List the Dask clients that hold results of which an array is made, each once.

    Parameters
    ----------
    data : dask.array.Array

    Returns
    -------
    list of distributed.Client
        Empty for a lazy array.
    """
    layers = [layer for layer in data.dask.layers.values() if layer.is_materialized()]
    futures = (one for layer in layers for one in layer.values() if _is_future(one))
    return list({id(client): client for client in (one.client for one in futures)}.values())


def _is_future(value: Any) -> bool:
    kind = type(value)
    return kind.__name__ == "Future" and kind.__module__.startswith("distributed")


def _fetched(part: Any, client: Any) -> Any:
    """Values of a part of a persisted array. Not for the client's own thread.

    A worker that holds some of them and hangs is waited for until Dask removes it (its
    ``worker-ttl``) and computes them elsewhere.
    """
    future = client.compute(part, priority=PRIORITY)
    future.exception()  # until it is there: it may be computed only now
    return future.result(timeout=FETCH_SECONDS)


def _unmasked(values: Any) -> np.ndarray:
    """Masked numbers as NaN, as xarray has them in arrays of its own.

    Raises
    ------
    ValueError
        Masked numbers of a type without NaN.
    """
    if isinstance(values, np.ma.MaskedArray):
        if not np.ma.getmaskarray(values).any():
            return np.asarray(values.data)
        if values.dtype.kind not in "fc":
            raise ValueError(
                f"it holds masked {values.dtype}, which has no NaN for them: fill them first"
            )
        return np.asarray(values.filled(np.nan))
    return np.asarray(values)
