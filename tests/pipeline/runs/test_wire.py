"""The messages of the scheduler's plugin to a client, and all that reaches a worker of a share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import task_log
import toy_models
from distributed import Client

import approxifer
from approxifer.datasets import Journal
from approxifer.models import open_model
from approxifer.pipeline.byzantine.hardware import hardware_class, processor
from approxifer.pipeline.client.connection import Connection
from approxifer.pipeline.protocol import Complete, Returned, RunEvent, Send, WorkerChange


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[RunEvent]:
    """The plugin's events for the runs of a test."""
    seen: list[RunEvent] = []
    poll = Connection.poll_forever

    async def recorded(self: Connection, handle: Callable[[RunEvent], None]) -> None:
        def both(event: RunEvent) -> None:
            seen.append(event)
            handle(event)

        await poll(self, both)

    monkeypatch.setattr(Connection, "poll_forever", recorded)
    return seen


def test_nothing_that_reaches_a_worker_separates_a_check_from_a_share(
    client: Client,
    store: Path,
    rows: np.ndarray,
    tmp_path: Path,
    events: list[RunEvent],
) -> None:
    client.register_plugin(task_log.TaskLog())
    report = approxifer.score(
        store, model=toy_models.slow_linear, out=tmp_path / "out.zarr", client=client, k=2,
        stragglers=0, byzantine=1, block=5, window=100, check=3, progress=False,
    )  # fmt: skip
    np.testing.assert_array_equal(report.predictions.prediction, toy_models.linear(rows))
    seen = {key: task for one in client.run(task_log.read).values() for key, task in one.items()}
    client.unregister_worker_plugin(task_log.NAME)
    kinds = {e["group"]: e["kind"] for e in Journal.read(report.out) if e["event"] == "group"}
    sent = {
        one.key: (one, kinds[event.group])
        for event in events
        if isinstance(event, Send)
        for one in event.to
    }
    ours = {key: task for key, task in seen.items() if str(key[0]).startswith("approxifer-")}
    assert len(ours) > 100
    assert ours.keys() <= sent.keys()
    assert len({name for name, _ in ours}) == 1
    assert {len(token) for _, token in ours} == {16}
    assert len({call for _, call in ours.values()}) == 1, "one function, the same arguments"
    ranks = {
        kind: [rank for key, (rank, _) in ours.items() if sent[key][1] == kind]
        for kind in ("coded", "check")
    }
    assert len(ranks["check"]) > 20
    assert min(ranks["check"]) >= min(ranks["coded"])

    # The events themselves: the process that ran each share.
    ready = {e.incarnation: e for e in events if isinstance(e, WorkerChange) and e.what == "ready"}
    assert len({one.worker for one in ready.values()}) == len(ready) == 6
    runner = open_model(toy_models.slow_linear).load(1)
    for one in ready.values():
        assert (one.host, one.place.node, one.place.device) == ("127.0.0.1", "", "cpu")
        assert one.place.hardware.startswith(f"cpu | {processor()} | ")
        assert one.place.hardware == hardware_class(runner, 1)
    for event in events:
        if isinstance(event, Returned):
            assert sent[event.key][1] == kinds[event.group]
            assert 3 * 4 <= event.nbytes < 5 * 3 * 4 + 1000, "one to five rows"
        elif isinstance(event, Complete):
            for attempt in event.attempts:
                assert ready[attempt.member].worker == attempt.worker
