"""Who is right when two runs of a share differ: how far honest runs may differ, and who decides."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest

from approxifer.models import Runner
from approxifer.pipeline.referee import (
    LEAST_STEPS,
    LEAST_STEPS_16,
    MARGIN,
    REFEREE_ROWS,
    ClientReferee,
    Fault,
    Tolerance,
    against,
    agreement,
    measure_tolerance,
)

EPS = float(np.finfo(np.float32).eps)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def runner(forward: Any, *, dtype: str = "float32", static_batch: int | None = None) -> Runner:
    return Runner("toy", "f", dtype, "cpu", 1, static_batch, forward)


def tolerance(relative: float = 1e-3, scale: Any = 1.0) -> Tolerance:
    return Tolerance(relative, np.asarray(scale, float))


def least(made: Tolerance) -> float:
    return float(np.min(made.relative))


def most(made: Tolerance) -> float:
    return float(np.max(made.relative))


def differs(found: Any, expected: Any, **options: Any) -> list[bool]:
    made = tolerance(1e-3, options.pop("scale", 1.0))
    return made.differs(np.asarray(found), np.asarray(expected), **options).tolist()


class Net:
    """A float32 network of two layers, as the client runs it and as another machine might."""

    def __init__(self, features: int = 200, classes: int = 10, seed: int = 0) -> None:
        draw = rng(seed)
        self.first = draw.normal(0, features**-0.5, (features, 64)).astype(np.float32)
        self.second = draw.normal(0, 0.125, (64, classes)).astype(np.float32)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        hidden: np.ndarray = np.maximum(rows @ self.first, 0) @ self.second
        return hidden

    def elsewhere(self, rows: np.ndarray) -> np.ndarray:
        """The same, summed in another order and rounded at the end only."""
        wide = np.maximum(rows.astype(np.float64) @ self.first.astype(np.float64), 0)
        return (wide @ self.second.astype(np.float64)).astype(np.float32)


# ---- a difference --------------------------------------------------------------------------------


def test_a_row_differs_by_more_than_the_tolerance_in_one_place() -> None:
    expected = np.zeros((3, 4))
    found = expected.copy()
    found[0, 2], found[1, 2] = 0.9e-3, 1.1e-3
    assert differs(found, expected) == [False, True, False]
    assert differs(found, expected, times=2.0) == [False, False, False]
    assert differs(-found, expected) == [False, True, False]


def test_it_is_relative_to_the_larger_of_the_value_and_the_usual_size() -> None:
    assert differs([[100.09]], [[100.0]]) == [False]
    assert differs([[100.11]], [[100.0]]) == [True]
    assert differs([[0.0009]], [[0.0]]) == [False]
    assert differs([[0.0011]], [[0.0]]) == [True]
    assert differs([[0.0011]], [[0.0]], scale=[10.0]) == [False]
    # A large output that is wrong does not allow more for itself.
    assert differs([[1e9]], [[1.0]]) == [True]


def test_each_output_has_its_own_usual_size() -> None:
    scale = [1.0, 1000.0]
    assert differs([[0.5, 0.5], [0.0, 0.5]], [[0.0, 0.0]] * 2, scale=scale) == [True, False]


@pytest.mark.parametrize("shape", [(), (3,), (2, 4)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "int32", "bool"])
def test_outputs_of_any_shape_and_number(shape: tuple[int, ...], dtype: str) -> None:
    made = Tolerance(0.0 if dtype in ("int32", "bool") else 1e-2, np.ones(shape))
    expected = np.ones((5, *shape), dtype)
    found = expected.copy()
    assert not made.differs(found, expected).any()
    found[3, ...] = 0
    assert made.differs(found, expected).tolist() == [False, False, False, True, False]
    assert made.worst(found, expected) == (1.0, made.relative)


def test_what_is_not_finite_equals_itself_only() -> None:
    inf, nan = np.inf, np.nan
    numbers = [inf, -inf, nan, 0.0, 1.0]
    for a in numbers:
        for b in numbers:
            same = a == b or (a != a and b != b)
            assert differs([[5.0, a]], [[5.0, b]]) == [not same], (a, b)
    # Where the expected is infinite nothing else is allowed on its account.
    assert differs([[1e300]], [[inf]]) == [True]
    assert tolerance().worst(np.array([[nan, 2.0]]), np.array([[1.0, 2.0]]))[0] == inf
    assert tolerance().worst(np.array([[nan, 2.5]]), np.array([[nan, 2.0]]))[0] == 0.5


def test_integers_are_compared_exactly() -> None:
    made = Tolerance(0.0, np.full(2, 1e6))
    expected = np.array([[10**6, 3], [10**6, 3]])
    found = np.array([[10**6, 3], [10**6, 4]])
    assert made.differs(found, expected).tolist() == [False, True]
    found = np.array([[10**6 + 1, 3], [10**6, 3]])
    assert made.differs(found, expected, times=2).tolist() == [True, False]


def test_large_integers_are_compared_exactly() -> None:
    expected = np.array([[2**60], [2**60]])
    found = np.array([[2**60], [2**60 + 1]])
    assert Tolerance(0.0, np.ones(1)).differs(found, expected).tolist() == [False, True]


def test_the_worst_is_measured_against_what_is_allowed_there() -> None:
    made = Tolerance(0.1, np.array([1.0, 100.0]))
    found, expected = np.array([[0.5, 9.0]]), np.zeros((1, 2))
    assert made.worst(found, expected) == (0.5, pytest.approx(0.1))  # not 9, where 10 is allowed


def test_a_fault_counts_the_wrong_rows() -> None:
    right = np.zeros((6, 2))
    found = right.copy()
    assert against(tolerance(), found, right) is None
    found[[1, 4], 1] = 0.25, -0.5
    assert against(tolerance(), found, right) == Fault(2, 6, 0.5, 1e-3)
    found[2, 0] = np.nan
    fault = against(tolerance(), found, right)
    assert fault is not None
    assert (fault.rows, fault.deviation) == (3, np.inf)


# ---- how far honest runs differ ------------------------------------------------------------------


def test_honest_runs_pass_and_small_lies_do_not() -> None:
    net, sample = Net(), rng(1).normal(size=(128, 200)).astype(np.float32)
    made = measure_tolerance(runner(net), sample, 64, rng=rng())
    assert made.scale.shape == np.shape(made.relative) == (10,)
    assert least(made) >= LEAST_STEPS * EPS
    assert most(made) < 1e-4
    np.testing.assert_allclose(made.scale, np.sqrt(np.mean(net(sample) ** 2, axis=0)), rtol=1e-5)
    fresh = rng(2).normal(size=(2_000, 200)).astype(np.float32)  # none of the sample
    honest = net(fresh)
    assert not made.differs(net.elsewhere(fresh), honest).any()
    assert (net.elsewhere(fresh) != honest).any()
    for place in range(10):
        lie = honest.copy()
        lie[:, place] += np.float32(1e-3 * made.scale[place])
        # Where the value itself is many times its usual size more is allowed.
        assert made.differs(lie, honest).mean() > 0.999


@pytest.mark.parametrize(
    ("forward", "static_batch"),
    [("batch of one", None), ("small batches", None), ("place in the batch", 8)],
)
def test_the_noise_of_other_batches_and_places_is_seen(
    forward: str, static_batch: int | None
) -> None:
    def run(rows: np.ndarray) -> np.ndarray:
        out = rows.astype(np.float64).copy()
        if (forward == "batch of one" and len(rows) == 1) or (
            forward == "small batches" and len(rows) < 8
        ):
            out *= 1 + 1e-4
        elif forward == "place in the batch":
            out[0] *= 1 + 1e-4
        return out

    sample = np.sign(rng().normal(size=(16, 3)))
    client = runner(run, dtype="float64", static_batch=static_batch)
    made = measure_tolerance(client, sample, 8, rng=rng(3))
    assert most(made) == pytest.approx(MARGIN * 1e-4, rel=1e-3)


def test_a_model_with_a_static_batch_is_run_in_no_other() -> None:
    seen: list[int] = []

    def forward(rows: np.ndarray) -> np.ndarray:
        seen.append(len(rows))
        return rows * 2

    sample = np.ones((16, 3), np.float32)
    measure_tolerance(runner(forward, static_batch=8), sample, 8, rng=rng())
    assert set(seen) == {8}
    measure_tolerance(runner(forward), sample, 8, rng=rng())
    assert set(seen) == {8, 3, 1}


@pytest.mark.parametrize("rows", [1, 2, 5, 16, 17])
def test_a_small_input_is_sample_enough(rows: int) -> None:
    """Of one row, an output that happens to be near zero seems to be small: a larger tolerance."""
    sample = rng().normal(size=(rows, 200)).astype(np.float32)
    made = measure_tolerance(runner(Net()), sample, 8, rng=rng())
    assert made.scale.shape == (10,)
    assert 0 < least(made) <= most(made) < 1e-2


def test_labels_and_other_integers_are_to_be_the_same() -> None:
    net = Net()
    sample = rng().normal(size=(32, 200)).astype(np.float32)
    made = measure_tolerance(runner(lambda rows: net(rows).argmax(axis=1)), sample, 8, rng=rng())
    assert most(made) == 0.0
    assert made.differs(np.array([1, 2]), np.array([1, 3])).tolist() == [False, True]


@pytest.mark.parametrize(
    ("dtype", "returns", "expected"),
    [
        ("float32", "float32", LEAST_STEPS * EPS),
        ("float32", "float64", LEAST_STEPS * EPS),
        ("float64", "float32", LEAST_STEPS * EPS),
        ("float64", "float64", LEAST_STEPS * 2.0**-52),
        ("float16", "float32", LEAST_STEPS_16 * 2.0**-10),
        ("float32", "float16", LEAST_STEPS_16 * 2.0**-10),
        ("bfloat16", "float32", LEAST_STEPS_16 * 2.0**-7),
    ],
)
def test_the_least_precise_number_involved_sets_the_least_tolerance(
    dtype: str, returns: str, expected: float
) -> None:
    def forward(rows: np.ndarray) -> np.ndarray:
        return rows.astype(returns)

    made = measure_tolerance(runner(forward, dtype=dtype), np.ones((8, 2)), 8, rng=rng())
    assert least(made) == most(made) == expected
    assert expected < 0.1  # a sign flip, a class rolled, is always seen


def test_nan_in_the_sample_leaves_a_tolerance_for_the_rest() -> None:
    sample = rng().normal(size=(16, 200)).astype(np.float32)
    sample[3] = np.nan
    sample[4] = np.inf
    with np.errstate(all="ignore"):
        made = measure_tolerance(runner(Net()), sample, 8, rng=rng())
    assert 0 < least(made) <= most(made) < 1e-3
    assert np.isfinite(made.scale).all()
    assert (made.scale > 0.01).all()


def test_one_ill_conditioned_output_does_not_let_lies_about_the_others_pass() -> None:
    """An output that cancels to rounding errors; as the log-probability of a class of which the
    network is sure in all sample rows."""
    net = Net()

    def forward(rows: np.ndarray) -> np.ndarray:
        total = (rows @ net.first).sum(axis=1, keepdims=True)
        again = (rows.astype(np.float64) @ net.first).sum(axis=1, keepdims=True)
        return np.concatenate([net(rows), total - again.astype(np.float32)], axis=1)

    sample = rng(1).normal(size=(128, 200)).astype(np.float32)
    made = measure_tolerance(runner(forward), sample, 64, rng=rng())
    assert most(made) > 1  # about that output anything may be said, and of no worker is it held
    honest = forward(sample)
    elsewhere = forward(sample[::-1])[::-1]
    assert not made.differs(elsewhere, honest).any()
    lie = honest.copy()
    lie[:, 0] *= np.float32(1.01)
    assert made.differs(lie, honest).mean() > 0.9


@pytest.mark.parametrize("blank", ["one output", "all rows"])
def test_an_output_that_is_zero_in_the_sample_convicts_nobody(blank: str) -> None:
    """A last ReLU that was below zero so far, or a blank beginning of the data."""
    net = Net(classes=4)

    def through(outputs: np.ndarray, rows: np.ndarray) -> np.ndarray:
        outputs[:, 0] += np.float32(1) * rows[:, 0]
        positive: np.ndarray = np.maximum(outputs, 0)
        return positive

    sample = np.zeros((16, 200), np.float32)
    if blank == "one output":
        sample = rng().normal(size=(16, 200)).astype(np.float32)
        sample[:, 0] = -10
    made = measure_tolerance(runner(lambda rows: through(net(rows), rows)), sample, 8, rng=rng())
    rows = rng(1).normal(size=(4_000, 200)).astype(np.float32)
    honest, other = through(net(rows), rows), through(net.elsewhere(rows), rows)
    assert (other != honest).any()
    assert not made.differs(other, honest).any()
    lie = honest.copy()
    lie[:, 0] += np.float32(0.01)
    assert made.differs(lie, honest).all()


# ---- the client ----------------------------------------------------------------------------------


class Client:
    """Notes what it is asked to run."""

    def __init__(self) -> None:
        self.ran: list[np.ndarray] = []

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        self.ran.append(rows)
        return 2 * rows


def judge(
    rows: np.ndarray, outputs: dict[str, np.ndarray], disputed: np.ndarray, seed: int = 0
) -> tuple[dict[str, Fault], np.ndarray]:
    client = Client()
    liars = ClientReferee(client, tolerance(), rng(seed)).liars(rows, outputs, disputed)
    (ran,) = client.ran
    return liars, ran


@pytest.mark.parametrize("wrong", [1, 5, REFEREE_ROWS, REFEREE_ROWS + 1, 100])
def test_the_client_runs_disputed_rows_only_and_a_few_of_them(wrong: int) -> None:
    rows = np.arange(200.0).reshape(100, 2)
    for seed in range(5):
        lied = np.zeros(100, bool)
        lied[rng(seed).permutation(100)[:wrong]] = True
        lie = np.where(lied[:, None], -1.0, 2 * rows)
        liars, ran = judge(rows, {"honest": 2 * rows, "liar": lie}, lied, seed)
        assert len(ran) == min(wrong, REFEREE_ROWS)
        places = (ran[:, 0] / 2).astype(int)
        assert len(set(places)) == len(places)
        assert lied[places].all()
        assert set(liars) == {"liar"}
        assert (liars["liar"].rows, liars["liar"].of) == (len(ran), len(ran))


def test_which_rows_are_run_cannot_be_told_beforehand() -> None:
    rows = np.arange(200.0).reshape(100, 2)
    everything = np.ones(100, bool)
    outputs = {"a": 2 * rows, "b": 3 * rows + 1}
    ran = np.concatenate([judge(rows, outputs, everything, seed)[1][:, 0] for seed in range(200)])
    counts = np.bincount((ran / 2).astype(int), minlength=100)
    expected = 200 * REFEREE_ROWS / 100
    assert counts.sum() == 200 * REFEREE_ROWS
    assert float(((counts - expected) ** 2 / expected).sum()) < 99 + 5 * np.sqrt(2 * 99)


def test_both_may_lie_and_the_honest_one_never_does() -> None:
    rows = np.ones((8, 2))
    true, one, other = 2 * rows, 3 * rows, 4 * rows
    everything = np.ones(8, bool)
    assert set(judge(rows, {"a": one, "b": other}, everything)[0]) == {"a", "b"}
    assert set(judge(rows, {"a": true, "b": other}, everything)[0]) == {"b"}
    assert set(judge(rows, {"a": one, "b": true}, everything)[0]) == {"a"}
    # Off by less than the tolerance, each in another direction: more than one of it apart.
    near = {"a": true * (1 + 0.9e-3), "b": true * (1 - 0.9e-3)}
    assert judge(rows, near, everything)[0] == {}


def test_two_lies_in_other_rows_are_both_seen() -> None:
    rows = np.ones((8, 2))
    a, b = 2 * rows, 2 * rows
    a[1], b[6] = 7.0, np.nan
    disputed = (a != b).any(axis=1)
    liars, ran = judge(rows, {"a": a, "b": b}, disputed)
    assert len(ran) == 2
    assert liars == {"a": Fault(1, 2, 5.0, 2e-3), "b": Fault(1, 2, np.inf, 2e-3)}


# ---- a quorum ------------------------------------------------------------------------------------

TRUE = np.linspace(-1, 1, 12).reshape(4, 3)


@pytest.mark.parametrize("byzantine", [1, 2, 3])
def test_honest_workers_outvote_colluders(byzantine: int) -> None:
    """E liars with one lie, E + 1 honest ones that round in their own ways; wherever they stand."""
    lie = -TRUE
    for seed in range(20):
        draw = rng(seed)
        honest = [TRUE + draw.uniform(-0.9e-3, 0.9e-3, TRUE.shape) for _ in range(byzantine + 1)]
        outputs = [*honest, *[lie] * byzantine]
        order = draw.permutation(len(outputs))
        found = agreement([outputs[i] for i in order], byzantine + 1, tolerance())
        assert found is not None
        center, members = found
        assert center in members
        assert {int(order[i]) for i in members} == set(range(byzantine + 1))


@pytest.mark.parametrize("byzantine", [1, 2, 3])
def test_fewer_than_needed_are_no_quorum(byzantine: int) -> None:
    lies = [np.full_like(TRUE, 10.0 * i) for i in range(1, 4)]
    for outputs in ([TRUE] * byzantine, [-TRUE] * byzantine, [TRUE] * byzantine + lies, []):
        assert agreement(outputs, byzantine + 1, tolerance()) is None


def test_colluders_as_many_as_needed_win_and_are_beyond_the_promise() -> None:
    for order in permutations([TRUE, -TRUE, -TRUE]):
        found = agreement(order, 2, tolerance())
        assert found is not None
        assert all((order[i] == -TRUE).all() for i in found[1])


def test_what_is_not_finite_agrees_with_itself() -> None:
    holes = TRUE.copy()
    holes[2, 1], holes[3, 0] = np.nan, np.inf
    assert agreement([holes, TRUE, holes], 2, tolerance()) == (0, frozenset({0, 2}))
    assert agreement([TRUE, holes, TRUE], 2, tolerance()) == (0, frozenset({0, 2}))


def test_one_wrong_row_is_enough_to_disagree() -> None:
    lie = TRUE.copy()
    lie[3, 2] += 0.01
    assert agreement([lie, TRUE, TRUE], 2, tolerance()) == (1, frozenset({1, 2}))


def test_with_a_coarse_tolerance_a_huge_lie_is_no_center() -> None:
    coarse = Tolerance(0.5, np.ones(3))
    found = agreement([np.full_like(TRUE, 1e30), TRUE, TRUE], 2, coarse)
    assert found is not None
    assert found[1] == {1, 2}
