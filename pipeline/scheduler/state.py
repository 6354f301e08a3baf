"""Workers as the scheduler sees them: identity and present work. Pure.

What a worker says of itself is believed once: it only tells apart what one address may stand for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from approxifer.pipeline.keys import Key
from approxifer.version import __version__

#: Seconds without a sign of life after which a worker is given no shares (it is restarted much
#: later: a call that holds Python's lock keeps a healthy worker silent for a while).
SILENT = 5.0
#: What a worker says of itself: its node, the device that the model runs on, its class of hardware.
CLAIMS = ("node", "device", "hardware")
#: Characters of a text from a worker that are kept.
LONGEST = 500


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
    introduced: bool = False  #: whether it has said who it is: node, device and hardware
    node: str = ""  #: what its environment calls it; "": as its host
    device: str = ""  #: what the model runs on there
    hardware: str = ""  #: see `approxifer.pipeline.byzantine.hardware`
    hung: bool = False
    #: Dask gives it no tasks: its lifetime is over, it is about to leave, or short of memory.
    closed: bool = False
    retiring: bool = False  #: it was asked to leave, or its lifetime is over
    paused: bool = False  #: it is short of memory
    memory: int = 0  #: its limit in bytes; 0: none
    pid: int = 0
    nanny_address: str = ""  #: what watches over its process; "": nothing does

    @property
    def queued(self) -> int:
        """Shares sent there that have not started."""
        return len(self.waiting)

    @property
    def where(self) -> str:
        """The place that it shares with others: several nodes may have one address."""
        return f"{self.host} {self.node}"

    @property
    def claims(self) -> dict[str, str]:
        """Its own statements about itself."""
        return {name: getattr(self, name) for name in CLAIMS}

    def introduce(self, said: Mapping[str, str]) -> bool:
        """Learn who it is from what it says first; whether this is what it said then."""
        if not self.introduced:
            self.introduced = True
            self.node, self.device, self.hardware = (said[name] for name in CLAIMS)
        return self.claims == dict(said)

    def stuck(self, now: float, limit: float) -> bool:
        """True if all its slots have run one share for more than ``limit`` s, or it is silent."""
        late = sum(now - since > limit for since in self.running.values())
        return late >= self.slots or self.silent(now)

    def silent(self, now: float, seconds: float = SILENT) -> bool:
        """True if nothing was heard of it for that long."""
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
        return all(value in (None, getattr(worker, name)) for name, value in vars(self).items())


def unfit(message: Mapping[str, Any], fingerprint: str) -> str:
    """The reason for which a worker is given no shares of a run.

    Parameters
    ----------
    message
        What it says once it has loaded the run's model, or could not; anything may be in it.
    fingerprint
        Of the client's model.

    Returns
    -------
    str
        "" where it is fit.
    """
    version, error = message.get("version"), message.get("error")
    if version != __version__:
        return f"approxifer {_text(version)} there, {__version__} on the scheduler"
    if message.get("op") != "ready":
        return _text(error)
    if message.get("fingerprint") != fingerprint:
        return "what it loaded is not the client's model (another fingerprint)"
    for name in CLAIMS:
        said = message.get(name)
        if not isinstance(said, str) or len(said) > LONGEST:
            return f"what it says of its {name} is no text of at most {LONGEST} characters"
    return ""


def _text(said: Any) -> str:
    return said[:LONGEST] if isinstance(said, str) and said else "(something unreadable)"
