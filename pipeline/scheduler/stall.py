"""Nothing comes back: for how long, and who holds what. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from approxifer.pipeline.protocol import HeldShare
from approxifer.pipeline.scheduler.policy import GroupState


def held(groups: Iterable[GroupState], now: float) -> tuple[tuple[HeldShare, ...], tuple[int, ...]]:
    """The live shares of groups that are not complete, the longest first; and the groups none of
    whose shares is with any worker."""
    shares = []
    unplaced = []
    for group in groups:
        if group.complete:
            continue
        live = [attempt for attempt in group.attempts if attempt.live]
        if not live:
            unplaced.append(group.group)
        for attempt in live:
            since = attempt.sent if attempt.start is None else attempt.start
            seconds, running = round(now - since, 1), attempt.start is not None
            shares.append(HeldShare(group.group, attempt.share, attempt.name, seconds, running))
    shares.sort(key=lambda share: -share.seconds)
    return tuple(shares), tuple(unplaced)
