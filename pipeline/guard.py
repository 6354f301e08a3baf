"""Whom to believe: has doubtful shares audited, and takes back what a convicted worker touched.

The engine asks `Guard.hear` about each group that is complete; the outputs that do not stand are
left out of its decode. Rows that are written already are taken back in the store at a conviction;
rows of open windows when their window is about to be written.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from functools import partial
from math import ceil
from typing import Any

import numpy as np

from approxifer.coding import Code, gather
from approxifer.datasets import Journal
from approxifer.models import cache, run_rows
from approxifer.pipeline.audits import DRAWN, AuditRule
from approxifer.pipeline.context import Context
from approxifer.pipeline.courier import Courier, GroupRun
from approxifer.pipeline.court import Bailiff, Court
from approxifer.pipeline.intake import Batch
from approxifer.pipeline.makegood import fail, sweep, tainted_groups, touched, unconfirmed
from approxifer.pipeline.records import Status, Testimony, WorkerRecord
from approxifer.pipeline.referee import ClientReferee
from approxifer.pipeline.roster import Conviction, Roster
from approxifer.pipeline.tolerance import measure_tolerance
from approxifer.pipeline.trust import Doubt, ShareRef, Trust, worst
from approxifer.pipeline.window import Window


class Guard:
    """The trust of one run.

    Parameters
    ----------
    context : Context
    code : Code
        Of the coded groups.
    courier : Courier
    roster : Roster
    spans
        The windows: index, first row, one past the last.
    close
        Writes a window if it is whole.
    taken_back
        Called with a written window's index, the statuses that rows of it had, and whether they
        have failed instead of being pending.
    """

    def __init__(
        self,
        context: Context,
        code: Code,
        courier: Courier,
        roster: Roster,
        *,
        spans: list[tuple[int, int, int]],
        close: Callable[[Window], Coroutine[Any, Any, None]],
        taken_back: Callable[[int, np.ndarray, bool], None],
    ) -> None:
        self.roster = roster
        self._context = context
        self._code = code
        self._courier = courier
        self._spans = spans
        self._close = close
        self._taken_back = taken_back
        self._court: Court | None = None
        self._groups_left = 0
        self._unconfirmed: list[ShareRef] = []  #: in use, and nobody can tell whether it is right

    async def open(self, groups: int) -> None:
        """Shut out nodes that are convicted already; measure the referee's tolerance.

        Parameters
        ----------
        groups
            Coded groups to come.
        """
        self._groups_left = groups
        if self.roster.shut_out:
            bars = [bar for conviction in self.roster.shut_out for bar in conviction.bars]
            await self._context.session.tell("bar", bars=bars)
        if (rule := self._context.setup.rule) is not None:
            self._court = await self._context.compute(self._open_court, rule)

    def _open_court(self, rule: AuditRule) -> Court:
        setup = self._context.setup
        runner = cache.ensure(setup.handle, setup.threads)
        micro_batch = setup.layout.micro_batch
        rng = np.random.default_rng(secrets.randbits(128))  # no worker may foresee an audit
        own = partial(run_rows, runner, micro_batch=micro_batch)
        sample = _that_it_takes(own, self._sample(micro_batch))
        if not len(sample):  # it was probed with the first rows
            sample = setup.load(0, min(setup.store.rows, 2 * micro_batch))
        tolerance = measure_tolerance(runner, sample, micro_batch, rng=rng)
        return Court(
            Trust(self._code, rule=rule, tolerance=tolerance, rng=rng),
            self.roster,
            byzantine=setup.spec.byzantine,
            referee=ClientReferee(own, tolerance, rng) if setup.referee == "client" else None,
            bailiff=Bailiff(
                run=self.run_elsewhere,
                call=self._context.compute,
                journal=self._context.journal,
                execute=self._execute,
            ),
        )

    def _sample(self, micro_batch: int) -> np.ndarray:
        """Rows from four places of the input, two micro-batches in all: the first may be blank."""
        setup = self._context.setup
        rows, most = setup.store.rows, 2 * micro_batch
        if rows <= most:
            return setup.load(0, rows)
        part = ceil(most / 4)
        starts = np.linspace(0, rows - part, 4).astype(int).tolist()
        return np.concatenate([setup.load(start, start + part) for start in starts])[:most]

    async def hear(self, batch: Batch, group: GroupRun) -> frozenset[int]:
        """Have differences between adaptive copies decided, and a group's doubtful shares audited;
        return those whose output does not stand."""
        if self._court is None:
            return frozenset()
        trust, window = self._court.trust, batch.window
        refs = [
            ShareRef(
                batch.number,
                share,
                one.worker,
                batch.code,
                batch.members,
                (window.start, window.stop),
                one.output,
                one.malformed,
            )
            for share, one in group.testimonies.items()
            if not self.roster.is_convicted(one.worker)
        ]
        out: frozenset[int] = frozenset()
        if self._code.spec.adaptive:
            out = await self._arbitrate(batch, group, refs)
            if not trust.audits.rule.any:
                return out  # where E + 1 copies agree there is nothing to suspect
            refs = [ref for ref in refs if ref.share not in out]
        self._groups_left = max(0, self._groups_left - batch.coded)
        to_come = self._groups_left * self._code.n / max(1, self._context.session.ready)
        inputs = group.shares.reshape(*group.shares.shape[:2], -1)
        finite = np.isfinite(inputs).all(axis=2)
        doubts = await self._context.compute(
            partial(trust.inspect, refs, coded=batch.coded, finite=finite, to_come=to_come),
        )
        for doubt in doubts:
            if doubt.why not in DRAWN:
                self._context.journal(
                    "suspect",
                    group=doubt.ref.group,
                    share=doubt.ref.share,
                    worker=doubt.ref.worker,
                    why=doubt.why,
                )
        if not trust.audits.rule.any:
            out = worst(doubts, self._context.setup.spec.byzantine)
            if batch.again:  # somebody else's answer was refused too: it is the model's
                out = frozenset(share for share in out if group.testimonies[share].malformed)
            return out
        held: dict[int, Coroutine[Any, Any, bool]] = {}
        for doubt in doubts:
            own = doubt.ref.group == batch.number
            rows = group.shares[doubt.ref.share].copy() if own else None
            if doubt.held:
                held[doubt.ref.share] = self._settle(doubt, rows)
            else:
                window.audits += 1  # now, so that it is not written before
                self._context.spawn(self._audit(doubt, rows, window))
        stand = await asyncio.gather(*held.values())
        return out | {share for share, good in zip(held, stand, strict=True) if not good}

    async def _arbitrate(
        self, batch: Batch, group: GroupRun, refs: list[ShareRef]
    ) -> frozenset[int]:
        """Compare the adaptive copies of each block; the shares that do not stand."""
        assert self._court is not None
        carries = batch.code.carries
        copies = [[ref for ref in refs if carries[ref.share] == j] for j in range(batch.code.k)]
        if not batch.coded:
            copies = [[r, *await self._more_copies(r, group.shares[r.share])] for r in refs]
        cases = [
            self._court.arbitrate(some, group.shares[some[0].share]) for some in copies if some
        ]
        out = frozenset[int]().union(*await asyncio.gather(*cases))
        return out & {ref.share for ref in refs}

    async def _more_copies(self, ref: ShareRef, rows: np.ndarray) -> list[ShareRef]:
        """Have rows that are run plainly run by as many others as there may still be liars, as far
        as anybody else can run them."""
        at_large = self._context.setup.spec.byzantine - len(self.roster.convicted_here)
        found: list[ShareRef] = []
        asked = self.roster.alike(ref.worker)
        while len(found) < at_large and self.roster.witnesses(asked):
            other = await self.run_elsewhere(rows, asked)
            if other is None:
                break
            number, output, malformed = ref.share + 1 + len(found), other.output, other.malformed
            found.append(
                replace(ref, share=number, worker=other.worker, output=output, malformed=malformed)
            )
            asked |= self.roster.alike(other.worker)
        return found

    async def _audit(self, doubt: Doubt, rows: np.ndarray | None, window: Window) -> None:
        """Settle a doubt while the window goes on, but for being written."""
        await self._confirm(doubt, rows)
        window.audits -= 1
        await self._close(window)

    async def _confirm(self, doubt: Doubt, rows: np.ndarray | None = None) -> None:
        """Settle a doubt about an output that is in use."""
        stands = await self._settle(doubt, rows)
        if not stands and not self.roster.is_convicted(doubt.ref.worker):
            self._unconfirmed.append(doubt.ref)

    async def _settle(self, doubt: Doubt, rows: np.ndarray | None = None) -> bool:
        assert self._court is not None
        if rows is None:
            rows = await self._context.read(self._encode_again, doubt.ref)
        return await self._court.settle(doubt, rows)

    def _encode_again(self, ref: ShareRef) -> np.ndarray:
        """The input of a share whose window may be gone."""
        queries = gather(self._context.setup.load(*ref.window), ref.members, ref.code.k)
        rows: np.ndarray = ref.code.encode(queries)[ref.share]
        return rows

    async def run_elsewhere(
        self, rows: np.ndarray, forbid: frozenset[str], *, kind: str = "audit"
    ) -> Testimony | None:
        """Run rows on a worker that is not one of those forbidden; None if the model raises."""
        told: asyncio.Future[Testimony | None] = asyncio.get_running_loop().create_future()

        async def finish(group: GroupRun) -> None:
            found = group.testimonies
            names = {share: one.worker for share, one in found.items()}
            self._context.journal_group(group, kind=kind, names=names)
            await self._context.session.tell("report", done=[group.number])
            told.set_result(found.get(0))

        await self._courier.take(
            GroupRun(next(self._context.numbers), rows[None], finish),
            code="plain",
            first=True,
            forbid=self.roster.incarnations(forbid),
        )
        return await told

    async def last_audits(self) -> None:
        """Before the end each worker has had enough audits."""
        if self._court is None or not self._court.trust.audits.rule.any:
            return
        while due := self._court.trust.due():
            await asyncio.gather(*(self._confirm(doubt) for doubt in due))
        while self._unconfirmed:
            ref = self._unconfirmed.pop()
            index = next(index for index, start, _ in self._spans if start == ref.window[0])
            self._taken_back(index, await self._context.write(self._fail, ref), True)

    def _fail(self, ref: ShareRef) -> np.ndarray:
        return fail(
            self._context.setup.store,
            ref.window,
            ref.members,
            group=ref.group,
            worker=self.roster.index(ref.worker),
            blank=self._context.blank,
        )

    async def _execute(self, conviction: Conviction) -> None:
        """Shut a worker out, and take back what it touched in windows that are written."""
        event = conviction.event()
        await self._context.session.tell("bar", bars=conviction.bars, conviction=event)
        await self._take_back(conviction)

    async def hear_of(self, name: str, event: Mapping[str, Any]) -> None:
        """Another run on the same cluster has convicted a worker: take back what it touched here.

        It is not counted against ``byzantine``: nobody's share was found wrong here.
        """
        evidence = Conviction.of(event).evidence
        told = replace(evidence, suspicion=f"{evidence.suspicion}, in another run on this cluster")
        everyone = self.roster.alike(name)
        conviction = self.roster.convict(name, told, here=False)
        if conviction is None:
            return
        if self._court is not None:
            self._court.trust.convict(everyone)
        await self._take_back(conviction)

    async def _take_back(self, conviction: Conviction) -> None:
        def punish() -> dict[int, np.ndarray]:
            self._context.journal("conviction", fsync=True, **conviction.event())
            return sweep(self._context.setup.store, self._spans, self.roster)

        for index, statuses in (await self._context.write(punish)).items():
            self._taken_back(index, statuses, False)

    def unconfirmed(self, window: Window) -> np.ndarray:
        """The rows of an open window from an output of which nobody could say whether it is right,
        the model having raised wherever else it was tried: bool (W,). They are told of once."""
        rows = np.zeros(len(window.status), bool)
        mine = [ref for ref in self._unconfirmed if ref.window == (window.start, window.stop)]
        for ref in mine:
            self._unconfirmed.remove(ref)
            rows |= unconfirmed(
                window.status,
                window.worker,
                window.group,
                ref.members,
                ref.group,
                self.roster.index(ref.worker),
            )
        return rows

    def tainted(self, window: Window) -> np.ndarray | None:
        """The rows of an open window that a convicted worker touched, if there are any."""
        if not self.roster.convictions:
            return None
        groups: frozenset[int] = frozenset()
        if (window.status == Status.DECODED).any():
            groups = tainted_groups(Journal.read(self._context.setup.store.path), self.roster)
        rows = touched(
            window.status,
            window.worker,
            window.group,
            convicted=self.roster.tainted(),
            groups=groups,
        )
        return rows if rows.any() else None

    def worker_records(self) -> dict[str, WorkerRecord]:
        """The ledger of the workers, with what was found about their trustworthiness."""
        records = self._context.session.worker_records()
        if self._court is not None:
            trust = self._court.trust
            for name, record in records.items():
                record.suspected = trust.suspected[name]
                record.audited = trust.audits.audited[name]
                if not self.roster.is_convicted(name):
                    record.bound = trust.audits.bound(name)
        return records


def _that_it_takes(run: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> np.ndarray:
    """The rows on which the model does not raise."""

    def takes(some: np.ndarray) -> bool:
        try:
            run(some)
        except Exception:
            return False
        return True

    if takes(rows):
        return rows
    return rows[[takes(rows[i : i + 1]) for i in range(len(rows))]]
