"""Runs spot checks: rows wait for their checker, are run there, and compared.

What differs goes to the referee, one at a time; the verdict goes to `Enforcement`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from approxifer.errors import TrustError
from approxifer.pipeline.byzantine.evidence import kept
from approxifer.pipeline.byzantine.membership import CLIENT, Membership
from approxifer.pipeline.byzantine.referee import Answer, Referee, Verdict
from approxifer.pipeline.byzantine.spot_checks import Check, Checked, CheckerOrder, Queues
from approxifer.pipeline.client.context import Context
from approxifer.pipeline.client.enforcement import Enforcement
from approxifer.pipeline.client.single_shares import Checkers
from approxifer.pipeline.client.window import Window
from approxifer.pipeline.client.windows import Windows

#: In share times: how long rows wait for others that go to the same checker. Twice as long fills no
#: more batches, half as long takes twice the workers' time (`benchmarks/byzantine`, 100,000 rows).
QUEUE_TIMES = 1.0
#: A share time while none is known, and the least seconds between two looks at the queues.
UNKNOWN, LOOK = 0.05, 0.002


@dataclass(eq=False)
class Checking:
    """The checks under way of one run."""

    context: Context
    checkers: Checkers
    members: Membership
    windows: Windows
    turns: CheckerOrder
    referee: Referee
    enforcement: Enforcement
    suspected: Counter[str] = field(default_factory=Counter)  #: shares, by the worker's name

    def __post_init__(self) -> None:
        self._byzantine = self.context.setup.byzantine
        self._numbers = count()  #: of mismatches
        self._queues = Queues(self.context.setup.layout.micro_batch)
        self._one_at_a_time = asyncio.Lock()
        self._written = 0  #: under way, of rows that are written
        self._back = asyncio.Event()

    def begin(self, check: Check, checker: int | None = None) -> None:
        """Have a row checked: by this incarnation, or by one that is drawn now."""
        check.of.left += 1
        if check.of.window is None:
            self._written += 1
        else:
            check.of.window.checks += 1
        if checker is None:
            self._draw(check)
        else:
            self._give(check, checker)

    async def send_old(self) -> None:
        """Send rows that have waited for long enough, for ever."""
        while True:
            wait = QUEUE_TIMES * (self.context.connection.ledger["typical"] or UNKNOWN)
            await asyncio.sleep(max(LOOK, wait / 4))
            self._send(self._queues.older(time.monotonic() - wait))

    def flush(self, window: Window) -> None:
        """Send all rows of a window that waits for nothing else."""
        self._send(self._queues.of_window(window))

    def redo_void(self) -> None:
        """Have the checks that convicted workers made of open windows' rows made again."""
        for window in self.windows.open:
            if not window.closing:
                self._redo_void(window)

    def _redo_void(self, window: Window) -> None:
        tainted = self.enforcement.tainted
        void = [pair for pair in window.confirmed if pair[1] in tainted]
        window.confirmed = [pair for pair in window.confirmed if pair[1] not in tainted]
        for check, _ in void:
            if not self._moot(check):
                of = check.of
                again = Checked(of.member, of.group, of.share, window=window, asked=of.asked)
                self.begin(replace(check, of=again, tried=frozenset()))

    async def of_written(self, checks: Sequence[Check]) -> None:
        """Have rows that are written checked, and wait until they are."""
        for check in checks:
            self.begin(check)
        while self._written:
            self._send(self._queues.everything())
            self._back.clear()
            await self._back.wait()

    # ---- a checker for each row -----------------------------------------------------------------

    def _draw(self, check: Check) -> None:
        """Choose the first whose turn it is among those allowed; the client where none is."""
        of = check.of
        allowed = self.members.checkers(of.asked, check.tried)
        if not allowed and self.referee.own is None:  # they may only have been late
            allowed = self.members.checkers(of.asked)
        fresh = [one for one in allowed if one not in of.drawn] if self._byzantine > 1 else []
        pool = fresh or allowed
        self._give(check, self.turns.order(pool)[0] if pool else CLIENT)

    def _give(self, check: Check, checker: int) -> None:
        if checker != CLIENT:
            check.of.drawn.add(checker)
            self._send(self._queues.add(checker, check, time.monotonic()))
        elif self.referee.own is not None:
            self.context.spawn(self._differs(check, None))
        else:
            raise TrustError(
                "no worker is left that could check another's rows: a quorum needs workers on "
                "other nodes. Start some, or score with referee='client', or with "
                "quarantine='worker'"
            )

    def _send(self, batches: Sequence[tuple[int, list[Check]]]) -> None:
        for checker, checks in batches:
            self.context.spawn(self._run(checker, checks))
            self.turns.draw_again()

    def _another(self, check: Check, tried: int, *, raised: str | None = None) -> None:
        """Draw another checker: the last one was late, lost, or is convicted, or the model raised
        there. It does so on this very row if it does on E + 1 workers, by itself."""
        names = check.raised | ({raised} if raised is not None else frozenset())
        check = replace(check, tried=check.tried | {tried}, raised=names)
        if self._moot(check):
            self._end(check)
        elif len(names) <= self._byzantine:
            self._draw(check)
        elif not check.alone:
            self._draw(replace(check, alone=True, raised=frozenset(), tried=frozenset()))
        else:
            self.context.spawn(self._raises(check))
        if check.of.window is not None:  # it may wait for nothing else
            self.windows.changed(check.of.window)

    # ---- a check is made ------------------------------------------------------------------------

    async def _run(self, checker: int, checks: list[Check]) -> None:
        """Have a checker run rows of several shares, and compare."""
        for moot in [check for check in checks if self._moot(check)]:
            checks.remove(moot)
            self._end(moot)
        if not checks:
            return
        answers, raised = list[Answer](), False
        if not self.members.is_convicted(checker):
            answers, raised = await self.checkers.run(checker, checks)
        if not answers or self.members.is_convicted(checker):
            name = self.members.member(checker).name
            for check in checks:
                self._another(check, checker, raised=name if raised else None)
            return
        agree = await self.context.compute(
            lambda: [
                self.referee.agree(Answer(check.of.member, check.output), answer)
                for check, answer in zip(checks, answers, strict=True)
            ]
        )
        for check, answer, fine in zip(checks, answers, agree, strict=True):
            if fine and answer.member not in self.enforcement.tainted:
                self._confirmed(check, answer.member)
            else:
                self.context.spawn(self._differs(check, answer, checker))

    async def _differs(self, check: Check, answer: Answer | None, checker: int = CLIENT) -> None:
        """Find the wrong one of two; None: the client is the checker."""
        async with self._one_at_a_time:
            if self._moot(check):
                self._end(check)
                return
            if answer is not None and answer.member in self.enforcement.tainted:
                self._another(check, checker)
                return
            verdict = await self._judge(check, answer)
        if verdict.fails:
            await self._raises(check)
        elif self._moot(check):
            self._end(check)
        else:
            self._confirmed(check, verdict.confirms)

    async def _judge(self, check: Check, other: Answer | None) -> Verdict:
        """Have the referee decide on a check that differs from the other answer, or (None) that
        only the client can make; and its verdict carried out."""
        of, mine = check.of, Answer(check.of.member, check.output)
        if other is None:
            verdict = await self.referee.judge(check, [mine])
            await self.enforcement.carry_out(check, verdict, checked_by=None)
        else:
            number = next(self._numbers)
            self.suspected[self.members.members[of.member].name] += 1
            await self.enforcement.keep(
                "mismatch",
                number=number,
                member=of.member,
                checker=other.member,
                group=of.group,
                share=of.share,
                model=check.model,
                rows=check.rows,
                outputs=[kept(check.output), kept(other.output)],
            )
            verdict = await self.referee.judge(check, [mine, other])
            await self.enforcement.carry_out(check, verdict, checked_by=other.member)
            self.context.journal("verdict", of=[self.context.setup.session, number])
        if verdict.faults:
            self.redo_void()
        return verdict

    async def _raises(self, check: Check) -> None:
        await self.enforcement.fail_row(check)
        self._end(check)

    # ---- and over -------------------------------------------------------------------------------

    def _moot(self, check: Check) -> bool:
        """True if the output is not used any more: its worker is convicted."""
        return check.of.member in self.enforcement.tainted

    def _confirmed(self, check: Check, member: int) -> None:
        """The output is right, as this member confirms."""
        check.of.rows.append(check.rows)
        check.of.checkers.append(member)
        if check.of.window is not None:
            check.of.window.confirmed.append((check, member))
        self._end(check)

    def _end(self, check: Check) -> None:
        """A check is over; the last of its share takes all to the journal."""
        of = check.of
        of.left -= 1
        if of.left == 0 and of.rows:
            self.context.journal("check", **of.event())
            of.rows, of.checkers = [], []
        if of.window is None:
            self._written -= 1
            self._back.set()
        else:
            of.window.checks -= 1
            self.windows.changed(of.window)
