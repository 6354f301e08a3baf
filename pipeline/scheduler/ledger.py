"""The workers of one run: a record of each, the model on each, and those shut out. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from approxifer.pipeline.protocol import Contradiction, Ready, Unready, WorkerChange
from approxifer.pipeline.records import WorkerRecord
from approxifer.pipeline.scheduler.starting import Starts
from approxifer.pipeline.scheduler.state import Bar, WorkerState, unfit
from approxifer.pipeline.scheduler.times import ShareTimes


class Ledger:
    """The workers of one run.

    Parameters
    ----------
    run
        Its name.
    fingerprint
        Of the client's model.
    workers
        By address, shared by all runs.
    barred
        Workers that other runs have convicted.

    Attributes
    ----------
    records : dict
        By name: names survive a nanny's restart, addresses do not.
    unready : dict
        The reason for which a worker has no model, by name.
    starts : Starts
        Workers that leave while they load it.
    """

    def __init__(
        self,
        run: str,
        fingerprint: str,
        workers: Mapping[str, WorkerState],
        barred: Iterable[Bar] = (),
    ) -> None:
        self.records: dict[str, WorkerRecord] = {}
        self.unready: dict[str, str] = {}
        self.starts = Starts(self.unready)
        self.barred = set(barred)
        self._run, self._fingerprint, self._workers = run, fingerprint, workers
        self._contradicted: set[int] = set()  #: incarnations that did so
        self._shut_out: set[int] = set()  #: incarnations of which the client is notified

    def record(self, name: str) -> WorkerRecord:
        """The record of a worker."""
        return self.records.setdefault(name, WorkerRecord(name))

    def serves(self, worker: WorkerState) -> bool:
        """True if it has this run's model, and is not convicted."""
        return self._run in worker.ready and not self.is_barred(worker)

    def is_barred(self, worker: WorkerState) -> bool:
        """True if it, or the node that it runs on, is convicted."""
        return any(bar.holds(worker) for bar in self.barred)

    def ready_workers(self) -> int:
        """Workers that have this run's model, are neither hung nor paused, and may be given
        shares."""
        return sum(self.serves(w) and not (w.hung or w.paused) for w in self._workers.values())

    def change(self, worker: WorkerState, what: str, time: float) -> WorkerChange:
        """A worker becomes ``ready`` (or, where it is barred, ``convicted``), ``hung``,
        ``restarting``, ``convicted`` or ``gone``, so many seconds after the run began."""
        if what in ("ready", "convicted") and self.is_barred(worker):
            what = "convicted"
            self._shut_out.add(worker.incarnation)
        record = self.record(worker.name)
        record.host = worker.place.node or worker.host
        record.restarts += what == "restarting"
        if record.state != "convicted":  # for good
            record.state = what
        incarnation, host, place = worker.incarnation, worker.host, worker.place
        return WorkerChange(worker.name, what, time, incarnation, host, place)

    def model_loaded(
        self, worker: WorkerState, report: Ready | Unready, time: float
    ) -> list[Contradiction | WorkerChange]:
        """A worker reports that it has loaded the run's model, or could not, and its place.

        The place that it states first holds: of another one the client is notified, once.
        """
        fresh, events = self._run not in worker.ready, list[Contradiction | WorkerChange]()
        why = unfit(report, self._fingerprint)
        if why or isinstance(report, Unready):
            if fresh:
                self.unready[worker.name] = why
            return events
        stated, incarnation = report.place, worker.incarnation
        if not worker.introduce(stated) and incarnation not in self._contradicted:
            self._contradicted.add(incarnation)
            events.append(Contradiction(worker.name, incarnation, stated, worker.place))
        if fresh:
            worker.ready.add(self._run)
            self.unready.pop(worker.name, None)
            events.append(self.change(worker, "ready", time))
        return events

    def bar(self, bars: Iterable[Bar], time: float) -> list[WorkerChange]:
        """Shut convicted workers out."""
        self.barred.update(bars)
        return [
            self.change(worker, "convicted", time)
            for worker in self._workers.values()
            if self.is_barred(worker) and worker.incarnation not in self._shut_out
        ]

    def summary(self, open_rows: Mapping[str, int], times: ShareTimes) -> dict[str, Any]:
        """A record for each worker, and what else the client keeps.

        Parameters
        ----------
        open_rows
            Rows of shares that never came to an end, by worker: they are counted whole.
        times
        """
        workers = []
        for name, record in self.records.items():
            evaluations = record.evaluations + open_rows.get(name, 0)
            latency = times.latency(name)
            workers.append(asdict(record) | {"latency": latency, "evaluations": evaluations})
        able = self.starts.able(self._workers.values())
        common = {"typical": times.typical, "unready": self.unready, "able": able}
        return {"workers": workers, **common}
