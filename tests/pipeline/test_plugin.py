"""The scheduler plugin without a scheduler: what it makes of messages."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest

from approxifer.coding import CodeSpec
from approxifer.pipeline.keys import TOPIC, new_key
from approxifer.pipeline.ledger import RunState
from approxifer.pipeline.plugin import StragglerPlugin
from approxifer.pipeline.policy import GroupState, Policy
from approxifer.pipeline.workerstate import WorkerState
from approxifer.version import __version__

#: What a message may hold instead of what belongs there.
GARBAGE: list[Any] = [
    None, True, 0, -1, 10**30, float("nan"), float("inf"), "", "x", "\x1b[2J", b"x", [], {}, [[]],
    [None, None], ["approxifer-r"], ["approxifer-r", {}], ["approxifer-r", "x", 3], {"r": 1},
    ["approxifer-r", "unknown"], [["approxifer-r", "x"]], "x" * 10**6,
]  # fmt: skip


@pytest.fixture
def plugin() -> StragglerPlugin:
    """Of a scheduler with one worker, "a0", and one run, "r", with one group."""
    made = StragglerPlugin()
    made.workers["a0"] = WorkerState("a0", "w0", "here", 1, seen=0.0)
    run = RunState(
        run="r",
        client="c",
        codes={"coded": CodeSpec("uncoded", 1).build()},
        policy=Policy(),
        fingerprint="f",
        seed=0,
        restart=False,
        began=0.0,
        workers=made.workers,
        block=8,
        micro_batch=8,
    )
    made.runs["r"], made._news["r"] = run, asyncio.Event()
    made.workers["a0"].ready.add("r")
    group = GroupState(0, run.codes["coded"], rows=8, priority=0)
    run.open_group(group)
    run.advance(group, 0.0)
    run.events.clear()
    return made


def messages(right: dict[str, dict[str, Any]]) -> Iterator[Any]:
    """Garbage; and what is ``right``, by its op, with a field missing, or garbage in its place."""
    yield from GARBAGE
    for op in GARBAGE:
        yield {"op": op} | next(iter(right.values()))
    for op, fields in right.items():
        for name in fields:
            yield {"op": op, **{n: value for n, value in fields.items() if n != name}}
            yield from ({"op": op, **fields, name: wrong} for wrong in GARBAGE)


def hear_all(plugin: StragglerPlugin, right: dict[str, dict[str, Any]]) -> None:
    """Hear all of these messages, from whomever Dask may say that they come."""
    for message, address in product(messages(right), ("a0", "a1", None, [], {}, 3)):
        told = isinstance(message, dict)
        plugin.log_event(TOPIC, {**message, "worker": address} if told else message)


def test_no_message_about_a_share_is_an_error(plugin: StragglerPlugin) -> None:
    run = plugin.runs["r"]
    ((key, (_, attempt)),) = run.by_key.items()
    strange = {"key": list(new_key("r"))}
    hear_all(plugin, {"started": strange, "ended": strange | {"rows": 8, "whole": True}})
    assert (attempt.start, plugin.workers["a0"].running, run.records) == (None, {}, {})
    hear_all(plugin, {"started": {"key": list(key)}})
    plugin.log_event(TOPIC, {"op": "started", "key": list(key), "worker": "a0"})
    assert list(plugin.workers["a0"].running) == [key]
    hear_all(plugin, {"ended": {"key": list(key), "rows": 8, "whole": True}})
    assert run.record("w0").evaluations in range(9)
    assert run.by_key == {key: (run.groups[0], attempt)}
    for topic in ("x", None, [TOPIC], {}):
        plugin.log_event(topic, {"op": "started", "key": list(key), "worker": "a0"})


def test_no_announcement_is_an_error(plugin: StragglerPlugin) -> None:
    run, place = plugin.runs["r"], plugin.workers["a0"]
    place.ready.clear()
    ready = {"run": "r", "version": __version__, "fingerprint": "f"}
    ready |= {"node": "", "device": "cpu", "hardware": "cpu | One"}
    hear_all(plugin, {"unready": {"run": "r", "version": __version__, "error": "no"}})
    assert (place.ready, set(run.unready)) == (set(), {"w0"})
    hear_all(plugin, {"ready": ready})
    plugin.log_event(TOPIC, {"op": "ready", **ready, "worker": "a0"})
    assert place.ready == {"r"}
    assert all(type(claim) is str and len(claim) <= 500 for claim in place.claims.values())
    assert len([e for e in run.events if e["op"] == "changed"]) <= 1


def test_no_two_workers_are_one(plugin: StragglerPlugin) -> None:
    """Not even where a name comes back at the same address."""
    there = SimpleNamespace(name="w1", host="10.0.0.1", nthreads=2)
    scheduler: Any = SimpleNamespace(workers={"tcp://10.0.0.1:1": there})
    plugin.scheduler, seen = scheduler, []
    for _ in range(3):
        plugin.add_worker(scheduler, "tcp://10.0.0.1:1")
        seen.append(plugin.workers["tcp://10.0.0.1:1"])
        plugin.remove_worker(scheduler, "tcp://10.0.0.1:1")
    assert len({one.incarnation for one in seen}) == 3
    assert {(one.name, one.host, one.slots) for one in seen} == {("w1", "10.0.0.1", 2)}


def test_a_share_of_a_run_that_is_over_runs_until_its_worker_says_its_end(
    plugin: StragglerPlugin,
) -> None:
    run, place = plugin.runs["r"], plugin.workers["a0"]
    ((key, _),) = run.by_key.items()
    plugin.log_event(TOPIC, {"op": "started", "key": list(key), "worker": "a0"})
    assert run.close() == [key]
    del plugin.runs["r"]
    plugin.log_event(TOPIC, {"op": "started", "key": list(key), "worker": "a0"})
    assert list(place.running) == [key]
    plugin.log_event(TOPIC, {"op": "ended", "key": list(key), "worker": "a0"})
    assert place.running == {}


def test_a_share_that_waits_leaves_its_queue_with_its_run(plugin: StragglerPlugin) -> None:
    assert plugin.workers["a0"].queued == 1
    plugin.runs["r"].close()
    assert plugin.workers["a0"].queued == 0
