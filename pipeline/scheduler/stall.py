"""Nothing comes back: for how long, and where the shares are. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from math import inf

from approxifer.pipeline.protocol import HeldShare, Stalled
from approxifer.pipeline.scheduler.state import GroupState


@dataclass
class StallWatch:
    """The time since a share came back last, or there was nothing to wait for."""

    since: float = inf
    warned: bool = False  #: since then

    def progressed(self, now: float) -> None:
        """A share is back, or nothing is waited for."""
        self.since, self.warned = now, False

    def look(
        self, groups: Collection[GroupState], now: float, *, limit: float, ready: int, present: int
    ) -> Stalled | None:
        """A notice for the client when nothing has come back for half of the limit (in seconds),
        and for all of it. ``ready`` of ``present`` workers may be given shares."""
        if all(group.complete for group in groups):
            self.progressed(now)
            return None
        self.since = min(self.since, now)
        seconds = now - self.since
        if seconds < (limit if self.warned else limit / 2):
            return None
        final, self.warned = self.warned, True
        if final:
            self.since = now
        return Stalled(round(seconds, 1), final, ready, present, *held(groups, now))


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
