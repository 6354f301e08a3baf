"""The messages between client, scheduler plugin and workers.

On the wire a message is a dict of plain values, with the name of its kind under ``op``: `to_wire`.
Workers may send anything: `read_report` bounds it, and drops what makes no sense. The client trusts
the plugin, which has the client's version: `read_event`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from approxifer.pipeline.keys import Key, as_key
from approxifer.pipeline.records import AttemptOutcome
from approxifer.text import duration

#: Characters of a text from a worker that are kept.
LONGEST = 500
#: Bytes of an output that travels with the message that its share has ended.
SMALL = 2**16
#: Shares that a person is shown one by one.
SHOWN = 8

# ---- from a worker to the plugin -----------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A worker's own statements about itself; each at most `LONGEST` characters."""

    node: str = ""  #: as its environment calls it; "": as its host
    device: str = ""  #: that the model runs on there
    hardware: str = ""  #: see `approxifer.pipeline.byzantine.hardware`


@dataclass(frozen=True)
class Ready:
    """A worker has loaded a run's models."""

    op: ClassVar = "ready"
    run: str
    version: str
    fingerprint: str
    place: Place


@dataclass(frozen=True)
class Unready:
    """A worker could not load a run's models."""

    op: ClassVar = "unready"
    run: str
    version: str
    error: str


@dataclass(frozen=True)
class Started:
    """A worker has begun a share."""

    op: ClassVar = "started"
    key: Key


@dataclass(frozen=True)
class SmallOutput:
    """An output that travels within a message, instead of being fetched."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes  #: at most `SMALL`

    @classmethod
    def of(cls, output: Any) -> SmallOutput | None:
        """Of a plain array of numbers; None of anything else, and of larger ones."""
        if type(output) is not np.ndarray or output.nbytes > SMALL or output.dtype.kind in "OV":
            return None
        return cls(output.dtype.str, output.shape, output.tobytes())

    @classmethod
    def read(cls, fields: Any) -> SmallOutput | None:
        """From a message, which may be anything; None where it makes no sense."""
        match fields:
            case {"dtype": str(dtype), "shape": [*shape], "data": bytes(data)}:
                plain = all(type(size) is int and 0 <= size <= SMALL for size in shape)
                if plain and len(dtype) <= LONGEST and len(shape) <= 32 and len(data) <= SMALL:
                    return cls(dtype, tuple(shape), data)
        return None

    def array(self) -> np.ndarray:
        """The output.

        Raises
        ------
        TypeError, ValueError
            It is none.
        """
        return np.frombuffer(self.data, np.dtype(self.dtype)).reshape(self.shape).copy()


@dataclass(frozen=True)
class Ended:
    """A worker has left a share: ``whole``, or stopped or failed after starting ``rows``."""

    op: ClassVar = "ended"
    key: Key
    rows: int
    whole: bool
    output: SmallOutput | None = None  #: None: it is to be fetched, or there is none


WorkerReport = Ready | Unready | Started | Ended


def read_report(message: Any) -> WorkerReport | None:
    """Read a worker's message, which may be anything; None where it makes no sense."""
    if not isinstance(message, dict) or type(message.get("op")) is not str:
        return None
    match message:
        case {"op": "started", "key": [str(name), str(token)]}:
            return Started((name, token))
        case {"op": "ended", "key": [str(name), str(token)], "rows": rows, "whole": whole}:
            plain = type(rows) is int and type(whole) is bool
            output = SmallOutput.read(message.get("output"))
            return Ended((name, token), rows, whole, output) if plain else None
        case {"op": "unready", "run": str(run)}:
            return Unready(run, _text(message.get("version")), _text(message.get("error")))
        case {"op": "ready", "run": str(run)}:
            version, place = _text(message.get("version")), message.get("place")
            for name in Place.__dataclass_fields__:
                claim = place.get(name) if isinstance(place, dict) else None
                if not isinstance(claim, str) or len(claim) > LONGEST:
                    why = f"its {name} is no text of at most {LONGEST} characters"
                    return Unready(run, version, why)
            # Compared at once, and not kept: of any length, for there may be many models.
            fingerprint = message.get("fingerprint")
            fingerprint = fingerprint if isinstance(fingerprint, str) else ""
            return Ready(run, version, fingerprint, _place(place))
    return None


def _text(given: Any) -> str:
    return given[:LONGEST] if isinstance(given, str) and given else "(something unreadable)"


def _place(fields: Any) -> Place:
    return Place(*(fields[name] for name in Place.__dataclass_fields__))


# ---- from the plugin to a client -----------------------------------------------------------------


@dataclass(frozen=True)
class Sent:
    """One attempt at one share, and where it is sent."""

    share: int
    attempt: int
    worker: str
    address: str
    key: Key


@dataclass(frozen=True)
class Send:
    """Shares of a group are placed: send their inputs, and submit them."""

    op: ClassVar = "send"
    group: int
    to: tuple[Sent, ...]


