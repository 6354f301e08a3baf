"""The workers that wrote a store, in this and earlier sessions, and the convictions.

A member is one worker process, fixed when it joins: its session, its incarnation (counted by the
scheduler's plugin, never used twice), its name, and its place. Names come back on other nodes and
addresses on other processes, so a share is attributed to the member that it was sent to, and
nothing looks a name up later.

A place is the host of the worker's address, which the scheduler sees, and the node and the device
that the worker itself names. What a worker states can set it apart from others of its host; never
does it join it to one that is to be convicted with it: where the workers of one host name different
places, a conviction shuts out those of the same name only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from math import inf, isinf
from typing import Any, Literal

from approxifer.errors import ConfigError

#: The reach of a conviction.
Quarantine = Literal["worker", "node"]
QUARANTINES: tuple[Quarantine, ...] = ("worker", "node")
#: The client itself, where members go by their index or incarnation.
CLIENT = -1


@dataclass(frozen=True)
class Member:
    """One worker process, as an index in the store's variable ``worker`` stands for it."""

    session: str
    name: str
    host: str = ""  #: of its address; in journals before there were incarnations, of its node
    device: str = ""  #: as it states itself; "" where it does not
    node: str = ""  #: likewise
    incarnation: int = -1  #: -1 in journals before there were any
    hardware: str = ""  #: members alike in this compute alike (see `byzantine.hardware`)
    life: int = 0  #: counts on when a conviction covers what it did up to then, and not itself

    @property
    def hosts(self) -> set[str]:
        """The names by which a person may know where it runs."""
        return {self.host, self.node} - {""}

    def at(self, other: Member) -> bool:
        """True if both run in one place."""
        if self.device != other.device:
            return False
        if -1 in (self.incarnation, other.incarnation):  # the node's name alone was kept
            return not self.hosts.isdisjoint(other.hosts)
        return (self.host, self.node) == (other.host, other.node)

    def event(self) -> dict[str, Any]:
        """As the journal keeps it."""
        fields = asdict(self)
        return {"worker": fields.pop("name")} | fields

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> Member:
        """From the journal, also of versions that kept less."""
        known = {name: event[name] for name in cls.__dataclass_fields__ if name in event}
        return cls(**{"session": "", "name": event.get("worker", "")} | known)


@dataclass(frozen=True)
class Evidence:
    """The outputs that a member was convicted for. The share can be computed again."""

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
    #: Others of its host name other places: of its own session only its name is shut out.
    alone: bool = False
    #: Not convicted: it differs from the client, and no other member of its hardware can show
    #: whether that is the hardware. It is shut out all the same, and not counted against E.
    aside: bool = False

    def bars(self, member: Member) -> bool:
        """True if it shuts this member out."""
        mine = self._of_name(member)
        if self.kind == "worker":
            return mine
        other = self.alone and member.session == self.member.session and not mine
        return self.member.at(member) and not other

    def taints(self, member: Member) -> bool:
        """True if what this member did up to the verdict is scored again."""
        return self._of_name(member) or self.bars(member)

    def _of_name(self, member: Member) -> bool:
        return (member.session, member.name) == (self.member.session, self.member.name)

    def bar_fields(self) -> list[dict[str, str]]:
        """The workers to shut out, for the scheduler's plugin: all that fit one of these."""
        member = self.member
        if self.kind == "worker":
            return [{"name": member.name}]
        if member.incarnation == -1:  # its host is what the node was called
            return [{key: member.host, "device": member.device} for key in ("host", "node")]
        name = {"name": member.name} if self.alone else {}
        return [name | {"host": member.host, "node": member.node, "device": member.device}]

    def event(self) -> dict[str, Any]:
        """As the journal keeps it: in JSON, which has no infinity."""
        fields = asdict(self)
        if isinf(self.evidence.deviation):
            fields["evidence"]["deviation"] = None
        return fields

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> Conviction:
        """From the journal."""
        evidence = dict(event["evidence"])
        if evidence["deviation"] is None:
            evidence["deviation"] = inf
        return cls(
            event["kind"],
            Member.of(event["member"]),
            Evidence(**evidence),
            alone=event.get("alone", False),
            aside=event.get("aside", False),
        )

    @property
    def sentence(self) -> str:
        """For the report."""
        what = "set aside (its hardware may be the cause)" if self.aside else "convicted"
        return f"{what}: {self}"

    def __str__(self) -> str:
        who, seen = self.member, self.evidence
        host = who.node or who.host
        name = f"{who.name} on {host}" if host else who.name
        if self.kind == "node":
            name = f"node {host} ({who.device}; worker {who.name})"
        return (
            f"{name}: share {seen.share} of group {seen.group} ({seen.suspicion}) was wrong in "
            f"{seen.rows} of {seen.of} rows looked at, by up to {seen.deviation:.3g} where "
            f"{seen.allowed:.1g} is allowed; referee: {seen.referee}"
        )


@dataclass
class _Record:
    """A conviction, and its time: the number of members when it was made, and forgiven."""

    conviction: Conviction
    made: int
    here: bool = True  #: found by a run on this store, not by another one on the same cluster
    forgiven: int | None = None

    def bars(self, member: Member) -> bool:
        return self.forgiven is None and self.conviction.bars(member)

    def taints(self, index: int, member: Member) -> bool:
        if self.forgiven is not None and index >= self.forgiven:
            return False
        return self.conviction.bars(member) or (
            index < self.made and self.conviction.taints(member)
        )


