"""A job of which nothing is left to do: its report is read from the store, without a cluster."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from typing import Any

import numpy as np

from approxifer.coding import CodeSpec
from approxifer.datasets import Journal, OutputStore
from approxifer.datasets.layout import FLAG_MEANINGS
from approxifer.datasets.ownership import own_events
from approxifer.pipeline.byzantine.evidence import undecided
from approxifer.pipeline.byzantine.membership import Member, Membership
from approxifer.pipeline.byzantine.repeated_checks import RepeatedChecks
from approxifer.pipeline.byzantine.spot_checks import Proof, proofs
from approxifer.pipeline.byzantine.taint import tainted_groups, touched
from approxifer.pipeline.planning.options import Options
from approxifer.pipeline.planning.partition import Layout
from approxifer.pipeline.records import Status
from approxifer.pipeline.reporting.report import Report
from approxifer.pipeline.results import Results
from approxifer.pipeline.share_rows import queries

#: Rows of these statuses are final, as far as their own session is concerned.
FINAL = ("exact", "decoded", "repaired", "failed")


def finished_report(
    options: Options,
    layout: Layout,
    spec: CodeSpec,
    results: Results,
    *,
    write: bool,
) -> Report | None:
    """The report of a run for which no worker is needed; None if one is.

    Every row is final (under ``retry_failed`` none has failed), and no verdict, no row that a
    convicted worker touched and no check is owed.

    Parameters
    ----------
    options
        The run's; its output store exists and was begun with these options.
    layout, spec
        The store's.
    results
        What is stored of outputs.
    write
        Complete what the last session was stopped before: the counts, and which hosts are forgiven.

    Raises
    ------
    StoreError
        The store is in use or damaged.
    """
    begin = time.monotonic()
    with OutputStore.open(options.out) as store:
        # A journal that is another store's is for the run itself to set aside.
        events, notes = own_events(store)
        if notes or not _all_final(store, retry=options.retry_failed):
            return None
        session = time.strftime("%Y%m%dT%H%M%S") + "-" + uuid.uuid4().hex[:8]
        members = Membership(
            session, events, quarantine=options.quarantine, forgive=options.forgive
        )
        spans = [(i, *span) for i, span in enumerate(store.grid.windows(layout.window))]
        if members.convictions and _tainted(store, spans, members, events):
            return None
        left = RepeatedChecks(store, queries, results, spans, members)
        if options.rows_checked and _owed(options, left, members, events):
            return None
        counts = final_counts(store)
        if write and ("counts" not in store.attrs or options.forgive):
            _close(store, options, members, counts, session)
        return Report(
            out=store.path,
            rows=store.rows,
            counts=counts,
            workers={},
            proofs=proved(members, events) if options.rows_checked else [],
            session=session,
            evaluations=0,
            wall_seconds=0.0,
            setup_seconds=time.monotonic() - begin,
            scheme=options.in_words(spec),
            resumed=store.rows,
            convicted=[c for c in members.convictions if not c.aside],
        )


def proved(members: Membership, events: list[dict[str, Any]]) -> list[tuple[Member, Proof]]:
    """The checks of each member that is not convicted, of all sessions, and what they prove."""
    tainted = members.tainted()
    found = sorted(proofs(events, tainted).items())
    return [(members.members[index], proof) for index, proof in found if index not in tainted]


def _all_final(store: OutputStore, *, retry: bool) -> bool:
    status = store.status()
    return not ((status == Status.PENDING).any() or (retry and (status == Status.FAILED).any()))


def _owed(
    options: Options, left: RepeatedChecks, members: Membership, events: list[dict[str, Any]]
) -> bool:
    """True if a verdict or a check is still to be made."""
    tainted = members.tainted()
    if any(tainted.isdisjoint((e["member"], e["checker"])) for e in undecided(events)):
        return True
    if next(left.void(), None) is not None:
        return True
    if options.assurance is None:
        return False
    drawn = left.besides(options.assurance, options.byzantine, np.random.default_rng(0))
    return next(drawn, None) is not None


def _tainted(
    store: OutputStore,
    spans: list[tuple[int, int, int]],
    members: Membership,
    events: list[dict[str, Any]],
) -> bool:
    """True if a convicted worker's outputs are still in the store."""
    convicted, groups = members.tainted(), tainted_groups(events, members)
    windows_of = (
        store.read_window(start, stop, names=("status", "worker", "group"))
        for _, start, stop in spans
    )
    return any(touched(**now, convicted=convicted, groups=groups).any() for now in windows_of)


def final_counts(store: OutputStore) -> dict[str, int]:
    """Rows of each final status, by its name."""
    found = Counter(FLAG_MEANINGS[value] for value in store.status().tolist())
    return {name: found.get(name, 0) for name in FINAL}


def _close(
    store: OutputStore,
    options: Options,
    members: Membership,
    counts: dict[str, int],
    session: str,
) -> None:
    """Write what the last session was stopped before, and which hosts are forgiven."""
    with Journal(options.out) as journal:
        for host in options.forgive:
            journal.append({"event": "forgiven", "session": session, "host": host}, fsync=True)
    store.close(
        counts=counts,
        workers=[member.name for member in members.members],
        extra={"convicted": [str(c) for c in members.convictions if not c.aside]},
    )
