"""A run goes on with the code with which it was begun, or says which has changed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from distributed import Client
from marks import slow_after

from approxifer import submit
from approxifer.errors import FingerprintError

SOURCE = """
import numpy as np
import edited_helpers

def pre(x):
    return x / {by}

def function(x):
    return edited_helpers.flat(x) * {times}

class Model:
    def __call__(self, x):
        return edited_helpers.flat(x) + {plus}

def make():
    return Model()
"""
HELPERS = "def flat(x): return x.reshape(len(x), -1)[:, :{columns}]"
PLAIN = {"by": 16, "times": 2, "plus": 3, "columns": 3}


@pytest.fixture
def edit(tmp_path: Path, client: Client) -> Iterator[Callable[..., Any]]:
    """Write the user's modules anew, as another session finds them, here and on the workers."""
    folder = str(tmp_path)

    def forget() -> None:
        for name in ("edited", "edited_helpers"):
            sys.modules.pop(name, None)

    def write(**changed: object) -> Any:
        (tmp_path / "edited.py").write_text(SOURCE.format(**PLAIN | changed))
        (tmp_path / "edited_helpers.py").write_text(HELPERS.format(**PLAIN | changed))
        for run in (client.run, lambda function: function()):
            run(forget)
        return __import__("edited")

    client.run(lambda: sys.path.insert(0, folder))
    client.run(lambda: setattr(sys, "dont_write_bytecode", True))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setattr(sys, "dont_write_bytecode", True)
        yield write
    client.run(lambda: sys.path.remove(folder))
    for run in (client.run, lambda function: function()):
        run(forget)


USES = {
    "preprocess": ({"by": 8}, "preprocess changed: edited.pre."),
    "function": ({"times": 3}, "model changed: edited.function."),
    "factory": ({"plus": 4}, "model changed: edited.Model."),
    "helpers": ({"columns": 2}, "model changed: module edited_helpers."),
}


@pytest.mark.parametrize("use", slow_after(2, USES))
def test_edited_code_is_refused_by_name_unless_it_is_accepted(
    client: Client, store: Path, tmp_path: Path, edit: Callable[..., Any], use: str
) -> None:
    changed, said = USES[use]
    if use == "helpers":
        changed = {"columns": "3 + 0"}

    def run(module: Any, **more: Any) -> Any:
        asked: dict[str, Any] = {"model": module.function, "k": 2, "window": 100, "block": 10}
        if use == "factory":
            asked["model"] = "edited:make"
        if use == "preprocess":
            asked["preprocess"] = module.pre
        return submit(store, out=tmp_path / "out.zarr", client=client, **asked, **more).result(60)

    first = run(edit())
    before = first.predictions.prediction.values
    zarr.open_group(str(first.out), mode="r+")["status"][200:] = 0  # half of it is still to do
    with pytest.raises(FingerprintError, match=said):
        run(edit(**changed))
    with pytest.raises(FingerprintError):
        run(edit(**changed))
    report = run(edit(**changed), accept_code_change=True)
    assert any(said[:-1] in note for note in report.notes)
    assert report.resumed == 200
    found = xr.open_zarr(report.out).prediction.values
    np.testing.assert_array_equal(found[:200], before[:200])
    assert use == "helpers" or (found[200:] != before[200:]).any()
    assert run(edit(**changed)).notes == first.notes, "what was accepted is the store's now"


def test_layout_and_comments_are_no_change(
    client: Client, store: Path, tmp_path: Path, edit: Callable[..., Any]
) -> None:
    def run(module: Any) -> Any:
        return submit(
            store, model=module.function, preprocess=lambda x: module.pre(x), client=client, k=2,
            out=tmp_path / "out.zarr",
        ).result(60)  # fmt: skip

    first = run(edit())
    again = run(edit(by="(16)  # a sixteenth", columns="3]  # of them\n# "))
    assert (again.resumed, again.notes) == (400, first.notes)
