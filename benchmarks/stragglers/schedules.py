"""Seeded schedules of slowness, the same for every scheme, and the service time that they stretch.

Each share takes a stated time: a sleep before every micro-batch, of which a schedule makes a
multiple, and a real forward pass. The sleep carries the slowness, so that two cores can stand for a
dozen workers.

Whether a share is slow is a function of the seed, its worker, and how many shares that worker had
begun before. Not of (group, share, attempt): schemes cut their work into different shares, and
would draw other slow shares. So it is the machines that have a history, and every scheme meets the
same one: the 17th share that worker 3 begins is slow, whoever sent it, be it a block, a parity or
a copy.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf

import numpy as np

from approxifer.pipeline.faults.execution import Wrap
from approxifer.pipeline.worker import Run


@dataclass(frozen=True)
class Schedule:
    """Slowness of workers over time.

    Workers are numbered from 0; times count from a worker's first share.

    Attributes
    ----------
    label : str
        For tables.
    share, factor : float
        This part of the shares, drawn at random, takes so many times as long.
    worker : int, optional
        This one takes ``factor`` times as long for all of its shares.
    hung : int, optional
        This one never ends its first share.
    span : (float, float), optional
        Between these seconds every second worker takes ``factor`` times as long.
    """

    label: str
    share: float = 0.0
    factor: float = 1.0
    worker: int | None = None
    hung: int | None = None
    span: tuple[float, float] | None = None

    def slow(self, seed: int, worker: int, number: int) -> bool:
        """True if the worker's share of this number, from 0, is one of the slow ones."""
        if self.worker is not None:
            return worker == self.worker
        return self.share > 0 and np.random.default_rng([seed, worker, number]).random() < (
            self.share
        )

    def stretch(self, slow: bool, worker: int, since: float) -> float:
        """The factor of the sleep before a micro-batch; infinite where the worker hangs.

        Parameters
        ----------
        slow
            As `slow` has it, for the share.
        since
            Seconds since the worker began its first share.
        """
        if worker == self.hung:
            return inf
        span = self.span is not None and worker % 2 == 0 and self.span[0] <= since < self.span[1]
        return self.factor if slow or span else 1.0


SCHEDULES: Mapping[str, Schedule] = {
    "none": Schedule("no faults"),
    "few": Schedule("2 % of shares 10x slow", share=0.02, factor=10.0),
    "many": Schedule("10 % of shares 5x slow", share=0.10, factor=5.0),
    "worker": Schedule("one worker always 10x slow", worker=3, factor=10.0),
    "hung": Schedule("one worker hung from the start", hung=3),
    "span": Schedule("half of the workers 5x slow for 30 s", factor=5.0, span=(10.0, 40.0)),
}


@dataclass(frozen=True)
class Service:
    """The service time of one worker, under a schedule: a fault of `approxifer.pipeline.faults`.

    Attributes
    ----------
    schedule : Schedule
    seed : int
    worker : int
    seconds : float
        Slept before each micro-batch of a share that is not slow.
    process : int, optional
        The process that hangs, where the schedule has one: after a restart the worker is healthy.
    """

    schedule: Schedule
    seed: int
    worker: int
    seconds: float
    process: int | None = None

    def bind(self, rng: np.random.Generator) -> Wrap:
        """Begin to count the worker's shares. ``rng`` is not used: the schedule has a seed."""
        numbers: Iterator[int] = itertools.count()
        began: list[float] = []

        def serve(run: Run) -> Run:
            slow = self.schedule.slow(self.seed, self.worker, next(numbers))
            began.append(time.monotonic()) if not began else None

            def served(rows: np.ndarray) -> np.ndarray:
                since = time.monotonic() - began[0]
                stretch = self.schedule.stretch(slow, self.worker, since)
                if stretch == inf:
                    if os.getpid() == self.process:
                        threading.Event().wait()
                    stretch = 1.0
                time.sleep(self.seconds * stretch)
                return run(rows)

            return served

        return serve
