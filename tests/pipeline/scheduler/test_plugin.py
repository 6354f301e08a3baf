"""The scheduler plugin without a scheduler: messages of any kind, bars, restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest

from approxifer.coding import CodeSpec
from approxifer.pipeline.keys import TOPIC, new_key
from approxifer.pipeline.protocol import (
    ConvictedElsewhere,
    Ended,
    Place,
    WorkerChange,
    to_wire,
)
from approxifer.pipeline.scheduler.plugin import StragglerPlugin
from approxifer.pipeline.scheduler.policy import Policy
from approxifer.pipeline.scheduler.run_state import RunState
from approxifer.pipeline.scheduler.state import Bar, GroupState, WorkerState
from approxifer.version import __version__

#: What a message may hold instead of what belongs there.
GARBAGE: list[Any] = [
    None, True, 0, -1, 10**30, float("nan"), float("inf"), "", "x", "\x1b[2J", b"x", [], {}, [[]],
    [None, None], ["approxifer-r"], ["approxifer-r", {}], ["approxifer-r", "x", 3], {"r": 1},
    ["approxifer-r", "unknown"], [["approxifer-r", "x"]], "x" * 10**6,
]  # fmt: skip


def add_run(plugin: StragglerPlugin, name: str) -> RunState:
    """Another run, which may restart workers."""
    made = RunState(
        run=name,
        client="c",
        codes={"coded": CodeSpec("uncoded", 1).build()},
        policy=Policy(),
        fingerprint="f",
        seed=0,
        restart=True,
        began=0.0,
        workers=plugin.runs.workers,
        block=8,
        micro_batch=8,
    )
    plugin.runs.add(made)
    plugin.runs.workers["a0"].ready.add(name)
    return made


@pytest.fixture
def plugin() -> StragglerPlugin:
    """Of a scheduler with one worker, "a0", and one run, "r", with one group."""
    made = StragglerPlugin()
    made.runs.workers["a0"] = WorkerState(
        "a0", "w0", "here", 1, seen=0.0, incarnation=1, nanny="n0"
    )
    run = add_run(made, "r")
    group = GroupState(0, run.codes["coded"], rows=8, priority=0)
    run.open_group(group)
    run.advance(group, 0.0)
    run.events.clear()
    there = SimpleNamespace(status=None, last_seen=0.0)
    made.scheduler = SimpleNamespace(  # type: ignore[assignment]
        workers={"a0": there},
        running=[there],
        tasks={},
        loop=SimpleNamespace(add_callback=lambda call, *args: None),
        restart_workers=lambda addresses, **options: None,
    )
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


def send_all(plugin: StragglerPlugin, right: dict[str, dict[str, Any]]) -> None:
    """Send all of these messages, from whatever address Dask may give."""
    for message, address in product(messages(right), ("a0", "a1", None, [], {}, 3)):
        of_worker = isinstance(message, dict)
        plugin.log_event(TOPIC, {**message, "worker": address} if of_worker else message)


def test_no_message_about_a_share_is_an_error(plugin: StragglerPlugin) -> None:
    run = plugin.runs.states["r"]
    ((key, (_, attempt)),) = run.attempts.by_key.items()
    strange = {"key": list(new_key("r"))}
    send_all(plugin, {"started": strange, "ended": strange | {"rows": 8, "whole": True}})
    assert (attempt.start, plugin.runs.workers["a0"].running, run.ledger.records) == (None, {}, {})
    send_all(plugin, {"started": {"key": list(key)}})
    plugin.log_event(TOPIC, {"op": "started", "key": list(key), "worker": "a0"})
    assert list(plugin.runs.workers["a0"].running) == [key]
    send_all(plugin, {"ended": {"key": list(key), "rows": 8, "whole": True}})
    assert run.ledger.record("w0").evaluations in range(9)
    assert run.attempts.by_key == {key: (run.groups[0], attempt)}
    for topic in ("x", None, [TOPIC], {}):
        plugin.log_event(topic, {"op": "started", "key": list(key), "worker": "a0"})


def test_no_announcement_is_an_error(plugin: StragglerPlugin) -> None:
    run, place = plugin.runs.states["r"], plugin.runs.workers["a0"]
    place.ready.clear()
    ready = {"run": "r", "version": __version__, "fingerprint": "f"}
    place_of = {"node": "", "device": "cpu", "hardware": "cpu | One"}
    for name in place_of:
        for wrong in [one for one in GARBAGE if one not in ("", "x", "\x1b[2J")]:
            stated = place_of | {name: wrong}
            plugin.log_event(TOPIC, {"op": "ready", **ready, "place": stated, "worker": "a0"})
    assert place.ready == set()
    ready |= {"place": place_of}
    send_all(plugin, {"unready": {"run": "r", "version": __version__, "error": "no"}})
    assert (place.ready, set(run.ledger.unready)) == (set(), {"w0"})
    send_all(plugin, {"ready": ready})
    plugin.log_event(TOPIC, {"op": "ready", **ready, "worker": "a0"})
    assert place.ready == {"r"}
    assert place.place == Place(**place_of)


def test_no_two_workers_are_one(plugin: StragglerPlugin) -> None:
    """Not even where a name comes back at the same address."""
    there = SimpleNamespace(
        name="w1", host="10.0.0.1", nthreads=2, nanny=None, pid=1, memory_limit=None
    )
    scheduler, seen = plugin.scheduler, []
    scheduler.workers["tcp://10.0.0.1:1"] = there  # type: ignore[assignment]
    for _ in range(3):
        plugin.add_worker(scheduler, "tcp://10.0.0.1:1")
        seen.append(plugin.runs.workers["tcp://10.0.0.1:1"])
        plugin.remove_worker(scheduler, "tcp://10.0.0.1:1")
    assert len({one.incarnation for one in seen}) == 3
    assert {(one.name, one.host, one.slots) for one in seen} == {("w1", "10.0.0.1", 2)}


def test_the_other_runs_are_notified_of_a_conviction_with_its_bars(
    plugin: StragglerPlugin,
) -> None:
    first, second = plugin.runs.states["r"], add_run(plugin, "s")
    bars, conviction = [{"host": "here", "node": "", "device": None}], {"anything": [1, 2]}
    asyncio.run(plugin.runs.bar("r", bars, conviction))
    assert second.events[-1] == ConvictedElsewhere(tuple(bars), conviction)
    assert [type(event) for event in first.events] == [WorkerChange]
    assert first.ledger.barred == second.ledger.barred == {Bar(host="here", node="")}
    asyncio.run(plugin.runs.bar("s", [{"name": "w0"}]))
    assert (len(first.ledger.barred), len(second.ledger.barred)) == (1, 2), (
        "without one only that run's"
    )


@pytest.mark.parametrize("barred", [False, True])
def test_a_worker_that_one_run_has_barred_is_restarted_by_none(
    plugin: StragglerPlugin, barred: bool
) -> None:
    first, second = plugin.runs.states["r"], add_run(plugin, "s")
    if barred:
        first.bar([Bar(name="w0")], 0.0)
    plugin.runs.workers["a0"].seen, plugin._seen["a0"] = -1e6, 0.0
    plugin._tick()
    assert plugin.runs.workers["a0"].hung
    assert second.ledger.record("w0").restarts + first.ledger.record("w0").restarts == (
        0 if barred else 1
    )


def test_a_share_of_a_run_that_is_over_runs_until_its_worker_reports_its_end(
    plugin: StragglerPlugin,
) -> None:
    run, place = plugin.runs.states["r"], plugin.runs.workers["a0"]
    ((key, _),) = run.attempts.by_key.items()
    plugin.log_event(TOPIC, {"op": "started", "key": list(key), "worker": "a0"})
    assert run.attempts.close() == [key]
    del plugin.runs.states["r"]
    plugin.log_event(TOPIC, {"op": "started", "key": list(key), "worker": "a0"})
    assert list(place.running) == [key]
    plugin.log_event(TOPIC, to_wire(Ended(key, 3, False)) | {"worker": "a0"})
    assert place.running == {}


def test_a_share_that_waits_leaves_its_queue_with_its_run(plugin: StragglerPlugin) -> None:
    assert plugin.runs.workers["a0"].queued == 1
    plugin.runs.states["r"].attempts.close()
    assert plugin.runs.workers["a0"].queued == 0
