"""Trust of one run: has a few rows of every used share checked, and undoes a convicted worker.

The way of a conviction is one line: a check that differs goes to the referee, which returns a
verdict; `IntegrityMonitor._carry_out` has it on the disk with its evidence, shuts the worker out,
and takes back every row that it touched. A window is written once its checks are in.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from math import ceil
from typing import Any

import numpy as np

from approxifer.coding import Code
from approxifer.datasets import Journal
from approxifer.errors import TrustError
from approxifer.models import Runner, cache, run_rows
from approxifer.pipeline.byzantine.evidence import kept, output_of, undecided
from approxifer.pipeline.byzantine.hardware import hardware_class
from approxifer.pipeline.byzantine.membership import Conviction, Evidence, Member, Membership
from approxifer.pipeline.byzantine.outliers import Outliers
from approxifer.pipeline.byzantine.referee import Answer, Referee, Verdict
from approxifer.pipeline.byzantine.repeated_checks import DueChecks, RepeatedChecks
from approxifer.pipeline.byzantine.spot_checks import (
    USED,
    Check,
    Checked,
    CheckerOrder,
    Proof,
    choose_checkers,
    honest_part,
    proofs,
)
from approxifer.pipeline.byzantine.taint import standing, sweep, tainted_groups, touched
from approxifer.pipeline.byzantine.tolerance import Tolerance, measure_tolerance, own_noise
from approxifer.pipeline.client.checking import Checking
from approxifer.pipeline.client.collect import DecodedGroup, RowGroup
from approxifer.pipeline.client.context import Context
from approxifer.pipeline.client.dispatch import GroupTransfer
from approxifer.pipeline.client.single_shares import SingleShares
from approxifer.pipeline.client.used_rows import DrawnRows, draw, query_of, sources
from approxifer.pipeline.client.voting import Voting
from approxifer.pipeline.client.window import Window
from approxifer.pipeline.records import Status, WorkerRecord


@dataclass(frozen=True)
class Hooks:
    """The engine's part."""

    windows: Callable[[], Sequence[Window]]  #: those that are open, the oldest first
    close: Callable[[Window], Coroutine[Any, Any, None]]  #: writes a window if it is whole
    failed: Callable[[Window, np.ndarray], None]  #: sets its rows to failed: bool (W,)
    #: Called with a written window's index, and the former statuses of its rows that are pending.
    taken_back: Callable[[int, np.ndarray], None]


