"""Workers that leave in good order, as they do before their walltime ends, and others that join."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_models
from distributed import Client, LocalCluster

import approxifer
from approxifer.datasets import Journal
from approxifer.pipeline.client import transport
from approxifer.pipeline.keys import Key, new_key, run_of
from approxifer.pipeline.worker import ModelOnWorker


class Errors(logging.Handler):
    """What Dask logs as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.lines.append(record.getMessage())


@pytest.fixture
def scheduler_errors() -> Iterator[list[str]]:
    """The scheduler runs in this process; ``silence_logs`` has set its logger's level."""
    handler, logger = Errors(), logging.getLogger("distributed.scheduler")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR)
    yield handler.lines
    logger.setLevel(level)
    logger.removeHandler(handler)


@pytest.mark.slow
def test_workers_leave_and_join(
    cluster: LocalCluster, client: Client, scheduler_errors: list[str], tmp_path: Path,
    store: Path, rows: np.ndarray,
) -> None:  # fmt: skip
    """With inputs in the scheduler's hands, each retirement made an AssertionError inside it."""
    everyone = len(cluster.worker_spec)
    job = approxifer.submit(
        store, model=toy_models.very_slow_linear, out=tmp_path / "out.zarr", client=client, k=3,
        block=4, window=100, progress=False,
    )  # fmt: skip
    try:
        for _ in range(3):
            for there in (everyone - 2, everyone):
                with pytest.raises(TimeoutError):
                    job.result(timeout=0.7)
                cluster.scale(there)
        report = job.result(timeout=90)
    finally:
        cluster.scale(everyone)
    assert report.counts["failed"] == 0
    changes = [event for event in Journal.read(report.out) if event["event"] == "worker"]
    assert "gone" in [event["what"] for event in changes]
    np.testing.assert_array_equal(report.predictions.prediction, toy_models.linear(rows))
    assert [line for line in scheduler_errors if "broadcast" not in line] == []


def test_inputs_of_dropped_shares_are_forgotten_with_the_next() -> None:
    plugin = ModelOnWorker("run", (), threads=1, row=np.zeros((1, 2)), micro_batch=8)
    first, second = new_key("run"), new_key("run")
    asyncio.run(plugin.put(share=first, rows=np.zeros((4, 2)), blank=[], stale=[]))
    asyncio.run(plugin.put(share=second, rows=np.ones((4, 2)), blank=[], stale=[first]))
    assert list(plugin.inputs) == [second]


def test_a_share_whose_input_is_gone_is_sent_again(
    client: Client,
    tmp_path: Path,
    store: Path,
    rows: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if a worker had been notified too early that a share is not wanted any more."""
    push, lost, pushed = transport.push, [], itertools.count()

    async def forgetful(client: Client, address: str, key: Key, *given: Any) -> None:
        await push(client, address, key, *given)
        if next(pushed) % 10 == 0:
            lost.append(key)
            await push(client, address, new_key(run_of(key)), given[0], [key])

    monkeypatch.setattr(transport, "push", forgetful)
    report = approxifer.score(
        store, model=toy_models.linear, out=tmp_path / "out.zarr", client=client, k=3, block=4,
        window=100, progress=False,
    )  # fmt: skip
    assert len(lost) >= 3
    assert report.counts["failed"] == 0
    np.testing.assert_array_equal(report.predictions.prediction, toy_models.linear(rows))
