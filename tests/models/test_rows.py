"""Micro-batches, the probe, the cache, and the process around them."""

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from approxifer.errors import ConfigError, ModelError
from approxifer.models import (
    ModelHandle,
    Runner,
    Stopped,
    ensure,
    forget,
    get,
    open_model,
    probe,
    raise_malloc_thresholds,
    resolve_callable,
    run_rows,
)
from approxifer.models.zoo import lenet5, small_resnet

Array = np.ndarray[Any, Any]
Write = Callable[[str, str], str]


def runner_of(forward: Callable[[Array], Any]) -> Runner:
    return Runner("test", "0" * 64, "float32", "cpu", 1, None, forward)


@pytest.mark.parametrize("total", [1, 7, 8, 9, 24, 30])
def test_every_micro_batch_has_the_same_shape(total: int) -> None:
    seen: list[Array] = []
    started: list[int] = []

    def forward(batch: Array) -> Array:
        seen.append(batch.copy())
        return batch.sum(axis=1, keepdims=True)

    rows = np.arange(total * 2.0).reshape(total, 2)
    out = run_rows(forward, rows, 8, started.append)
    np.testing.assert_array_equal(out, rows.sum(axis=1, keepdims=True))
    assert {batch.shape for batch in seen} == {(8, 2)}
    assert sum(started) == total
    filling = 8 * len(seen) - total
    np.testing.assert_array_equal(seen[-1][8 - filling :], np.repeat(rows[-1:], filling, axis=0))


def test_stopping_between_micro_batches() -> None:
    ran: list[int] = []

    def forward(batch: Array) -> Array:
        ran.append(len(batch))
        return batch

    def stop_at_third(rows: int) -> None:
        if len(ran) == 2:
            raise Stopped

    with pytest.raises(Stopped):
        run_rows(forward, np.zeros((20, 1)), 4, stop_at_third)
    assert ran == [4, 4]


def test_results_do_not_share_memory_with_the_model() -> None:
    buffer = np.zeros((4, 1))

    def forward(batch: Array) -> Array:
        buffer[:] = batch
        return buffer

    rows = np.arange(8.0).reshape(8, 1)
    np.testing.assert_array_equal(run_rows(forward, rows, 4), rows)


@pytest.mark.parametrize("rows", [np.zeros((0, 3)), np.float32(3)])
def test_no_rows(rows: Any) -> None:
    with pytest.raises(ConfigError, match=r"at least one row|for the rows"):
        run_rows(lambda batch: batch, np.asarray(rows), 4)
    with pytest.raises(ConfigError, match=r"at least one row|for the rows"):
        probe(runner_of(lambda batch: batch), np.asarray(rows), 4)


def test_outputs_that_lose_the_batch() -> None:
    with pytest.raises(ConfigError, match="micro_batch=0"):
        run_rows(lambda batch: batch, np.zeros((4, 3)), 0)
    with pytest.raises(ModelError, match="first dimension"):
        run_rows(lambda batch: batch.T, np.zeros((4, 3)), 4)
    with pytest.raises(ModelError, match="first dimension"):
        probe(runner_of(lambda batch: batch.T), np.zeros((4, 3)), 4)
    shapes = iter([2, 3])
    with pytest.raises(ModelError, match="same shape and type"):
        run_rows(lambda batch: np.zeros((4, next(shapes))), np.zeros((8, 3)), 4)


@pytest.mark.parametrize("micro_batch", [8, 16])
@pytest.mark.parametrize("net", ["lenet5", "small_resnet"])
def test_a_row_has_the_same_bits_wherever_it_stands(net: str, micro_batch: int) -> None:
    torch.manual_seed(0)
    shape = (8, 8) if net == "lenet5" else (32, 32, 3)
    runner = open_model(lenet5() if net == "lenet5" else small_resnet(widths=(8, 16))).load()
    generator = np.random.default_rng(0)
    rows = generator.integers(0, 17, (40, *shape)).astype(np.float32)
    whole = run_rows(runner, rows, micro_batch)
    order = generator.permutation(40)
    np.testing.assert_array_equal(run_rows(runner, rows[order], micro_batch), whole[order])
    np.testing.assert_array_equal(run_rows(runner, rows[13:31], micro_batch), whole[13:31])
    np.testing.assert_array_equal(run_rows(runner, rows[7:8], micro_batch), whole[7:8])


def test_probe_measures_a_good_model(rows: Array, linear: torch.nn.Linear) -> None:
    handle = open_model(linear)
    ticks = iter([10.0, 12.0])
    try:
        found = probe(handle, rows, 8, clock=lambda: next(ticks))
    finally:
        forget(handle.fingerprint)
    assert (found.output_shape, found.output_dtype) == ((3,), np.float32)
    assert (found.rows_per_second, found.micro_batch, found.bitwise) == (8.0, 8, True)


