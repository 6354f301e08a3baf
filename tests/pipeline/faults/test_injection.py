"""The injector's faults, one by one as a worker suffers them, and a few on real workers."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import toy_models
from distributed import Client, LocalCluster
from waiting import until

from approxifer.errors import ConfigError, ModelError
from approxifer.models import ModelHandle, ensure, forget, open_model, run_rows
from approxifer.models.export import export_program
from approxifer.models.zoo import lenet5
from approxifer.pipeline import faults
from approxifer.pipeline.cluster.connect import workers_of
from approxifer.pipeline.faults import execution
from approxifer.pipeline.faults.corruption import Noise, NotANumber, SignFlip, WrongShape, Zeros
from approxifer.pipeline.faults.execution import Hang, Raise, Slow, StuckWeight
from approxifer.pipeline.faults.injection import FaultPlugin
from approxifer.pipeline.keys import new_key
from approxifer.pipeline.worker import HOOKS, Run, hook_of, run_input

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
    monkeypatch.setattr(execution, "time", made)
    return made


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    HOOKS.clear()


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
    slow = Slow(5).bind(rng())
    out = slow(taking(clock, 0.2))(ROWS)
    np.testing.assert_array_equal(out, toy_models.linear(ROWS))
    assert clock.slept == [pytest.approx(0.8)]
    assert clock.now == pytest.approx(1.0)


def test_slow_takes_at_least_so_many_seconds_longer(clock: Sleeps) -> None:
    slow = Slow(factor=2, seconds=0.5).bind(rng())
    slow(taking(clock, 0.1))(ROWS)
    slow(taking(clock, 3.0))(ROWS)
    assert clock.slept == [pytest.approx(0.5), pytest.approx(3.0)]


def test_slow_now_and_then(clock: Sleeps) -> None:
    slow = Slow(seconds=1.0, share=0.25).bind(rng())
    for _ in range(400):
        slow(toy_models.linear)(ROWS)
    assert 70 < len(clock.slept) < 130
    clock.slept.clear()
    never = Slow(seconds=1.0, share=0.0).bind(rng())
    always = Slow(seconds=1.0).bind(rng())
    for _ in range(50):
        never(toy_models.linear)(ROWS)
    assert clock.slept == []
    for _ in range(50):
        always(toy_models.linear)(ROWS)
    assert len(clock.slept) == 50


def test_chance_is_seeded(clock: Sleeps) -> None:
    def pattern(seed: int) -> list[int]:
        slow, found = Slow(seconds=1.0, share=0.5).bind(rng(seed)), []
        for _ in range(40):
            before = len(clock.slept)
            slow(toy_models.linear)(ROWS)
            found.append(len(clock.slept) - before)
        return found

    assert pattern(1) == pattern(1)
    assert pattern(1) != pattern(2)


def test_slow_really_sleeps() -> None:
    begin = time.perf_counter()
    Slow(seconds=0.05).bind(rng())(toy_models.linear)(ROWS)
    assert time.perf_counter() - begin >= 0.05


# ---- hang ----------------------------------------------------------------------------------------


def hung(after: int, calls: int) -> int:
    """How many of so many calls come back within half a second of the first that does not."""
    hang, came_back = Hang(after=after).bind(rng()), []

    def work() -> None:
        for _ in range(calls):
            came_back.append(hang(toy_models.linear)(ROWS))

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
    hang = Hang().bind(rng())
    threading.Thread(target=hang(toy_models.linear), args=(ROWS,), daemon=True).start()
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

    fail = Raise(message="out of order").bind(rng())
    with pytest.raises(RuntimeError, match=r"^out of order$"):
        fail(run)(ROWS)
    assert ran == []
    well = Raise(share=0.0).bind(rng())
    assert well(run)(ROWS) is ROWS


def test_raise_now_and_then_seeded() -> None:
    def pattern(seed: int) -> list[bool]:
        fail, found = Raise(share=0.3).bind(rng(seed)), []
        for _ in range(300):
            try:
                fail(toy_models.linear)(ROWS)
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
    assert hook_of("worker-0").run(toy_models.linear) is toy_models.linear
    with pytest.raises(RuntimeError, match="injected fault"):
        hook_of("worker-1").run(toy_models.linear)(ROWS)
    plugin.teardown(worker("worker-1"))
    plugin.teardown(worker("worker-0"))
    assert hook_of("worker-1").run(toy_models.linear) is toy_models.linear


def test_names_may_be_numbers() -> None:
    """LocalCluster calls its workers 0, 1, ..."""
    FaultPlugin({"1": Raise()}, seed=0).setup(SimpleNamespace(name=1))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError):
        hook_of(1).run(toy_models.linear)(ROWS)
    assert hook_of(0).run(toy_models.linear) is toy_models.linear


def test_each_worker_has_its_own_chance_and_the_same_after_a_restart(clock: Sleeps) -> None:
    def pattern(name: str, seed: int = 0) -> list[bool]:
        plugin = FaultPlugin(dict.fromkeys(("a", "b"), Slow(seconds=1.0, share=0.5)), seed)
        plugin.setup(worker(name))
        found = []
        for _ in range(40):
            before = len(clock.slept)
            hook_of(name).run(toy_models.linear)(ROWS)
            found.append(len(clock.slept) > before)
        return found

    assert pattern("a") == pattern("a")
    assert pattern("a") != pattern("b")
    assert pattern("a") != pattern("a", seed=1)


def test_the_plugin_can_be_sent() -> None:
    several = [Slow(2), Noise(shares=0.5)]
    plugin = FaultPlugin({"a": Slow(3), "b": Hang(2), "c": StuckWeight(3.0), "d": several}, seed=4)
    again = pickle.loads(pickle.dumps(plugin))
    assert (again.faults, again.seed, again.name) == (plugin.faults, 4, faults.PLUGIN)


# ---- corruptions, and several faults -------------------------------------------------------------


def test_a_lie_changes_what_its_worker_returns_and_nothing_else() -> None:
    plugin = FaultPlugin({"a": SignFlip()}, seed=0)
    for name in ("a", "b"):
        plugin.setup(worker(name))
    assert hook_of("a").run(toy_models.linear) is toy_models.linear
    np.testing.assert_array_equal(hook_of("a").output(ROWS), -ROWS)
    assert hook_of("b").output(ROWS) is ROWS
    plugin.teardown(worker("a"))
    assert hook_of("a").output(ROWS) is ROWS


def test_a_slow_liar(clock: Sleeps) -> None:
    FaultPlugin({"a": [Slow(seconds=1.0), SignFlip(), Zeros(rows=0.25)]}, 0).setup(worker("a"))
    hook_of("a").run(toy_models.linear)(ROWS)
    assert clock.slept == [1.0]
    found = hook_of("a").output(ROWS + 1)
    zero = (found == 0).all(axis=1)
    assert zero.sum() == 1
    np.testing.assert_array_equal(found[~zero], -(ROWS + 1)[~zero])


def test_a_liar_tells_the_same_after_a_restart_and_another_elsewhere() -> None:
    def said(name: str, seed: int = 0) -> bytes:
        FaultPlugin(dict.fromkeys(("a", "b"), Noise()), seed).setup(worker(name))
        return hook_of(name).output(ROWS).tobytes()

    assert said("a") == said("a")
    assert said("a") != said("b")
    assert said("a") != said("a", seed=1)


# ---- a stuck weight ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return rng(2).integers(0, 17, size=(40, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module", params=["factory", "module", "pt2"])
def network(
    request: pytest.FixtureRequest,
    pictures: np.ndarray,
    tmp_path_factory: pytest.TempPathFactory,
) -> ModelHandle:
    if request.param == "factory":
        return open_model("approxifer.models.zoo:lenet5")
    if request.param == "module":
        return open_model(lenet5())
    path: Path = tmp_path_factory.mktemp("model") / "lenet5.pt2"
    export_program(lenet5(), pictures[:2], path)
    return open_model(path)


def test_a_stuck_weight_spoils_a_copy(network: ModelHandle, pictures: np.ndarray) -> None:
    runner = network.load()
    before = run_rows(runner, pictures, 8)
    last = StuckWeight(50.0, parameter="12.bias", index=3).bind(rng())
    found = run_rows(last(runner), pictures, 8)
    bias = 50 - found[:, 3] + before[:, 3]  # the output is off by what the bias is off
    np.testing.assert_allclose(bias, bias[0], atol=1e-4)
    assert abs(bias[0]) < 1
    np.testing.assert_array_equal(np.delete(found, 3, axis=1), np.delete(before, 3, axis=1))
    assert run_rows(runner, pictures, 8).tobytes() == before.tobytes()


def test_some_weight_drawn_by_the_seed(pictures: np.ndarray) -> None:
    runner = open_model("approxifer.models.zoo:lenet5").load()
    honest = run_rows(runner, pictures, 8)
    found = [
        run_rows(StuckWeight(100.0).bind(rng(seed))(runner), pictures, 8)
        for seed in (*range(8), *range(8))
    ]
    assert [f.tobytes() for f in found[:8]] == [f.tobytes() for f in found[8:]]
    wrong = [bool((f != honest).any()) for f in found[:8]]
    assert sum(wrong) > 4  # the others reach no picture
    assert len({f.tobytes() for f in found[:8]}) >= sum(wrong)


def test_a_weight_that_is_stuck_now_and_then_is_so_for_a_whole_share(pictures: np.ndarray) -> None:
    runner = open_model("approxifer.models.zoo:lenet5").load()
    honest = run_rows(runner, pictures, 8)
    whole = run_rows(StuckWeight(50.0, "12.bias", 0).bind(rng())(runner), pictures, 8)
    assert (whole != honest).any(axis=1).all()
    stuck = StuckWeight(50.0, "12.bias", 0, shares=0.5).bind(rng())
    found = [run_rows(stuck(runner), pictures, 8).tobytes() for _ in range(40)]
    assert set(found) == {honest.tobytes(), whole.tobytes()}
    assert 8 < found.count(whole.tobytes()) < 32


def test_a_stuck_weight_and_a_slow_worker_in_any_order(clock: Sleeps, pictures: np.ndarray) -> None:
    runner = open_model("approxifer.models.zoo:lenet5").load()
    both = [Slow(factor=1, seconds=1.0), StuckWeight(50.0, "12.bias", 0)]
    for given in (both, both[::-1]):
        FaultPlugin({"a": given}, 0).setup(worker("a"))
        found = hook_of("a").run(runner)(pictures)
        assert (found[:, 0] > 40).all()
    assert clock.slept == [1.0, 1.0]


def test_what_has_no_such_weight() -> None:
    function = open_model(toy_models.linear).load()
    for run in (function, toy_models.linear):
        with pytest.raises(ModelError, match=r"needs a torch model .* Use one of"):
            StuckWeight().bind(rng())(run)
    runner = open_model("approxifer.models.zoo:lenet5").load()
    for fault in (StuckWeight(parameter="13.bias"), StuckWeight(1.0, "12.bias", 10)):
        with pytest.raises(ModelError, match=r"no such weight.*12\.bias \(10\)\."):
            fault.bind(rng())(runner)
    with pytest.raises(ConfigError, match=r"index=3, parameter=None: an index is a place"):
        StuckWeight(index=3)
    with pytest.raises(ConfigError, match=r"index=-1, parameter='12.bias'"):
        StuckWeight(1.0, "12.bias", -1)
    with pytest.raises(ConfigError, match=r"shares=2"):
        StuckWeight(shares=2)


# ---- on real workers -----------------------------------------------------------------------------


def shares_from(
    client: Client, handle: ModelHandle, rows: np.ndarray, names: list[str]
) -> Mapping[str, np.ndarray]:
    """What each worker returns for a share of these rows."""
    workers = workers_of(client)
    addresses = {str(w["name"]): address for address, w in workers.items()}
    client.run(ensure, handle, workers=[addresses[name] for name in names])
    futures = {
        name: client.submit(
            run_input,
            rows,
            fingerprint=handle.fingerprint,
            micro_batch=8,
            workers=[addresses[name]],
            key=new_key("faults"),
            pure=False,
        )
        for name in names
    }
    found = {name: future.result(30) for name, future in futures.items()}
    client.run(forget, handle.fingerprint, workers=[addresses[name] for name in names])
    return found


def test_lies_reach_the_client_from_their_workers_only(client: Client) -> None:
    corruptions = {"1": SignFlip(), "2": WrongShape(), "3": [Slow(2), NotANumber(2)], "5": Zeros()}
    faults.install(client, corruptions)
    rows = rng(1).normal(size=(20, 4)).astype(np.float32)
    right = toy_models.linear(rows)
    found = shares_from(client, open_model(toy_models.linear), rows, list("012345"))
    for name in ("0", "4"):
        np.testing.assert_allclose(found[name], right, rtol=1e-5)
    np.testing.assert_array_equal(found["1"], -found["0"])
    np.testing.assert_array_equal(found["2"], found["0"][:-1])
    wrong = np.isnan(found["3"])
    assert wrong.sum() == 2  # of the share, not of each of its three micro-batches
    np.testing.assert_array_equal(found["3"][~wrong], found["0"][~wrong])
    assert not found["5"].any()
    faults.remove(client)
    again = shares_from(client, open_model(toy_models.linear), rows, ["0", "1"])
    np.testing.assert_array_equal(again["1"], again["0"])


def test_a_restarted_worker_lies_again(client: Client) -> None:
    faults.install(client, {"1": Noise()})
    rows = rng(1).normal(size=(20, 4)).astype(np.float32)
    handle = open_model(toy_models.linear)
    before = shares_from(client, handle, rows, ["0", "1"])
    assert (before["1"] != before["0"]).all()
    workers = workers_of(client)
    address = next(a for a, w in workers.items() if str(w["name"]) == "1")
    client.restart_workers([address], timeout=30)
    after = shares_from(client, handle, rows, ["0", "1"])
    np.testing.assert_array_equal(after["1"], before["1"])


def test_a_stuck_weight_leaves_the_neighbours_in_one_process_alone(pictures: np.ndarray) -> None:
    """Workers that are threads share one loaded model."""
    handle = open_model("approxifer.models.zoo:lenet5")
    with (
        LocalCluster(
            n_workers=3,
            threads_per_worker=1,
            processes=False,
            dashboard_address=None,
            memory_limit=None,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        faults.install(client, {"1": StuckWeight(50.0, "12.bias", 0)})
        right = run_rows(ensure(handle), pictures, 8)
        found = shares_from(client, handle, pictures, ["1", "0", "2"])
        assert (found["1"][:, 0] > 40).all()
        for name in ("0", "2"):
            np.testing.assert_array_equal(found[name], right)
