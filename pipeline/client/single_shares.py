"""Rows that are run by themselves on one worker, outside any codeword."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from approxifer.coding import gather
from approxifer.coding.berrut import InterpolatingCode
from approxifer.coding.fitted import FittedDecoder
from approxifer.pipeline.byzantine.membership import Membership
from approxifer.pipeline.byzantine.referee import Answer
from approxifer.pipeline.byzantine.spot_checks import Check
from approxifer.pipeline.client.context import Context
from approxifer.pipeline.client.dispatch import Dispatcher, GroupTransfer
from approxifer.pipeline.client.window import Window
from approxifer.pipeline.records import AttemptOutcome, ShareOutput
from approxifer.pipeline.share_rows import ShareRows, join

#: Codewords of which all shares are run first, for ``decoder="fitted"``.
LEARNT = 25


@dataclass(frozen=True, eq=False)
class SingleResult:
    """The end of such a run."""

    returned: ShareOutput | None  #: None: no output came
    raised: bool  #: the model raised, or its worker died of it


@dataclass(frozen=True, eq=False)
class SingleShares:
    """Runs rows on workers of the caller's choice."""

    context: Context
    dispatcher: Dispatcher

    async def run(
        self,
        rows: ShareRows,
        *,
        kind: str,
        only: int | None = None,
        forbid: Collection[int] = (),
        model: int = 0,
    ) -> SingleResult:
        """Run rows of one model, on the incarnation ``only`` (there is no output if
        it is late) or on none of those to ``forbid``. The ``kind`` is for the journal: ``"check"``,
        ``"vote"``, ``"learning"``."""
        ended: asyncio.Future[GroupTransfer] = asyncio.get_running_loop().create_future()

        async def finish(group: GroupTransfer) -> None:
            ended.set_result(group)

        group = GroupTransfer(next(self.context.numbers), [rows], finish, (model,))
        await self.dispatcher.dispatch(
            group,
            code="plain",
            first=True,
            forbid=tuple(forbid),
            only=only,
            check=kind == "check",
        )
        await ended
        found = group.share_outputs
        self.context.journal_group(group, used=found, kind=kind)
        self.context.spawn(self.context.connection.settle(group.number))
        raised = any(attempt.fate is AttemptOutcome.FAILED for attempt in group.history)
        return SingleResult(found.get(0), raised)


@dataclass(frozen=True, eq=False)
class Checkers:
    """Runs rows of others' shares on workers that check them."""

    elsewhere: SingleShares
    members: Membership

    async def run(self, incarnation: int, checks: Sequence[Check]) -> tuple[list[Answer], bool]:
        """Run rows on one worker: its answers, if any came, and whether the model raised."""
        queries = join([check.query for check in checks])
        ended = await self.elsewhere.run(
            queries, kind="check", only=incarnation, model=checks[0].model
        )
        if (returned := ended.returned) is None:
            return [], ended.raised
        index, malformed = self.members.index(incarnation), returned.malformed is not None
        answers = [Answer(index, None if malformed else output) for output in returned.output]
        return answers, ended.raised

    async def ask(self, check: Check, incarnation: int) -> Answer | None:
        """Run one row on one worker; None: no output came."""
        answers, _ = await self.run(incarnation, [check])
        return answers[0] if answers else None


async def learn_decoder(
    code: InterpolatingCode, window: Window, elsewhere: SingleShares, rng: np.random.Generator
) -> FittedDecoder | None:
    """Run all shares of some codewords of a window, and fit a decoder to them; None where that
    cannot be done."""
    whole = len(window.order) // code.k
    chosen = np.sort(rng.permutation(whole)[:LEARNT])
    if not len(chosen):
        return None
    members = window.order[: whole * code.k].reshape(whole, code.k)[chosen].ravel()
    assert window.queries is not None, "such rows are not described"
    queries = gather(window.queries, members, code.k)
    mixed = [share for share, block in enumerate(code.carries) if block is None]
    shares = np.concatenate([queries, code.encode(queries)[mixed]])
    run = (elsewhere.run(rows, kind="learning") for rows in shares)
    ends = [end.returned for end in await asyncio.gather(*run)]
    returned = [one.output for one in ends if one is not None]
    if len(returned) < len(shares):  # the model raised on some of them
        return None
    outputs = np.stack(returned)
    finite = np.isfinite(outputs.reshape(*outputs.shape[:2], -1)).all(axis=(0, 2))
    if not finite.any():
        return None
    outputs = outputs[:, finite]
    blocks = outputs[: code.k]
    rest = iter(outputs[code.k :])
    all_shares = [next(rest) if j is None else blocks[j] for j in code.carries]
    decoder = FittedDecoder(code)
    decoder.learn(np.stack(all_shares), blocks)
    return decoder
