"""Carries verdicts out: the one place that acts on what the referee decides.

In this order: the conviction with its evidence is on the disk, the scheduler bars the worker, every
row that it touched is pending. Nothing of the convicted is used from the verdict on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from approxifer.errors import TrustError
from approxifer.pipeline.byzantine.membership import Conviction, Evidence, Member, Membership
from approxifer.pipeline.byzantine.referee import Verdict
from approxifer.pipeline.byzantine.spot_checks import Check
from approxifer.pipeline.byzantine.taint import standing
from approxifer.pipeline.client.context import Context
from approxifer.pipeline.client.windows import Windows


@dataclass(eq=False)
class Enforcement:
    """The convictions of one run, as they are carried out.

    Attributes
    ----------
    tainted : frozenset of int
        Indices of the members of which nothing is used any more.
    hardware : list of str
        Differences that are the hardware's, in words.
    """

    context: Context
    members: Membership
    windows: Windows
    hardware: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tainted = self.members.tainted()

    async def carry_out(self, check: Check, verdict: Verdict, *, checked_by: int | None) -> None:
        """Convict those found wrong; ``checked_by``: the member whose check differs.

        Raises
        ------
        TrustError
            They are more than E.
        """
        of, members = check.of, self.members.members
        for member, fault in verdict.faults.items():
            why = "a row checked at random" if check.output is not None else "no output"
            if member == checked_by:
                why = f"its check of {members[of.member].name}"
            evidence = Evidence(
                group=of.group,
                share=of.share,
                rows=1,
                of=max(1, of.left + len(of.rows)),
                deviation=fault.deviation,
                allowed=fault.allowed,
                referee=verdict.by,
                suspicion=why,
            )
            conviction = self.members.convict(member, evidence, aside=member in verdict.aside)
            if conviction is not None:
                await self._undo(conviction, bar=True)
        for member in verdict.hardware:
            who = members[member]
            note = f"{who.name} ({who.hardware}) differs from the client as its hardware does"
            if note not in self.hardware:
                self.hardware.append(note)
        convicted, byzantine = self.members.convicted_here, self.context.setup.byzantine
        if len(convicted) > byzantine:
            raise TrustError(
                f"{len(convicted)} workers are convicted, and byzantine={byzantine} allows "
                f"for {byzantine}: {'; '.join(map(str, convicted))}. What they touched is pending "
                "in the output: the same command does it again, on nodes that were not convicted"
            )

    async def adopt(self, bars: Sequence[Mapping[str, Any]], event: Mapping[str, Any]) -> None:
        """Another run on the same cluster has convicted workers: take back what they touched here.

        They are not counted against ``byzantine``: nobody's share was found wrong here.
        """
        evidence = Conviction.of(event).evidence
        evidence = replace(
            evidence, suspicion=f"{evidence.suspicion}, in another run on this cluster"
        )
        for incarnation in sorted(self.members.incarnations):
            if any(_fits(bar, self.members.member(incarnation)) for bar in bars):
                index = self.members.index(incarnation)
                conviction = self.members.convict(index, evidence, here=False)
                if conviction is not None:
                    await self._undo(conviction, bar=False)

    async def _undo(self, conviction: Conviction, *, bar: bool) -> None:
        self.tainted = self.members.tainted()
        event = conviction.event()
        await self.keep("conviction", **event)
        here = conviction.member.session == self.context.setup.session
        if bar and (here or conviction.kind == "node"):
            await self.context.connection.call(
                "bar", bars=conviction.bar_fields(), conviction=event
            )
        await self.windows.sweep()

    async def fail_row(self, check: Check) -> None:
        """The model raises on a row: nobody is to blame, and the output does not stand."""
        of, row = check.of, check.rows[0]
        if (window := of.window) is not None:
            here = {"status": window.status, "worker": window.worker, "group": window.group}
            rows = standing(here, window.start, check.rows, of.member, of.group)
            self.windows.fail(window, rows)
        else:  # it is tried again, by the way of all rows
            await self.windows.set_pending(check.rows)
        self.context.journal("failed", row=row, error="the model raises where it is run again")

    async def keep(self, event: str, **fields: Any) -> None:
        """Add an event to the journal: on the disk when it returns."""
        await self.context.write(partial(self.context.journal, event, fsync=True, **fields))


def _fits(bar: Mapping[str, Any], member: Member) -> bool:
    """Decide whether the scheduler shuts a member out for this bar."""
    return all(value in (None, getattr(member, name)) for name, value in bar.items())
