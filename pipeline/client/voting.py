"""Without spot checks (``check=0``): the paper's locator, majorities, and copies that must agree.

Nobody is convicted by a vote. A share that a group's other shares vote against is left out of its
decode and its worker named as a suspect (ApproxIFER, Soleymani et al., AAAI 2022, arXiv 2109.09868,
and replication). Rows that are run outside any codeword, and adaptive copies of a block, are run by
further workers until E + 1 of them agree: one of these is honest.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import numpy as np

from approxifer.coding import Code
from approxifer.errors import TrustError
from approxifer.pipeline.byzantine.membership import Membership
from approxifer.pipeline.byzantine.referee import most_agreeing
from approxifer.pipeline.byzantine.tolerance import Tolerance
from approxifer.pipeline.client.collect import RowGroup
from approxifer.pipeline.client.context import Context
from approxifer.pipeline.client.dispatch import GroupTransfer
from approxifer.pipeline.client.single_shares import SingleShares
from approxifer.pipeline.records import ShareOutput


class Voting:
    """The votes of one run.

    Parameters
    ----------
    context : Context
    code : Code
        Of the coded groups.
    elsewhere : SingleShares
    members : Membership
    tolerance : Tolerance
    suspected : Counter
        Counts the shares that are left out, by the name of the worker.
    """

    def __init__(
        self,
        context: Context,
        code: Code,
        elsewhere: SingleShares,
        members: Membership,
        tolerance: Tolerance,
        suspected: Counter[str],
    ) -> None:
        self._suspected = suspected
        self._context = context
        self._code = code
        self._elsewhere = elsewhere
        self._members = members
        self._tolerance = tolerance
        self._byzantine = code.spec.byzantine

    async def left_out(self, batch: RowGroup, group: GroupTransfer) -> frozenset[int]:
        """The shares of a complete group that are not to be used.

        Raises
        ------
        TrustError
            No E + 1 workers agree on the same rows.
        """
        told = group.testimonies
        out = frozenset(share for share, one in told.items() if one.malformed is not None)
        if batch.coded and not self._code.spec.adaptive:
            sound = {share: one.output for share, one in told.items() if share not in out}
            if sound:
                out |= await self._context.compute(self._code.suspects, sound)
        else:
            blocks: dict[int | None, list[int]] = {}
            for share in told:
                blocks.setdefault(batch.code.carries[share], []).append(share)
            votes = [self._elect(told, shares, group) for shares in blocks.values()]
            out |= frozenset().union(*await asyncio.gather(*votes))
        for share in sorted(out):
            name = told[share].worker
            self._suspected[name] += 1
            why = told[share].malformed or "the others say otherwise"
            self._context.journal("suspect", group=batch.number, share=share, worker=name, why=why)
        return out

    async def _elect(
        self, told: dict[int, ShareOutput], shares: Sequence[int], group: GroupTransfer
    ) -> frozenset[int]:
        """Have copies of one block, and more where these are too few or differ, agree; those that
        do not stand."""
        rows = group.shares[shares[0]]
        votes = [told[share] for share in shares]
        asked: set[int] = set().union(*(group.asked(share) for share in shares))
        while True:
            agreed = await self._context.compute(most_agreeing, votes, self._agree)
            if len(agreed) > self._byzantine:
                break
            more = await self._one_more(rows, asked) if len(votes) <= 2 * self._byzantine else None
            if more is None and len(agreed) == len(votes):
                break  # nobody else can be asked
            if more is None:
                raise TrustError(
                    f"{len(votes)} workers ran the same rows, and no {self._byzantine + 1} of them "
                    f"agree: more than byzantine={self._byzantine} of them return wrong outputs, "
                    "or too few are there to ask. Start more workers, or score to a new output "
                    "with check= of at least 1"
                )
            votes.append(more)
        return frozenset(share for share in shares if not any(told[share] is a for a in agreed))

    async def _one_more(self, rows: np.ndarray, asked: set[int]) -> ShareOutput | None:
        """Have rows run by one more worker, which joins those asked; None: nobody is left to ask,
        or the model raised."""
        allowed = self._members.checkers(asked)
        if not allowed:
            return None
        forbid = self._members.incarnations.difference(allowed)
        told = await self._elsewhere.run(rows, kind="vote", forbid=forbid)
        if told.testimony is not None:
            asked.add(told.testimony.member)
        return told.testimony

    def _agree(self, a: ShareOutput, b: ShareOutput) -> bool:
        if a.malformed is not None or b.malformed is not None:
            return False
        return a is b or not self._tolerance.differs(a.output, b.output, times=2.0).any()
