"""What runs on the workers: the model's set-up, and one share.

Both are found by import on the worker; a run ships only data. Events go to the scheduler's plugin
by ``Worker.log_event`` under the topic `TOPIC`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from distributed import Worker, WorkerPlugin, get_worker
from distributed.worker_state_machine import FreeKeysEvent

from approxifer.models import ModelHandle, Runner, Stopped, cache, run_rows
from approxifer.pipeline import faults
from approxifer.pipeline.keys import TOPIC, input_key, model_plugin_name
from approxifer.version import __version__

#: Environment variables that name a worker's node: ours, which goes before, and Slurm's.
NODE_VARIABLES = ("APPROXIFER_NODE", "SLURMD_NODENAME")


class ModelOnWorker(WorkerPlugin):
    """Loads a run's models once per worker process, also on workers that join or restart later:
    the user's, and the parity models, if there are any.

    Readiness is announced, not assumed: a worker whose set-up fails joins all the same, and the
    scheduler's plugin gives shares only to those that said ``ready`` with the right fingerprint.
    """

    def __init__(
        self,
        run: str,
        handles: Sequence[ModelHandle],
        threads: int,
        row: np.ndarray,
        micro_batch: int,
    ) -> None:
        self.run = run
        self.handles = tuple(handles)
        self.threads = threads
        self.row = row  #: (1, *feature)
        self.micro_batch = micro_batch
        self.name = model_plugin_name(run)

    @property
    def fingerprint(self) -> str:
        """Of all models together."""
        return joined(handle.fingerprint for handle in self.handles)

    async def setup(self, worker: Worker) -> None:
        """Load the model off the worker's event loop, then say so."""
        report: dict[str, Any] = {"run": self.run, "version": __version__}
        try:
            loop = asyncio.get_running_loop()
            runners = await loop.run_in_executor(None, self._load)
            found = joined(runner.fingerprint for runner in runners)
            where = {"device": _device(runners[0]), "node": node_name()}
            report |= {"op": "ready", "fingerprint": found, **where}
        except Exception as error:
            report |= {"op": "unready", "error": f"{type(error).__name__}: {error}"}
        worker.log_event(TOPIC, report)

    def _load(self) -> list[Runner]:
        """Load the models, and run each once: a first pass takes many times as long as the others,
        and would make a straggler of its worker."""
        runners = [cache.ensure(handle, self.threads) for handle in self.handles]
        for runner in runners:
            run_rows(runner, self.row, self.micro_batch)
        return runners

    def teardown(self, worker: Worker) -> None:
        """Forget the models that no other run on this worker uses, and inputs that
        no client announced to the scheduler: it was killed, or had given this worker up."""
        self._free_inputs(worker)
        asyncio.get_running_loop().call_later(1.0, self._free_inputs, worker)
        others = [p for p in worker.plugins.values() if isinstance(p, ModelOnWorker)]
        used = {handle.fingerprint for other in others for handle in other.handles}
        for handle in self.handles:
            if handle.fingerprint not in used:
                cache.forget(handle.fingerprint)

    def _free_inputs(self, worker: Worker) -> None:
        name = input_key(self.run, 0, 0, 0)[0]
        keys = [key for key in worker.data if isinstance(key, tuple) and key[0] == name]
        if keys:
            stimulus = f"approxifer-free-{time.time()}"
            worker.handle_stimulus(FreeKeysEvent(keys=keys, stimulus_id=stimulus))


def joined(fingerprints: Iterable[str]) -> str:
    """The fingerprints of several models as one."""
    return "+".join(fingerprints)


def _device(runner: Runner) -> str:
    """What the model runs on, told apart from the other devices of the host."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return f"{runner.device}:{visible}" if runner.device == "cuda" and visible else runner.device


def node_name() -> str:
    """The node that this process runs on, where its environment names it; "": its host does.

    Several nodes may have one address (behind a gateway, or simulated on one machine).
    """
    return next(filter(None, map(os.environ.get, NODE_VARIABLES)), "")


def run_share(rows: np.ndarray, fingerprint: str, *, micro_batch: int) -> np.ndarray:
    """Run a model on one share, micro-batch by micro-batch.

    Parameters
    ----------
    rows : (B, *feature)
    fingerprint
        Names the model in this process's cache.
    micro_batch
        Rows of every forward pass.

    Returns
    -------
    ndarray (B, *out)

    Raises
    ------
    Stopped
        The scheduler dropped the share meanwhile (a straggler stops at its next micro-batch).
    """
    worker = get_worker()
    key: Any = worker.get_current_task()
    evaluations = 0
    runner = faults.through(cache.get(fingerprint), worker.name)

    def before_batch(rows_started: int) -> None:
        nonlocal evaluations
        task = worker.state.tasks.get(key)
        if task is None or task.state == "cancelled":
            raise Stopped(f"share {key} was dropped")
        evaluations += rows_started

    def report(op: str, **fields: Any) -> None:
        worker.log_event(TOPIC, {"op": op, "key": list(key), **fields})

    report("started")
    begin, whole = time.perf_counter(), False
    try:
        outputs = run_rows(runner, rows, micro_batch, before_batch=before_batch)
        whole = True
        return faults.answer(outputs, worker.name)
    finally:
        report("ended", seconds=time.perf_counter() - begin, rows=evaluations, whole=whole)
