"""Nothing comes back: for how long, and who holds what. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from approxifer.pipeline.scheduler.policy import GroupState
from approxifer.text import duration

#: Shares that are told of one by one.
SHOWN = 8


def held(groups: Iterable[GroupState], now: float) -> dict[str, Any]:
    """The places of the shares of groups that are not complete.

    Returns
    -------
    dict
        ``shares``: a list with for each live share its ``group``, ``share``, ``worker``, the
        ``seconds`` since it started or, where it has not, was sent, and whether it is ``running``;
        the longest first. ``unplaced``: the groups none of whose shares is with any worker.
    """
    shares: list[dict[str, Any]] = []
    unplaced = []
    for group in groups:
        if group.complete:
            continue
        live = [attempt for attempt in group.attempts if attempt.live]
        if not live:
            unplaced.append(group.group)
        for attempt in live:
            since = attempt.sent if attempt.start is None else attempt.start
            shares.append(
                {
                    "group": group.group,
                    "share": attempt.share,
                    "worker": attempt.name,
                    "seconds": round(now - since, 1),
                    "running": attempt.start is not None,
                }
            )
    shares.sort(key=lambda share: -share["seconds"])
    return {"shares": shares, "unplaced": unplaced}


def tell(seconds: float, found: Mapping[str, Any], *, ready: int, present: int) -> str:
    """Say it in a line, for a person.

    Parameters
    ----------
    seconds
        For which nothing has come back.
    found
        What `held` found.
    ready, present
        Workers that may be given shares, and all that are there.
    """

    parts = [
        f"group {one['group']} share {one['share']} {'runs' if one['running'] else 'waits'} on "
        f"{one['worker']} since {duration(one['seconds'])}"
        for one in found["shares"][:SHOWN]
    ]
    if (more := len(found["shares"]) - SHOWN) > 0:
        parts.append(f"{more:,} shares more")
    if found["unplaced"]:
        count = len(found["unplaced"])
        parts.append(f"{count:,} group{'s' * (count != 1)} without a worker that may run them")
    parts.append(f"{ready} of {present} workers can be used")
    return f"no share has come back for {duration(seconds)}: {'; '.join(parts)}"
