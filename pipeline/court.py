"""Runs shares in doubt again elsewhere, has the referee settle differences, and convicts.

An audit compares two workers' runs of one share, and so do adaptive copies of a block. Where they
differ, one of them lies; which one is for a referee that no liar can own: the client, which runs
some of the disputed rows itself, or E + 1 workers that agree. More than E convictions end the run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from approxifer.errors import TrustError
from approxifer.pipeline.records import Testimony
from approxifer.pipeline.referee import REFEREE_ROWS, ClientReferee, Fault, against, agreement
from approxifer.pipeline.roster import Conviction, Evidence, Roster
from approxifer.pipeline.trust import Doubt, ShareRef, Trust

#: Why an adaptive copy is suspected.
DIFFERS = "copies of its block differ"


@dataclass(frozen=True)
class Bailiff:
    """What the court has others do."""

    #: Run rows on a worker that is not one of these; None: the model raised wherever it was tried.
    run: Callable[[np.ndarray, frozenset[str]], Awaitable[Testimony | None]]
    #: Call something long in a thread.
    call: Callable[..., Awaitable[Any]]
    #: Add an event to the journal.
    journal: Callable[..., None]
    #: Shut a worker out, and take back what it touched.
    execute: Callable[[Conviction], Coroutine[Any, Any, None]]


class Court:
    """Settles doubts.

    Parameters
    ----------
    trust : Trust
    roster : Roster
    byzantine : int
        E: more convictions than that end the run.
    referee : ClientReferee or None
        None: E + 1 workers that agree.
    bailiff : Bailiff
    """

    def __init__(
        self,
        trust: Trust,
        roster: Roster,
        *,
        byzantine: int,
        referee: ClientReferee | None,
        bailiff: Bailiff,
    ) -> None:
        self.trust = trust
        self.roster = roster
        self.byzantine = byzantine
        self._referee = referee
        self._do = bailiff

    async def settle(self, doubt: Doubt, rows: np.ndarray) -> bool:
        """Run a share again elsewhere until its output is confirmed, or its worker convicted.

        Parameters
        ----------
        doubt : Doubt
        rows : (B, *feature)
            The share's input.

        Returns
        -------
        bool
            Whether the output stands.

        Raises
        ------
        TrustError
            More than E workers are convicted, or no quorum can be had.
        """
        ref = doubt.ref
        self.trust.began(doubt)
        while not self.roster.is_convicted(ref.worker):
            other = await self._ask(rows, self.roster.alike(ref.worker))
            if other is None:
                if not await self._alone(doubt, rows):
                    break
                return True
            if self.roster.is_convicted(other.worker) or self.roster.is_convicted(ref.worker):
                continue
            disputed = await self._do.call(self.trust.disputed, ref, other.output, other.malformed)
            self._told(doubt, other.worker, clean=not disputed.any())
            if not disputed.any():
                self.trust.clean(doubt, other.worker)
                return True
            liars, by = await self._judge(rows, [_vote(ref), other], disputed)
            for name, fault in liars.items():
                await self._sentence(doubt, name, fault, by)
            if not liars:
                self.trust.clean(doubt, other.worker)  # both are right, as far as anybody can tell
                return True
        self.trust.void(doubt)
        return False

    async def arbitrate(self, copies: Sequence[ShareRef], rows: np.ndarray) -> frozenset[int]:
        """Where several workers' runs of the same rows differ, find out which of them are wrong.

        Without audits that is what E + 1 workers say that agree, more being asked for it, and
        nobody is convicted; else it is as in `settle`.

        Parameters
        ----------
        copies
            E + 1 of one block, or those of them whose workers are not convicted: one is right.
        rows : (B, *feature)
            The block.

        Returns
        -------
        frozenset of int
            The shares that do not stand.

        Raises
        ------
        TrustError
            More than E workers are convicted, or no quorum can be had.
        """
        standing, convicts = list(copies), self.trust.audits.rule.any
        while True:
            standing = [ref for ref in standing if not self.roster.is_convicted(ref.worker)]
            disputed = await self._do.call(self.trust.differ, standing)
            if not disputed.any():
                break
            votes = [_vote(ref) for ref in standing]
            final = self._referee is None or not convicts
            liars, by = await (
                self._quorum(rows, votes) if final else self._judge(rows, votes, disputed)
            )
            for ref in standing:
                if ref.worker in liars:
                    self._suspect(ref)
            if convicts:
                mine = {ref.worker: ref for ref in standing}
                for name, fault in liars.items():
                    doubt = Doubt(mine.get(name, standing[0]), DIFFERS, held=True)
                    await self._sentence(doubt, name, fault, by)
            standing = [ref for ref in standing if ref.worker not in liars]
            if final or not liars:  # else the client has looked at some of the rows only
                break
        return frozenset(ref.share for ref in copies) - {ref.share for ref in standing}

    def _suspect(self, ref: ShareRef) -> None:
        self.trust.suspect(ref.worker)
        self._do.journal(
            "suspect", group=ref.group, share=ref.share, worker=ref.worker, why=DIFFERS
        )

    async def _ask(self, rows: np.ndarray, asked: frozenset[str]) -> Testimony | None:
        """Have another worker run rows; None if there is none, or the model raises."""
        return await self._do.run(rows, asked) if self.roster.witnesses(asked) else None

    async def _alone(self, doubt: Doubt, rows: np.ndarray) -> bool:
        """Where no worker can tell, the referee looks at some rows; whether the output stands.

        If the model raises there too, or there is no referee, it does not stand, and nobody is to
        blame.

        Raises
        ------
        TrustError
            Nobody is left to ask.
        """
        ref = doubt.ref
        if self._referee is None:
            if not self.roster.witnesses(self.roster.alike(ref.worker)):
                raise TrustError(
                    f"no worker is left that could tell whether {ref.worker} is right: a quorum "
                    "needs workers on other nodes. Start some, or score with referee='client', or "
                    "with quarantine='worker'"
                )
            return False
        everything = np.ones(len(rows), bool)
        try:
            liars = await self._do.call(
                self._referee.liars, rows, {ref.worker: ref.output}, everything
            )
        except Exception:
            return False
        if ref.malformed is not None:
            liars.setdefault(ref.worker, Fault(len(rows), len(rows), np.inf, 0.0))
        self._told(doubt, "client", clean=not liars)
        for fault in liars.values():
            await self._sentence(doubt, ref.worker, fault, "client")
        if not liars and len(rows) <= REFEREE_ROWS:
            self.trust.clean(doubt, "client")
        elif not liars:  # it looked at a part only
            self.trust.void(doubt)
        return not liars

    def _told(self, doubt: Doubt, auditor: str, *, clean: bool) -> None:
        ref = doubt.ref
        self._do.journal(
            "audit",
            group=ref.group,
            share=ref.share,
            worker=ref.worker,
            auditor=auditor,
            why=doubt.why,
            clean=clean,
        )

    async def _judge(
        self, rows: np.ndarray, votes: list[Testimony], disputed: np.ndarray
    ) -> tuple[dict[str, Fault], str]:
        """Have the referee decide: who lies, if anybody is found to, and who says so."""
        if self._referee is None:
            return await self._quorum(rows, votes)
        outputs = {vote.worker: vote.output for vote in votes}
        liars = await self._do.call(self._referee.liars, rows, outputs, disputed)
        for vote in votes:
            if vote.malformed is not None and vote.worker not in liars:
                liars[vote.worker] = Fault(len(rows), len(rows), np.inf, 0.0)
        return liars, "client"

    async def _sentence(self, doubt: Doubt, name: str, fault: Fault, by: str) -> None:
        ref = doubt.ref
        evidence = Evidence(
            group=ref.group,
            share=ref.share,
            rows=fault.rows,
            of=fault.of,
            deviation=fault.deviation,
            allowed=fault.allowed,
            referee=by,
            suspicion=doubt.why if name == ref.worker else f"its audit of {ref.worker}",
        )
        await self.convict(name, evidence)

    async def _quorum(
        self, rows: np.ndarray, votes: list[Testimony]
    ) -> tuple[dict[str, Fault], str]:
        """Ask more workers until E + 1, and at least two, agree."""
        needed = max(self.byzantine, 1) + 1
        most = 2 * needed - 1
        tolerance = self.trust.tolerance
        while True:
            sound = [vote for vote in votes if vote.malformed is None]
            agreed = await self._do.call(
                agreement, [vote.output for vote in sound], needed, tolerance
            )
            if agreed is not None:
                break
            asked = frozenset().union(*(self.roster.alike(vote.worker) for vote in votes))
            more = await self._ask(rows, asked) if len(votes) < most else None
            if more is None:
                raise TrustError(
                    f"{len(votes)} workers ran the same share, and no {needed} of them agree: more "
                    f"than byzantine={self.byzantine} of them lie, or their hardware differs by "
                    f"more than {np.max(tolerance.relative):.0e} of the outputs' size. Score to a "
                    "new output with a larger byzantine=, or with referee='client'"
                )
            votes.append(more)
        center, members = agreed
        right, names = sound[center].output, {sound[i].worker for i in members}
        liars = {}
        for vote in votes:
            if vote.malformed is not None:
                liars[vote.worker] = Fault(len(rows), len(rows), np.inf, 0.0)
            elif vote.worker not in names:
                fault = against(tolerance, vote.output, right)
                assert fault is not None, "it would be one of those that agree"
                liars[vote.worker] = fault
        return liars, " and ".join(sorted(names))

    async def convict(self, name: str, evidence: Evidence) -> None:
        """Convict a worker, unless it is already.

        Raises
        ------
        TrustError
            It is one more than E.
        """
        everyone = self.roster.alike(name)
        conviction = self.roster.convict(name, evidence)
        if conviction is None:
            return
        self.trust.convict(everyone)
        await self._do.execute(conviction)
        convicted = self.roster.convicted_here
        if len(convicted) > self.byzantine:
            told = "; ".join(map(str, convicted))
            raise TrustError(
                f"{len(convicted)} workers are convicted, and byzantine={self.byzantine} allows "
                f"for {self.byzantine}: {told}. What they touched is pending in the output: the "
                "same command does it again, on nodes that were not convicted. Where their "
                "hardware rounds in another way than the client's, score with referee='quorum'"
            )


def _vote(ref: ShareRef) -> Testimony:
    return Testimony(ref.worker, ref.output, ref.malformed)
