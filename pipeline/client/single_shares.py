"""Rows that are run by themselves on one worker, outside any codeword, and told back."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from approxifer.pipeline.client.context import Context
from approxifer.pipeline.client.dispatch import Courier, GroupRun
from approxifer.pipeline.records import Fate, Testimony


@dataclass(frozen=True, eq=False)
class Told:
    """The end of such a run."""

    testimony: Testimony | None  #: None: no output came
    raised: bool  #: the model raised, or its worker died of it


class Elsewhere:
    """Runs rows on workers of the caller's choice."""

    def __init__(self, context: Context, courier: Courier) -> None:
        self._context = context
        self._courier = courier

    async def run(
        self,
        rows: np.ndarray,
        *,
        kind: str,
        only: int | None = None,
        forbid: Collection[int] = (),
        model: int = 0,
    ) -> Told:
        """Run rows (n, *feature) of one model.

        Parameters
        ----------
        kind
            For the journal: ``"check"``, ``"vote"``, ``"learning"``.
        only
            The incarnation that is to run them, and no other: nothing is told if it is late.
        forbid
            Incarnations that must not.
        """
        told: asyncio.Future[GroupRun] = asyncio.get_running_loop().create_future()

        async def finish(group: GroupRun) -> None:
            told.set_result(group)

        group = GroupRun(next(self._context.numbers), rows[None], finish, (model,))
        await self._courier.take(
            group, code="plain", first=True, forbid=forbid, only=only, check=kind == "check"
        )
        await told
        found = group.testimonies
        self._context.journal_group(group, used=found, kind=kind)
        await self._context.session.tell("report", done=[group.number])
        raised = any(attempt["fate"] == Fate.FAILED for attempt in group.history)
        return Told(found.get(0), raised)
