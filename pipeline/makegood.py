"""Which rows a worker touched that is not to be believed, and taking them back in the store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np

from approxifer.datasets import Journal, OutputStore
from approxifer.pipeline.records import Status
from approxifer.pipeline.roster import Roster


def touched(
    status: np.ndarray,
    worker: np.ndarray,
    group: np.ndarray,
    *,
    convicted: Collection[int],
    groups: Collection[int],
) -> np.ndarray:
    """The rows that hold, or were decoded from, what a convicted worker returned: bool (n,).

    Parameters
    ----------
    status, worker, group : (n,)
        As in the output store.
    convicted
        Indices of convicted workers.
    groups
        Numbers of the groups to whose decoding one of them contributed.
    """
    own = np.isin(worker, sorted(convicted)) & (status != Status.PENDING)
    mixed = (status == Status.DECODED) & np.isin(group, sorted(groups))
    rows: np.ndarray = own | mixed
    return rows


def fail(
    store: OutputStore,
    span: tuple[int, int],
    members: np.ndarray,
    *,
    group: int,
    worker: int,
    blank: Callable[[int], np.ndarray],
) -> np.ndarray:
    """Set the rows of a written window to failed for which nobody can confirm a worker's output.

    Parameters
    ----------
    store
    span
        First row of the window, one past the last.
    members
        Rows of the window that the worker's group held.
    group, worker : int
        Number of the group, index of the worker.
    blank
        Outputs that are not there.

    Returns
    -------
    (n,) uint8
        The statuses that these rows had.
    """
    start, stop = span
    now = store.read_window(start, stop)
    rows = unconfirmed(now["status"], now["worker"], now["group"], members, group, worker)
    before: np.ndarray = now["status"][rows]
    now["prediction"][rows] = blank(len(before))
    now["status"][rows] = Status.FAILED
    now["worker"][rows] = -1
    store.write_window(start, stop, **now)
    return before


def unconfirmed(
    status: np.ndarray,
    worker: np.ndarray,
    group: np.ndarray,
    members: np.ndarray,
    number: int,
    index: int,
) -> np.ndarray:
    """Those of a group's rows that one worker touched: bool (n,); see `touched` and `fail`."""
    rows = touched(status, worker, group, convicted=[index], groups=[number])
    rows &= np.isin(np.arange(len(status)), members)
    return rows


def tainted_groups(events: Iterable[Mapping[str, Any]], roster: Roster) -> frozenset[int]:
    """The coded groups to which a convicted worker contributed, from the journal.

    A group that was run again, because its window was not whole at a crash, counts as the last
    session ran it.
    """
    found: dict[int, bool] = {}
    known: dict[tuple[str, str], bool] = {}
    for event in events:
        if event.get("event") != "group" or event.get("kind") != "coded":
            continue
        session = event["session"]
        names = event["shares"].values()
        for name in names:
            if (session, name) not in known:
                known[session, name] = roster.is_tainted(session, [name])
        found[event["group"]] = any(known[session, name] for name in names)
    return frozenset(number for number, bad in found.items() if bad)


def sweep(
    store: OutputStore, spans: Iterable[tuple[int, int, int]], roster: Roster
) -> dict[int, np.ndarray]:
    """Set every row of the store that a convicted worker touched to pending.

    Parameters
    ----------
    store
    spans
        The windows: index, first row, one past the last.
    roster
        Knows the convicted; their convictions are on the disk already.

    Returns
    -------
    dict
        For each window with such rows the statuses that these had.
    """
    found = {}
    groups: frozenset[int] | None = None
    convicted = roster.tainted()
    for index, start, stop in spans:
        now = store.read_window(start, stop, names=("status", "worker", "group"))
        if groups is None and (now["status"] == Status.DECODED).any():
            groups = tainted_groups(Journal.read(store.path), roster)
        rows = touched(**now, convicted=convicted, groups=groups or ())
        if rows.any():
            store.set_pending(start + np.flatnonzero(rows))
            found[index] = now["status"][rows]
    return found
