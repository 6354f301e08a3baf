"""Which lost jobs are submitted again, and when: the keeper, without a batch system."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from types import SimpleNamespace
from typing import Any

import pytest

from approxifer.pipeline import batch
from approxifer.pipeline.batch import BACKOFF, Keeper
from approxifer.pipeline.batchspec import BatchSpec


class Cluster:
    """What the keeper uses of dask-jobqueue's: awaiting it submits what is planned."""

    new_spec = "a job"

    def __init__(self, jobs: int) -> None:
        self.worker_spec: dict[str, str] = {f"w-{i}": self.new_spec for i in range(jobs)}
        self.workers: dict[str, Any] = {}
        self.scheduler = SimpleNamespace(workers={})
        self.submitted: list[str] = []
        self.refuse = False

    def __await__(self) -> Generator[Any, None, Cluster]:
        for name in sorted(set(self.worker_spec) - set(self.workers)):
            number = None if self.refuse else len(self.submitted)
            self.workers[name] = SimpleNamespace(job_id=number)
            self.submitted.append(name)
        if self.refuse:
            raise RuntimeError("sbatch: error: no such\naccount")
        return self
        yield  # an await that never waits

    def come(self, *names: str) -> None:
        self.scheduler.workers |= {name: SimpleNamespace(name=name) for name in names}

    def lose(self, name: str) -> None:
        """As Dask does once a worker has been away for long."""
        self.scheduler.workers.pop(name, None)
        del self.workers[name]


class Story:
    """A cluster and its keeper, at times that are given."""

    def __init__(self, *, jobs: int = 3, resubmissions: int = 2, kind: str = "slurm") -> None:
        self.cluster = Cluster(jobs)
        self.said: list[str] = []
        spec = BatchSpec(kind, "w", {}, 60.0, resubmissions, steady=100.0)
        self.keeper = Keeper(
            self.cluster, spec=spec, say=self.said.append, interval=0, minimum=jobs, maximum=jobs
        )
        self.queue: str | None = None
        asyncio.run(self._submit())

    async def _submit(self) -> None:
        await self.cluster

    def look(self, now: float) -> list[str]:
        """Look once; what was submitted."""
        before = len(self.cluster.submitted)
        asyncio.run(self.keeper._look(now))
        return self.cluster.submitted[before:]


@pytest.fixture
def story(monkeypatch: pytest.MonkeyPatch) -> Story:
    async def show(kind: str) -> str | None:
        return made.queue

    made: Any = SimpleNamespace(queue=None)
    monkeypatch.setattr(batch, "show_queue", show)
    made = Story()
    return made


def test_nothing_is_lost_nothing_is_submitted(story: Story) -> None:
    story.cluster.come("w-0", "w-1", "w-2")
    assert [story.look(t) for t in (1.0, 50.0, 500.0)] == [[], [], []]


def test_a_worker_that_lasted_is_replaced_at_once_however_often(story: Story) -> None:
    for start in range(0, 2000, 200):
        story.cluster.come("w-1")
        assert story.look(start + 1.0) == []
        assert story.look(start + 150.0) == []
        story.cluster.lose("w-1")
        assert story.look(start + 151.0) == ["w-1"]
    assert not story.said


def test_one_that_is_lost_early_is_replaced_later_each_time_and_then_given_up(story: Story) -> None:
    now, waits = 10.0, []
    for _ in range(2):
        story.cluster.come("w-1")
        story.look(now)
        story.cluster.lose("w-1")
        begun = now
        while not (submitted := story.look(now)):
            now += 1.0
        assert submitted == ["w-1"]
        waits.append(now - begun)
    assert waits == [0.0, 2 * BACKOFF]
    story.cluster.lose("w-1")
    assert story.look(now + 1) == story.look(now + 1000) == []
    assert list(story.keeper.given_up) == ["w-1"]
    assert "w-1" not in story.cluster.worker_spec
    (text,) = story.said
    assert "worker w-1 is given up: its job was lost early 3 times in a row" in text
    assert "or raise resubmissions" in text


def test_lasting_once_forgives_what_was_before(story: Story) -> None:
    for lasted in (1.0, 1.0, 200.0, 1.0, 1.0):
        story.cluster.come("w-1")
        story.look(1000.0)
        story.look(1000.0 + lasted)
        story.cluster.lose("w-1")
        story.look(1000.0 + lasted)
        story.look(5000.0)
        assert "w-1" in story.cluster.workers
    assert not story.said


def test_a_job_that_leaves_the_queue_before_its_worker_came(story: Story) -> None:
    story.cluster.come("w-0", "w-1")
    story.queue = "0 RUNNING None n1\n1 RUNNING None n1\n"
    assert story.look(20.0) == []  # it may be about to come
    assert story.look(31.0) == []
    assert story.look(400.0) == ["w-2"]  # as long as Dask waits for a worker that has left
    assert story.keeper.queue["w-0"] == "RUNNING None n1"


def test_a_queue_that_does_not_answer_says_nothing(story: Story) -> None:
    story.cluster.come("w-0", "w-1")
    assert [story.look(t) for t in (20.0, 60.0, 600.0)] == [[], [], []]


def test_a_submission_that_is_refused_is_tried_again_and_counts(story: Story) -> None:
    story.cluster.come("w-0", "w-1", "w-2")
    story.look(1.0)
    story.cluster.lose("w-2")
    story.cluster.refuse = True
    assert story.look(2.0) == ["w-2"]
    assert "w-2" not in story.cluster.workers
    story.cluster.refuse = False
    assert story.look(3.0) == []
    assert story.look(30.0) == ["w-2"]
    story.cluster.refuse = True
    story.cluster.lose("w-2")
    story.look(31.0)
    assert "lost early 3 times" in story.said[0]


def test_the_reason_of_a_refusal_is_told_in_one_line(story: Story) -> None:
    story.cluster.refuse = True
    story.cluster.lose("w-2")
    for now in range(1, 200):
        story.look(float(now))
    assert "it could not be submitted: sbatch: error: no such account" in story.said[0]
