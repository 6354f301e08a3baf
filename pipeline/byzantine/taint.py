"""The rows that a convicted member's outputs went into, and taking them back in the store."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from approxifer.datasets import Journal, OutputStore
from approxifer.pipeline.byzantine.membership import Membership
from approxifer.pipeline.records import Status


def touched(
    status: np.ndarray,
    worker: np.ndarray,
    group: np.ndarray,
    *,
    convicted: Collection[int],
    groups: Collection[int],
) -> np.ndarray:
    """The rows that hold, or were decoded from, what a convicted worker returned: bool (n,).

    The arrays (n,) are those of the output store, ``convicted`` the indices of the workers, and
    ``groups`` the numbers of those to whose decoding one of them contributed.
    """
    own = np.isin(worker, sorted(convicted)) & (status != Status.PENDING)
    mixed = (status == Status.DECODED) & np.isin(group, sorted(groups))
    rows: np.ndarray = own | mixed
    return rows


def tainted_groups(events: Iterable[Mapping[str, Any]], members: Membership) -> frozenset[int]:
    """The coded groups to which a convicted member contributed, from the journal.

    A group that was run again, because its window was not whole at a crash, counts as the last
    session ran it. Journals before there were incarnations name workers only.
    """
    tainted = members.tainted()
    names = {(m.session, m.name) for m in (members.members[index] for index in tainted)}
    found: dict[int, bool] = {}
    for event in events:
        if event.get("event") != "group" or event.get("kind") != "coded":
            continue
        if "members" in event:
            bad = not tainted.isdisjoint(event["members"].values())
        else:
            bad = any((event["session"], name) in names for name in event["shares"].values())
        found[event["group"]] = bad
    return frozenset(number for number, bad in found.items() if bad)


def sweep(
    store: OutputStore, spans: Iterable[tuple[int, int, int]], members: Membership
) -> dict[int, np.ndarray]:
    """Set every row of the store that a convicted member touched to pending: for each window with
    such rows the statuses that these had. The convictions are on the disk already."""
    found = {}
    groups: frozenset[int] | None = None
    convicted = members.tainted()
    for index, start, stop in spans:
        now = store.read_window(start, stop, names=("status", "worker", "group"))
        if groups is None and (now["status"] == Status.DECODED).any():
            groups = tainted_groups(Journal.read(store.path), members)
        rows = touched(**now, convicted=convicted, groups=groups or ())
        if rows.any():
            store.set_pending(start + np.flatnonzero(rows))
            found[index] = now["status"][rows]
    return found


def standing(
    window: Mapping[str, np.ndarray], start: int, rows: Iterable[int], member: int, group: int
) -> np.ndarray:
    """Those of some rows of the input that hold a member's output, or were decoded in a group of
    its: bool (W,). The ``window`` from row ``start`` on has a ``status``, ``worker``, ``group``."""
    mine = np.isin(np.arange(start, start + len(window["status"])), list(rows))
    both: np.ndarray = mine & touched(**window, convicted=[member], groups=[group])
    return both
