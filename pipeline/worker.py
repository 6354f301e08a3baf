"""The part of a run on the workers: the model's set-up, and one share.

Both are found by import on the worker; a run ships only data. Events go to the scheduler's plugin
by ``Worker.log_event`` under the topic `TOPIC` (`approxifer.pipeline.protocol`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from distributed import Reschedule, Worker, WorkerPlugin, get_worker

from approxifer.models import ModelHandle, Runner, Stopped, cache, run_rows
from approxifer.models.names import first_line
from approxifer.pipeline import garbage
from approxifer.pipeline.byzantine.hardware import hardware_class
from approxifer.pipeline.handlers import Handler
from approxifer.pipeline.keys import (
    TOPIC,
    Key,
    as_key,
    model_plugin_name,
    proof_handler,
    put_handler,
    read_handler,
    run_of,
)
from approxifer.pipeline.protocol import (
    Ended,
    Place,
    Ready,
    SmallOutput,
    Started,
    Unready,
    WorkerReport,
    to_wire,
)
from approxifer.pipeline.share_rows import Description, ShareRows
from approxifer.version import __version__

if TYPE_CHECKING:  # they import xarray and zarr, which not every worker needs
    from approxifer.pipeline.queries import Recipe
    from approxifer.pipeline.reading import InputReader

#: Environment variables that name a worker's node: ours, which goes before, and Slurm's.
NODE_VARIABLES = ("APPROXIFER_NODE", "SLURMD_NODENAME")


#: What is said of a share's input where chunks of it were read and not there.
MISSING = "missing"

#: One micro-batch (M, *feature) in, its outputs (M, *out) out.
Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Hook:
    """Changes to how one worker of this process runs shares: by default none."""

    run: Callable[[Run], Run] = lambda run: run  #: the model, for one share
    output: Callable[[np.ndarray], np.ndarray] = lambda output: output  #: of a share: (B, *out)


#: By the name of the worker. Empty, unless faults are injected (`approxifer.pipeline.faults`).
HOOKS: dict[str, Hook] = {}


def hook_of(worker_name: object) -> Hook:
    """Look up the changes of one worker."""
    return HOOKS.get(str(worker_name), Hook())


@dataclass(frozen=True, eq=False)
class ShareInput:
    """The input of one share on its worker."""

    rows: ShareRows  #: (B, *feature), or what is to be read
    #: Rows that mix what is not finite: their output is NaN, or 0 where it has no NaN.
    blank: tuple[int, ...] = ()


class ModelOnWorker(WorkerPlugin):
    """A run on one worker: its models, and the inputs of its shares.

    Loads the models once per worker process, also on workers that join or restart later: the
    user's, and the parity models, if there are any.

    Readiness is reported, not assumed: a worker whose set-up fails joins all the same, and the
    scheduler's plugin gives shares only to those that are ready with the right fingerprint.
    """

    def __init__(
        self,
        run: str,
        handles: Sequence[ModelHandle],
        threads: int,
        row: np.ndarray,
        micro_batch: int,
        recipe: Recipe | None = None,
    ) -> None:
        self.run = run
        self.handles = tuple(handles)
        self.threads = threads
        self.row = row  #: (1, *feature)
        self.micro_batch = micro_batch
        self.name = model_plugin_name(run)
        self.recipe = recipe  #: of the input; None: the client sends all rows
        self.inputs: dict[Key, ShareInput] = {}  #: of shares that have not started
        self._reader: InputReader | None = None
        self._until_teardown = ExitStack()

    @property
    def fingerprint(self) -> str:
        """Of all models together."""
        return joined(handle.fingerprint for handle in self.handles)

    async def setup(self, worker: Worker) -> None:
        """Load the model off the worker's event loop, then report it."""
        worker.handlers[put_handler(self.run)] = Handler(self.put)
        if self.recipe is not None:
            self._reading = ThreadPoolExecutor(1, "approxifer-read")
            self._until_teardown.callback(self._reading.shutdown, wait=False, cancel_futures=True)
            self._proof = self._reading.submit(self._open_input)  # while the model is loaded
            worker.handlers[read_handler(self.run)] = Handler(self.read)
            worker.handlers[proof_handler(self.run)] = Handler(self.proof)
        report: WorkerReport
        try:
            loop = asyncio.get_running_loop()
            runners = await loop.run_in_executor(None, self._load)
            found = joined(runner.fingerprint for runner in runners)
            hardware = hardware_class(runners[0], self.threads)
            place = Place(node_name(), _device(runners[0]), hardware)
            report = Ready(self.run, __version__, found, place)
        except Exception as error:
            report = Unready(self.run, __version__, f"{type(error).__name__}: {error}")
        if worker.plugins.get(self.name) is not self:  # the run has ended meanwhile
            self._forget_models(worker)
            return
        self._until_teardown.enter_context(garbage.frozen_gc())
        worker.log_event(TOPIC, to_wire(report))

    def _open_input(self) -> str:
        """Open the input, and show what is read. Off the worker's event loop: importing xarray and
        zarr takes a second, for which a worker would seem to hang."""
        from approxifer.pipeline.reading import InputReader

        assert self.recipe is not None, "it is to be read"
        self._reader = InputReader(self.recipe)
        return self._reader.proof()

    def _load(self) -> list[Runner]:
        """Load the models, and run each once: a first pass takes many times as long as the others,
        and would make a straggler of its worker."""
        garbage.collect_leftovers()  # earlier models, before there is another one
        runners = [cache.ensure(handle, self.threads) for handle in self.handles]
        for runner in runners:
            run_rows(runner, self.row, self.micro_batch)
        return runners

    async def put(
        self, share: Key, rows: np.ndarray, blank: Sequence[int], stale: Iterable[Key]
    ) -> None:
        """Take in a share's input (B, *feature), and forget those of shares that are not wanted
        any more; called by the client. See `ShareInput`."""
        self._forget_inputs(stale)
        self.inputs[as_key(share)] = ShareInput(rows, tuple(blank))

    async def read(self, share: Key, described: list[Any], stale: Iterable[Key]) -> str:
        """Read a share's input, ahead of its turn; mixtures, which may never be run, once they
        start. Called by the client like `put`.

        Returns
        -------
        str
            The reason for which it cannot be read; "" if it is; `MISSING` if that is to be
            confirmed.
        """
        self._forget_inputs(stale)
        assert self._reader is not None, "the client has asked for the proof before"
        key, rows = as_key(share), Description.of(described)
        self.inputs[key] = ShareInput(rows)
        if rows.mixed:
            return ""
        try:
            loop = asyncio.get_running_loop()
            call = self._reader.made
            loaded, blank, missing = await loop.run_in_executor(self._reading, call, rows)
        except Exception as error:  # the user's data and functions
            self.inputs.pop(key, None)
            return first_line(error)
        if missing:
            self.inputs.pop(key, None)
            return MISSING
        if key in self.inputs:  # it is still wanted
            self.inputs[key] = ShareInput(loaded, tuple(blank))
        return ""

    async def proof(self) -> list[str]:
        """Show what is read here: a digest; or "", and the reason for which nothing is."""
        try:
            return [await asyncio.wrap_future(self._proof), ""]
        except Exception as error:  # likewise
            return ["", first_line(error)]

    def take(self, key: Key) -> ShareInput | None:
        """The input of a share that starts, read by now; None where it is gone.

        Mixtures have no output where chunks of their queries were missing: nobody has confirmed it.
        """
        found = self.inputs.pop(key, None)
        if found is None or isinstance(found.rows, np.ndarray) or self._reader is None:
            return found
        rows, blank, missing = self._reader.made(found.rows)
        return ShareInput(rows, tuple(range(len(rows)) if missing else blank))

    def _forget_inputs(self, stale: Iterable[Key]) -> None:
        for key in stale:
            self.inputs.pop(as_key(key), None)

    def teardown(self, worker: Worker) -> None:
        """Take no more inputs; forget the models that no other run on this worker uses."""
        for name in (put_handler, read_handler, proof_handler):
            worker.handlers.pop(name(self.run), None)
        self._until_teardown.close()
        self._forget_models(worker)

    def _forget_models(self, worker: Worker) -> None:
        others = [p for p in worker.plugins.values() if isinstance(p, ModelOnWorker)]
        used = {handle.fingerprint for other in others for handle in other.handles}
        for handle in self.handles:
            if handle.fingerprint not in used:
                cache.forget(handle.fingerprint)