@dataclass(eq=False)
class IntegrityMonitor:
    """The trust of one run."""

    context: Context
    code: Code  #: of the coded groups
    elsewhere: SingleShares
    members: Membership
    spans: Sequence[tuple[int, int, int]]  #: the windows: index, first row, one past the last
    hooks: Hooks
    #: Of the draws: no worker can foresee them.
    rng: np.random.Generator = field(
        default_factory=lambda: np.random.default_rng(secrets.randbits(128))
    )
    #: Differences that are the hardware's, in words.
    hardware: list[str] = field(default_factory=list)
    #: Shares found suspicious, by the name of their worker.
    suspected: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._byzantine = self.context.setup.byzantine
        self._checking: Checking | None = None
        self._voting: Voting | None = None
        self._outliers: dict[tuple[int, bool], Outliers] = {}
        self._numbers = count()  #: of mismatches

    # ---- before the first window ----------------------------------------------------------------

    async def open(self) -> None:
        """Shut out nodes that are convicted already; measure the referee's tolerance."""
        setup, members = self.context.setup, self.members
        if members.shut_out:
            bars = [bar for conviction in members.shut_out for bar in conviction.bar_fields()]
            await self.context.session.call("bar", bars=bars)
        if not setup.check and not self._byzantine:
            return
        runner, sample, tolerance = await self.context.compute(self._measure)
        if not setup.check:
            self._voting = Voting(self.context, self.code, self.elsewhere, members, tolerance)
            return
        micro_batch = setup.layout.micro_batch
        own = partial(own_noise, runner, micro_batch=micro_batch, others=sample, rng=self.rng)
        self._checking = Checking(
            self.context,
            self.elsewhere,
            members,
            CheckerOrder(self.rng),
            decide=self._decide,
            fails=self._row_fails,
            close=self.hooks.close,
        )
        self._checking.referee = Referee(
            members,
            tolerance,
            byzantine=self._byzantine,
            own=own if setup.referee == "client" else None,
            hardware=hardware_class(runner, setup.threads),
            micro_batch=micro_batch,
            ask=self._checking.ask,
            call=self.context.compute,
            rng=self.rng,
        )

    def _measure(self) -> tuple[Runner, np.ndarray, Tolerance]:
        """The model on the client, rows that it takes, and the tolerance on them."""
        setup = self.context.setup
        runner, micro_batch = cache.ensure(setup.handle, setup.threads), setup.layout.micro_batch
        rows, most = setup.store.rows, 2 * micro_batch
        if rows <= most:
            sample = setup.load(0, rows)
        else:  # from four places: the first rows may be blank
            part = ceil(most / 4)
            starts = np.linspace(0, rows - part, 4).astype(int).tolist()
            parts = [setup.load(start, start + part) for start in starts]
            sample = np.concatenate(parts)[:most]
        sample = _that_it_takes(partial(run_rows, runner, micro_batch=micro_batch), sample)
        if not len(sample):  # it was probed with the first rows
            sample = setup.load(0, min(rows, most))
        return runner, sample, measure_tolerance(runner, sample, micro_batch, rng=self.rng)

    async def finish_verdicts(self) -> None:
        """Decide the mismatches on which an earlier session stopped before the verdict."""
        if self._checking is None:
            return
        setup = self.context.setup
        for old in undecided(await self.context.read(Journal.read, setup.store.path)):
            member, checker, rows = old["member"], old["checker"], tuple(old["rows"])
            if self.members.tainted().isdisjoint((member, checker)):
                query = await self.context.read(query_of, setup.load, self.code, rows, old["share"])
                answers = [
                    Answer(who, output_of(kept))
                    for who, kept in zip((member, checker), old["outputs"], strict=True)
                ]
                checked = Checked(member, old["group"], old["share"])
                check = Check(checked, rows, query, answers[0].output, old["model"])
                verdict = await self._checking.referee.judge(check, answers)
                await self._carry_out(check, verdict, checked_by=checker)
            self.context.journal("verdict", of=[old["session"], old["number"]])

    async def send_old(self) -> None:
        """Send rows to checkers that have waited for long enough, for ever."""
        if self._checking is not None:
            await self._checking.send_old()

    # ---- a share is back ------------------------------------------------------------------------

    async def left_out(self, batch: RowGroup, group: GroupTransfer) -> frozenset[int]:
        """The shares of a complete group that are not to be used: what is no output, and what the
        others vote against."""
        out = frozenset(s for s, one in group.testimonies.items() if one.malformed is not None)
        if self._voting is not None:
            out |= await self._voting.left_out(batch, group)
        for share in sorted(out):
            told = group.testimonies[share]
            self.suspected[told.worker] += 1
            why = told.malformed or "the others say otherwise"
            self.context.journal(
                "suspect", group=batch.number, share=share, worker=told.worker, why=why
            )
            if self._checking is not None:  # the first row of what is no output
                member, asked = self.members.index(told.member), group.asked(share)
                of = Checked(member, batch.number, share, window=batch.window, asked=asked)
                query, model = group.shares[share][0].copy(), group.models[share]
                self._checking.begin(Check(of, sources(batch, share, 0), query, None, model))
        return out

    def draw(
        self, batch: RowGroup, group: GroupTransfer, returned: DecodedGroup
    ) -> list[DrawnRows]:
        """Draw the rows to check of each share that is used; to be called in a thread."""
        if self._checking is None:
            return []
        return draw(batch, group, returned, self.context.setup, self._outliers, self.rng)

    def start(self, batch: RowGroup, group: GroupTransfer, drawn: Sequence[DrawnRows]) -> None:
        """Have drawn rows checked, before the window that they belong to can be written."""
        for one in drawn:
            assert self._checking is not None
            asked = group.asked(one.share)
            allowed = self._checking.turns.order(self.members.checkers(asked))
            pairs = choose_checkers(len(one.rows), allowed, self._byzantine, self.rng)
            honest = honest_part([checker for _, checker in pairs], self._byzantine)
            checked = Checked(
                self.members.index(one.member),
                batch.number,
                one.share,
                of=one.of,
                rate=one.rate * honest,
                why=USED,
                window=batch.window,
                asked=asked,
            )
            model = batch.code.models[one.share]
            for i, checker in pairs:
                check = Check(checked, one.rows[i], one.queries[i], one.outputs[i], model)
                self._checking.begin(check, checker)

    def flush(self, window: Window) -> None:
        """Send all rows of a window that waits for nothing else."""
        if self._checking is not None:
            self._checking.flush(window)

    # ---- a check differs ------------------------------------------------------------------------

    async def _decide(self, check: Check, other: Answer | None) -> Verdict:
        """Have the referee decide, and carry that out; see `Checking.decide`."""
        assert self._checking is not None
        of, judge = check.of, self._checking.referee.judge
        mine = Answer(of.member, check.output)
        if other is None:
            verdict = await judge(check, [mine])
            await self._carry_out(check, verdict, checked_by=None)
        else:
            number = next(self._numbers)
            self.suspected[self.members.members[of.member].name] += 1
            await self._keep(
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
            verdict = await judge(check, [mine, other])
            await self._carry_out(check, verdict, checked_by=other.member)
            self.context.journal("verdict", of=[self.context.setup.session, number])
        return verdict

    async def _row_fails(self, check: Check) -> None:
        """The model raises on a row: nobody is to blame, and the output does not stand."""
        of, row = check.of, check.rows[0]
        if (window := of.window) is not None:
            here = {"status": window.status, "worker": window.worker, "group": window.group}
            rows = standing(here, window.start, check.rows, of.member, of.group)
            self.hooks.failed(window, rows)
        else:  # it is tried again, by the way of all rows
            span = next(span for span in self.spans if span[1] <= row < span[2])
            await self._pend(span, np.asarray(check.rows))
        self.context.journal("failed", row=row, error="the model raises where it is run again")

    async def _carry_out(self, check: Check, verdict: Verdict, *, checked_by: int | None) -> None:
        """Convict those found wrong.

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
            seen = Evidence(
                group=of.group,
                share=of.share,
                rows=1,
                of=max(1, of.left + len(of.rows)),
                deviation=fault.deviation,
                allowed=fault.allowed,
                referee=verdict.by,
                suspicion=why,
            )
            conviction = self.members.convict(member, seen, aside=member in verdict.aside)
            if conviction is not None:
                await self._undo(conviction, tell=True)
        for member in verdict.hardware:
            who = members[member]
            said = f"{who.name} ({who.hardware}) differs from the client as its hardware does"
            if said not in self.hardware:
                self.hardware.append(said)
        convicted = self.members.convicted_here
        if len(convicted) > self._byzantine:
            told = "; ".join(map(str, convicted))
            raise TrustError(
                f"{len(convicted)} workers are convicted, and byzantine={self._byzantine} allows "
                f"for {self._byzantine}: {told}. What they touched is pending in the output: the "
                "same command does it again, on nodes that were not convicted"
            )

    async def adopt_conviction(
        self, bars: Sequence[Mapping[str, Any]], event: Mapping[str, Any]
    ) -> None:
        """Another run on the same cluster has convicted workers: take back what they touched here.

        They are not counted against ``byzantine``: nobody's share was found wrong here.
        """
        evidence = Conviction.of(event).evidence
        told = replace(evidence, suspicion=f"{evidence.suspicion}, in another run on this cluster")
        for incarnation in sorted(self.members.incarnations):
            member = self.members.member(incarnation)
            if any(_fits(bar, member) for bar in bars):
                index = self.members.index(incarnation)
                conviction = self.members.convict(index, told, here=False)
                if conviction is not None:
                    await self._undo(conviction, tell=False)

    async def _undo(self, conviction: Conviction, *, tell: bool) -> None:
        """Nothing of the convicted is used from here on: on the disk, then at the scheduler, then
        in the store. Rows and checks of its are made again."""
        if self._checking is not None:
            self._checking.tainted = self.members.tainted()
        event = conviction.event()
        await self._keep("conviction", **event)
        here = conviction.member.session == self.context.setup.session
        if tell and (here or conviction.kind == "node"):
            await self.context.session.call("bar", bars=conviction.bar_fields(), conviction=event)
        taken = await self.context.write(sweep, self.context.setup.store, self.spans, self.members)
        for index, statuses in taken.items():
            self.hooks.taken_back(index, statuses)
        for window in self.hooks.windows():
            if self._checking is not None and not window.closing:
                self._checking.make_void(window)
            self.context.spawn(self.hooks.close(window))

    async def _keep(self, event: str, **fields: Any) -> None:
        """Add an event to the journal: on the disk when it returns."""
        await self.context.write(partial(self.context.journal, event, fsync=True, **fields))

    # ---- windows --------------------------------------------------------------------------------

    def tainted(self, window: Window) -> np.ndarray | None:
        """The rows of an open window that a convicted worker touched, if there are any."""
        if not self.members.convictions:
            return None
        groups: frozenset[int] = frozenset()
        if (window.status == Status.DECODED).any():
            groups = tainted_groups(Journal.read(self.context.setup.store.path), self.members)
        rows = touched(
            window.status,
            window.worker,
            window.group,
            convicted=self.members.tainted(),
            groups=groups,
        )
        return rows if rows.any() else None

    async def finish_checks(self) -> None:
        """Make up the checks of written rows that are void, or that ``assurance`` asks for.

        It ends early at a conviction: rows are pending then.
        """
        setup, checking = self.context.setup, self._checking
        if checking is None:
            return
        left = RepeatedChecks(setup.store, setup.load, self.spans, self.members)
        convicted = len(self.members.convictions)

        async def made(due: Iterator[DueChecks]) -> bool:
            some = False
            while (found := await self.context.read(next, due, None)) is not None:
                span, checks, mixed = found
                some |= bool(checks)
                if len(mixed):
                    await self._pend(span, mixed)
                await checking.of_written(checks)
            return some

        while self.members.convictions or setup.assurance is not None:
            some = await made(left.void())
            if not some and setup.assurance is not None:
                some = await made(left.besides(setup.assurance, self._byzantine, self.rng))
            if not some or len(self.members.convictions) > convicted:
                return

    async def _pend(self, span: tuple[int, int, int], rows: np.ndarray) -> None:
        """Set rows of a written window to pending."""
        store, (index, start, stop) = self.context.setup.store, span

        def pend() -> np.ndarray:
            now = store.read_window(start, stop, names=("status",))["status"]
            store.set_pending(rows)
            before: np.ndarray = now[rows - start]
            return before

        self.hooks.taken_back(index, await self.context.write(pend))

    # ---- for the report -------------------------------------------------------------------------

    def records(self) -> tuple[dict[str, WorkerRecord], list[tuple[Member, Proof]]]:
        """The ledger of the workers, with what was found about their trustworthiness; and what
        checks prove of each member that is not convicted, of all sessions."""
        records = self.context.session.worker_records()
        for name, record in records.items():
            record.suspected = self.suspected[name]
        if self._checking is None:
            return records, []
        tainted, found = self.members.tainted(), []
        proved = proofs(Journal.read(self.context.setup.store.path), tainted)
        for index, proof in sorted(proved.items()):
            member = self.members.members[index]
            if index not in tainted:
                found.append((member, proof))
            if member.session == self.members.session and member.name in records:
                record = records[member.name]
                record.checked += proof.checked
                if index not in tainted:
                    record.bound = max(record.bound or 0.0, proof.bound)
        return records, found


def _fits(bar: Mapping[str, Any], member: Member) -> bool:
    """Tell whether the scheduler shuts a member out for this bar."""
    return all(value in (None, getattr(member, name)) for name, value in bar.items())


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
