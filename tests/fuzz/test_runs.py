"""Whatever store, model and arguments are given, a dry run ends in a plan or an error of ours."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzzed_runs as runs
import psutil
import pytest
from bad_input import without_cluster
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of zarr and xarray, about names and types
    pytest.mark.timeout(300),
]


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No cluster, no process left; a folder, which is importable."""
    without_cluster(monkeypatch)
    monkeypatch.chdir(tmp_path)
    return tmp_path


Inputs = Callable[[Path], st.SearchStrategy[tuple[Callable[..., str], Any]]]


def any_input(place: Path) -> st.SearchStrategy[tuple[Callable[..., str], Any]]:
    """A store for the command line, or a store or DataArray for the function."""
    stores = runs.store(place)
    given = st.one_of(runs.dataarray(), stores.map(str))
    return st.one_of(
        stores.map(lambda path: (runs.by_command, path)), given.map(lambda one: (runs.by_call, one))
    )


def of_six(place: Path) -> st.SearchStrategy[tuple[Callable[..., str], Any]]:
    """Rows of six numbers, mostly."""
    rows = runs.of_six().map(lambda one: (runs.by_call, one))
    return st.one_of(rows, rows, any_input(place))


def try_out(
    folder: Path, count: int, models: st.SearchStrategy[str], inputs: Inputs
) -> Counter[bool]:
    """Run so many examples; how many were planned, and how many refused."""
    ended: Counter[bool] = Counter()
    before = {child.pid for child in psutil.Process().children(recursive=True)}

    @settings(max_examples=count, suppress_health_check=list(HealthCheck))
    @given(data=st.data(), model=models, asked=runs.arguments())
    def case(data: st.DataObject, model: str, asked: dict[str, Any]) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            call, given = data.draw(inputs(Path(place)))
            message = call(given, {"model": model, "out": f"{place}/out.zarr", **asked})
            assert not message or message.strip()
            ended[not message] += 1

    case()
    assert not {c.pid for c in psutil.Process().children(recursive=True)} - before
    return ended


@pytest.mark.parametrize("count", [20, pytest.param(480, marks=pytest.mark.slow)])
def test_a_dry_run_ends_in_a_plan_or_in_an_error_of_ours(alone: Path, count: int) -> None:
    ended = try_out(alone, count, runs.models(), any_input)
    assert ended[True]
    assert ended[False]


@pytest.mark.slow
def test_so_does_one_of_a_program(alone: Path) -> None:
    made = runs.programs()
    for name, content in made.items():
        (alone / f"{name}.pt2").write_bytes(content)
    paths = [str(alone / f"{name}.pt2") for name in (*made, "none")]
    ended = try_out(alone, 20, st.sampled_from(paths), of_six)
    assert ended[True]
    assert ended[False]
