"""Code that workers cannot import travels with the model: scripts, notebooks, lambdas, closures."""

import functools
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from approxifer.models import ensure, open_model, resolve_callable

Write = Callable[[str, str], str]
Array = np.ndarray[Any, Any]

SCRIPT = """
import functools, pickle, sys
import numpy as np, torch
from approxifer.models import open_model
TIMES = 2
def helper(rows): return rows * TIMES
def function(rows): return helper(rows)
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(2.0))
    def forward(self, x): return x * self.weight
class Scale:
    def __init__(self, by): self.by = by
    def __call__(self, rows): return rows * self.by
def scaled(rows, by): return rows * by
models = [function, lambda rows: rows * TIMES, Net(), torch.nn.Sequential(Net()), Scale(2.0),
          functools.partial(scaled, by=2.0), Scale(2.0).__call__]
if __name__ == "__main__":
    handles = [open_model(model) for model in models]
    print(*(one.stored_fingerprint for one in handles), *(one.fingerprint for one in handles))
    with open(sys.argv[1], "wb") as file:
        pickle.dump(handles, file)
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[list[Any], list[str]]]:
    """Run the script in a process of its own; return what it would send, and its fingerprints."""

    def run(source: str, *options: str) -> tuple[list[Any], list[str]]:
        folder = tmp_path_factory.mktemp("script")
        where = folder / "handles"
        if "-" in options:
            command, given = [sys.executable, "-", str(where)], source
        else:
            (folder / "script.py").write_text(source)
            command, given = [sys.executable, "script.py", str(where)], ""
        done = subprocess.run(
            command, cwd=folder, input=given, capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": "random"},
        )  # fmt: skip
        return pickle.loads(where.read_bytes()), done.stdout.split()

    return run


@pytest.mark.parametrize("options", [(), ("-",)])
def test_what_a_script_defines_runs_where_the_script_is_not(ran: Any, options: Any) -> None:
    handles, printed = ran(SCRIPT, *options)
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    for handle in handles:
        runner = handle.load()
        np.testing.assert_array_equal(runner(rows), rows * 2)
        assert runner.fingerprint == handle.fingerprint
    assert len({handle.fingerprint for handle in handles}) == len(handles)
    again, same = ran(SCRIPT, *options)
    assert same == printed
    assert [one.code for one in again] == [one.code for one in handles]


@pytest.mark.slow
def test_edited_code_is_another_model_that_stores_know_again(ran: Any) -> None:
    before, _ = ran(SCRIPT)
    after, _ = ran(SCRIPT.replace("rows * by", "by * rows").replace("TIMES = 2", "TIMES = 2.0"))
    changed = [one.fingerprint != two.fingerprint for one, two in zip(before, after, strict=True)]
    assert changed == [True, True, False, False, False, True, False]
    stored = [[one.stored_fingerprint for one in handles] for handles in (before, after)]
    assert stored[0] == stored[1], "the code is compared by its parts"


@pytest.mark.slow
def test_data_of_a_shipped_object_is_the_models(ran: Any) -> None:
    before, _ = ran(SCRIPT)
    after, _ = ran(SCRIPT.replace("by=2.0", "by=3.0").replace("Scale(2.0)", "Scale(3.0)"))
    stored = [[one.stored_fingerprint for one in handles] for handles in (before, after)]
    changed = [one != two for one, two in zip(*stored, strict=True)]
    assert changed == [False, False, False, False, True, True, True]


def test_local_functions_and_classes(rows: Array) -> None:
    class Double(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    def double(values: Array) -> Array:
        return values * 2

    for model in (Double(), double, functools.partial(double), torch.nn.Sequential(Double())):
        handle = pickle.loads(pickle.dumps(open_model(model)))
        np.testing.assert_array_equal(handle.load()(rows), rows * 2)
        assert any("test_local_functions_and_classes" in name for name in handle.code)


def test_a_function_that_is_defined_again_is_not_taken_for_the_former(rows: Array) -> None:
    made = []
    for factor in (2, 3):

        def model(values: Array, factor: int = factor) -> Array:
            return values * factor

        made.append(ensure(open_model(model))(rows))
    np.testing.assert_array_equal(made[1], rows * 3)


def test_a_reloaded_module_is_not_taken_for_the_former(
    importable: Write, tmp_path: Path, rows: Array
) -> None:
    made = []
    for factor in (2, 3):
        importable("edited_model", f"def model(rows): return rows * {factor}")
        made.append(ensure(open_model(__import__("edited_model").model))(rows))
    np.testing.assert_array_equal(made[1], rows * 3)


def test_functions_for_the_client_alone_need_no_name() -> None:
    first: Any = lambda rows: rows  # noqa: E731
    assert resolve_callable(first) is first
    assert resolve_callable(functools.partial(first)) is not None
    handle = open_model("approxifer.models.zoo:mlp", preprocess=first)
    assert handle.preprocess is not None
    assert handle.preprocess.endswith("<locals>.<lambda>")
