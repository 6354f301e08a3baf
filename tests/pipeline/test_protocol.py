"""Messages as they cross the wire, and messages that make no sense."""

from __future__ import annotations

import pickle
from typing import Any

import msgpack
import pytest

from approxifer.pipeline.keys import new_key
from approxifer.pipeline.protocol import (
    LONGEST,
    Attempt,
    Complete,
    Contradiction,
    ConvictedElsewhere,
    Ended,
    HeldShare,
    Place,
    Ready,
    Returned,
    RunEvent,
    Send,
    Sent,
    Stalled,
    Started,
    Unready,
    WorkerChange,
    WorkerReport,
    read_event,
    read_report,
    to_wire,
)
from approxifer.pipeline.records import AttemptOutcome

KEY = new_key("r")
PLACE = Place("n1", "cuda:0", "cuda | One")
REPORTS: list[WorkerReport] = [
    Ready("r", "1.0", "f" * 2000, PLACE),
    Unready("r", "1.0", "no torch"),
    Started(KEY),
    Ended(KEY, 8, True),
]
EVENTS: list[RunEvent] = [
    Send(3, (Sent(0, 1, "w", "tcp://h:1", KEY),)),
    Returned(3, KEY, 320),
    Complete(3, False, ((0, 1),), (Attempt(0, 1, "w", 7, AttemptOutcome.USED, 0.5, 1.5, None),)),
    WorkerChange("w", "ready", 0.1, 7, "h", PLACE),
    Contradiction("w", 7, PLACE, Place()),
    ConvictedElsewhere(({"name": "w"},), {"kind": "worker", "evidence": {"rows": 1}}),
    Stalled(9.0, False, 1, 2, (HeldShare(3, 0, "w", 9.0, True),), (4,)),
]


def crossed(message: WorkerReport | RunEvent, *, lists: bool) -> Any:
    """A message as Dask delivers it: with tuples, or with lists in their place."""
    return msgpack.unpackb(msgpack.packb(to_wire(message)), use_list=lists)


@pytest.mark.parametrize("lists", [False, True])
def test_a_message_is_read_as_it_was_sent(lists: bool) -> None:
    for report in REPORTS:
        assert read_report(crossed(report, lists=lists)) == report
    for event in EVENTS:
        assert read_event(crossed(event, lists=lists)) == event
        assert read_event(to_wire(event)) == event, "within one process nothing is packed"


@pytest.mark.parametrize("message", [*REPORTS, *EVENTS], ids=lambda one: one.op)
def test_no_class_is_sent(message: WorkerReport | RunEvent) -> None:
    assert b"approxifer.pipeline.protocol" not in pickle.dumps(to_wire(message))


@pytest.mark.parametrize("rows", ["x", None, 3.0, float("nan"), [], True, {}, b"3"])
def test_an_end_with_rows_that_are_no_number_is_ignored(rows: Any) -> None:
    assert read_report({"op": "ended", "key": list(KEY), "rows": rows, "whole": True}) is None


@pytest.mark.parametrize("whole", [1, None, "yes"])
def test_an_end_that_is_neither_whole_nor_not_is_ignored(whole: Any) -> None:
    assert read_report({"op": "ended", "key": list(KEY), "rows": 8, "whole": whole}) is None


def test_texts_of_a_worker_are_cut() -> None:
    long = "x" * 10**6
    cut = read_report({"op": "unready", "run": "r", "version": long, "error": long})
    assert cut == Unready("r", "x" * LONGEST, "x" * LONGEST)


def test_a_place_that_is_too_long_makes_its_worker_unready() -> None:
    wire = to_wire(Ready("r", "1.0", "f", Place("x" * (LONGEST + 1))))
    report = read_report(wire)
    assert isinstance(report, Unready)
    assert "its node" in report.error


def test_a_worker_s_report_is_no_event_of_the_plugin() -> None:
    with pytest.raises(ValueError, match="no message of the plugin"):
        read_event(to_wire(Started(KEY)))
    assert read_report(to_wire(EVENTS[0])) is None
