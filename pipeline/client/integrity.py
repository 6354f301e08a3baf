"""Trust of one run: has a few rows of every used share checked before its window is written.

The way of a conviction is one line: `Checking` finds a check that differs, the `Referee` returns a
verdict, `Enforcement` carries it out.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from typing import Any

import numpy as np

from approxifer.coding import Code
from approxifer.datasets import Journal
from approxifer.models import Runner, cache, run_rows
from approxifer.pipeline.byzantine.evidence import output_of, undecided
from approxifer.pipeline.byzantine.hardware import hardware_class
from approxifer.pipeline.byzantine.membership import Member, Membership
from approxifer.pipeline.byzantine.noise import measure_tolerance, own_noise
from approxifer.pipeline.byzantine.outliers import Outliers
from approxifer.pipeline.byzantine.referee import Answer, Referee
from approxifer.pipeline.byzantine.repeated_checks import DueChecks, RepeatedChecks
from approxifer.pipeline.byzantine.spot_checks import (
    RESCORED,
    USED,
    Check,
    Checked,
    CheckerOrder,
    Proof,
    choose_checkers,
    honest_part,
    proofs,
)
from approxifer.pipeline.byzantine.tolerance import Tolerance, TolerancePerOutput
from approxifer.pipeline.client.checking import Checking
from approxifer.pipeline.client.collect import DecodedGroup, RowGroup
from approxifer.pipeline.client.context import Context
from approxifer.pipeline.client.dispatch import GroupTransfer
from approxifer.pipeline.client.enforcement import Enforcement
from approxifer.pipeline.client.single_shares import Checkers, SingleShares
from approxifer.pipeline.client.used_rows import DrawnRows, draw, query_of, sources
from approxifer.pipeline.client.voting import Voting
from approxifer.pipeline.client.window import Window
from approxifer.pipeline.client.windows import Windows
from approxifer.pipeline.records import WorkerRecord
from approxifer.pipeline.share_rows import Description, ShareRows, take


@dataclass(eq=False)
class IntegrityMonitor:
    """The trust of one run."""

    context: Context
    code: Code  #: of the coded groups
    elsewhere: SingleShares
    members: Membership
    windows: Windows
    #: Of the draws: no worker can foresee them.
    rng: np.random.Generator = field(
        default_factory=lambda: np.random.default_rng(secrets.randbits(128))
    )
    suspected: Counter[str] = field(default_factory=Counter)  #: shares, by the worker's name

    def __post_init__(self) -> None:
        self.enforcement = Enforcement(self.context, self.members, self.windows)
        self._byzantine = self.context.setup.byzantine
        self._checking: Checking | None = None
        self._voting: Voting | None = None
        self._outliers: dict[tuple[int, bool], Outliers] = {}

    # ---- before the first window ----------------------------------------------------------------

    async def open(self) -> None:
        """Shut out nodes that are convicted already; measure the referee's tolerance."""
        setup, members = self.context.setup, self.members
        if members.shut_out:
            bars = [bar for conviction in members.shut_out for bar in conviction.bar_fields()]
            await self.context.connection.call("bar", bars=bars)
        if not setup.check and not self._byzantine:
            return
        runner, sample, tolerance = await self.context.compute(self._measure)
        if not setup.check:
            self._voting = Voting(self.context, self.code, self.elsewhere, members, tolerance)
            return
        micro_batch = setup.layout.micro_batch

        def own(query: ShareRows) -> tuple[np.ndarray, np.ndarray]:
            blank = list[int]()
            if isinstance(query, Description):
                query, blank, _ = self.context.made(query)
            right, noise = own_noise(
                runner, query, micro_batch, sample, self.rng, packing=setup.results.travel
            )
            if blank:
                right[blank] = np.nan
            return right, noise

        checkers = Checkers(self.elsewhere, members)
        referee = Referee(
            members,
            tolerance,
            byzantine=self._byzantine,
            own=own if setup.referee == "client" else None,
            hardware=hardware_class(runner, setup.threads),
            micro_batch=micro_batch,
            ask=checkers.ask,
            call=self.context.compute,
            rng=self.rng,
        )
        self._checking = Checking(
            self.context,
            checkers,
            members,
            self.windows,
            CheckerOrder(self.rng),
            referee,
            self.enforcement,
            self.suspected,
        )

    def _measure(self) -> tuple[Runner, np.ndarray, Tolerance | TolerancePerOutput]:
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
        packing = setup.results.travel
        tolerance = measure_tolerance(runner, sample, micro_batch, rng=self.rng, packing=packing)
        return runner, sample, tolerance

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
                await self.enforcement.carry_out(check, verdict, checked_by=checker)
            self.context.journal("verdict", of=[old["session"], old["number"]])

    async def send_old(self) -> None:
        """Send rows to checkers that have waited for long enough, for ever."""
        if self._checking is not None:
            await self._checking.send_old()

    # ---- a share is back ------------------------------------------------------------------------

    async def left_out(self, batch: RowGroup, group: GroupTransfer) -> frozenset[int]:
        """The shares of a complete group that are not to be used: what is no output, and what the
        others vote against."""
        out = frozenset(s for s, one in group.share_outputs.items() if one.malformed is not None)
        if self._voting is not None:
            out |= await self._voting.left_out(batch, group)
        for share in sorted(out):
            returned = group.share_outputs[share]
            self.suspected[returned.worker] += 1
            why = returned.malformed or "the others differ from it"
            self.context.journal(
                "suspect", group=batch.number, share=share, worker=returned.worker, why=why
            )
            if self._checking is not None:  # the first row of what is no output
                member, asked = self.members.index(returned.member), group.asked(share)
                of = Checked(member, batch.number, share, window=batch.window, asked=asked)
                query, model = take(group.shares[share], [0]), group.models[share]
                self._checking.begin(Check(of, sources(batch, share, 0), query, None, model))
        return out

    def draw(self, batch: RowGroup, group: GroupTransfer, decoded: DecodedGroup) -> list[DrawnRows]:
        """Draw the rows to check of each share that is used; to be called in a thread."""
        if self._checking is None:
            return []
        return draw(batch, group, decoded, self.context.setup, self._outliers, self.rng)

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

    async def adopt_conviction(
        self, bars: Sequence[Mapping[str, Any]], event: Mapping[str, Any]
    ) -> None:
        """Another run on the same cluster has convicted workers: nothing of theirs is used here."""
        await self.enforcement.adopt(bars, event)
        if self._checking is not None:
            self._checking.redo_void()

    # ---- before the store is called whole -------------------------------------------------------

    async def finish_checks(self) -> None:
        """Make up the checks of written rows that are void, or that ``assurance`` asks for.

        It ends early at a conviction: rows are pending then.
        """
        setup, checking = self.context.setup, self._checking
        if checking is None:
            return
        left = RepeatedChecks(
            setup.store, self.context.queries, setup.results, self.windows.spans, self.members
        )
        convicted = len(self.members.convictions)

        async def made(due: Iterator[DueChecks]) -> bool:
            some = False
            while (found := await self.context.read(next, due, None)) is not None:
                _, checks, mixed = found
                some |= bool(checks)
                if len(mixed):
                    await self.windows.set_pending(mixed)
                    self.context.journal(RESCORED, rows=mixed.tolist())
                await checking.of_written(checks)
            return some

        while self.members.convictions or setup.assurance is not None:
            some = await made(left.void())
            if not some and setup.assurance is not None:
                some = await made(left.besides(setup.assurance, self._byzantine, self.rng))
            if not some or len(self.members.convictions) > convicted:
                return

    # ---- for the report -------------------------------------------------------------------------

    def records(self) -> tuple[dict[str, WorkerRecord], list[tuple[Member, Proof]]]:
        """The ledger of the workers, with what was found about their trustworthiness; and what
        checks prove of each member that is not convicted, of all sessions."""
        records = self.context.connection.worker_records()
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
