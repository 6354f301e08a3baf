"""Workers that leave, or are short of memory, before they have a run's model ready. Pure.

A worker whose process ends may come back: its nanny starts it again. One that was killed by its
memory limit will be killed again, and is given up at once; others after they ended twice, or have
stayed away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from approxifer.pipeline.scheduler.state import WorkerState

#: Seconds after which a worker whose process ended while it loaded the model has not come back.
AWAY = 15.0
#: Seconds after which a worker that has the model, and is short of memory, will stay so.
SHORT = 5.0
#: Times that a process may end before its worker is given up.
ENDS = 2


class Starts:
    """The ends of workers' processes while they load a run's model.

    Parameters
    ----------
    unready : dict
        Worker name to why it has no model: the run's own, added to.
    """

    def __init__(self, unready: dict[str, str]) -> None:
        self.unready = unready
        self._ends: Counter[str] = Counter()
        self._away: dict[str, float] = {}  #: by name: since when
        self._short: dict[str, float] = {}

    def ended(self, worker: WorkerState, *, memory: bool, now: float) -> None:
        """A worker left while it loaded the model; ``memory``: its nanny ended it for that."""
        self._ends[worker.name] += 1
        self._away[worker.name] = now
        if memory:
            limit = megabytes(worker.memory)
            self.unready[worker.name] = (
                f"was killed by its memory limit of {limit} while loading the model"
            )
        elif (count := self._ends[worker.name]) >= ENDS:
            self.unready[worker.name] = (
                f"its process ended {count} times while loading the model: look at its log"
            )

    def look(self, run: str, workers: Iterable[WorkerState], now: float) -> None:
        """Give up workers that stay away, or short of memory."""
        there = {worker.name: worker for worker in workers}
        for name, since in list(self._away.items()):
            if name in there and run in there[name].ready:
                del self._away[name], self._ends[name]
            elif name not in there and now - since > AWAY:
                self.unready.setdefault(
                    name, "its process ended while loading the model, and did not come back"
                )
        for name, worker in there.items():
            if not worker.paused or run not in worker.ready:
                if self._short.pop(name, now) < now - SHORT:
                    self.unready.pop(name, None)
            elif now - self._short.setdefault(name, now) > SHORT:
                self.unready[name] = (
                    f"has loaded the model, and too little is left of its memory limit of "
                    f"{megabytes(worker.memory)} to work: Dask has paused it"
                )

    def able(self, workers: Iterable[WorkerState]) -> int:
        """Workers that have the model or may yet get it, those included that may come back."""
        return len(({worker.name for worker in workers} | self._away.keys()) - self.unready.keys())


def killed_for_memory(logs: Iterable[tuple[str, str]], pid: int | None = None) -> bool:
    """True if a nanny's log (level and text of each record) reports that it ended a worker, or the
    one with this process id, because of its memory."""
    mark = "" if pid is None else f"(pid={pid})"
    return any(mark in text and "memory budget" in text for _, text in logs)


def megabytes(size: int) -> str:
    """Bytes for a person."""
    return f"{size / 1e6:,.0f} MB"
