"""One run against Byzantine workers, played from recorded outputs, without a cluster.

Everything that decides is the engine's own: who runs what (`placement`), whom to doubt (`Trust`),
who is right (`Court`, `ClientReferee`), what is decoded, repaired and taken back (`weigh`,
`Intake`, `Window`, `touched`). Played are only the workers: they return what was recorded, or lie
about it. Groups come one after the other, and an audit is over before the next group; in the engine
some groups are under way meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from approxifer.benchmarks.recorded import Recording
from approxifer.benchmarks.script import Fault, Script
from approxifer.coding import Code, CodeSpec
from approxifer.coding.protocol import Array
from approxifer.pipeline.audits import AuditRule
from approxifer.pipeline.court import Bailiff, Court
from approxifer.pipeline.intake import Batch, Intake, weigh
from approxifer.pipeline.makegood import touched
from approxifer.pipeline.placement import Candidate, place
from approxifer.pipeline.records import Status, Testimony
from approxifer.pipeline.referee import ClientReferee
from approxifer.pipeline.roster import Conviction, Roster
from approxifer.pipeline.stream import BlockStream
from approxifer.pipeline.suspicion import Suspect, Suspicion
from approxifer.pipeline.tolerance import Tolerance
from approxifer.pipeline.trust import Doubt, ShareRef, Trust
from approxifer.pipeline.window import Window

PLAIN = CodeSpec(scheme="uncoded", k=1).build()


class Unsuspecting(Suspicion):
    """Suspects nobody."""

    def add(
        self, group: int, outputs: Mapping[int, Array], workers: Mapping[int, str]
    ) -> list[Suspect]:
        """Look away."""
        return []

    def add_plain(self, group: int, output: Array, worker: str) -> list[Suspect]:
        """Look away."""
        return []


@dataclass(kw_only=True)
class Outcome:
    """What became of a run.

    Attributes
    ----------
    rows : int
    convicted : dict of str to int
        The group in which each was convicted, counted from 1.
    suspected : dict of str to int
        Shares held to be suspicious, by worker.
    suspect_groups : int
        Coded groups with a share that looked odd by itself.
    watches : int
        How often suspicion of a worker had added up, so that each of its shares was audited.
    audits : int
    evaluations : int
        Rows that workers ran.
    shares, corrupted : Counter
        Shares that each worker ran, audits not counted, and those that it returned wrong, by more
        than the tolerance in at least one row.
    corrupted_audited : Counter
        Corrupted shares that were audited.
    bounds : dict of str to float
        The bound printed for each worker that is not convicted.
    wrong_rows : int
        Rows whose final output is further than the tolerance from the uncoded model's.
    changed_rows : int or None
        Rows whose class is another than the uncoded model's. None: no classes.
    """

    rows: int
    convicted: dict[str, int] = field(default_factory=dict)
    suspected: dict[str, int] = field(default_factory=dict)
    suspect_groups: int = 0
    watches: int = 0
    audits: int = 0
    evaluations: int = 0
    shares: Counter[str] = field(default_factory=Counter)
    corrupted: Counter[str] = field(default_factory=Counter)
    corrupted_audited: Counter[str] = field(default_factory=Counter)
    bounds: dict[str, float] = field(default_factory=dict)
    wrong_rows: int = 0
    changed_rows: int | None = None

    @property
    def evaluations_per_query(self) -> float:
        """Evaluations for each row."""
        return self.evaluations / self.rows


def simulate(
    recording: Recording,
    *,
    tolerance: Tolerance,
    rule: AuditRule,
    seed: int,
    faults: Mapping[str, Fault] | None = None,
    workers: int = 12,
    detectors: bool = True,
    cautious: bool = False,
) -> Outcome:
    """Score a recording with workers ``w0``, ``w1`` ..., equally loaded.

    Parameters
    ----------
    recording : Recording
        At least as many workers as shares, and one more to audit.
    tolerance : Tolerance
        Of the referee, which is the client.
    rule : AuditRule
    seed : int
        Of the placement, the audits, and the lies; each has a stream of its own. So the groups of
        two runs with one seed are placed alike until somebody is convicted.
    faults : mapping of worker name to Fault, optional
    workers : int
    detectors : bool
        Whether anything is suspected; else nothing but the rule's audits is done.
    cautious : bool
        Whether the liars are honest where they audit others. They cannot know that they do, if not
        by guess; but the chance to pass for honest is usually stated for their own shares.

    Raises
    ------
    TrustError
        More workers are convicted than the code is made for.
    """
    run = _Run(recording, tolerance, rule, seed, faults or {}, workers, detectors, cautious)
    return asyncio.run(run.play())


class _Run:
    def __init__(
        self,
        recording: Recording,
        tolerance: Tolerance,
        rule: AuditRule,
        seed: int,
        faults: Mapping[str, Fault],
        workers: int,
        detectors: bool,
        cautious: bool,
    ) -> None:
        self.recording, self.tolerance, self.cautious = recording, tolerance, cautious
        self.code: Code = recording.code
        self.script = Script(recording)
        placing, elsewhere, auditing, judging, lying = (
            np.random.default_rng([seed, stream]) for stream in range(5)
        )
        self.placing, self.elsewhere = placing, elsewhere
        self.answers = {name: self.script.answer(f, lying) for name, f in faults.items()}
        self.roster = Roster("simulated")
        self.names = [f"w{number}" for number in range(workers)]
        for name in self.names:
            self.roster.heard(name, "host", "cpu")
        self.trust = Trust(self.code, rule=rule, tolerance=tolerance, rng=auditing)
        if not detectors:
            self.trust.suspicion = Unsuspecting(self.code)
        self.court = Court(
            self.trust,
            self.roster,
            byzantine=self.code.spec.byzantine,
            referee=ClientReferee(self.script.honest.__getitem__, tolerance, judging),
            bailiff=Bailiff(
                run=self._audit, call=_call, journal=lambda *_, **__: None, execute=self._execute
            ),
        )
        self.window = Window(
            index=0,
            start=0,
            queries=recording.rows,
            order=np.concatenate(recording.members),
            prediction=np.zeros_like(recording.plain),
            coded_left=len(recording.members),
        )
        self.intake = Intake(
            BlockStream(),
            keep_decoded=False,
            blank=lambda rows: np.zeros_like(recording.plain[:rows]),
            index=self.roster.index,
        )
        self.numbers = count(len(recording.members))
        self.wrong: set[tuple[int, int]] = set()  #: shares returned corrupted
        self.watched: frozenset[str] = frozenset()
        self.done = Outcome(rows=len(recording.rows))

    async def play(self) -> Outcome:
        """Do it, as the engine's `_score` and the guard's `last_audits` do."""
        for number, members in enumerate(self.recording.members):
            batch = Batch(number, self.code, self.window, members, Status.EXACT, coded=True)
            await self._run(batch)
            self.window.coded_left -= 1
            await self._repair()
        while True:
            await self._repair()
            if (rows := self._tainted()).any():
                self.window.take_back(rows)
            elif due := self.trust.due():
                for doubt in due:
                    await self._settle(doubt)
            else:
                return self._finished()

    async def _repair(self) -> None:
        while due := list(self.window.due_repairs(self.recording.block)):
            for repair in due:
                number = next(self.numbers)
                batch = Batch(number, PLAIN, self.window, repair.rows, repair.status, coded=False)
                await self._run(batch, repair.avoid)

    async def _run(self, batch: Batch, avoid: frozenset[str] = frozenset()) -> None:
        """Run a group, and take its rows in."""
        names = self._place(batch.code, self.placing if batch.coded else self.elsewhere, avoid)
        refs = [self._ref(batch, share, name) for share, name in sorted(names.items())]
        to_come = self.window.coded_left * self.code.n / len(self._present())
        doubts = self.trust.inspect(refs, coded=batch.coded, to_come=to_come)
        self._count(doubts)
        for doubt in doubts:
            await self._settle(doubt)
        self.watched = self.trust.suspicion.watched
        guilty = {ref.share for ref in refs if self.roster.is_convicted(ref.worker)}
        stand = [ref for ref in refs if ref.share not in guilty]
        returned = weigh(
            batch,
            {ref.share: ref.output for ref in stand},
            {ref.share: ref.worker for ref in stand},
            failed=frozenset(),
            evicted=frozenset(names[share] for share in guilty),
        )
        self.intake.take(returned)

    def _present(self) -> list[str]:
        return [name for name in self.names if not self.roster.is_convicted(name)]

    def _place(self, code: Code, rng: np.random.Generator, avoid: frozenset[str]) -> dict[int, str]:
        candidates = [Candidate(name, name, 0.0, 1.0) for name in self._present()]
        return place(range(code.n), code, candidates, rng=rng, avoid=avoid)

    def _ref(self, batch: Batch, share: int, name: str) -> ShareRef:
        """Have a worker run a share."""
        rows = self._rows(batch.code, batch.number, share, batch.members)
        output = self._ask(name, rows)
        self.done.shares[name] += 1
        lies = name in self.answers
        if lies and self.tolerance.differs(output, self.script.honest[rows]).any():
            self.done.corrupted[name] += 1
            self.wrong.add((batch.number, share))
        span = (self.window.start, self.window.stop)
        return ShareRef(batch.number, share, name, batch.code, batch.members, span, output)

    def _rows(self, code: Code, number: int, share: int, members: np.ndarray) -> np.ndarray:
        return self.script.plain(members) if code is PLAIN else self.script.share(number, share)

    def _ask(self, name: str, rows: np.ndarray) -> np.ndarray:
        self.done.evaluations += len(rows)
        answer = self.answers.get(name, self.script.honest.__getitem__)
        return answer(rows)

    async def _settle(self, doubt: Doubt) -> bool:
        ref = doubt.ref
        if not self.roster.is_convicted(ref.worker):
            self.done.audits += 1
            self.done.corrupted_audited[ref.worker] += (ref.group, ref.share) in self.wrong
        return await self.court.settle(
            doubt, self._rows(ref.code, ref.group, ref.share, ref.members)
        )

    async def _audit(self, rows: np.ndarray, forbid: frozenset[str]) -> Testimony:
        """The bailiff's `run`: on a worker that is not forbidden."""
        candidates = [Candidate(n, n, 0.0, 1.0) for n in self._present() if n not in forbid]
        (name,) = place([0], PLAIN, candidates, rng=self.elsewhere).values()
        if self.cautious:
            self.done.evaluations += len(rows)
            return Testimony(name, self.script.honest[rows])
        return Testimony(name, self._ask(name, rows))

    async def _execute(self, conviction: Conviction) -> None:
        groups = len(self.recording.members) - self.window.coded_left
        self.done.convicted[conviction.member.name] = min(groups + 1, len(self.recording.members))

    def _count(self, doubts: Sequence[Doubt]) -> None:
        """Count what is suspicious, by itself and by what had added up."""
        odd = {d.ref.group for d in doubts if d.score > 0 and d.ref.code is not PLAIN}
        self.done.suspect_groups += len(odd)
        self.done.watches += len(self.trust.suspicion.watched - self.watched)

    def _tainted(self) -> np.ndarray:
        window = self.window
        return touched(
            window.status,
            window.worker,
            window.group,
            convicted=self.roster.tainted(),
            groups=(),
        )

    def _finished(self) -> Outcome:
        done, plain = self.done, self.recording.plain
        assert self.window.whole, "each row has its output"
        prediction = self.window.prediction
        done.wrong_rows = int(self.tolerance.differs(prediction, plain).sum())
        done.changed_rows = changed(prediction, plain)
        done.suspected = dict(self.trust.suspected)
        found = {name: self.trust.audits.bound(name) for name in self._present()}
        done.bounds = {name: bound for name, bound in found.items() if bound is not None}
        return done


async def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    """The bailiff's `call`: at once."""
    return function(*arguments)


def changed(prediction: np.ndarray, plain: np.ndarray) -> int | None:
    """Rows whose class is another; None where there are no classes."""
    if plain.ndim != 2:
        return None
    return int((prediction.argmax(axis=1) != plain.argmax(axis=1)).sum())
