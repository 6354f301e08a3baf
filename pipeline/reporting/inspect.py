"""Summary of an output store and its journal, finished or not."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.text import Text

from approxifer.datasets import FLAG_MEANINGS, OutputStore
from approxifer.datasets.ownership import own_events
from approxifer.pipeline.byzantine.membership import Conviction
from approxifer.pipeline.records import AttemptOutcome
from approxifer.pipeline.reporting.report import as_text, status_table, table
from approxifer.pipeline.reporting.timeline import draw_timeline
from approxifer.text import duration, natural, shortened

#: Attributes of the store that are shown; the others are long, or are shown elsewhere.
_ATTRIBUTES = ("code", "layout", "model", "postprocess", "input", "version", "doubtful")

_LONGEST = 70  #: characters of one attribute's value


def inspect_store(
    path: str | os.PathLike[str],
    *,
    timeline: str | os.PathLike[str] | None = None,
    session: str | None = None,
) -> str:
    """Tell what happened: rows by status, code, sessions, workers.

    Parameters
    ----------
    path : path of an output store; it may be unfinished, or being written
    timeline : path of a .png or .svg file, optional
        Where to draw what the workers did.
    session : str, optional
        The session to draw; the last one by default.

    Raises
    ------
    StoreError
        Not a store of ours, or damaged.
    ConfigError
        No such session, or a picture of another kind.
    """
    store = OutputStore.open(path, write=False)
    events, notes = own_events(store, nameless=True)
    counted = np.bincount(store.status(), minlength=len(FLAG_MEANINGS))
    counts = {name: int(n) for name, n in zip(FLAG_MEANINGS, counted, strict=True)}
    parts: list[RenderableType] = [
        Text(f"{store.path}: {store.rows:,} rows, predictions {_predictions(store)}"),
        *(Text(line) for line in _attribute_lines(store.attrs)),
        status_table(counts, store.rows),
    ]
    if counts["pending"]:
        parts.append(
            Text(
                f"unfinished: {counts['pending']:,} rows are pending; the command that began this "
                "store goes on where it stopped when it is started again"
            )
        )
    if events:
        parts += [_session_table(events), _worker_table(events)]
    for event in events:
        if event.get("event") == "conviction":
            parts.append(Text(Conviction.of(event).sentence))
        elif event.get("event") == "orphaned":
            parts.append(
                Text(
                    f"note: of {event['rows']:,} rows it is not known who wrote them: the journal "
                    "that told had gone"
                )
            )
    parts += [Text(f"note: {note}") for note in [*notes, *store.coordinate_notes]]
    if timeline is not None:
        drawn = draw_timeline(events, timeline, session=session, title=store.path.name)
        parts.append(Text(f"timeline drawn: {drawn}"))
    return as_text(parts)


def _predictions(store: OutputStore) -> str:
    """The outputs of a row: ``float32 (10)``, of several with their names."""
    shown = []
    for part in store.packing.parts:
        name = "" if store.packing.alone else f"{part.name} "
        shown.append(f"{name}{part.dtype} ({', '.join(map(str, part.shape))})")
    return ", ".join(shown)


def _attribute_lines(attrs: Mapping[str, Any]) -> Iterable[str]:
    for name in _ATTRIBUTES:
        if name in attrs:
            yield f"{name}: {_short(attrs[name])}"


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(inner)}" for key, inner in value.items())
    return shortened(value, _LONGEST)


def _session_table(events: Iterable[Mapping[str, Any]]) -> RenderableType:
    """One line per session; one without a close was interrupted, or runs."""
    made = table("Sessions", "session", "began", "groups", "windows", "evaluations", "wall", "end")
    began: dict[str, Any] = {}
    number: Counter[tuple[str, str]] = Counter()
    closed: dict[str, Mapping[str, Any]] = {}
    for event in events:
        name, kind = str(event.get("session", "")), event.get("event")
        number[name, str(kind)] += 1
        if kind == "session":
            began[name] = event.get("time")
        elif kind == "close":
            closed[name] = event
    for name, time in began.items():
        end = closed.get(name, {})
        made.add_row(
            name,
            datetime.fromtimestamp(time).strftime("%Y-%m-%d %H:%M:%S") if time else "",
            f"{number[name, 'group']:,}",
            f"{number[name, 'window']:,}",
            f"{end['evaluations']:,}" if "evaluations" in end else "",
            duration(end["wall_seconds"]) if "wall_seconds" in end else "",
            "closed" if end else "not closed",
        )
    return made


def _worker_table(events: Iterable[Mapping[str, Any]]) -> RenderableType:
    """Shares by fate, for each worker, over all sessions."""
    made = table("Workers: shares by fate", "worker", *AttemptOutcome, "times hung")
    number: Counter[tuple[str, str]] = Counter()
    names: set[str] = set()
    for event in events:
        for attempt in event.get("attempts", ()) if event.get("event") == "group" else ():
            names.add(attempt["worker"])
            number[attempt["worker"], attempt["fate"]] += 1
        if event.get("event") == "worker":
            names.add(event["worker"])
            number[event["worker"], event["what"]] += 1
    for name in sorted(names, key=natural):
        made.add_row(name, *(f"{number[name, kind]:,}" for kind in (*AttemptOutcome, "hung")))
    return made
