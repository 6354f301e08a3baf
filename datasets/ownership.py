"""The journal that belongs to a store.

A store has a uuid, and every session in its journal names it. Without that, the journal of a store
that was deleted would be gone on with by the next one of that name, and the numbers by which a
store names its workers would be those of the deleted one.

Stores begun before there were uuids are given one when they are resumed: first in the journal
(``adopted``), then in the store, so that a crash in between leaves no doubt.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from approxifer.datasets.events import check_events
from approxifer.datasets.journal import Journal, journal_path
from approxifer.datasets.localdisk import sync
from approxifer.datasets.store import OutputStore
from approxifer.errors import StoreError
from approxifer.text import shortened

_UUID = re.compile(r"[0-9a-f-]{8,36}")


def own_events(
    store: OutputStore, *, nameless: bool = False
) -> tuple[list[dict[str, Any]], list[str]]:
    """Read a store's journal, and touch nothing.

    Parameters
    ----------
    nameless
        Whether a journal that names no store at all is given too, to be looked at: an older one, or
        one that another program wrote.

    Returns
    -------
    events : list of dict
        None where the journal is another store's.
    notes : list of str
        What a person should know of that.

    Raises
    ------
    StoreError
        The journal is damaged, or holds sessions of this store and of others.
    """
    path = journal_path(store.path)
    events = Journal.read(path)
    check_events(events, path)
    if events and not _is_of(store.uuid, events, path):
        if nameless and not _named(events):
            return events, [f"the journal {path} names no store: it may be of an earlier one"]
        other = ", ".join(shortened(one, 40) for one in sorted(_named(events))) or "without a uuid"
        notes = [f"the journal {path} is of another store ({other}), deleted or moved: not read"]
        return [], notes + _unknown(store)
    if _sessions(events):
        return events, []
    return events, _unknown(store)


def claim_journal(store: OutputStore) -> tuple[list[dict[str, Any]], list[str]]:
    """Make the journal beside a store its own, before a session is added to it.

    A journal of another store is set aside, under another name. Rows of which no journal names
    the writer are kept, and nobody is named for them any more. A store without a uuid gets one.

    Parameters
    ----------
    store
        Open for writing: its lock is held.

    Returns
    -------
    events, notes
        As of `own_events`.

    Raises
    ------
    StoreError
        As of `own_events`, or the journal is not one that approxifer wrote.
    OutputError
        The disk is full, or gone.
    """
    events, notes = own_events(store)
    path = journal_path(store.path)
    if not events and (others := Journal.read(path)):
        aside = _set_aside(path, _named(others))
        notes[0] = f"the journal of another store, deleted or moved, was set aside: {aside}"
    if store.uuid is None:
        given = next(iter(_named(events)), None) or uuid.uuid4().hex
        with Journal(path) as journal:
            journal.append({"event": "adopted", "store": given}, fsync=True)
        store.name_itself(given)
    if not _sessions(events) and store.forget_writers():
        with Journal(path) as journal:
            rows = int(np.count_nonzero(store.status()))
            journal.append({"event": "orphaned", "store": store.uuid, "rows": rows}, fsync=True)
    return events, notes


def _is_of(own: str | None, events: Iterable[Mapping[str, Any]], path: Path) -> bool:
    """True if a journal is this store's."""
    named = _named(events)
    if own is None:  # unless a crash came before the store had its uuid
        return not named or (len(named) == 1 and any(e.get("event") == "adopted" for e in events))
    if own in named and len(named) > 1:
        others = ", ".join(shortened(one, 40) for one in sorted(named - {own}))
        raise StoreError(
            f"The journal {path} holds sessions of this store ({own}) and of others ({others}): "
            "it is not clear who wrote what. Restore it from a copy; or move it away, and the "
            "store is gone on with as one of which nobody knows who wrote it."
        )
    return own in named


def _named(events: Iterable[Mapping[str, Any]]) -> set[str]:
    """The uuids that a journal names."""
    of = ("session", "adopted", "orphaned")
    return {str(e["store"]) for e in events if e.get("event") in of and e.get("store") is not None}


def _sessions(events: Iterable[Mapping[str, Any]]) -> bool:
    return any(event.get("event") == "session" for event in events)


def _unknown(store: OutputStore) -> list[str]:
    rows = int(np.count_nonzero(store.status()))
    if not rows:
        return []
    return [
        f"the journal of this store is gone: it is not known who wrote its {rows:,} rows. They are "
        "kept, but no check of them counts, and no conviction reaches them; delete the store to "
        "have them scored again"
    ]


def _set_aside(path: Path, named: set[str]) -> Path:
    """Rename a journal; what is there already stays."""
    known = sorted(one for one in named if _UUID.fullmatch(one))
    of = known[0] if known else "unknown"
    target = path.with_name(f"{path.name}.of-{of}")
    number = 1
    while os.path.lexists(target):
        number += 1
        target = path.with_name(f"{path.name}.of-{of}-{number}")
    path.rename(target)
    sync(path.parent, ())
    return target
