"""Which lost jobs are submitted again, and when: the keeper, without a batch system."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from approxifer.pipeline.cluster import batch
from approxifer.pipeline.cluster.batch import AWAY, BACKOFF, SOON, Keeper
from approxifer.pipeline.cluster.batch_spec import BatchSpec


class Cluster:
    """What the keeper uses of dask-jobqueue's: awaiting it submits what is planned."""

    new_spec = "a job"

    def __init__(self, jobs: int) -> None:
        self.worker_spec: dict[str, str] = {f"w-{i}": self.new_spec for i in range(jobs)}
        self.workers: dict[str, Any] = {}
        self.scheduler = SimpleNamespace(workers={})
        self.submitted: list[str] = []
        self.cancelled: list[int] = []
        self.left: set[int] = set()
        self.refuse = False

    def __await__(self) -> Generator[Any, None, Cluster]:
        for name in sorted(set(self.worker_spec) - set(self.workers)):
            number = None if self.refuse else len(self.submitted)
            self.workers[name] = SimpleNamespace(job_id=number, close=partial(self._cancel, number))
            self.submitted.append(name)
        if self.refuse:
            raise RuntimeError("sbatch: error: no such\naccount")
        return self
        yield  # an await that never waits

    def come(self, *names: str) -> None:
        self.scheduler.workers |= {name: SimpleNamespace(name=name) for name in names}

    async def _cancel(self, job: int) -> None:
        self.cancelled.append(job)

    def lose(self, *names: str, job: bool = True) -> None:
        """Their workers are gone, and their jobs."""
        for name in names:
            self.scheduler.workers.pop(name, None)
            if job:
                self.left.add(self.workers[name].job_id)

    @property
    def queue(self) -> str:
        """As Slurm shows it."""
        return "".join(
            f"{job.job_id} RUNNING None n1\n"
            for job in self.workers.values()
            if job.job_id not in self.left
        )


class Story:
    """A cluster and its keeper, at times that are given."""

    def __init__(self, *, jobs: int = 3, resubmissions: int = 2, kind: str = "slurm") -> None:
        self.cluster = Cluster(jobs)
        self.said: list[str] = []
        spec = BatchSpec(kind, "w", {}, 60.0, resubmissions, steady=100.0)
        self.keeper = Keeper(
            self.cluster, spec=spec, say=self.said.append, interval=0, minimum=jobs, maximum=jobs
        )
        self.dumb = False  #: the queue does not answer
        self.states = ("", "")  #: what the queue shows, and shall show instead
        self.now = 0.0
        asyncio.run(self._submit())

    async def _submit(self) -> None:
        await self.cluster

    def show(self) -> str | None:
        """The queue."""
        return None if self.dumb else self.cluster.queue.replace(*self.states)

    def until(self, now: float) -> dict[float, str]:
        """Look every second; what was submitted when."""
        submitted = {}
        while self.now < now:
            self.now += 1
            before = len(self.cluster.submitted)
            asyncio.run(self.keeper._look(self.now))
            submitted.update((self.now, name) for name in self.cluster.submitted[before:])
        return submitted


@pytest.fixture
def story(monkeypatch: pytest.MonkeyPatch) -> Story:
    async def show(kind: str) -> str | None:
        return made.show()

    made = Story()
    monkeypatch.setattr(batch, "show_queue", show)
    return made


def test_nothing_is_lost_nothing_is_submitted(story: Story) -> None:
    story.cluster.come("w-0", "w-1", "w-2")
    assert story.until(500) == {}


def test_a_worker_that_lasted_is_replaced_soon_however_often(story: Story) -> None:
    story.cluster.come("w-0", "w-1", "w-2")
    for start in range(0, 2000, 200):
        story.cluster.come("w-1")
        assert story.until(start + 150) == {}
        story.cluster.lose("w-1")
        (when,) = story.until(start + 200)
        assert when - (start + 150) <= 2 * SOON + 1
    assert not story.said


def test_one_that_is_lost_early_is_replaced_later_each_time_and_then_given_up(story: Story) -> None:
    story.cluster.come("w-0", "w-1", "w-2")
    story.until(10)
    waits = []
    for _ in range(2):
        story.cluster.come("w-1")
        story.until(story.now + 10)
        story.cluster.lose("w-1")
        lost = story.now
        (when,) = story.until(lost + 60)
        waits.append(when - lost)
    assert waits[0] <= 2 * SOON + 1
    assert 2 * BACKOFF <= waits[1] - waits[0] + 1 <= 2 * BACKOFF + SOON
    story.cluster.come("w-1")
    story.until(story.now + 10)
    story.cluster.lose("w-1")
    assert story.until(story.now + 1000) == {}
    assert list(story.keeper.given_up) == ["w-1"]
    assert "w-1" not in story.cluster.worker_spec
    (text,) = story.said
    assert "worker w-1 is given up: its job was lost early 3 times in a row" in text
    assert "its worker lasted 9" in text
    assert "or raise resubmissions" in text


def test_lasting_once_forgives_what_was_before(story: Story) -> None:
    story.cluster.come("w-0", "w-1", "w-2")
    for lasted in (10, 10, 200, 10, 10):
        story.cluster.come("w-1")
        story.until(story.now + lasted)
        story.cluster.lose("w-1")
        assert story.until(story.now + 60)
    assert not story.said


def test_a_job_that_leaves_the_queue_before_its_worker_came(story: Story) -> None:
    story.cluster.come("w-0", "w-1")
    assert story.until(300) == {}  # it may take hours
    assert story.keeper.queue["w-2"] == "RUNNING None n1"
    story.cluster.lose("w-2")
    assert "w-2" in story.until(400).values()


def test_a_worker_that_its_nanny_starts_anew_keeps_its_job(story: Story) -> None:
    story.cluster.come("w-0", "w-1", "w-2")
    story.until(10)
    story.cluster.lose("w-1", job=False)
    assert story.until(10 + AWAY / 2) == {}
    story.cluster.come("w-1")
    assert story.until(1000) == {}
    story.cluster.lose("w-1", job=False)
    (when,) = story.until(2000)
    assert AWAY <= when - 1000 <= AWAY + 2 * SOON
    assert story.cluster.cancelled == [1]


def test_a_requeued_job_is_left_to_the_batch_system(story: Story) -> None:
    story.cluster.come("w-0", "w-1", "w-2")
    story.until(10)
    story.cluster.lose("w-1", job=False)
    story.states = ("1 RUNNING", "1 PENDING")
    assert story.until(3600) == {}
    story.cluster.come("w-1")
    story.states = ("", "")
    assert story.until(4000) == {}


def test_a_queue_that_does_not_answer_says_nothing(story: Story) -> None:
    story.dumb = True
    story.cluster.come("w-0", "w-1")
    assert story.until(600) == {}
    story.cluster.lose("w-1")
    (when,) = story.until(1000)
    assert when - 600 >= AWAY


def test_a_submission_that_is_refused_is_tried_again_and_counts(story: Story) -> None:
    story.cluster.come("w-0", "w-1", "w-2")
    story.until(10)
    story.cluster.lose("w-2")
    story.cluster.refuse = True
    assert len(story.until(300)) == 2
    assert "w-2" not in story.cluster.workers
    (text,) = story.said
    assert "lost early 3 times" in text
    assert "it could not be submitted: sbatch: error: no such account" in text