class Membership:
    """The members of a store, by index, and the convictions.

    Parameters
    ----------
    session
        The present one.
    past
        The journal's events of earlier sessions, in order.
    quarantine
        None: by node where the workers of this session are on several.
    forgive
        Hosts or nodes whose convictions no longer shut them out.
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
        self._records: list[_Record] = []
        self._quarantine = quarantine
        self._on_new = on_new
        self._known: dict[int, Member] = {}  #: of this session, by incarnation
        self._present: set[int] = set()
        self._index: dict[Member, int] = {}
        for event in past:
            match event.get("event"):
                case "name":
                    self._join(Member.of(event))
                case "conviction":
                    self._records.append(_Record(Conviction.of(event), len(self.members)))
                case "forgiven":
                    self._forgive(event["host"])
        nodes = {name for c in self.convictions if c.kind == "node" for name in c.member.hosts}
        if strange := sorted(set(forgive) - nodes):
            raise ConfigError(
                f"forgive={strange}: nothing was convicted there. Convicted are the nodes "
                f"{sorted(nodes) or '(none)'}"
            )
        for host in forgive:
            self._forgive(host)

    def _join(self, member: Member) -> int:
        self._index[member] = len(self.members)
        self.members.append(member)
        return self._index[member]

    def _forgive(self, host: str) -> None:
        for record in self._records:
            conviction = record.conviction
            of_node = conviction.kind == "node" and host in conviction.member.hosts
            if of_node and record.forgiven is None:
                record.forgiven = len(self.members)

    # ---- who is there -------------------------------------------------------------------------

    def joined(
        self, incarnation: int, name: str, *, host: str, node: str, device: str, hardware: str
    ) -> None:
        """A worker of this session has come, or can be given work again; its first place
        is kept."""
        fresh = Member(self.session, name, host, device, node, incarnation, hardware)
        self._known.setdefault(incarnation, fresh)
        self._present.add(incarnation)

    def departed(self, incarnation: int) -> None:
        """A worker has gone, or hangs."""
        self._present.discard(incarnation)

    @property
    def incarnations(self) -> frozenset[int]:
        """All workers of this session so far."""
        return frozenset(self._known)

    def member(self, incarnation: int) -> Member:
        """A worker of this session."""
        return self._known[incarnation]

    def index(self, incarnation: int) -> int:
        """The index of a worker of this session; it joins the members if it is not one yet."""
        if incarnation == CLIENT:
            return CLIENT
        member = self._known[incarnation]
        if member not in self._index:
            self._on_new(self._join(member), member)
        return self._index[member]

    def checkers(self, asked: Collection[int], tried: Collection[int] = ()) -> list[int]:
        """The incarnations that may check what those asked returned: present, not convicted, not
        tried, and in the place and under the name of none of those asked."""
        known = [self._known[i] for i in asked if i in self._known]
        return sorted(
            i
            for i in self._present.difference(tried)
            if not self.is_convicted(i)
            and not any(self._together(self._known[i], other) for other in known)
        )

    def _together(self, a: Member, b: Member) -> bool:
        """True if a conviction of one could be one of the other: they are no witnesses for each
        other."""
        return a.name == b.name or (self.kind == "node" and a.at(b))

    @property
    def kind(self) -> Quarantine:
        """The reach of a conviction now."""
        nodes = {(m.host, m.node) for m in self._known.values()}
        return self._quarantine or ("node" if len(nodes) > 1 else "worker")

    # ---- who is convicted ---------------------------------------------------------------------

    @property
    def convictions(self) -> list[Conviction]:
        """All of them, in order, the forgiven ones too."""
        return [record.conviction for record in self._records]

    def convict(
        self, index: int, evidence: Evidence, *, here: bool = True, aside: bool = False
    ) -> Conviction | None:
        """Convict a member, or its node; None if that is done already.

        Parameters
        ----------
        index
            Of the member, of this or an earlier session.
        here
            Found by this run, and not by another one on the same cluster.
        aside
            See `Conviction`.
        """
        member = self.members[index]
        if self._is_barred(member):
            return None
        neighbours = [m for m in self._known.values() if m.host == member.host]
        alone = any(not m.at(member) for m in neighbours)
        conviction = Conviction(self.kind, member, evidence, alone=alone, aside=aside)
        for number, known in list(self._known.items()):
            # The rest of its name ran elsewhere: what it did is scored again, and it goes on.
            if conviction.taints(known) and not conviction.bars(known):
                self._known[number] = replace(known, life=known.life + 1)
        self._records.append(_Record(conviction, len(self.members), here))
        return conviction

    def is_convicted(self, incarnation: int) -> bool:
        """True if a worker of this session is shut out."""
        return self._is_barred(self._known[incarnation])

    def _is_barred(self, member: Member) -> bool:
        return any(record.bars(member) for record in self._records)

    @property
    def shut_out(self) -> list[Conviction]:
        """Nodes that earlier sessions convicted and nobody has forgiven."""
        found = [record.conviction for record in self._records if record.forgiven is None]
        return [c for c in found if c.kind == "node" and c.member.session != self.session]

    @property
    def convicted_now(self) -> list[Conviction]:
        """The convictions of workers of this session."""
        return [c for c in self.convictions if c.member.session == self.session and not c.aside]

    @property
    def convicted_here(self) -> list[Conviction]:
        """Those of them that this run found itself."""
        here = [record.conviction for record in self._records if record.here]
        return [c for c in self.convicted_now if c in here]

    def tainted(self) -> frozenset[int]:
        """The indices of the members whose outputs are not to be used, of all sessions: those that
        a conviction shuts out, until it is forgiven, and those that it covers up to the verdict."""
        members, records = list(self.members), list(self._records)  # called from threads
        return frozenset(
            index
            for index, member in enumerate(members)
            if any(record.taints(index, member) for record in records)
        )
