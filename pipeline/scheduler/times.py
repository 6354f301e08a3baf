"""Times of a run's shares: the median, and the pace of each worker. Pure.

All are of full shares: that of a shorter one counts by its micro-batches. Workers go by name, which
survives a nanny's restart.
"""

from __future__ import annotations

from collections import defaultdict, deque
from math import ceil, inf
from statistics import median

#: Times that the median is over, and those that are kept of each worker.
RECENT, OF_WORKER = 255, 1000
#: The weight of a new time in a worker's pace; the part of a slow pace that fades with each share.
WEIGHT, FADE = 0.3, 0.02


class ShareTimes:
    """The share times of one run.

    Parameters
    ----------
    block
        Rows of a full share.
    micro_batch
        Rows of a forward pass.
    """

    def __init__(self, block: int = 1, micro_batch: int = 1) -> None:
        self.pace: dict[str, float] = {}  #: seconds of a full share, by worker
        self._block, self._micro_batch = block, micro_batch
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._of_worker: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=OF_WORKER))
        self._median: float | None = None

    @property
    def typical(self) -> float | None:
        """The median in seconds; None before the third share."""
        if self._median is None and len(self._recent) >= 3:
            self._median = median(self._recent)
        return self._median

    def latency(self, name: str) -> float | None:
        """The median of one worker's shares in seconds; None before the first."""
        return median(self._of_worker[name]) if name in self._of_worker else None

    def pace_of(self, name: str) -> float:
        """The seconds that a full share will take on a worker."""
        return self.pace.get(name, self.typical or 1.0)

    def full(self, seconds: float, rows: int) -> float:
        """The time of a full share at the pace of one of so many rows."""
        batches = ceil(rows / self._micro_batch)
        return seconds * ceil(self._block / self._micro_batch) / batches

    def add(self, seconds: float) -> None:
        """Take in the time of a share, from its start to its end."""
        self._recent.append(seconds)
        self._median = None

    def returned(self, name: str, seconds: float) -> None:
        """A worker's share is back."""
        self.add(seconds)
        self._of_worker[name].append(seconds)
        self._set_pace(name, seconds)

    def stopped(self, name: str, seconds: float) -> None:
        """A worker's share was stopped: this shows only that a share takes longer."""
        if seconds > self.pace.get(name, self.typical or inf):
            self._set_pace(name, seconds)

    def sent(self, name: str) -> None:
        """A worker is sent a share: a slow record fades."""
        if name in self.pace and self.typical:
            self.pace[name] += FADE * (self.typical - self.pace[name])

    def _set_pace(self, name: str, seconds: float) -> None:
        known = self.pace.get(name)
        self.pace[name] = seconds if known is None else (1 - WEIGHT) * known + WEIGHT * seconds
