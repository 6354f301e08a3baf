"""Rows that are run by themselves on one worker, outside any codeword, and told back."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from approxifer.pipeline.client.context import Context
from approxifer.pipeline.client.dispatch import Dispatcher, GroupTransfer
from approxifer.pipeline.records import AttemptOutcome, ShareOutput


@dataclass(frozen=True, eq=False)
class SingleResult:
    """The end of such a run."""

    testimony: ShareOutput | None  #: None: no output came
    raised: bool  #: the model raised, or its worker died of it


@dataclass(frozen=True, eq=False)
class SingleShares:
    """Runs rows on workers of the caller's choice."""

    context: Context
    courier: Dispatcher

    async def run(
        self,
        rows: np.ndarray,
        *,
        kind: str,
        only: int | None = None,
        forbid: Collection[int] = (),
        model: int = 0,
    ) -> SingleResult:
        """Run rows (n, *feature) of one model, on the incarnation ``only`` (there is no output if
        it is late) or on none of those to ``forbid``. The ``kind`` is for the journal: ``"check"``,
        ``"vote"``, ``"learning"``."""
        told: asyncio.Future[GroupTransfer] = asyncio.get_running_loop().create_future()

        async def finish(group: GroupTransfer) -> None:
            told.set_result(group)

        group = GroupTransfer(next(self.context.numbers), rows[None], finish, (model,))
        await self.courier.dispatch(
            group,
            code="plain",
            first=True,
            forbid=tuple(forbid),
            only=only,
            check=kind == "check",
        )
        await told
        found = group.testimonies
        self.context.journal_group(group, used=found, kind=kind)
        await self.context.session.call("report", done=[group.number])
        raised = any(attempt.fate is AttemptOutcome.FAILED for attempt in group.history)
        return SingleResult(found.get(0), raised)
