"""Checks of rows that are written already: those that are void, and those that ``assurance`` asks.

A check is void once its checker is convicted, in this or a later session, or by another run. It is
made again against what is stored, and the store is not called whole before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from approxifer.datasets import Journal, OutputStore
from approxifer.pipeline.byzantine.membership import Membership
from approxifer.pipeline.byzantine.spot_checks import ASSURANCE, Check, Checked, owed, proofs
from approxifer.pipeline.byzantine.taint import standing
from approxifer.pipeline.records import Status
from approxifer.pipeline.results import Results
from approxifer.pipeline.share_rows import ShareRows

#: What a member has written itself.
OWN = (Status.EXACT, Status.REPAIRED)
#: Of one window: its span, the checks, and its rows that cannot be checked, because what is stored
#: is no share's output.
DueChecks = tuple[tuple[int, int, int], list[Check], np.ndarray]


@dataclass(frozen=True)
class RepeatedChecks:
    """The rows of a store that are still to be checked. All here reads, in the caller's thread."""

    store: OutputStore
    queries: Callable[[Sequence[int]], list[ShareRows]]  #: rows of the input, one by one
    results: Results  #: what is stored of outputs
    spans: Sequence[tuple[int, int, int]]  #: the windows: index, first row, one past the last
    members: Membership

    def void(self) -> Iterator[DueChecks]:
        """The checks to make again."""
        found = owed(Journal.read(self.store.path), self.members.tainted())
        for span in self.spans:
            _, start, stop = span
            here = [
                (share, rows)
                for share, some in found.items()
                for rows in sorted(some)
                if start <= rows[0] < stop
            ]
            if not here:
                continue
            now = self.store.read_window(start, stop, names=("status", "worker", "group"))
            own: dict[int, Checked] = {}
            mixed = np.zeros(stop - start, bool)
            for (member, group, share), rows in here:
                stands = standing(now, start, rows, member, group)
                lost = (now["status"] == Status.DECODED) | (not self.results.comparable)
                mixed |= stands & lost
                if len(rows) == 1 and (stands & ~lost).any():
                    own[rows[0]] = self._checked(member, group, share)
            checks = self._checks(own, start, stop)
            if checks or mixed.any():
                yield span, checks, start + np.flatnonzero(mixed)

    def besides(
        self, assurance: float, byzantine: int, rng: np.random.Generator
    ) -> Iterator[DueChecks]:
        """Checks of rows drawn of members whose bound is above ``assurance``; all rows of
        those that have too few."""
        tainted = self.members.tainted()
        found = proofs(Journal.read(self.store.path), tainted)
        missing = {m: p.missing(assurance) for m, p in found.items() if m not in tainted}
        if not any(missing.values()):
            return
        workers = np.concatenate([self._writers(start, stop) for _, start, stop in self.spans])
        drawn: dict[int, Checked] = {}
        for member in (m for m, rows in missing.items() if rows):
            mine = np.flatnonzero(workers == member)
            chosen = rng.permutation(mine)[: missing[member]]
            honest = 1 - max(0, byzantine - 1) / max(1, len(self.members.checkers(())))
            checked = self._checked(member, -1, -1, of=len(mine), rate=honest, why=ASSURANCE)
            drawn |= dict.fromkeys(chosen.tolist(), checked)
        for span in self.spans:
            _, start, stop = span
            here = {row: checked for row, checked in drawn.items() if start <= row < stop}
            if here:
                yield span, self._checks(here, start, stop), np.zeros(0, int)

    def _writers(self, start: int, stop: int) -> np.ndarray:
        """The member that each row of a window is of; -1 for rows that are no member's."""
        now = self.store.read_window(start, stop, names=("status", "worker"))
        return np.where(np.isin(now["status"], OWN), now["worker"], -1)

    def _checked(self, member: int, group: int, share: int, **fields: object) -> Checked:
        who = self.members.members[member]
        here = who.session == self.members.session
        asked = frozenset({who.incarnation} if here else ())
        return Checked(member, group, share, asked=asked, **fields)  # type: ignore[arg-type]

    def _checks(self, rows: Mapping[int, Checked], start: int, stop: int) -> list[Check]:
        """Checks of stored outputs."""
        if not rows:
            return []
        queries = self.queries(list(rows))
        outputs = self.results.returned(self.store.read_prediction(start, stop))
        return [
            Check(checked, (row,), query, outputs[row - start].copy())
            for (row, checked), query in zip(rows.items(), queries, strict=True)
        ]
