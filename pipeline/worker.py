"""What runs on the workers: the model's set-up, and one share.

Both are found by import on the worker; a run ships only data. Events go to the scheduler's plugin
by ``Worker.log_event`` under the topic `TOPIC`.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import numpy as np
from distributed import Worker, WorkerPlugin, get_worker
from distributed.worker_state_machine import FreeKeysEvent

from approxifer.models import ModelHandle, Runner, Stopped, cache, run_rows
from approxifer.pipeline import faults
from approxifer.pipeline.keys import TOPIC, input_key, model_plugin_name
from approxifer.version import __version__


class ModelOnWorker(WorkerPlugin):
    """Loads a run's model once per worker process, also on workers that join or restart later.

    Readiness is announced, not assumed: a worker whose set-up fails joins all the same, and the
    scheduler's plugin gives shares only to those that said ``ready`` with the right fingerprint.
    """

    def __init__(
        self, run: str, handle: ModelHandle, threads: int, row: np.ndarray, micro_batch: int
    ) -> None:
        self.run = run
        self.handle = handle
        self.threads = threads
        self.row = row  #: (1, *feature)
        self.micro_batch = micro_batch
        self.name = model_plugin_name(run)

    async def setup(self, worker: Worker) -> None:
        """Load the model off the worker's event loop, then say so."""
        report: dict[str, Any] = {"run": self.run, "version": __version__}
        try:
            loop = asyncio.get_running_loop()
            runner = await loop.run_in_executor(None, self._load)
            report |= {"op": "ready", "fingerprint": runner.fingerprint, "device": _device(runner)}
        except Exception as error:
            report |= {"op": "unready", "error": f"{type(error).__name__}: {error}"}
        worker.log_event(TOPIC, report)

    def _load(self) -> Runner:
        """Load the model, and run it once: a first pass takes many times as long as the others,
        and would make a straggler of its worker."""
        runner = cache.ensure(self.handle, self.threads)
        run_rows(runner, self.row, self.micro_batch)
        return runner

    def teardown(self, worker: Worker) -> None:
        """Forget the model, unless another run on this worker uses the same one, and inputs that
        no client announced to the scheduler: it was killed, or had given this worker up."""
        self._free_inputs(worker)
        asyncio.get_running_loop().call_later(1.0, self._free_inputs, worker)
        others = [p for p in worker.plugins.values() if isinstance(p, ModelOnWorker)]
        if all(other.handle.fingerprint != self.handle.fingerprint for other in others):
            cache.forget(self.handle.fingerprint)

    def _free_inputs(self, worker: Worker) -> None:
        name = input_key(self.run, 0, 0, 0)[0]
        keys = [key for key in worker.data if isinstance(key, tuple) and key[0] == name]
        if keys:
            stimulus = f"approxifer-free-{time.time()}"
            worker.handle_stimulus(FreeKeysEvent(keys=keys, stimulus_id=stimulus))


def _device(runner: Runner) -> str:
    """What the model runs on, told apart from the other devices of the host."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return f"{runner.device}:{visible}" if runner.device == "cuda" and visible else runner.device


def run_share(rows: np.ndarray, *, fingerprint: str, micro_batch: int) -> np.ndarray:
    """Run the model on one share, micro-batch by micro-batch.

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
