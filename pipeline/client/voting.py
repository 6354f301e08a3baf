"""Without spot checks (``check=0``): the paper's locator, majorities, and copies that must agree.

Nobody is convicted by a vote. A share that a group's other shares vote against is left out of its
decode and its worker named as a suspect (ApproxIFER, Soleymani et al., AAAI 2022, arXiv 2109.09868,
and replication). Rows that are run outside any codeword, and adaptive copies of a block, are run by
further workers until E + 1 of them agree: one of these is honest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from approxifer.coding import Code
from approxifer.errors import TrustError
from approxifer.pipeline.byzantine.membership import Membership
from approxifer.pipeline.byzantine.referee import most_agreeing
from approxifer.pipeline.byzantine.tolerance import Tolerance, TolerancePerOutput
from approxifer.pipeline.client.collect import RowGroup
from approxifer.pipeline.client.context import Context
from approxifer.pipeline.client.dispatch import GroupTransfer
from approxifer.pipeline.client.single_shares import SingleShares
from approxifer.pipeline.records import ShareOutput
from approxifer.pipeline.share_rows import ShareRows


@dataclass(frozen=True, eq=False)
class Voting:
    """The votes of one run."""

    context: Context
    code: Code  #: of the coded groups
    elsewhere: SingleShares
    members: Membership
    tolerance: Tolerance | TolerancePerOutput

    async def left_out(self, batch: RowGroup, group: GroupTransfer) -> frozenset[int]:
        """The shares of a complete group that the others vote against.

        Raises
        ------
        TrustError
            No E + 1 workers agree on the same rows.
        """
        returned = group.share_outputs
        if batch.coded and not self.code.adaptive:
            sound = {share: one.output for share, one in returned.items() if one.malformed is None}
            return await self.context.compute(self.code.suspects, sound) if sound else frozenset()
        blocks: dict[int | None, list[int]] = {}
        for share in returned:
            blocks.setdefault(batch.code.carries[share], []).append(share)
        votes = [self._elect(returned, shares, group) for shares in blocks.values()]
        return frozenset().union(*await asyncio.gather(*votes))

    async def _elect(
        self, returned: dict[int, ShareOutput], shares: Sequence[int], group: GroupTransfer
    ) -> frozenset[int]:
        """Have copies of one block, and more where these are too few or differ, agree; those that
        do not stand."""
        rows = group.shares[shares[0]]
        votes = [returned[share] for share in shares]
        asked: set[int] = set().union(*(group.asked(share) for share in shares))
        byzantine = self.code.spec.byzantine
        while True:
            agreed = await self.context.compute(most_agreeing, votes, self._agree)
            if len(agreed) > byzantine:
                break
            more = await self._one_more(rows, asked) if len(votes) <= 2 * byzantine else None
            if more is None and len(agreed) == len(votes):
                break  # nobody else can be asked
            if more is None:
                raise TrustError(
                    f"{len(votes)} workers ran the same rows, and no {byzantine + 1} of them "
                    f"agree: more than byzantine={byzantine} of them return wrong outputs, "
                    "or too few are there to ask. Start more workers, or score to a new output "
                    "with check= of at least 1"
                )
            votes.append(more)
        return frozenset(share for share in shares if not any(returned[share] is a for a in agreed))

    async def _one_more(self, rows: ShareRows, asked: set[int]) -> ShareOutput | None:
        """Have rows run by one more worker, which joins those asked; None: nobody is left to ask,
        or the model raised."""
        allowed = self.members.checkers(asked)
        if not allowed:
            return None
        forbid = self.members.incarnations.difference(allowed)
        ended = await self.elsewhere.run(rows, kind="vote", forbid=forbid)
        if ended.returned is not None:
            asked.add(ended.returned.member)
        return ended.returned

    def _agree(self, a: ShareOutput, b: ShareOutput) -> bool:
        if a.malformed is not None or b.malformed is not None:
            return False
        return a is b or not self.tolerance.differs(a.output, b.output, times=2.0).any()
