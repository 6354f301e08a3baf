"""The user's functions are tried before anything is started: rows must not depend on each other,
nor on chance."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import toy_models
import xarray as xr

from approxifer.errors import InputError
from approxifer.pipeline.planning.options import Options
from approxifer.pipeline.planning.prepare import prepare
from approxifer.pipeline.planning.user_probe import probe_by_rows, probe_features

Function = Callable[[np.ndarray], np.ndarray]


def draw(count: int = 128) -> np.ndarray:
    """Rows (count, 8, 8) float32, all different."""
    return np.random.default_rng(5).normal(size=(count, 8, 8)).astype(np.float32)


def fill_values() -> np.ndarray:
    """Some rows are not of this world."""
    rows = draw()
    rows[::3], rows[1::9] = 9.96921e36, np.nan
    return rows


class Calls:
    """A function, with the number of calls and of rows that it has seen."""

    def __init__(self, function: Function) -> None:
        self.function, self.calls, self.rows = function, 0, 0

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        self.calls, self.rows = self.calls + 1, max(self.rows, len(rows))
        return self.function(rows)


# ---- functions that keep rows apart --------------------------------------------------------------

WEIGHTS = np.random.default_rng(6).normal(size=(64, 32)).astype(np.float32)


def scaled(rows: np.ndarray) -> np.ndarray:
    return (rows - 3) / 16


def flat(rows: np.ndarray) -> np.ndarray:
    """A view of its argument."""
    return rows.reshape(len(rows), -1)[:, ::2]


def in_place(rows: np.ndarray) -> np.ndarray:
    rows *= 2
    rows += 1
    return rows


def multiplied(rows: np.ndarray) -> np.ndarray:
    """Rounded in another way for another number of rows."""
    projected: np.ndarray = rows.reshape(len(rows), -1) @ WEIGHTS
    return projected


def single(rows: np.ndarray) -> np.ndarray:
    """The same, of one number a row: near zero in some."""
    return multiplied(rows)[:, :1]


def halved(rows: np.ndarray) -> np.ndarray:
    return (rows.astype(np.float32) @ WEIGHTS[:8]).astype(np.float16)


def own_mean(rows: np.ndarray) -> np.ndarray:
    """Of each row for itself."""
    return rows - rows.mean(axis=(1, 2), keepdims=True)


def constant(rows: np.ndarray) -> np.ndarray:
    return np.zeros((len(rows), 2))


def undefined(rows: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.sqrt(rows)


HONEST = [scaled, flat, in_place, multiplied, single, halved, own_mean, constant, undefined]


@pytest.mark.parametrize("function", HONEST)
@pytest.mark.parametrize("count", [1, 2, 3, 7, 128])
def test_an_honest_function_passes(count: int, function: Function) -> None:
    rows = draw(count)
    probe_by_rows("f", function, rows)
    np.testing.assert_array_equal(rows, draw(count))


@pytest.mark.parametrize("function", [scaled, flat, in_place, constant])
def test_an_honest_function_passes_on_odd_rows(function: Function) -> None:
    probe_by_rows("f", function, fill_values())


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "bool"])
def test_integer_rows(dtype: str) -> None:
    rows = np.random.default_rng(7).integers(0, 200, (64, 10)).astype(dtype)
    probe_by_rows("f", lambda rows: rows[:, ::-1], rows)
    probe_by_rows("f", lambda rows: rows / 255, rows)
    with pytest.raises(InputError, match="among other rows"):
        probe_by_rows("f", lambda rows: np.sort(rows, axis=0), rows)


def test_rounding_is_seen_in_other_batches() -> None:
    """Otherwise the honest functions show nothing of what is allowed."""
    rows = draw()
    assert (multiplied(rows[:1]) != multiplied(rows)[:1]).any()


def test_rounding_is_measured_by_the_terms_and_by_the_numbers() -> None:
    """A row near zero among others, and numbers of 16 bits; both rounded in each batch another
    way."""
    rows = np.ones((12, 1))
    rows[0] = 1e-4
    probe_by_rows("f", lambda rows: rows + 1e-8 * len(rows), rows)

    def half(rows: np.ndarray) -> np.ndarray:
        rounded: np.ndarray = (rows * (1 + 1e-6 * len(rows))).astype(np.float16)
        return rounded

    assert (half(draw())[:64] != half(draw()[:64])).any()
    probe_by_rows("f", half, draw())


def test_it_costs_four_calls() -> None:
    preprocess, features = Calls(scaled), Calls(scaled)
    probe_by_rows("f", preprocess, draw())
    probe_features("f", features, draw())
    assert (preprocess.calls, preprocess.rows) == (4, 128)
    assert (features.calls, features.rows) == (2, 128)


# ---- functions that do not -----------------------------------------------------------------------


def batch_mean(rows: np.ndarray) -> np.ndarray:
    return rows - rows.mean(axis=0)


def batch_scale(rows: np.ndarray) -> np.ndarray:
    return rows / np.abs(rows).max()


def across(rows: np.ndarray) -> np.ndarray:
    return np.sort(rows, axis=0)


def difference(rows: np.ndarray) -> np.ndarray:
    """From the row before."""
    return rows - np.roll(rows, 1, axis=0)


def numbered(rows: np.ndarray) -> np.ndarray:
    return rows + np.arange(len(rows), dtype=np.float32)[:, None, None]


def ranks(rows: np.ndarray) -> np.ndarray:
    """Integers."""
    return rows.reshape(len(rows), -1).argsort(axis=0)


def one_differs(rows: np.ndarray) -> np.ndarray:
    """The largest row of each batch, and no other, becomes another."""
    found = rows.copy()
    found[np.abs(rows).max(axis=(1, 2)).argmax()] *= 1.01
    return found


def cut(rows: np.ndarray) -> np.ndarray:
    """As wide as the widest row."""
    width = 1 + int(np.abs(rows[:, 0, 0]).max() * 1.9)
    return rows[:, :, : min(width, 8)]


COUPLED = [batch_mean, batch_scale, across, difference, numbered, ranks, one_differs, cut]


@pytest.mark.parametrize("function", COUPLED)
def test_a_function_that_couples_rows_is_refused(function: Function) -> None:
    with pytest.raises(InputError) as caught:
        probe_by_rows("mine:f", function, draw())
    for said in ("preprocess 'mine:f'", "among other rows", "fixed statistics", "do it outside"):
        assert said in str(caught.value)


@pytest.mark.parametrize("seed", range(20))
def test_whichever_part_the_outstanding_row_is_in(seed: int) -> None:
    for function in (batch_scale, one_differs):
        with pytest.raises(InputError, match="among other rows"):
            probe_by_rows("f", function, draw(), seed=seed)


def test_the_message_says_by_how_much() -> None:
    def off_by_a_part(rows: np.ndarray) -> np.ndarray:
        return rows * (1 + len(rows) * 1e-4)

    with pytest.raises(InputError, match=r"in 42 of 42 .* by up to 0\.0085 .* allowed is 1e-05"):
        probe_by_rows("f", off_by_a_part, np.ones((128, 3)))
    with pytest.raises(InputError, match=r"rows of shape \(8, .\) instead of float32 rows of"):
        probe_by_rows("f", cut, draw())
    with pytest.raises(InputError, match="by up to inf"):
        probe_by_rows("f", lambda rows: rows * [np.nan, 1][len(rows) > 64], draw())


def noise() -> Function:
    draws = np.random.default_rng(8)
    return lambda rows: rows + draws.normal(0, 1e-3, rows.shape).astype(np.float32)


def dropped() -> Function:
    draws = np.random.default_rng(8)
    return lambda rows: rows * (draws.random(rows.shape) > 0.2)


def counting() -> Function:
    """Its state changes between calls."""
    state = {"calls": 0}

    def count(rows: np.ndarray) -> np.ndarray:
        state["calls"] += 1
        return rows + np.float32(1e-4 * state["calls"])

    return count


def running_mean() -> Function:
    state = {"mean": np.float32(0)}

    def normalise(rows: np.ndarray) -> np.ndarray:
        state["mean"] = 0.9 * state["mean"] + 0.1 * (rows.mean() + np.float32(0.1))
        return rows - state["mean"]

    return normalise


def other_type() -> Function:
    state = {"calls": 0}

    def widen(rows: np.ndarray) -> np.ndarray:
        state["calls"] += 1
        return rows.astype(np.float32 if state["calls"] % 2 else np.float64)

    return widen


RANDOM = [noise, dropped, counting, running_mean, other_type]


@pytest.mark.parametrize("count", [1, 128])
@pytest.mark.parametrize("make", RANDOM)
def test_a_function_of_chance_or_of_earlier_calls_is_refused(
    make: Callable[[], Function], count: int
) -> None:
    rows = np.ones((count, 8, 8), np.float32)
    with pytest.raises(InputError) as caught:
        probe_by_rows("mine:f", make(), rows)
    for said in ("preprocess 'mine:f'", "the same rows", "random numbers", "between calls"):
        assert said in str(caught.value)
    with pytest.raises(InputError) as caught:
        probe_features("mine:f", make(), rows)
    for said in ("order 'mine:f'", "the same rows", "random numbers", "seeds itself"):
        assert said in str(caught.value)


def test_small_rows_are_not_hidden_by_large_ones() -> None:
    draws = np.random.default_rng(8)
    rows = draw()
    rows[::4] = 9.96921e36
    with pytest.raises(InputError, match="in 96 of 128"):
        probe_by_rows("f", lambda rows: rows + draws.normal(0, 0.01, rows.shape), rows)


def test_one_array_for_all_results_is_refused() -> None:
    buffer = np.empty((128, 8, 8), np.float32)

    def overwrite(rows: np.ndarray) -> np.ndarray:
        return np.multiply(rows, 2, out=buffer[: len(rows)])

    with pytest.raises(InputError, match="overwrites what it returned before"):
        probe_by_rows("f", overwrite, draw())


def test_what_it_raises_on_fewer_rows_is_passed_on() -> None:
    def many(rows: np.ndarray) -> np.ndarray:
        if len(rows) < 100:
            raise InputError("too few")
        return rows

    with pytest.raises(InputError, match="too few"):
        probe_by_rows("f", many, draw())


# ---- features ------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [*HONEST, *COUPLED])
def test_features_may_look_at_the_rows_of_a_call_together(function: Function) -> None:
    if function is in_place:
        with pytest.raises(InputError, match=r"order 'f' changes the rows .* a copy"):
            probe_features("f", function, draw())
    else:
        rows = draw()
        probe_features("f", function, rows)
        np.testing.assert_array_equal(rows, draw())


# ---- as a run is prepared ------------------------------------------------------------------------

MODULE = """
    import numpy as np

    def batch_mean(rows):
        return rows - rows.mean(axis=0)

    def noise(rows):
        return rows + np.random.default_rng().normal(0, 1, rows.shape).astype("f4")

    def doubled(rows):
        rows *= 2
        return rows

    def fails_on_few(rows):
        if len(rows) < 20:
            raise ValueError("too few")
        return rows
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`user_functions`, importable here."""
    (tmp_path / "user_functions.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "user_functions", raising=False)


def options(store: Path, **changes: object) -> Options:
    given = {"data": store, "model": toy_models.linear, "out": store.parent / "out.zarr"}
    return Options(**(given | changes))


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("name", "said"),
    [("batch_mean", "among other rows"), ("noise", "random"), ("fails_on_few", "too few")],
)
@pytest.mark.parametrize("scheme", ["uncoded", "systematic"])
def test_a_run_is_refused(store: Path, scheme: str, name: str, said: str) -> None:
    before = sorted(store.parent.rglob("*"))
    with pytest.raises(InputError, match=said) as caught:
        prepare(options(store, preprocess=f"user_functions:{name}", scheme=scheme, block=16))
    assert "preprocess" in str(caught.value)
    assert sorted(store.parent.rglob("*")) == before


@pytest.mark.usefixtures("module")
def test_a_function_that_works_in_place_spoils_nothing(store: Path, rows: np.ndarray) -> None:
    data = xr.DataArray(rows.copy(), dims=("sample", "a", "b"), name="x")
    made = prepare(options(store, data=data, preprocess="user_functions:doubled"))
    np.testing.assert_array_equal(data.values, rows)
    for _ in range(2):
        np.testing.assert_array_equal(made.queries.load(10, 20), 2 * rows[10:20])
    np.testing.assert_array_equal(made.row, 2 * rows[:1])


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize("blank", [slice(0, 300), slice(100, 400)])
def test_rows_from_both_ends_are_tried(tmp_path: Path, rows: np.ndarray, blank: slice) -> None:
    """Among rows that are all alike a mean does not show."""
    rows[blank] = 0
    data = xr.DataArray(rows, dims=("sample", "a", "b"), name="x")
    with pytest.raises(InputError, match="among other rows"):
        prepare(options(tmp_path / "x", data=data, preprocess="user_functions:batch_mean"))


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (noise(), "order .*<lambda>.* random numbers"),
        (in_place, "order 'in_place' changes the rows"),
    ],
)
def test_features_are_tried_as_a_run_is_prepared(
    store: Path, features: Function, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        prepare(options(store, order=features))


def test_features_that_look_at_the_whole_window(store: Path) -> None:
    made = prepare(options(store, order=batch_mean))
    assert made.queries.compared(draw(4)).shape == (4, 8, 8)