def joined(fingerprints: Iterable[str]) -> str:
    """The fingerprints of several models as one."""
    return "+".join(fingerprints)


def _device(runner: Runner) -> str:
    """The device that the model runs on, distinct from the other devices of the host."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return f"{runner.device}:{visible}" if runner.device == "cuda" and visible else runner.device


def node_name() -> str:
    """The node that this process runs on, where its environment names it; "": its host does.

    Several nodes may have one address (behind a gateway, or simulated on one machine).
    """
    return next(filter(None, map(os.environ.get, NODE_VARIABLES)), "")


def run_share(fingerprint: str, *, micro_batch: int) -> np.ndarray:
    """Run a model on a share whose input is here (`ModelOnWorker.put`); see `run_input`.

    Raises
    ------
    Reschedule
        The input is gone (the share was dropped meanwhile, or has run before), or cannot be read.
        Dask forgets it, or asks the scheduler again, where the plugin counts it as lost; and logs
        no error.
    """
    worker = get_worker()
    key: Any = worker.get_current_task()
    plugin = worker.plugins.get(model_plugin_name(run_of(key)))
    try:
        share = plugin.take(key) if isinstance(plugin, ModelOnWorker) else None
    except Exception as error:  # the user's data and functions
        raise Reschedule from error
    if share is None:
        raise Reschedule
    assert isinstance(share.rows, np.ndarray), "it is read"
    return run_input(share.rows, fingerprint, micro_batch=micro_batch, blank=share.blank)


def run_input(
    rows: np.ndarray, fingerprint: str, *, micro_batch: int, blank: Sequence[int] = ()
) -> np.ndarray:
    """Run a model on one share's input, micro-batch by micro-batch.

    Parameters
    ----------
    rows : (B, *feature)
    fingerprint
        Names the model in this process's cache.
    micro_batch
        Rows of every forward pass.
    blank
        Rows without an output: see `ShareInput`.

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
    hook = hook_of(worker.name)
    runner = hook.run(cache.get(fingerprint))

    def before_batch(rows_started: int) -> None:
        nonlocal evaluations
        task = worker.state.tasks.get(key)
        if task is None or task.state == "cancelled":
            raise Stopped(f"share {key} was dropped")
        evaluations += rows_started

    def report(what: Started | Ended) -> None:
        worker.log_event(TOPIC, to_wire(what))

    report(Started(key))
    whole, found = False, None
    try:
        outputs = run_rows(runner, rows, micro_batch, before_batch=before_batch)
        if len(blank):
            outputs[list(blank)] = np.nan if outputs.dtype.kind in "fc" else 0
        whole, found = True, hook.output(outputs)
        return found
    finally:
        report(Ended(key, evaluations, whole, SmallOutput.of(found)))