BAD = """
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(4, track_running_stats=False)

        def forward(self, x):
            return self.norm(x)

    class Stubborn(nn.BatchNorm1d):
        def __init__(self):
            super().__init__(4)

        def train(self, mode=True):
            return super().train(True)

    class Dropped(nn.Module):
        def forward(self, x):
            return F.dropout(x, 0.3, training=True)

    class Noise(nn.Module):
        def forward(self, x):
            return x + 3e-5 * torch.rand_like(x)

    class Neighbours(nn.Module):
        def forward(self, x):
            return torch.softmax(x, dim=0)
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Norm", "among other rows.*BatchNorm"),
        ("Stubborn", "BatchNorm"),
        ("Neighbours", "among other rows"),
        ("Dropped", "random numbers.*dropout"),
        ("Noise", "random numbers"),
    ],
)
@pytest.mark.parametrize("count", [1, 5, 30])
def test_probe_finds_rows_that_depend_on_more_than_themselves(
    importable: Write, name: str, message: str, count: int
) -> None:
    importable("bad", BAD)
    runner = open_model(f"bad:{name}").load()
    sample = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
    with pytest.raises(ModelError, match=message):
        probe(runner, sample, 8)


@pytest.mark.parametrize("layer", ["norm", "dropout"])
def test_probe_finds_programs_exported_in_training_mode(
    layer: str, rows: Array, tmp_path: Any, exporter: Callable[..., bytes]
) -> None:
    inner = torch.nn.BatchNorm1d(4) if layer == "norm" else torch.nn.Dropout()
    path = tmp_path / "training.pt2"
    path.write_bytes(exporter(torch.nn.Sequential(torch.nn.Linear(4, 4), inner).train(), rows))
    with pytest.raises(ModelError, match="training mode"):
        probe(open_model(path).load(), rows, 6)


def test_probe_explains_what_the_model_raised(linear: torch.nn.Linear) -> None:
    with pytest.raises(ModelError, match=r"float32 rows of shape \(5,\) in batches of 8.*shapes"):
        probe(open_model(linear).load(), np.zeros((9, 5), np.float32), 8)


def test_probe_allows_nan_that_stay_in_place() -> None:
    rows = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    rows[3, 1], rows[9, 2] = np.nan, np.inf
    assert probe(runner_of(lambda batch: batch * 2), rows, 8).bitwise
    moving = runner_of(lambda batch: np.where(np.arange(8)[:, None] == 0, np.nan, batch))
    with pytest.raises(ModelError, match="inf of their scale"):
        probe(moving, rows, 8)


def test_probe_tolerates_rounding_but_not_more() -> None:
    rows = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    for size, good in ((1e-5, True), (1e-3, False)):
        runner = runner_of(lambda batch, size=size: batch + size * batch.mean())  # type: ignore[misc]
        if good:
            assert not probe(runner, rows, 8).bitwise
        else:
            with pytest.raises(ModelError, match="among other rows"):
                probe(runner, rows, 8)


def test_cache_loads_once_for_all_threads(
    linear: torch.nn.Linear, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = open_model(linear)
    loads: list[int] = []
    gate = threading.Barrier(4)
    load = ModelHandle.load

    def counted(self: ModelHandle, threads: int = 1) -> Runner:
        loads.append(threads)
        return load(self, threads)

    monkeypatch.setattr(ModelHandle, "load", counted)
    found: list[Runner] = []

    def worker() -> None:
        gate.wait()
        found.append(ensure(handle))

    threads = [threading.Thread(target=worker) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads == [1]
    assert all(runner is found[0] for runner in found)
    assert get(handle.fingerprint) is found[0]
    more = ensure(handle, threads=2)
    assert (more.threads, more.forward) == (2, found[0].forward)
    forget(handle.fingerprint)
    forget(handle.fingerprint)
    with pytest.raises(ModelError, match=r"ensure\(handle\)"):
        get(handle.fingerprint)


def test_cache_does_not_give_out_another_model(importable: Write) -> None:
    source = "import torch\ndef net():\n    torch.manual_seed(1)\n    return torch.nn.Linear(2, 2)"
    importable("drift", source)
    handle = open_model("drift:net")
    importable("drift", source.replace("(1)", "(2)"))
    try:
        assert ensure(handle).fingerprint != handle.fingerprint
        with pytest.raises(ModelError, match="other code or data"):
            get(handle.fingerprint)
    finally:
        forget(handle.fingerprint)


def test_a_failed_load_is_tried_again(importable: Write) -> None:
    importable("later", "def net():\n    return abs")
    handle = open_model("later:net")
    importable("later", "def net():\n    raise OSError('disk')")
    with pytest.raises(ModelError, match="disk"):
        ensure(handle)
    importable("later", "def net():\n    return abs")
    assert ensure(handle).fingerprint == handle.fingerprint
    forget(handle.fingerprint)


def test_malloc_thresholds_are_feature_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes

    on_glibc = hasattr(ctypes.CDLL(None), "gnu_get_libc_version")
    assert raise_malloc_thresholds() is on_glibc
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())  # musl: no such functions
    assert raise_malloc_thresholds() is False


def test_numpy_models_never_import_torch(importable: Write, tmp_path: Any) -> None:
    importable(
        "light",
        """
        import numpy as np
        def double(rows): return rows * 2
        def factory(): return double
        """,
    )
    code = """
import pickle, sys
import numpy as np
import light
from approxifer.models import ensure, get, open_model, probe, run_rows
rows = np.ones((10, 3), np.float32)
for model in (light.double, "light:factory", np.tanh):
    handle = pickle.loads(pickle.dumps(open_model(model, preprocess="light:double")))
    ensure(handle)
    probe(handle, rows, 4)
    run_rows(get(handle.fingerprint), rows, 4)
heavy = {"torch", "sklearn", "dask", "distributed"} & set(sys.modules)
assert not heavy, heavy
"""
    env = {"PYTHONPATH": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_resolve_callable(importable: Write) -> None:
    importable("steps", "def halve(rows): return rows / 2\nhalf = 0.5")
    import steps  # type: ignore[import-not-found]

    assert resolve_callable("steps:halve") is steps.halve
    assert resolve_callable(steps.halve) is steps.halve
    assert resolve_callable("numpy:log1p") is np.log1p
    for spec, message in (
        ("steps:half", "preprocess='steps:half' is a float"),
        ("steps.halve", "not an import name"),
        (0.5, "preprocess=0.5 is a float, which cannot be called"),
    ):
        with pytest.raises(ModelError, match=message):
            resolve_callable(spec)  # type: ignore[arg-type]
    for function in (np.log1p, lambda rows: rows):
        assert resolve_callable(function) is function
