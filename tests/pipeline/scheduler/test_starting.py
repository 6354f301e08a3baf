"""Workers that leave, or are short of memory, before they have the model ready."""

from approxifer.pipeline.scheduler.starting import AWAY, SHORT, Starts, killed_for_memory
from approxifer.pipeline.scheduler.state import WorkerState


def worker(name: str, **fields: object) -> WorkerState:
    made = WorkerState(address=f"tcp://{name}", name=name, host="h", slots=1, seen=0.0)
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def test_one_end_is_waited_for_and_two_are_not() -> None:
    starts, a, b = Starts({}), worker("a"), worker("b")
    starts.ended(a, memory=False, now=0.0)
    assert (starts.unready, starts.able([b])) == ({}, 2)
    starts.look("r", [a, b], 1.0)
    starts.ended(a, memory=False, now=2.0)
    assert "ended 2 times" in starts.unready["a"]
    assert starts.able([b]) == 1


def test_one_that_stays_away_is_given_up() -> None:
    starts, a, b = Starts({}), worker("a"), worker("b")
    starts.ended(a, memory=False, now=0.0)
    starts.look("r", [b], AWAY - 1)
    assert starts.able([b]) == 2
    starts.look("r", [b], AWAY + 1)
    assert "did not come back" in starts.unready["a"]
    assert starts.able([b]) == 1


def test_one_that_gets_ready_begins_anew() -> None:
    starts, a = Starts({}), worker("a")
    starts.ended(a, memory=False, now=0.0)
    starts.look("r", [worker("a", ready={"r"})], 1.0)
    starts.ended(a, memory=False, now=100.0)
    assert starts.unready == {}


def test_a_memory_limit_is_named_at_once() -> None:
    starts, a = Starts({}), worker("a", memory=150_000_000)
    starts.ended(a, memory=True, now=0.0)
    assert starts.unready["a"].startswith("was killed by its memory limit of 150 MB")
    assert starts.able([a]) == 0


def test_one_that_is_short_of_memory_may_recover() -> None:
    starts = Starts({"b": "no torch"})
    short = worker("a", ready={"r"}, paused=True, memory=10**9)
    starts.look("r", [short], 0.0)
    starts.look("r", [short], SHORT - 1)
    assert set(starts.unready) == {"b"}
    starts.look("r", [short], SHORT + 1)
    assert "1,000 MB" in starts.unready["a"]
    starts.look("r", [worker("a", ready={"r"})], SHORT + 2)
    assert starts.unready == {"b": "no torch"}


def test_a_nannys_log_is_read_for_the_worker_meant() -> None:
    logs = [
        ("INFO", "Worker process 12 was killed by signal 15"),
        ("WARNING", "Worker tcp://a:1 (pid=12) exceeded 95% memory budget. Restarting..."),
    ]
    assert killed_for_memory(logs, 12)
    assert killed_for_memory(logs)
    assert not killed_for_memory(logs, 1)
    assert not killed_for_memory(logs[:1], 12)
