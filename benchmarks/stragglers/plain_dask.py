"""Plain Dask on the same shares: one ``client.map`` over the blocks of a Zarr array, nothing tuned.

Each worker reads its rows, runs the model on them, and suffers what
`approxifer.pipeline.faults` has injected there, as a share of ours does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import inf
from typing import Any

import numpy as np
import zarr
from distributed import Client, LocalCluster, SchedulerPlugin, get_worker

from approxifer.benchmarks.stragglers.latency import Latency, latencies
from approxifer.models import Runner, open_model, run_rows
from approxifer.pipeline.worker import hook_of


@dataclass(frozen=True)
class Blocks:
    """A Zarr array in a store, cut into shares, and the model for them."""

    store: str
    variable: str
    model: str
    block: int
    micro_batch: int


@cache
def _load(model: str) -> Runner:
    return open_model(model).load(threads=1)


@cache
def _rows(store: str, variable: str) -> Any:
    return zarr.open_group(store, mode="r")[variable]


def warm(blocks: Blocks) -> None:
    """Load the model, and run it once."""
    rows = np.asarray(_rows(blocks.store, blocks.variable)[: blocks.micro_batch], np.float32)
    run_rows(_load(blocks.model), rows, blocks.micro_batch)


def predict(share: int, blocks: Blocks) -> tuple[float, np.ndarray]:
    """The time of its start, and the outputs (B, *out)."""
    began = time.monotonic()
    first = share * blocks.block
    rows = _rows(blocks.store, blocks.variable)[first : first + blocks.block]
    run = hook_of(get_worker().name).run(_load(blocks.model))
    return began, run_rows(run, np.asarray(rows, np.float32), blocks.micro_batch)


class Watch(SchedulerPlugin):
    """Times when the scheduler knows that a task is back; the clock by which ours are timed too."""

    def __init__(self) -> None:
        self.back: dict[Any, float] = {}

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """See a task return."""
        if finish == "memory":
            self.back[key] = time.monotonic()


def score(
    cluster: LocalCluster,
    client: Client,
    blocks: Blocks,
    *,
    groups: int,
    k: int,
    limit: float,
    idle: float,
) -> tuple[list[Latency], float, bool, Mapping[int, np.ndarray]]:
    """Run groups of K shares.

    Parameters
    ----------
    limit, idle : float
        Seconds after which it is cut: in all, or without anything coming back.

    Returns
    -------
    latencies : list of Latency
    seconds : float
        From the call until all outputs are here, or until it is cut.
    whole : bool
        Whether it came to its end.
    outputs : mapping
        By share: (B, *out).
    """
    assert cluster.scheduler is not None
    watch = Watch()
    cluster.scheduler.add_plugin(watch, name="approxifer-bench-watch")
    count = groups * k
    begin = time.monotonic()
    futures = client.map(predict, range(count), blocks=blocks, pure=False)
    try:
        known, moved = 0, begin
        while known < count:
            time.sleep(0.02)
            now = time.monotonic()
            if len(watch.back) > known:
                known, moved = len(watch.back), now
            if now - begin > limit or now - moved > idle:
                break
        back = {n: future for n, future in enumerate(futures) if future.key in watch.back}
        gathered = dict(zip(back, client.gather(list(back.values())), strict=True))
        seconds = time.monotonic() - begin
        stops = [watch.back.get(future.key, inf) for future in futures]
    finally:
        cluster.scheduler.remove_plugin("approxifer-bench-watch")
        client.cancel(futures, force=True)
    starts = [gathered[n][0] if n in gathered else inf for n in range(count)]
    found = latencies(starts, stops, k)
    return found, seconds, known == count, {n: output for n, (_, output) in gathered.items()}