@dataclass(frozen=True)
class Returned:
    """A share's output, of so many bytes, is on its worker: fetch it, unless it is here."""

    op: ClassVar = "in"
    group: int
    key: Key
    nbytes: int
    output: SmallOutput | None = None


@dataclass(frozen=True)
class Attempt:
    """The end of one attempt at one share. Times are seconds since the run began."""

    share: int
    attempt: int
    worker: str
    member: int  #: incarnation of the worker
    fate: AttemptOutcome
    start: float | None = None
    stop: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Complete:
    """No more shares of a group are wanted."""

    op: ClassVar = "complete"
    group: int
    broken: bool  #: there is not an output for every block: its shares failed too often
    used: tuple[tuple[int, int], ...]  #: (share, attempt): to decode from
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True)
class WorkerChange:
    """A worker is ``ready``, ``hung``, ``restarting``, ``convicted`` or ``gone`` now."""

    op: ClassVar = "worker"
    worker: str
    what: str
    time: float  #: seconds since the run began
    incarnation: int
    host: str
    place: Place


@dataclass(frozen=True)
class Contradiction:
    """A worker states another place than it did at first."""

    op: ClassVar = "changed"
    worker: str
    incarnation: int
    stated: Place
    kept: Place


@dataclass(frozen=True)
class ConvictedElsewhere:
    """Another run on this scheduler has convicted workers."""

    op: ClassVar = "conviction"
    bars: tuple[dict[str, str | None], ...]  #: fields of `scheduler.state.Bar`
    conviction: dict[str, Any]  #: as the journal keeps it


@dataclass(frozen=True)
class HeldShare:
    """A share that has not come back, and the seconds since it started or, else, was sent."""

    group: int
    share: int
    worker: str
    seconds: float
    running: bool


@dataclass(frozen=True)
class Stalled:
    """No share has come back for long."""

    op: ClassVar = "stalled"
    seconds: float
    final: bool  #: the run gives up
    ready: int  #: workers that may be given shares
    present: int  #: all workers
    shares: tuple[HeldShare, ...]  #: that have not come back, the longest first
    unplaced: tuple[int, ...]  #: groups none of whose shares is with any worker

    def __str__(self) -> str:
        parts = [
            f"group {one.group} share {one.share} {'runs' if one.running else 'waits'} on "
            f"{one.worker} since {duration(one.seconds)}"
            for one in self.shares[:SHOWN]
        ]
        if (more := len(self.shares) - SHOWN) > 0:
            parts.append(f"{more:,} shares more")
        if count := len(self.unplaced):
            parts.append(f"{count:,} group{'s' * (count != 1)} without a worker that may run them")
        parts.append(f"{self.ready} of {self.present} workers can be used")
        return f"no share has come back for {duration(self.seconds)}: {'; '.join(parts)}"


RunEvent = Send | Returned | Complete | WorkerChange | Contradiction | ConvictedElsewhere | Stalled


def read_event(message: Mapping[str, Any]) -> RunEvent:
    """Read a message of the plugin's."""
    fields: dict[str, Any] = dict(message)
    match fields.pop("op"):
        case Send.op:
            to = (Sent(**one | {"key": as_key(one["key"])}) for one in fields["to"])
            return Send(fields["group"], tuple(to))
        case Returned.op:
            output = SmallOutput.read(fields["output"])
            return Returned(**fields | {"key": as_key(fields["key"]), "output": output})
        case Complete.op:
            used = tuple((share, attempt) for share, attempt in fields["used"])
            fated = (a | {"fate": AttemptOutcome(a["fate"])} for a in fields["attempts"])
            attempts = tuple(Attempt(**one) for one in fated)
            return Complete(**fields | {"used": used, "attempts": attempts})
        case WorkerChange.op:
            return WorkerChange(**fields | {"place": _place(fields["place"])})
        case Contradiction.op:
            places = {name: _place(fields[name]) for name in ("stated", "kept")}
            return Contradiction(**fields | places)
        case ConvictedElsewhere.op:
            return ConvictedElsewhere(tuple(fields["bars"]), fields["conviction"])
        case Stalled.op:
            shares = tuple(HeldShare(**one) for one in fields["shares"])
            return Stalled(**fields | {"shares": shares, "unplaced": tuple(fields["unplaced"])})
    raise ValueError(f"no message of the plugin: {message}")


# ---- from a client to the plugin -----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class GroupRequest:
    """A group whose shares the plugin is to place."""

    group: int
    code: str  #: its code, by the name that the run gave it
    rows: int  #: of one share
    first: bool  #: before all that is not, instead of in turn
    avoid: tuple[str, ...] = ()  #: names of workers that get a share only where no other can
    forbid: tuple[int, ...] = ()  #: incarnations that get none
    #: The incarnation that gets them; the group ends without an output if that is late. None: any.
    only: int | None = None
    check: bool = False  #: its time does not count among the share times


# ---- both ----------------------------------------------------------------------------------------


def to_wire(message: WorkerReport | RunEvent) -> dict[str, Any]:
    """A message as it is sent."""
    return {"op": message.op} | asdict(message)
