"""Who contributed to a store, in this and earlier sessions, and who of them was convicted.

A worker is known within a session by its name. Beyond that depends on where the workers run: on one
host they are processes that come and go, and a conviction is about this one (session, name); on
several hosts it is the machine that is broken, and a conviction is about (host, device), whatever
jobs run there under whatever names, also in later sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from math import inf, isinf
from typing import Any, Literal

from approxifer.errors import ConfigError

#: What a conviction is about.
Quarantine = Literal["worker", "node"]
QUARANTINES: tuple[Quarantine, ...] = ("worker", "node")


@dataclass(frozen=True)
class Member:
    """A worker as the store knows it: what an index in its variable ``worker`` stands for."""

    session: str
    name: str
    host: str = ""
    device: str = ""


@dataclass(frozen=True)
class Evidence:
    """What a worker was convicted for. The share can be computed again from the input."""

    group: int
    share: int
    rows: int  #: rows of the share that were shown to be wrong
    of: int  #: rows of the share that were looked at
    deviation: float  #: the largest difference from the referee's output
    allowed: float  #: the largest difference that would have been allowed there
    referee: str  #: "client", or the workers that agreed against it
    suspicion: str  #: why the share was looked at


@dataclass(frozen=True)
class Conviction:
    """A worker, or a node, shown to be Byzantine."""

    kind: Quarantine
    member: Member
    evidence: Evidence

    def covers(self, member: Member) -> bool:
        """Whether it is about this worker."""
        if self.kind == "node":
            return (member.host, member.device) == (self.member.host, self.member.device)
        return (member.session, member.name) == (self.member.session, self.member.name)

    @property
    def bars(self) -> list[dict[str, str]]:
        """How the scheduler's plugin is told whom to shut out."""
        member = self.member
        if self.kind == "worker":
            return [{"name": member.name}]
        # A member's host is its node's name, or that of its address where the node has none.
        there = [{"node": member.host}, {"node": "", "host": member.host}]
        return [place | {"device": member.device} for place in there]

    def event(self) -> dict[str, Any]:
        """As the journal keeps it: in JSON, which has no infinity."""
        evidence = asdict(self.evidence)
        if isinf(self.evidence.deviation):
            evidence["deviation"] = None
        return {"kind": self.kind, "member": asdict(self.member), "evidence": evidence}

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> Conviction:
        """From the journal."""
        evidence = event["evidence"]
        if evidence["deviation"] is None:
            evidence = evidence | {"deviation": inf}
        return cls(event["kind"], Member(**event["member"]), Evidence(**evidence))

    def __str__(self) -> str:
        who, seen = self.member, self.evidence
        name = f"{who.name} on {who.host}" if who.host else who.name
        if self.kind == "node":
            name = f"node {who.host} ({who.device}; worker {who.name})"
        return (
            f"{name}: share {seen.share} of group {seen.group} ({seen.suspicion}) was wrong in "
            f"{seen.rows} of {seen.of} rows looked at, by up to {seen.deviation:.3g} where "
            f"{seen.allowed:.1g} is allowed; referee: {seen.referee}"
        )


