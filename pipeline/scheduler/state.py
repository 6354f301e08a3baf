"""Workers, groups and shares as the scheduler sees them. Pure.

What a worker states about itself holds once: it only separates what one address may stand for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from approxifer.coding import Code
from approxifer.pipeline.keys import Key
from approxifer.pipeline.protocol import Place, Ready, SmallOutput, Unready
from approxifer.pipeline.records import AttemptOutcome
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
    hung_at: float = -inf  #: when it was last found to be
    #: Dask gives it no tasks: its lifetime is over, it is about to leave, or short of memory.
    closed: bool = False
    retiring: bool = False  #: it was asked to leave, or its lifetime is over
    nanny: str = ""  #: address of what restarts it; "": nothing does
    pid: int = 0
    paused: bool = False  #: it is short of memory
    memory: int = 0  #: its limit in bytes; 0: none

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


@dataclass
class AttemptState:
    """One share given to one worker. Times are the scheduler's monotonic clock."""

    share: int
    attempt: int
    address: str
    name: str
    sent: float
    key: Key = ("", "")  #: Dask's, for this attempt alone
    incarnation: int = 0  #: of the worker
    lazy: bool = False
    wave: int = 0  #: shares sent together have one number, later ones a higher
    flight: int = 1  #: shares of the run that were in flight once it was sent
    start: float | None = None
    stop: float | None = None
    seconds: float | None = None  #: from its start to its end, as of a full share; None: none yet
    returned: bool = False
    output: SmallOutput | None = None  #: that has come with the report of its end
    fate: AttemptOutcome | None = None  #: None while it is live
    error: str | None = None

    @property
    def live(self) -> bool:
        """True if it may still come back."""
        return self.fate is None and not self.returned

    def overdue(self, now: float, limit: float, worker: WorkerState | None) -> bool:
        """True if it has had ``limit`` seconds on its worker, or will not get its turn in time."""
        if self.start is not None:
            return now - self.start > limit
        if worker is None or worker.stuck(now, limit):
            return True
        # Behind other people's tasks nothing is known of the queue: one limit for each place in it.
        return now - self.sent > (1 + worker.queued) * limit + 1.0


@dataclass
class GroupState:
    """A group's shares and where they are."""

    group: int
    code: Code
    rows: int  #: rows of one share
    priority: float
    avoid: frozenset[str] = frozenset()  #: names of workers that failed these rows before
    forbid: frozenset[int] = frozenset()  #: incarnations that must not run it
    only: int | None = None  #: the one incarnation that may run it; None: any
    check: bool = False  #: its time does not count among those of shares
    attempts: list[AttemptState] = field(default_factory=list)
    complete: bool = False
    settled: bool = False  #: the client has all that it needs of it

    def present(self) -> dict[int, AttemptState]:
        """The shares that came back, each by its first attempt to do so."""
        found: dict[int, AttemptState] = {}
        for attempt in self.attempts:
            if attempt.returned and attempt.fate in (
                None,
                AttemptOutcome.USED,
                AttemptOutcome.SPARE,
            ):
                found.setdefault(attempt.share, attempt)
        return found

    def failures(self, share: int) -> int:
        """The number of times the model raised on a share, or its worker died of it."""
        return sum(a.share == share and a.fate is AttemptOutcome.FAILED for a in self.attempts)


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
