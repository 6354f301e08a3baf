"""Decide who is wrong where two runs of one row differ.

The referee is one that no worker owns: the client, which runs the row itself, or E + 1 workers that
agree. Runs on one class of hardware are compared bit by bit, others within a tolerance; an output
beyond it may still be the hardware's (a sum near zero, a tie of two classes), so it convicts only
where the client or a worker of the accused's own class contradicts it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from approxifer.errors import TrustError
from approxifer.pipeline.byzantine.membership import CLIENT, Membership
from approxifer.pipeline.byzantine.spot_checks import Check
from approxifer.pipeline.byzantine.tolerance import Tolerance, TolerancePerOutput
from approxifer.pipeline.share_rows import ShareRows

#: Rows of a micro-batch from which on equal hardware gives equal bits (`approxifer.models.rows`).
BITWISE_ROWS = 8


@dataclass(frozen=True, eq=False)
class Answer:
    """The output of one row."""

    member: int  #: index of who returned it, or `CLIENT`
    output: np.ndarray | None  #: (*out); None: what was returned is no output


@dataclass(frozen=True)
class Fault:
    """The difference of an output from the referee's."""

    deviation: float
    allowed: float


@dataclass(frozen=True)
class Verdict:
    """The referee's decision on one row."""

    faults: dict[int, Fault] = field(default_factory=dict)  #: by member: outputs shown to be wrong
    aside: frozenset[int] = frozenset()  #: of these, who may have its hardware to blame
    hardware: frozenset[int] = frozenset()  #: who differs from the referee as its hardware does
    by: str = "client"  #: the referee
    confirms: int = CLIENT  #: a member whose output is right
    fails: bool = False  #: the model raises on this row by itself


#: Run a check's row on one worker (incarnation): its answer; None: none came, or the model raised.
Ask = Callable[[Check, int], Awaitable[Answer | None]]
#: Run rows of a share on the client: (n, *out), and how far its own runs of them differ.
Own = Callable[[ShareRows], tuple[np.ndarray, np.ndarray]]


