"""Progress of a run on stderr: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as RichProgress

from approxifer.pipeline.records import Progress
from approxifer.text import duration, one_line, say


def describe(progress: Progress) -> str:
    """A snapshot in one line, without the bar.

    >>> describe(Progress(rows=1000, counts={"exact": 400}, elapsed=2.0, rate=200.0, eta=3.0,
    ...     stage="running", workers=10))
    '400 of 1,000 rows (400 exact), 200 rows/s, 3 s left, 10 workers'
    """
    if not progress.rows:
        return progress.stage
    kinds = [f"{n:,} {name}" for name, n in progress.counts.items() if n]
    if progress.resumed:
        kinds.append(f"{progress.resumed:,} from earlier sessions")
    if progress.provisional:
        kinds.append(f"{progress.provisional:,} more to be repaired")
    if progress.unchecked:
        kinds.append(f"{progress.unchecked:,} more to be checked")
    text = f"{progress.done:,} of {progress.rows:,} rows"
    if kinds:
        text += f" ({', '.join(kinds)})"
    parts = [text]
    if progress.disagreement is not None:
        parts.append(f"{100 * progress.disagreement:.2g} % expected to differ in class")
    if progress.rate is not None:
        parts.append(f"{progress.rate:,.0f} rows/s")
    if progress.stage == "running":
        if progress.eta is not None:
            parts.append(f"{duration(progress.eta)} left")
        convicted = f", {progress.convicted} convicted" if progress.convicted else ""
        parts.append(f"{progress.workers} worker{'s' * (progress.workers != 1)}{convicted}")
    else:
        parts.append(f"{progress.stage} after {duration(progress.elapsed)}")
    if progress.trouble:
        parts.append(progress.trouble)
    return ", ".join(parts)


class ProgressBar:
    """Shows snapshots of a run while the block lasts.

    Parameters
    ----------
    enabled : bool
        False shows nothing.
    stream : text file, optional
        Where to; stderr by default.
    every : float
        Seconds between lines where there is no terminal. The first comes at once, so does each
        new stage, and the last when the block ends.
    clock : callable
        Seconds that only grow.
    """

    def __init__(
        self,
        enabled: bool = True,
        *,
        stream: TextIO | None = None,
        every: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._enabled = enabled
        self._stream = stream if stream is not None else sys.stderr
        self._every = every
        self._clock = clock
        self._latest: Progress | None = None
        self._shown: Progress | None = None
        self._next = float("-inf")
        self._bar: RichProgress | None = None

    def __enter__(self) -> ProgressBar:
        console = Console(file=self._stream)
        if self._enabled and console.is_terminal:
            self._bar = RichProgress(
                SpinnerColumn(), BarColumn(bar_width=30), TextColumn("{task.description}"),
                console=console,
            )  # fmt: skip
            self._task = self._bar.add_task("starting", total=None)
            self._bar.start()
        return self

    def update(self, progress: Progress) -> None:
        """Take in a newer snapshot; cheap, and may be called from any thread."""
        self._latest = progress
        if self._bar is not None:
            self._bar.update(
                self._task,
                total=progress.rows or None,
                completed=progress.done,
                description=escape(one_line(describe(progress))),
            )
        elif self._enabled and (self._clock() >= self._next or self._new_stage()):
            self._print()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._enabled and self._latest is not self._shown:
            self._print()

    def _new_stage(self) -> bool:
        shown, latest = self._shown, self._latest
        return shown is not None and latest is not None and shown.stage != latest.stage

    def _print(self) -> None:
        if self._latest is not None:
            self._next = self._clock() + self._every
            self._shown = self._latest
            say(f"approxifer: {one_line(describe(self._latest))}", stream=self._stream)
