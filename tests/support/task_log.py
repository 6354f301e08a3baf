"""All that Dask passes to a worker of the tasks that it is given."""

from __future__ import annotations

from typing import Any

from distributed import Worker, WorkerPlugin

NAME = "task-log"


class TaskLog(WorkerPlugin):
    """Keeps each task's key, priority, function and arguments."""

    name = NAME

    def setup(self, worker: Worker) -> None:
        """Keep the worker."""
        self._worker = worker
        self.seen: dict[Any, tuple[float, Any]] = {}

    def transition(self, key: Any, start: str, finish: str, **kwargs: Any) -> None:
        """Look at a task that is about to run."""
        if finish == "executing":
            task = self._worker.state.tasks[key]
            spec = task.run_spec
            call = (spec.func.__name__, repr(spec.args), repr(spec.kwargs), task.annotations)
            self.seen[key] = (task.priority[0], repr(call))


def read(dask_worker: Worker) -> dict[Any, tuple[float, Any]]:
    """What one has kept; for ``client.run``."""
    return dask_worker.plugins[NAME].seen
