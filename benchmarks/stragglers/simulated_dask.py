"""Plain Dask on the virtual clock: a worker takes the next share when it has room, and that is all.

As Dask's scheduler does it for tasks without inputs: each worker of one thread is given one share
to run and one that waits (``worker-saturation`` 1.1), in the order in which they were submitted.
Stealing, at a run's very end, is left out.
"""

from __future__ import annotations

from math import inf

from approxifer.benchmarks.stragglers.latency import Latency, latencies
from approxifer.benchmarks.stragglers.schedules import Schedule
from approxifer.benchmarks.stragglers.setup import Shape
from approxifer.benchmarks.stragglers.simulated_workers import Clock, Delays, Service

#: Shares that a worker has at one time.
HELD = 2


def play(
    k: int, *, groups: int, shape: Shape, schedule: Schedule, seed: int, delays: Delays
) -> tuple[list[Latency], float]:
    """Play a run.

    Returns
    -------
    latencies : list of Latency
    seconds : float
        Until nothing more comes back.
    """
    clock = Clock()
    batches = -(-shape.block // shape.micro_batch)
    service = Service(schedule, seed, delays, batches)
    shares = iter(range(groups * k))
    starts, stops = [inf] * (groups * k), [inf] * (groups * k)
    waiting: list[list[int]] = [[] for _ in range(shape.workers)]

    def begin(worker: int) -> None:
        if not waiting[worker]:
            return
        share = waiting[worker][0]
        starts[share] = clock.now
        length, end = service.begin(worker, clock.now), clock.now
        for _ in range(batches):
            end += length(end)
        if end < inf:
            clock.after(end - clock.now, lambda: finish(worker, share))

    def finish(worker: int, share: int) -> None:
        stops[share] = clock.now
        waiting[worker].pop(0)
        take(worker)
        clock.after(delays.gap, lambda: begin(worker))

    def take(worker: int) -> None:
        while len(waiting[worker]) < HELD and (share := next(shares, None)) is not None:
            waiting[worker].append(share)

    for _ in range(HELD):
        for worker, held in enumerate(waiting):
            if len(held) < HELD and (share := next(shares, None)) is not None:
                waiting[worker].append(share)
    for worker in range(shape.workers):
        begin(worker)
    while clock.step():
        pass
    return latencies(starts, stops, k), clock.now