@dataclass(eq=False)
class Referee:
    """The referee of one run."""

    members: Membership
    tolerance: Tolerance | TolerancePerOutput
    byzantine: int  #: E
    own: Own | None  #: None: E + 1 workers that agree decide
    hardware: str  #: the client's
    micro_batch: int  #: M
    ask: Ask
    call: Callable[..., Awaitable[Any]]  #: call something long in a thread
    rng: np.random.Generator  #: draws the workers that are asked
    #: Pairs of classes of hardware that round differently.
    _loose: set[frozenset[str]] = field(default_factory=set)

    def _hardware_of(self, answer: Answer) -> str:
        member = answer.member
        return self.hardware if member == CLIENT else self.members.members[member].hardware

    def agree(self, a: Answer, b: Answer) -> bool:
        """Decide whether two members' runs of one row are equal, as far as they have to be."""
        if a.output is None or b.output is None:
            return False
        pair = frozenset((self._hardware_of(a), self._hardware_of(b)))
        alike = len(pair) == 1 and "" not in pair and pair not in self._loose
        if alike and self.micro_batch >= BITWISE_ROWS:
            return same(a.output, b.output)
        return not self.tolerance.differs(a.output[None], b.output[None], times=2.0)[0]

    async def judge(self, check: Check, answers: Sequence[Answer]) -> Verdict:
        """Decide on a row on which these answers differ.

        Raises
        ------
        TrustError
            No quorum can be had.
        """
        if self.own is None:
            return await self._quorum(check, answers)
        try:
            right, noise = await self.call(self.own, check.query)
        except Exception:  # the user's model, on a row of the user's
            return Verdict(fails=True)
        found = {answer.member: self._against(answer, right, noise) for answer in answers}
        faults = {member: fault for member, fault in found.items() if fault is not None}
        if not faults:
            if len(answers) > 1:
                self._loose.add(frozenset(map(self._hardware_of, answers)))
            return Verdict()
        honest = [*(a for a in answers if a.member not in faults), Answer(CLIENT, right[0])]
        return await self._weighed(check, answers, faults, honest, "client")

    def _against(
        self, answer: Answer, right: np.ndarray, noise: np.ndarray | None = None
    ) -> Fault | None:
        """The fault of an answer, ``right`` (1, *out) being the referee's; None if it has none."""
        if answer.output is None:
            return Fault(np.inf, 0.0)
        found = answer.output[None]
        if not self.tolerance.differs(found, right, noise=noise)[0]:
            return None
        return Fault(*self.tolerance.worst(found, right))

    async def _weighed(
        self,
        check: Check,
        answers: Sequence[Answer],
        faults: dict[int, Fault],
        honest: Sequence[Answer],
        by: str,
    ) -> Verdict:
        """Leave out those whose hardware may be the cause."""
        aside, excused = set(), set()
        contradicting = {self._hardware_of(answer) for answer in honest}
        for answer in answers:
            if answer.member not in faults or answer.output is None:
                continue
            if self._hardware_of(answer) in contradicting:
                continue
            match await self._alike(check, answer, answers):
                case None:
                    aside.add(answer.member)
                case False:
                    excused.add(answer.member)
        found = {member: fault for member, fault in faults.items() if member not in excused}
        confirms = next(a.member for a in reversed(honest) if a.member != check.of.member)
        return Verdict(found, frozenset(aside), frozenset(excused), by, confirms)

    async def _alike(self, check: Check, accused: Answer, answers: Sequence[Answer]) -> bool | None:
        """Ask others of the accused's hardware, until E + 1 of them agree or none is left:
        whether more contradict it than confirm it. None: there is none."""
        against = {True: 0, False: 0}
        async for answer in self._others(check, answers, self._hardware_of(accused)):
            against[not self.agree(accused, answer)] += 1
            if max(against.values()) > self.byzantine:
                break
        return None if not any(against.values()) else against[True] > against[False]

    async def _others(
        self, check: Check, answers: Sequence[Answer], hardware: str | None = None
    ) -> AsyncIterator[Answer]:
        """Run a row on further workers, one after the other in random order: on all that may, or
        on those of one class of hardware."""
        known = {answer.member for answer in answers}
        asked = set(check.of.asked | check.tried)
        while True:
            candidates = [
                one
                for one in self.members.checkers(asked)
                if hardware in (None, self.members.member(one).hardware)
                and self.members.index(one) not in known
            ]
            if not candidates:
                return
            asked.add(one := int(self.rng.choice(candidates)))
            answer = await self.ask(check, one)
            if answer is not None:
                yield answer

    async def _quorum(self, check: Check, answers: Sequence[Answer]) -> Verdict:
        """Ask more workers until E + 1, and at least two, agree."""
        needed = max(self.byzantine, 1) + 1
        votes = list(answers)
        others = self._others(check, answers)
        while len(agreed := most_agreeing(votes, self.agree)) < needed:
            more = await anext(others, None) if len(votes) < 2 * needed - 1 else None
            if more is None:
                raise TrustError(
                    f"{len(votes)} workers ran the same row, and no {needed} of them agree: more "
                    f"than byzantine={self.byzantine} of them return wrong outputs, or too few "
                    "are there to ask, or their hardware differs by more than "
                    f"{np.max(self.tolerance.relative):.0e} of the outputs' size. Start more "
                    "workers, or score with referee='client'"
                )
            votes.append(more)
        right = agreed[0].output
        assert right is not None, "it agrees with another"
        names = {self.members.members[answer.member].name for answer in agreed}
        faults = {
            answer.member: self._against(answer, right[None]) or Fault(np.inf, 0.0)
            for answer in votes
            if answer not in agreed
        }
        return await self._weighed(check, votes, faults, agreed, " and ".join(sorted(names)))


Vote = TypeVar("Vote")


def most_agreeing(votes: Sequence[Vote], agree: Callable[[Vote, Vote], bool]) -> list[Vote]:
    """The most votes that agree with one of them."""
    return max(([other for other in votes if agree(one, other)] for one in votes), key=len)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Decide whether two outputs are equal; NaN equals NaN."""
    return bool(np.array_equal(a, b, equal_nan=True))
