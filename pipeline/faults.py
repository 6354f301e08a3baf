"""A seeded injector of worker faults, for the demo, the tests and the benchmarks.

``install(client, {"worker-1": Slow(10), "worker-2": Hang()})`` gives workers, by name, a fault that
every share run there suffers, whichever run it belongs to; a worker that restarts under the same
name has it again. ``remove(client)`` takes all faults away.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from distributed import Client, Worker, WorkerPlugin

#: One micro-batch (M, *feature) in, its outputs (M, *out) out.
Run = Callable[[np.ndarray], np.ndarray]
#: The same through a fault: the model and the micro-batch in.
FaultyRun = Callable[[Run, np.ndarray], np.ndarray]

PLUGIN = "approxifer-faults"


class Fault(Protocol):
    """What is wrong with a worker."""

    def arm(self, rng: np.random.Generator) -> FaultyRun:
        """The fault, with its own state, as one worker process suffers it."""


@dataclass(frozen=True)
class Slow:
    """Each micro-batch takes ``factor`` times as long, and at least ``seconds`` longer; with a
    ``share`` below 1 only that part of them, drawn at random."""

    factor: float = 10.0
    seconds: float = 0.0
    share: float = 1.0

    def arm(self, rng: np.random.Generator) -> FaultyRun:
        """Sleep after the forward pass, as a throttled machine would."""

        def slow(run: Run, rows: np.ndarray) -> np.ndarray:
            begin = time.perf_counter()
            out = run(rows)
            if rng.random() < self.share:
                spent = time.perf_counter() - begin
                time.sleep(max((self.factor - 1) * spent, self.seconds))
            return out

        return slow


@dataclass(frozen=True)
class Hang:
    """The function never returns, from the worker's ``after``-th micro-batch on; the worker itself
    stays responsive."""

    after: int = 0

    def arm(self, rng: np.random.Generator) -> FaultyRun:
        """Wait for an event that never comes."""
        healthy = iter(range(self.after))

        def hang(run: Run, rows: np.ndarray) -> np.ndarray:
            if next(healthy, None) is None:
                threading.Event().wait()
            return run(rows)

        return hang


@dataclass(frozen=True)
class Raise:
    """The model raises, for a random ``share`` of the micro-batches."""

    share: float = 1.0
    message: str = "injected fault"

    def arm(self, rng: np.random.Generator) -> FaultyRun:
        """Raise before the forward pass."""

        def fail(run: Run, rows: np.ndarray) -> np.ndarray:
            if rng.random() < self.share:
                raise RuntimeError(self.message)
            return run(rows)

        return fail


#: The faults of this process's workers, by worker name.
_armed: dict[str, FaultyRun] = {}


class FaultPlugin(WorkerPlugin):
    """Carries the table of faults to the workers, those that join later included."""

    name = PLUGIN

    def __init__(self, faults: Mapping[str, Fault], seed: int) -> None:
        self.faults = dict(faults)
        self.seed = seed

    def setup(self, worker: Worker) -> None:
        """Arm the fault of this worker, if it has one."""
        name = str(worker.name)
        if name in self.faults:
            rng = np.random.default_rng([self.seed, *name.encode()])
            _armed[name] = self.faults[name].arm(rng)

    def teardown(self, worker: Worker) -> None:
        """Disarm it."""
        _armed.pop(str(worker.name), None)


def install(client: Client, faults: Mapping[str, Fault], *, seed: int = 0) -> None:
    """Arm faults on workers, by name; replaces what was installed before."""
    client.register_plugin(FaultPlugin(faults, seed), name=PLUGIN)


def remove(client: Client) -> None:
    """Take all faults away (a function that hangs goes on hanging)."""
    with contextlib.suppress(KeyError):  # from a worker that has just joined, without it
        client.unregister_worker_plugin(PLUGIN)


def through(run: Run, worker_name: object) -> Run:
    """The model as this worker runs it: ``run`` itself on a worker without a fault."""
    armed = _armed.get(str(worker_name))
    return run if armed is None else partial(armed, run)
