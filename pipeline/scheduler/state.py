"""Workers as the scheduler sees them: identity and present work. Pure.

What a worker states about itself holds once: it only separates what one address may stand for.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from approxifer.pipeline.keys import Key
from approxifer.pipeline.protocol import Place, Ready, Unready
from approxifer.version import __version__

#: Seconds without a sign of life after which a worker is given no shares (it is restarted much
#: later: a call that holds Python's lock keeps a healthy worker silent for a while).
SILENT = 5.0


@dataclass
class WorkerState:
    """One worker process, whatever runs it serves."""

    address: str
    name: str
    host: str  #: of its address
    slots: int
    seen: float  #: when it last showed a sign of life
    incarnation: int = 0  #: its number: no other process on this scheduler has had it
    running: dict[Key, float] = field(default_factory=dict)  #: since when, dropped shares included
    waiting: set[Key] = field(default_factory=set)  #: sent there, not started, not idle-time work
    ready: set[str] = field(default_factory=set)  #: runs whose model it has loaded
    introduced: bool = False  #: whether it has stated its place
    place: Place = field(default_factory=Place)  #: as it stated first
    hung: bool = False
    #: Dask gives it no tasks: its lifetime is over, it is about to leave, or short of memory.
    closed: bool = False
    retiring: bool = False  #: it was asked to leave, or its lifetime is over

    @property
    def queued(self) -> int:
        """Shares sent there that have not started."""
        return len(self.waiting)

    @property
    def where(self) -> str:
        """The place that it shares with others: several nodes may have one address."""
        return f"{self.host} {self.place.node}"

    def introduce(self, place: Place) -> bool:
        """Keep the place that it states first; whether this is it."""
        if not self.introduced:
            self.introduced, self.place = True, place
        return self.place == place

    def stuck(self, now: float, limit: float) -> bool:
        """True if all its slots have run one share for more than ``limit`` s, or it is silent."""
        late = sum(now - since > limit for since in self.running.values())
        return late >= self.slots or self.silent(now)

    def silent(self, now: float, seconds: float = SILENT) -> bool:
        """True if it showed no sign of life for that long."""
        return now - self.seen > seconds


@dataclass(frozen=True, kw_only=True)
class Bar:
    """Workers to shut out: those of that name, host, node and device; None: whatever it is.

    Raises
    ------
    ValueError
        Nothing is given: it would shut out everybody.
    """

    name: str | None = None
    host: str | None = None
    node: str | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        if set(vars(self).values()) == {None}:
            raise ValueError("a bar needs a name, a host, a node or a device: none is given")

    def holds(self, worker: WorkerState) -> bool:
        """True if it shuts this worker out."""
        found = (worker.name, worker.host, worker.place.node, worker.place.device)
        wanted = (self.name, self.host, self.node, self.device)
        return all(one in (None, other) for one, other in zip(wanted, found, strict=True))


def unfit(report: Ready | Unready, fingerprint: str) -> str:
    """The reason for which a worker is given no shares of a run; "" where it is fit.

    Parameters
    ----------
    report
        Its own, once it has loaded the run's model, or could not.
    fingerprint
        Of the client's model.
    """
    if report.version != __version__:
        return f"approxifer {report.version} there, {__version__} on the scheduler"
    if isinstance(report, Unready):
        return report.error
    if report.fingerprint != fingerprint:
        return "what it loaded is not the client's model (another fingerprint)"
    return ""
