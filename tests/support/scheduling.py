"""A run on the scheduler, driven by hand, with the time given."""

from __future__ import annotations

from typing import Any, TypeVar

from approxifer.coding import CodeSpec
from approxifer.pipeline.keys import Key
from approxifer.pipeline.protocol import RunEvent
from approxifer.pipeline.scheduler.policy import Policy
from approxifer.pipeline.scheduler.run_state import RunState
from approxifer.pipeline.scheduler.state import AttemptState, GroupState, WorkerState

ROWS = 10
Event = TypeVar("Event", bound=RunEvent)


def worker(number: int, *, slots: int = 1, seen: float = 0.0) -> WorkerState:
    return WorkerState(
        address=f"a{number}",
        name=f"w{number}",
        host="here",
        slots=slots,
        seen=seen,
        incarnation=number + 1,
        ready={"r"},
    )


def make(
    scheme: str = "systematic",
    k: int = 2,
    stragglers: int = 1,
    *,
    workers: int = 4,
    run: str = "r",
    at: dict[str, WorkerState] | None = None,
    **policy: Any,
) -> RunState:
    """A run with workers ``w0``, ``w1``, ... at ``a0``, ``a1``, ..., or with those of another."""
    code = CodeSpec(scheme=scheme, k=k, stragglers=stragglers).build()
    return RunState(
        run=run,
        client="c",
        codes={"coded": code},
        policy=Policy(**({"floor": 0.0, "late": 3.0} | policy)),
        fingerprint="f",
        seed=0,
        restart=False,
        began=0.0,
        workers={f"a{i}": worker(i) for i in range(workers)} if at is None else at,
        block=ROWS,
        micro_batch=4,
    )


def begin(run: RunState, number: int = 0, now: float = 0.0, **fields: Any) -> GroupState:
    code = run.codes["coded"]
    group = GroupState(group=number, code=code, **({"rows": ROWS, "priority": 0} | fields))
    run.open_group(group)
    assert run.advance(group, now) == []
    return group


def key_of(group: GroupState, share: int, number: int = 0) -> Key:
    return find(group, share, number).key


def find(group: GroupState, share: int, number: int = 0) -> AttemptState:
    return next(a for a in group.attempts if (a.share, a.attempt) == (share, number))


def start(run: RunState, group: GroupState, share: int, now: float, number: int = 0) -> Key:
    key = key_of(group, share, number)
    run.attempts.started(key, find(group, share, number).address, now)
    return key


def end(
    run: RunState, group: GroupState, share: int, seconds: float, rows: int, number: int = 0
) -> None:
    """A share is left after ``rows`` rows."""
    attempt = find(group, share, number)
    assert attempt.start is not None
    now = attempt.start + seconds
    run.attempts.ended(attempt.key, attempt.address, now, rows=rows, whole=rows == ROWS)


def come_back(
    run: RunState,
    group: GroupState,
    share: int,
    *,
    since: float = 0.0,
    now: float = 1.0,
    number: int = 0,
) -> None:
    """A share's whole life."""
    key = start(run, group, share, since, number)
    end(run, group, share, now - since, ROWS, number)
    assert run.returned(key, now) is group


def events(run: RunState, kind: type[Event]) -> list[Event]:
    return [event for event in run.events if isinstance(event, kind)]


def totals(run: RunState) -> dict[str, int]:
    names = ("run", "dropped", "unstarted", "erased", "evaluations")
    return {name: sum(w[name] for w in run.summary()["workers"]) for name in names}