class Roster:
    """The workers of a store, by index, and the convictions.

    Parameters
    ----------
    session
        The present one.
    past
        The journal's events of earlier sessions.
    quarantine
        None: by node where the workers of this session are on several hosts.
    forgive
        Hosts whose convictions no longer shut them out.
    on_new
        Called with the index of each new member.

    Raises
    ------
    ConfigError
        A host to forgive on which nothing was convicted.
    """

    def __init__(
        self,
        session: str,
        past: Iterable[Mapping[str, Any]] = (),
        *,
        quarantine: Quarantine | None = None,
        forgive: Collection[str] = (),
        on_new: Callable[[int, Member], None] = lambda index, member: None,
    ) -> None:
        self.session = session
        self.members: list[Member] = []
        self.convictions: list[Conviction] = []
        self._quarantine = quarantine
        self._on_new = on_new
        self._known: dict[str, Member] = {}  #: of this session, by name
        self._here: set[str] = set()
        self._incarnations: dict[str, set[int]] = {}  #: of this session's workers, by name
        self._told: list[Conviction] = []  #: by other runs on the same cluster
        self._index: dict[Member, int] = {}
        #: For forgiven convictions, how many members there were then: later ones are not covered.
        self._forgiven: dict[int, int] = {}
        for event in past:
            match event.get("event"):
                case "name":
                    fields = (event.get(name, "") for name in ("session", "worker"))
                    where = (event.get(name, "") for name in ("host", "device"))
                    self.members.append(Member(*fields, *where))
                case "conviction":
                    self.convictions.append(Conviction.of(event))
                case "forgiven":
                    self._forgive(event["host"])
        self._index = {member: index for index, member in enumerate(self.members)}
        nodes = {c.member.host for c in self.convictions if c.kind == "node"}
        if strange := sorted(set(forgive) - nodes):
            raise ConfigError(
                f"forgive={strange}: nothing was convicted there. Convicted are the nodes "
                f"{sorted(nodes) or '(none)'}"
            )
        for host in forgive:
            self._forgive(host)
        #: Nodes that earlier sessions convicted and nobody has forgiven.
        self.shut_out = [
            c
            for number, c in enumerate(self.convictions)
            if c.kind == "node" and number not in self._forgiven
        ]

    def _forgive(self, host: str) -> None:
        for number, conviction in enumerate(self.convictions):
            if conviction.kind == "node" and conviction.member.host == host:
                self._forgiven.setdefault(number, len(self.members))

    # ---- who is there -------------------------------------------------------------------------

    def heard(self, name: str, host: str, device: str, incarnation: int = 0) -> None:
        """A worker of this session has come, or come back."""
        self._known[name] = Member(self.session, name, host, device)
        self._here.add(name)
        self._incarnations.setdefault(name, set()).add(incarnation)

    def incarnations(self, names: Iterable[str]) -> frozenset[int]:
        """The processes that workers of this session were and are, by the plugin's numbers."""
        return frozenset[int]().union(*(self._incarnations.get(name, ()) for name in names))

    def left(self, name: str) -> None:
        """A worker has gone."""
        self._here.discard(name)

    def index(self, name: str) -> int:
        """The index of a worker of this session; it joins the members if it is not one yet."""
        member = self._member(name)
        if member not in self._index:
            self._index[member] = len(self.members)
            self.members.append(member)
            self._on_new(self._index[member], member)
        return self._index[member]

    def alike(self, name: str) -> frozenset[str]:
        """The workers of this session that a conviction of this one would shut out, too: they are
        no witnesses for it."""
        about = Conviction(self.kind, self._member(name), _NO_EVIDENCE)
        return frozenset(n for n, member in self._known.items() if about.covers(member)) | {name}

    def witnesses(self, asked: Collection[str]) -> list[str]:
        """The workers that are there, and neither among those asked nor convicted."""
        return sorted(n for n in self._here if n not in asked and not self.is_convicted(n))

    @property
    def kind(self) -> Quarantine:
        """What a conviction would be about now."""
        several = len({member.host for member in self._known.values()}) > 1
        return self._quarantine or ("node" if several else "worker")

    def _member(self, name: str) -> Member:
        return self._known.get(name) or Member(self.session, name)

    # ---- who is convicted ---------------------------------------------------------------------

    def convict(self, name: str, evidence: Evidence, *, here: bool = True) -> Conviction | None:
        """Convict a worker of this session, or its node; None if it is convicted already.

        ``here``: found by this run, and not told by another one on the same cluster.
        """
        if self.is_convicted(name):
            return None
        conviction = Conviction(self.kind, self._member(name), evidence)
        self.convictions.append(conviction)
        if not here:
            self._told.append(conviction)
        return conviction

    def is_convicted(self, name: str) -> bool:
        """Whether a worker of this session is."""
        member = self._member(name)
        return any(
            number not in self._forgiven and conviction.covers(member)
            for number, conviction in enumerate(self.convictions)
        )

    @property
    def convicted_now(self) -> list[Conviction]:
        """The convictions of this session."""
        return [c for c in self.convictions if c.member.session == self.session]

    @property
    def convicted_here(self) -> list[Conviction]:
        """Those of them that this run found itself."""
        return [c for c in self.convicted_now if c not in self._told]

    def tainted(self) -> frozenset[int]:
        """The indices of all convicted members, of all sessions; not of those that joined from a
        node once it was forgiven."""
        members = list(self.members)
        return frozenset(
            index
            for number, conviction in enumerate(list(self.convictions))
            for index, member in enumerate(members[: self._forgiven.get(number)])
            if conviction.covers(member)
        )

    def is_tainted(self, session: str, names: Iterable[str]) -> bool:
        """Whether one of these workers of some session is convicted."""
        wanted = {(session, name) for name in names}
        tainted = self.tainted()
        return any(
            (member.session, member.name) in wanted and index in tainted
            for index, member in enumerate(self.members)
        )


_NO_EVIDENCE = Evidence(-1, -1, 0, 0, 0.0, 0.0, "", "")
