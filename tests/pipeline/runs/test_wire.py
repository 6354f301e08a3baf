"""What a client is told by the scheduler's plugin, and what a worker is told of its shares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The plugin's news for the runs of a test."""
    heard: list[dict[str, Any]] = []
    follow = Connection.poll_forever

    async def overheard(self: Connection, hear: Any) -> None:
        await follow(self, lambda event: (heard.append(event), hear(event)))  # type: ignore[func-returns-value]

    monkeypatch.setattr(Connection, "poll_forever", overheard)
    return heard


def test_nothing_that_reaches_a_worker_tells_a_check_from_a_share(
    client: Client,
    store: Path,
    rows: np.ndarray,
    tmp_path: Path,
    events: list[dict[str, Any]],
) -> None:
    client.register_plugin(task_log.TaskLog())
    report = approxifer.score(
        store, model=toy_models.slow_linear, out=tmp_path / "out.zarr", client=client, k=2,
        stragglers=0, byzantine=1, block=5, window=100, check=3, progress=False,
    )  # fmt: skip
    np.testing.assert_array_equal(report.predictions.prediction, toy_models.linear(rows))
    seen = {key: said for one in client.run(task_log.read).values() for key, said in one.items()}
    client.unregister_worker_plugin(task_log.NAME)
    kinds = {e["group"]: e["kind"] for e in Journal.read(report.out) if e["event"] == "group"}
    sent = {
        tuple(to[3]): (to, kinds[event["group"]])
        for event in events
        if event["op"] == "send"
        for to in event["to"]
    }
    ours = {key: said for key, said in seen.items() if str(key[0]).startswith("approxifer-")}
    assert len(ours) > 100
    assert ours.keys() <= sent.keys()
    assert len({name for name, _ in ours}) == 1
    assert {len(token) for _, token in ours} == {16}
    assert len({said for _, said in ours.values()}) == 1, "one function, the same arguments"
    ranks = {
        kind: [rank for key, (rank, _) in ours.items() if sent[key][1] == kind]
        for kind in ("coded", "check")
    }
    assert len(ranks["check"]) > 20
    assert min(ranks["check"]) >= min(ranks["coded"])

    # The news themselves: who ran what, by process.
    who = {e["incarnation"]: e for e in events if e["op"] == "worker" and e["what"] == "ready"}
    assert len({one["worker"] for one in who.values()}) == len(who) == 6
    ready = open_model(toy_models.slow_linear).load(1)
    for one in who.values():
        assert (one["host"], one["node"], one["device"]) == ("127.0.0.1", "", "cpu")
        assert one["hardware"].startswith(f"cpu | {processor()} | ")
        assert one["hardware"] == hardware_class(ready, 1)
    for event in events:
        if event["op"] == "in":
            to, _ = sent[tuple(event["key"])]
            assert list(to[:3]) == [event["share"], event["attempt"], event["address"]]
            assert event["member"] in who
            assert 3 * 4 <= event["nbytes"] < 5 * 3 * 4 + 1000, "one to five rows"
        elif event["op"] == "complete":
            for attempt in event["attempts"]:
                assert who[attempt["member"]]["worker"] == attempt["worker"]
