"""Whom to doubt: sanity checks, suspicion, and the draw of audits, in one place. Pure.

The engine asks `Trust.inspect` about every share that comes back, has the shares in doubt run again
elsewhere, and tells the outcome. Simulations do the same with recorded outputs. Suspicion never
convicts: only a difference from what the referee computed does.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from approxifer.coding import Code
from approxifer.pipeline.audits import RANDOM, AuditBook, AuditRule
from approxifer.pipeline.suspicion import Suspicion
from approxifer.pipeline.tolerance import Tolerance


@dataclass(frozen=True, eq=False)
class ShareRef:
    """One share that came back: what it takes to run it again, and what to hold it against.

    Attributes
    ----------
    group, share : int
    worker : str
        Who returned it.
    code : Code
        Of its group.
    members : int (n,)
        The rows of its group within the window, codeword by codeword.
    window : (start, stop)
        The window's rows.
    output : (B, *out)
    malformed : str, optional
        What is wrong with its shape or dtype; ``output`` then stands in for it.
    """

    group: int
    share: int
    worker: str
    code: Code
    members: np.ndarray
    window: tuple[int, int]
    output: np.ndarray
    malformed: str | None = None


@dataclass(frozen=True, eq=False)
class Doubt:
    """A share to run again elsewhere.

    Attributes
    ----------
    ref : ShareRef
    why : str
        ``"random"``, or what is suspicious about it.
    held : bool
        Whether its group is not decoded before the outcome is known.
    score : float
        How suspicious it is; 0 for audits that were only drawn.
    """

    ref: ShareRef
    why: str
    held: bool
    score: float = 0.0


class Trust:
    """The doubts of one run. May be used from several threads.

    Parameters
    ----------
    code : Code
        Of the coded groups.
    rule : AuditRule
    tolerance : Tolerance
    rng : numpy.random.Generator
        Draws the audits; workers must not be able to foresee it.

    Attributes
    ----------
    suspected : Counter
        Shares held to be suspicious, by worker.
    audits : AuditBook
    """

    #: Clean audits after which a watched worker is watched no longer; who lies now and then passes
    #: a single one.
    CLEARED = 10
    #: Bytes of shares that are kept until there is a history to hold them against.
    EARLY_BYTES = 2**25

    def __init__(
        self, code: Code, *, rule: AuditRule, tolerance: Tolerance, rng: np.random.Generator
    ) -> None:
        self.tolerance = tolerance
        self.suspicion = Suspicion(code)
        #: Copies that agree are right, one of them being honest: only false alarms could be raised.
        self._adaptive = code.spec.adaptive
        self.audits: AuditBook[ShareRef] = AuditBook(rule, rng)
        self.suspected: Counter[str] = Counter()
        self._early: dict[tuple[int, int], ShareRef] = {}  #: not audited, the oldest first
        self._early_bytes = 0
        self._clean: Counter[str] = Counter()  #: audits of watched workers
        self._lock = threading.Lock()

    def inspect(
        self,
        refs: Sequence[ShareRef],
        *,
        coded: bool,
        finite: np.ndarray | None = None,
        to_come: float = 0.0,
    ) -> list[Doubt]:
        """Look at the shares of a group that is complete.

        Parameters
        ----------
        refs
            What came back.
        coded
            Whether it is a coded group; else one share of rows that are run plainly.
        finite : bool (n, B), optional
            The rows of each share whose input is finite. NaN and infinity are no surprise in the
            outputs of the others.
        to_come
            Shares that each worker is still expected to run.

        Returns
        -------
        list of Doubt
            Of this group, and, once there is a history to hold them against, of earlier ones.
        """
        doubts = {ref.share: doubt for ref in refs if (doubt := _unsound(ref, finite)) is not None}
        sound = [ref for ref in refs if ref.share not in doubts]
        found = []
        if coded and sound and not self._adaptive:
            found = self.suspicion.add(
                sound[0].group,
                {ref.share: ref.output for ref in sound},
                {ref.share: ref.worker for ref in sound},
            )
        elif sound and not coded:
            (ref,) = sound
            found = self.suspicion.add_plain(ref.group, ref.output, ref.worker)
        here = {(ref.group, ref.share): ref for ref in sound}
        watched = self.suspicion.watched
        with self._lock:
            earlier = []
            for one in found:
                key = (one.group, one.share)
                if key in here:
                    doubts[one.share] = Doubt(here[key], one.reason, held=True, score=one.score)
                elif (old := self._let_go(key)) is not None:
                    earlier.append(Doubt(old, one.reason, held=False, score=one.score))
                    self.audits.discard(old.worker, old)
            for ref in sound:
                if ref.share not in doubts and ref.worker in watched:
                    doubts[ref.share] = Doubt(ref, "suspicion of its worker added up", held=True)
            for doubt in (*doubts.values(), *earlier):
                self.suspected[doubt.ref.worker] += 1
            for ref in refs:
                drawn = self.audits.draw(ref.worker, to_come=to_come)
                if ref.share in doubts:
                    continue
                if drawn is not None:
                    doubts[ref.share] = Doubt(ref, drawn, held=False)
                else:
                    self.audits.keep(ref.worker, ref)
                    self._keep(ref)
        return [*doubts.values(), *earlier]

    def _keep(self, ref: ShareRef) -> None:
        """Keep a share that may be suspected once there is a history; forget the oldest ones."""
        self._let_go((ref.group, ref.share))
        self._early[ref.group, ref.share] = ref
        self._early_bytes += _nbytes(ref)
        while self._early_bytes > self.EARLY_BYTES:
            self._let_go(next(iter(self._early)))

    def _let_go(self, key: tuple[int, int]) -> ShareRef | None:
        ref = self._early.pop(key, None)
        self._early_bytes -= 0 if ref is None else _nbytes(ref)
        return ref

    def due(self) -> list[Doubt]:
        """What is to be audited before the run ends."""
        with self._lock:
            found = [Doubt(ref, RANDOM, held=False) for ref in self.audits.due()]
            for doubt in found:
                self._let_go((doubt.ref.group, doubt.ref.share))
            return found

    # ---- how it came out ------------------------------------------------------------------------

    def disputed(self, ref: ShareRef, again: np.ndarray, malformed: str | None) -> np.ndarray:
        """The rows in which a share differs from another run of it: bool (B,).

        Two honest runs may be a tolerance away from the referee's in either direction.
        """
        if ref.malformed or malformed:
            return np.ones(len(again), bool)
        return self.tolerance.differs(ref.output, again, times=2.0)

    def differ(self, copies: Sequence[ShareRef]) -> np.ndarray:
        """The rows in which several runs of one share differ from the first: bool (B,); none of
        them where there is one run, or none."""
        if len(copies) < 2:
            return np.zeros(1, bool)
        first, *others = copies
        found = [self.disputed(first, other.output, other.malformed) for other in others]
        rows: np.ndarray = np.any(found, axis=0)
        return rows

    def suspect(self, worker: str) -> None:
        """A share of this worker is suspicious."""
        with self._lock:
            self.suspected[worker] += 1

    def began(self, doubt: Doubt) -> None:
        """A share is run again."""
        with self._lock:
            self.audits.began(doubt.ref.worker, doubt.why)

    def clean(self, doubt: Doubt, auditor: str) -> None:
        """Both runs agree."""
        with self._lock:
            self.audits.clean(doubt.ref.worker, auditor, doubt.why)
        worker = doubt.ref.worker
        if worker in self.suspicion.watched:
            with self._lock:
                self._clean[worker] += 1
                enough = self._clean[worker] % self.CLEARED == 0
            if enough:
                self.suspicion.cleared(worker)

    def void(self, doubt: Doubt) -> None:
        """It came to nothing: somebody is convicted."""
        with self._lock:
            self.audits.void(doubt.ref.worker, doubt.why)

    def convict(self, workers: frozenset[str]) -> None:
        """These workers are convicted."""
        with self._lock:
            for worker in workers:
                self.audits.convict(worker)
            for key in [key for key, ref in self._early.items() if ref.worker in workers]:
                self._let_go(key)
        for worker in workers:
            self.suspicion.forget(worker)


def _nbytes(ref: ShareRef) -> int:
    """About what a share takes in memory, as if it shared its group's members with nobody."""
    return ref.output.nbytes + ref.members.nbytes + 1000


def worst(doubts: Sequence[Doubt], most: int) -> frozenset[int]:
    """The shares to leave out where nothing is audited: the ``most`` most suspicious ones, and all
    that are wrong on the face of it."""
    held = sorted((d for d in doubts if d.held), key=lambda d: -d.score)
    unsound = [doubt for doubt in held if doubt.score == np.inf]
    return frozenset(doubt.ref.share for doubt in [*unsound, *held[:most]])


def _unsound(ref: ShareRef, finite: np.ndarray | None) -> Doubt | None:
    """What is wrong with an output on the face of it."""
    if ref.malformed is not None:
        return Doubt(ref, ref.malformed, held=True, score=np.inf)
    if ref.output.dtype.kind not in "fc":
        return None
    bad = ~np.isfinite(ref.output.reshape(len(ref.output), -1)).all(axis=1)
    if finite is not None:
        bad &= finite[ref.share]
    if not bad.any():
        return None
    return Doubt(ref, f"{bad.sum()} rows are not finite", held=True, score=np.inf)
