"""Injection of faults into workers, for the demo, the tests and the benchmarks.

``install(client, {"worker-1": Slow(10), "worker-2": Hang(), "worker-3": SignFlip()})`` gives
workers, by name, a fault that every share run there suffers, whichever run it belongs to; a worker
that restarts under the same name has it again. A worker may have several: ``[Slow(10), Noise()]``
is slow and wrong. ``remove(client)`` takes all faults away.

Faults of two kinds: some change how a worker runs the model (`faults.execution`), others what it
returns for a share (`faults.corruption`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from distributed import Client, Worker, WorkerPlugin

from approxifer.pipeline.faults.corruption import Corruption, Corruptor
from approxifer.pipeline.faults.execution import RunFault, StuckWeight, Wrap
from approxifer.pipeline.worker import HOOKS, Hook

PLUGIN = "approxifer-faults"

#: What is wrong with a worker.
Fault: TypeAlias = RunFault | Corruption


class FaultPlugin(WorkerPlugin):
    """Carries the table of faults to the workers, those that join later included."""

    name = PLUGIN

    def __init__(self, faults: Mapping[str, Fault | Sequence[Fault]], seed: int) -> None:
        self.faults = {
            name: tuple(given) if isinstance(given, Sequence) else (given,)
            for name, given in faults.items()
        }
        self.seed = seed

    def setup(self, worker: Worker) -> None:
        """Arm the faults of this worker, if it has any."""
        name = str(worker.name)
        if name in self.faults:
            rng = np.random.default_rng([self.seed, *name.encode()])
            wraps: list[Wrap] = []
            corruptors: list[Corruptor] = []
            # A stuck weight comes first: it needs the model itself, not one that is slowed already.
            for fault in sorted(self.faults[name], key=lambda f: not isinstance(f, StuckWeight)):
                if isinstance(fault, Corruption):
                    corruptors.append(fault.bind(rng))
                else:
                    wraps.append(fault.bind(rng))
            HOOKS[name] = Hook(
                partial(_chain, wraps), partial(_chain, [one.corrupt for one in corruptors])
            )

    def teardown(self, worker: Worker) -> None:
        """Disarm them."""
        HOOKS.pop(str(worker.name), None)


def install(
    client: Client, faults: Mapping[str, Fault | Sequence[Fault]], *, seed: int = 0
) -> None:
    """Arm faults on workers, by name; replaces what was installed before.

    Lies of one worker are told one after the other, each about what the last has made of it.
    """
    client.register_plugin(FaultPlugin(faults, seed), name=PLUGIN)


def remove(client: Client) -> None:
    """Take all faults away (a function that hangs goes on hanging)."""
    # From a worker that has just joined, without it; and from one that is being restarted.
    with contextlib.suppress(KeyError, OSError):
        client.unregister_worker_plugin(PLUGIN)


def _chain(functions: Sequence[Callable[[Any], Any]], value: Any) -> Any:
    """Apply one function after the other."""
    for function in functions:
        value = function(value)
    return value
