"""The injector's faults, one by one, as a worker suffers them; no cluster."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import toy_models
from waiting import until

from approxifer.pipeline import faults
from approxifer.pipeline.faults import FaultPlugin, Hang, Raise, Run, Slow, through

ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)


class Sleeps:
    """Stands in for `time`: sleeping only moves the clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Sleeps:
    made = Sleeps()
    monkeypatch.setattr(faults, "time", made)
    return made


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    faults._armed.clear()


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def taking(clock: Sleeps, seconds: float) -> Run:
    """A model that takes so long."""

    def run(rows: np.ndarray) -> np.ndarray:
        clock.now += seconds
        return toy_models.linear(rows)

    return run


# ---- slow ----------------------------------------------------------------------------------------


def test_slow_takes_factor_times_as_long(clock: Sleeps) -> None:
    slow = Slow(5).arm(rng())
    out = slow(taking(clock, 0.2), ROWS)
    np.testing.assert_array_equal(out, toy_models.linear(ROWS))
    assert clock.slept == [pytest.approx(0.8)]
    assert clock.now == pytest.approx(1.0)


def test_slow_takes_at_least_so_many_seconds_longer(clock: Sleeps) -> None:
    slow = Slow(factor=2, seconds=0.5).arm(rng())
    slow(taking(clock, 0.1), ROWS)
    slow(taking(clock, 3.0), ROWS)
    assert clock.slept == [pytest.approx(0.5), pytest.approx(3.0)]


def test_slow_now_and_then(clock: Sleeps) -> None:
    slow = Slow(seconds=1.0, share=0.25).arm(rng())
    for _ in range(400):
        slow(toy_models.linear, ROWS)
    assert 70 < len(clock.slept) < 130
    clock.slept.clear()
    never = Slow(seconds=1.0, share=0.0).arm(rng())
    always = Slow(seconds=1.0).arm(rng())
    for _ in range(50):
        never(toy_models.linear, ROWS)
    assert clock.slept == []
    for _ in range(50):
        always(toy_models.linear, ROWS)
    assert len(clock.slept) == 50


def test_chance_is_seeded(clock: Sleeps) -> None:
    def pattern(seed: int) -> list[int]:
        slow, found = Slow(seconds=1.0, share=0.5).arm(rng(seed)), []
        for _ in range(40):
            before = len(clock.slept)
            slow(toy_models.linear, ROWS)
            found.append(len(clock.slept) - before)
        return found

    assert pattern(1) == pattern(1)
    assert pattern(1) != pattern(2)


def test_slow_really_sleeps() -> None:
    begin = time.perf_counter()
    Slow(seconds=0.05).arm(rng())(toy_models.linear, ROWS)
    assert time.perf_counter() - begin >= 0.05


# ---- hang ----------------------------------------------------------------------------------------


def hung(after: int, calls: int) -> int:
    """How many of so many calls come back within half a second of the first that does not."""
    hang, came_back = Hang(after=after).arm(rng()), []

    def work() -> None:
        for _ in range(calls):
            came_back.append(hang(toy_models.linear, ROWS))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    until(lambda: len(came_back) >= min(after, calls))
    thread.join(0.3)
    assert thread.is_alive() == (calls > after)
    for out in came_back:
        np.testing.assert_array_equal(out, toy_models.linear(ROWS))
    return len(came_back)


def test_hang_never_returns() -> None:
    assert hung(after=0, calls=1) == 0


def test_hang_after_some_micro_batches() -> None:
    assert hung(after=3, calls=5) == 3
    assert hung(after=3, calls=3) == 3


def test_hang_leaves_the_process_to_others() -> None:
    hang = Hang().arm(rng())
    threading.Thread(target=hang, args=(toy_models.linear, ROWS), daemon=True).start()
    begin = time.perf_counter()
    for _ in range(100):
        toy_models.linear(ROWS)
    assert time.perf_counter() - begin < 5.0  # it waits, and does not spin


# ---- raise ---------------------------------------------------------------------------------------


def test_raise_raises_before_the_forward_pass() -> None:
    ran = []

    def run(rows: np.ndarray) -> np.ndarray:
        ran.append(len(rows))
        return rows

    fail = Raise(message="out of order").arm(rng())
    with pytest.raises(RuntimeError, match=r"^out of order$"):
        fail(run, ROWS)
    assert ran == []
    well = Raise(share=0.0).arm(rng())
    assert well(run, ROWS) is ROWS


def test_raise_now_and_then_seeded() -> None:
    def pattern(seed: int) -> list[bool]:
        fail, found = Raise(share=0.3).arm(rng(seed)), []
        for _ in range(300):
            try:
                fail(toy_models.linear, ROWS)
                found.append(False)
            except RuntimeError:
                found.append(True)
        return found

    assert 60 < sum(pattern(0)) < 120
    assert pattern(0) == pattern(0)
    assert pattern(0) != pattern(1)


# ---- the plugin ----------------------------------------------------------------------------------


def worker(name: str) -> Any:
    return SimpleNamespace(name=name)


def test_the_plugin_arms_the_workers_that_it_names() -> None:
    plugin = FaultPlugin({"worker-1": Raise()}, seed=0)
    for name in ("worker-0", "worker-1"):
        plugin.setup(worker(name))
    assert through(toy_models.linear, "worker-0") is toy_models.linear
    with pytest.raises(RuntimeError, match="injected fault"):
        through(toy_models.linear, "worker-1")(ROWS)
    plugin.teardown(worker("worker-1"))
    plugin.teardown(worker("worker-0"))
    assert through(toy_models.linear, "worker-1") is toy_models.linear


def test_names_may_be_numbers() -> None:
    """LocalCluster calls its workers 0, 1, ..."""
    FaultPlugin({"1": Raise()}, seed=0).setup(SimpleNamespace(name=1))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError):
        through(toy_models.linear, 1)(ROWS)
    assert through(toy_models.linear, 0) is toy_models.linear


def test_each_worker_has_its_own_chance_and_the_same_after_a_restart(clock: Sleeps) -> None:
    def pattern(name: str, seed: int = 0) -> list[bool]:
        plugin = FaultPlugin(dict.fromkeys(("a", "b"), Slow(seconds=1.0, share=0.5)), seed)
        plugin.setup(worker(name))
        found = []
        for _ in range(40):
            before = len(clock.slept)
            through(toy_models.linear, name)(ROWS)
            found.append(len(clock.slept) > before)
        return found

    assert pattern("a") == pattern("a")
    assert pattern("a") != pattern("b")
    assert pattern("a") != pattern("a", seed=1)


def test_the_plugin_can_be_sent() -> None:
    import pickle

    plugin = FaultPlugin({"a": Slow(3), "b": Hang(2), "c": Raise(0.5)}, seed=4)
    again = pickle.loads(pickle.dumps(plugin))
    assert (again.faults, again.seed, again.name) == (plugin.faults, 4, faults.PLUGIN)
