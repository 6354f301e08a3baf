"""The tolerance between honest runs: no lie passes for rounding, and no rounding for a lie."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from approxifer.models import Runner, run_rows
from approxifer.pipeline.byzantine.tolerance import (
    LEAST_STEPS,
    LEAST_STEPS_16,
    MARGIN,
    MARGIN_16,
    MOST,
    Tolerance,
    distance,
    measure_tolerance,
    own_noise,
)

EPS = float(np.finfo(np.float32).eps)
FILL = 9.96921e36  # netCDF's, where it is not declared as such
Forward = Callable[[np.ndarray], np.ndarray]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def runner(forward: Forward, *, dtype: str = "float32", static_batch: int | None = None) -> Runner:
    return Runner("toy", "f", dtype, "cpu", 1, static_batch, forward)


def measured(forward: Forward, rows: np.ndarray, micro_batch: int = 64, **kind: Any) -> Tolerance:
    return measure_tolerance(runner(forward, **kind), rows, micro_batch, rng=rng())


def draw(rows: int, seed: int = 0, features: int = 200) -> np.ndarray:
    """Rows of about one number format's and one unit's size: (rows, features)."""
    return rng(seed).normal(size=(rows, features)).astype(np.float32)


def most(made: Tolerance) -> float:
    return float(np.max(made.relative))


def noises(run: Runner, rows: np.ndarray, sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the client finds out about rows, 16 at a time: the right outputs, and their noise."""
    draws = rng(2)
    each = [own_noise(run, few, 64, sample, draws) for few in np.split(rows, len(rows) // 16)]
    right, noise = zip(*each, strict=True)
    return np.concatenate(right), np.concatenate(noise)


def differs(found: Any, expected: Any, *, usual: Any = 1.0, **options: Any) -> list[bool]:
    made = Tolerance(1e-3, np.asarray(usual, float))
    return made.differs(np.asarray(found), np.asarray(expected), **options).tolist()


class Net:
    """A float32 network, as the client runs it and as other honest machines might."""

    def __init__(self, *, classes: int = 10, features: int = 200, layers: int = 2) -> None:
        weights, width = rng(9), features
        self.layers = []
        for each in [64] * (layers - 1) + [classes]:
            gain = (2 / width) ** 0.5
            self.layers.append(weights.normal(0, gain, (width, each)).astype(np.float32))
            width = each

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        return self._run(rows, np.matmul)

    def wide(self, rows: np.ndarray) -> np.ndarray:
        """Rounded at the end only."""
        wide = partial(np.matmul, dtype=np.float64, casting="same_kind")
        return self._run(rows, wide).astype(np.float32)

    def permuted(self, rows: np.ndarray) -> np.ndarray:
        """Summed in another order, one term after the other."""

        def product(hidden: np.ndarray, layer: np.ndarray) -> np.ndarray:
            total = np.zeros((len(hidden), layer.shape[1]), np.float32)
            for term in rng(layer.shape[0]).permutation(layer.shape[0]):
                total += hidden[:, term, None] * layer[term]
            return total

        return self._run(rows, product)

    def nearest(self, rows: np.ndarray) -> np.ndarray:
        """One unit in the last place off."""
        return np.nextafter(self(rows), np.float32(np.inf))

    def _run(self, rows: np.ndarray, product: Callable[..., np.ndarray]) -> np.ndarray:
        with np.errstate(all="ignore"):
            hidden = product(rows, self.layers[0])
            for layer in self.layers[1:]:
                hidden = product(np.maximum(hidden, 0), layer)
        return hidden


# ---- a difference --------------------------------------------------------------------------------


def test_a_row_differs_by_more_than_the_tolerance_in_one_place() -> None:
    expected = np.ones((3, 4))
    off = np.zeros((3, 4))
    off[0, 2], off[1, 1] = 0.9e-3, 1.1e-3
    assert differs(expected + off, expected) == [False, True, False]
    assert differs(expected + off, expected, times=2.0) == [False, False, False]
    assert differs(expected - 2 * off, expected) == [True, True, False]


def test_it_is_relative_to_the_value_or_to_its_usual_size() -> None:
    assert differs([[100.09]], [[100.0]]) == [False]
    assert differs([[100.11]], [[100.0]]) == [True]
    assert differs([[9.0, 0.0009]], [[9.0, 0.0]]) == [False]
    assert differs([[9.0, 0.0011]], [[9.0, 0.0]]) == [True]
    assert differs([[9.0, 0.0011]], [[9.0, 0.0]], usual=[1.0, 2.0]) == [False]


def test_the_usual_size_is_limited_by_the_rows() -> None:
    """A small row among large ones; a row that is zero."""
    assert differs([[1e-3, 0.9e-6]], [[1e-3, 0.0]], usual=1e6) == [False]
    assert differs([[1e-3, 1.1e-6]], [[1e-3, 0.0]], usual=1e6) == [True]
    assert differs([[0.0, 1e-30]], [[0.0, 0.0]], usual=1e6) == [True]


def test_nobody_gains_by_a_huge_number() -> None:
    assert differs([[1e9, 1.0]], [[1.0, 1.0]]) == [True]
    assert differs([[1.0, 1.0]], [[1e9, 1.0]]) == [True]
    # Nor where nearly anything is allowed, nor for the other outputs of the row.
    for one, other in ((1e30, 1.0), (1.0, 1e30)):
        assert Tolerance(1.5, np.ones(1)).differs(np.array([[one]]), np.array([[other]])).all()
    assert differs([[1e-6, 1e30]], [[2e-6, 1e-6]]) == [True]
    huge = np.array([[1.5e308]])  # what is allowed is beyond all numbers, and so is the distance
    for number in (huge, huge * (1 + 1j)):
        assert Tolerance(1.5, np.ones(1)).differs(-number, number, noise=np.ones((1, 1))).all()


def test_each_output_has_its_own_usual_size() -> None:
    usual = [1.0, 1000.0]
    found = [[0.5, 0.5, 1000.0], [0.0, 0.5, 1000.0]]
    expected = [[0.0, 0.0, 1000.0]] * 2
    assert differs(found, expected, usual=[*usual, 1.0]) == [True, False]


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
            assert differs([[a]], [[b]]) == [not same], (a, b)
    assert differs([[1e300]], [[inf]]) == [True]
    made = Tolerance(1e-3, np.ones(2))
    assert made.worst(np.array([[nan, 2.0]]), np.array([[1.0, 2.0]]))[0] == inf
    assert made.worst(np.array([[nan, 2.5]]), np.array([[nan, 2.0]]))[0] == 0.5


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_numbers_are_compared_in_both_parts(dtype: str) -> None:
    expected = np.array([[3 + 4j, 1j]] * 3, dtype)
    found = expected.copy()
    found[1, 0] += 4.5e-3j  # of 5
    found[2, 0] += 5.5e-3j
    assert differs(found, expected) == [False, False, True]
    assert differs(expected.conj(), expected) == [True] * 3
    # A NaN in one part hides nothing in the other.
    expected[:, 0].real, found[:, 0].real = np.nan, np.nan
    assert differs(found, expected) == [False, True, True]
    assert differs(expected, expected) == [False] * 3


def test_integers_are_compared_exactly() -> None:
    made = Tolerance(0.0, np.full(2, 1e6))
    expected = np.array([[10**6, 3], [10**6, 3]])
    found = np.array([[10**6, 3], [10**6, 4]])
    assert made.differs(found, expected).tolist() == [False, True]
    found = np.array([[10**6 + 1, 3], [10**6, 3]])
    noise = np.ones(found.shape)
    assert made.differs(found, expected, times=2, noise=noise).tolist() == [True, False]
    expected = np.array([[2**60, 0], [2**60, 0]])
    found = np.array([[2**60, 0], [2**60 + 1, 0]])
    assert made.differs(found, expected).tolist() == [False, True]


def test_the_worst_is_measured_against_what_is_allowed_there() -> None:
    made = Tolerance(0.1, np.array([1.0, 100.0, 1.0]))
    found, expected = np.array([[0.5, 9.0, 100.0]]), np.array([[0.0, 0.0, 100.0]])
    assert made.worst(found, expected) == (0.5, pytest.approx(0.1))  # not 9, where 10 is allowed


def test_the_noise_of_the_very_row_widens_it() -> None:
    made = Tolerance(1e-3, np.ones(()), margin=4.0)
    expected = np.array([[1e-9], [1e-9], [1.0]])
    noise = np.array([[1e-7], [0.0], [0.0]])
    found = expected + np.array([[3.9e-7], [3.9e-7], [0.9e-3]])
    assert made.differs(found, expected).tolist() == [True, True, False]
    assert made.differs(found, expected, noise=noise).tolist() == [False, True, False]
    found = expected + 7.8e-7
    assert made.differs(found, expected, noise=noise).tolist() == [True, True, False]
    assert made.differs(found, expected, noise=noise, times=2).tolist() == [False, True, False]
    assert made.differs(-found, expected, noise=noise).tolist() == [True, True, True]


ANY = {
    dtype: hnp.arrays(
        dtype,
        hnp.array_shapes(min_dims=1, max_dims=3, max_side=5),
        elements=hnp.from_dtype(np.dtype(dtype), allow_subnormal=False),
    )
    for dtype in ("float16", "float32", "float64", "complex64", "complex128", "int64", "bool")
}


@given(
    outputs=st.one_of(*ANY.values()),
    relative=st.floats(0, 1.9),
    usual=st.floats(0, allow_infinity=True, allow_nan=False),
    noise=st.one_of(st.none(), st.floats(0, 1e3)),
)
def test_an_output_never_differs_from_itself(
    outputs: np.ndarray, relative: float, usual: float, noise: float | None
) -> None:
    made = Tolerance(relative, np.full(outputs.shape[1:], usual))
    own = None if noise is None else np.full(outputs.shape, noise)
    assert not made.differs(outputs, outputs.copy(), noise=own).any()


@given(
    outputs=st.one_of(*(ANY[name] for name in ANY if name[0] in "fc")),
    relative=st.floats(0, 1.9),
    usual=st.floats(0, allow_infinity=True, allow_nan=False),
)
def test_a_sign_flip_differs_in_each_row_that_is_not_zero(
    outputs: np.ndarray, relative: float, usual: float
) -> None:
    each = outputs.reshape(len(outputs), -1)
    size = np.where(np.isfinite(each), np.abs(each), 0).max(axis=1, initial=0)
    assume((size > 0).any())
    made = Tolerance(relative, np.full(outputs.shape[1:], usual))
    assert made.differs(-outputs, outputs)[size > 0].all()


# ---- how far honest runs differ ------------------------------------------------------------------


def test_small_lies_do_not_pass() -> None:
    net = Net()
    made = measured(net, draw(128))
    assert made.usual.shape == np.shape(made.relative) == (10,)
    assert LEAST_STEPS * EPS <= np.min(made.relative) <= most(made) < 1e-4
    np.testing.assert_allclose(made.usual, np.median(np.abs(net(draw(128))), axis=0), rtol=0.1)
    honest = net(draw(2_000, 1))
    for place in range(10):
        lie = honest.copy()
        lie[:, place] += np.float32(1e-3 * made.usual[place])
        # Where the value itself is many times its usual size more is allowed.
        assert made.differs(lie, honest).mean() > 0.999


@pytest.mark.parametrize("machine", ["wide", "permuted", "nearest"])
@pytest.mark.parametrize("static_batch", [None, 64])
@pytest.mark.parametrize("layers", [2, 20])
def test_another_honest_machine_never_differs(
    layers: int, static_batch: int | None, machine: str
) -> None:
    net = Net(layers=layers)
    made = measured(net, draw(128), static_batch=static_batch)
    rows = draw(10_000, 1)
    honest, other = run_rows(net, rows, 64), getattr(net, machine)(rows)
    assert (other != honest).any(axis=1).mean() > 0.9
    assert not made.differs(other, honest).any()
    assert made.differs(-honest, honest).all()


@pytest.mark.parametrize("features", [1, 200])
@pytest.mark.parametrize("part", [1 / 128, 0.4])
def test_fill_values_in_the_sample_do_not_widen_it(part: float, features: int) -> None:
    net, sample = Net(), draw(128)
    clean = measured(net, sample)
    filled = rng(2).permutation(128) < round(part * 128)
    sample[filled, :features] = FILL
    made = measured(net, sample)
    assert most(made) < (3 * most(clean) if part < 0.1 else MARGIN * MOST)
    assert (made.usual < 3 * clean.usual).all()
    rows = draw(4_000, 1)
    rows[::4, :features] = FILL
    honest, other = net(rows), net.wide(rows)
    finite = np.isfinite(honest).all(axis=1)
    assert finite[1::4].all()
    assert not made.differs(other, honest)[1::4].any()
    for lie in (-honest, np.roll(honest, 1, axis=1), honest * np.float32(1.01)):
        assert made.differs(lie, honest)[finite].all()


def test_rows_on_which_the_model_is_unstable_do_not_widen_it_for_the_others() -> None:
    """A sine of huge numbers: two rows in five are anything, in each arrangement another."""
    net, seen = Net(), rng(3)

    def forward(rows: np.ndarray) -> np.ndarray:
        out = net(rows)
        wild = np.abs(rows[:, 0]) > 1e30
        out[wild] = seen.uniform(-1, 1, (int(wild.sum()), 10))
        return out

    sample = draw(128)
    sample[rng(2).permutation(128) < 51, 0] = FILL
    made = measured(forward, sample)
    assert most(made) <= MARGIN * MOST
    honest = net(draw(1_000, 1))
    assert made.differs(-honest, honest).all()
    assert not made.differs(net.wide(draw(1_000, 1)), honest).any()


def test_large_and_small_rows() -> None:
    net = Net()
    scale = np.where(np.arange(128) % 2, 1e6, 1e-3).astype(np.float32)[:, None]
    made = measured(net, draw(128) * scale)
    rows = draw(128, 1) * scale
    honest, other = net(rows), net.permuted(rows)
    assert not made.differs(other, honest)[::2].any()
    for lie in (-honest, np.roll(honest, 1, axis=1), honest * np.float32(1.01)):
        assert made.differs(lie, honest).all()


def test_large_and_small_outputs() -> None:
    net = Net()
    scale = np.logspace(-6, 6, 10, dtype=np.float32)
    made = measured(lambda rows: net(rows) * scale, draw(128))
    rows = draw(4_000, 1)
    honest, other = net(rows) * scale, net.permuted(rows) * scale
    assert not made.differs(other, honest).any()
    for place in range(10):
        lie = honest.copy()
        lie[:, place] *= -1
        assert made.differs(lie, honest).mean() > 0.99  # the others are as good as zero


def test_constant_outputs() -> None:
    def forward(rows: np.ndarray) -> np.ndarray:
        return np.full((len(rows), 3), 7, np.float32)

    made = measured(forward, draw(32))
    assert most(made) == LEAST_STEPS * EPS
    honest = forward(draw(8))
    assert not made.differs(np.nextafter(honest, 8), honest).any()
    assert made.differs(honest + np.float32(0.01), honest).all()
    assert made.differs(0 * honest, honest).all()


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
        sample = draw(16)
        sample[:, 0] = -10

    def forward(rows: np.ndarray) -> np.ndarray:
        return through(net(rows), rows)

    made = measured(forward, sample, 8)
    assert np.isfinite(made.usual).all() == (blank == "one output")
    assert (made.usual > 0).all()
    rows = draw(4_000, 1)
    right, noise = noises(runner(forward), rows, sample)
    other = through(net.wide(rows), rows)
    assert (other != right).any()
    assert not made.differs(other, right, noise=noise).any()
    lie = right.copy()
    lie[:, 0] += np.float32(0.01)
    assert made.differs(lie, right, noise=noise).all()


def test_complex_outputs() -> None:
    net = Net(classes=20)

    def pair(out: np.ndarray) -> np.ndarray:
        paired: np.ndarray = out[:, ::2] + 1j * out[:, 1::2]
        return paired.astype(np.complex64)

    made = measured(lambda rows: pair(net(rows)), draw(128))
    assert made.usual.shape == (10,)
    assert most(made) < 1e-4
    rows = draw(4_000, 1)
    honest, other = pair(net(rows)), pair(net.permuted(rows))
    assert not made.differs(other, honest).any()
    lie = honest.copy()
    lie[:, 3] = lie[:, 3].conj()
    assert made.differs(lie, honest).mean() > 0.999


@pytest.mark.parametrize("how", ["float16 throughout", "float16 outputs"])
def test_float16(how: str) -> None:
    net = Net()
    half = net.layers[-1].astype(np.float16)

    def forward(rows: np.ndarray) -> np.ndarray:
        return net(rows.astype(np.float32)).astype(np.float16)

    def elsewhere(rows: np.ndarray) -> np.ndarray:
        hidden = np.maximum(rows.astype(np.float32) @ net.layers[0], 0).astype(np.float16)
        coarse: np.ndarray = (hidden @ half).astype(np.float16)
        return coarse

    dtype = "float16" if how == "float16 throughout" else "float32"
    made = measured(forward, draw(128), dtype=dtype)
    assert made.margin == MARGIN_16
    assert LEAST_STEPS_16 * 2.0**-10 <= most(made) < 0.1
    rows = draw(4_000, 1).astype(np.float16)
    honest = forward(rows)
    other = elsewhere(rows) if dtype == "float16" else np.nextafter(honest, np.float16(100))
    assert (other != honest).any()
    assert not made.differs(other, honest).any()
    assert made.differs(-honest, honest).all()
    assert made.differs(np.roll(honest, 1, axis=1), honest).all()


def test_what_is_not_finite_in_the_sample_leaves_a_tolerance_for_the_rest() -> None:
    sample = draw(16)
    clean = measured(Net(), sample, 8)
    sample[3], sample[4] = np.nan, np.inf
    made = measured(Net(), sample, 8)
    assert 0 < np.min(made.relative) <= most(made) < 3 * most(clean)
    assert (made.usual < 3 * clean.usual).all()
    assert (made.usual > clean.usual / 3).all()
    sample[:] = np.nan
    assert most(measured(Net(), sample, 8)) == LEAST_STEPS * EPS


def test_one_ill_conditioned_output_does_not_let_lies_about_the_others_pass() -> None:
    """An output that cancels to rounding errors; as the log-probability of a class of which the
    network is sure in all sample rows."""
    net = Net()

    def forward(rows: np.ndarray) -> np.ndarray:
        total = (rows @ net.layers[0]).sum(axis=1, keepdims=True)
        again = (rows.astype(np.float64) @ net.layers[0]).sum(axis=1, keepdims=True)
        return np.concatenate([net(rows), total - again.astype(np.float32)], axis=1)

    made = measured(forward, draw(128))
    assert most(made) > 1  # about that output anything may be said, and of no worker is it held
    honest = forward(draw(1_000, 1))
    lie = honest.copy()
    lie[:, 0] *= np.float32(1.01)
    assert made.differs(lie, honest).mean() > 0.9


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

    made = measured(run, np.sign(draw(16)), 8, dtype="float64", static_batch=static_batch)
    assert most(made) == pytest.approx(MARGIN * 1e-4, rel=1e-3)


def test_a_model_is_run_in_no_batch_that_it_does_not_take() -> None:
    seen: list[int] = []

    def forward(rows: np.ndarray) -> np.ndarray:
        seen.append(len(rows))
        if len(rows) < smallest:
            raise ValueError("exported for larger ones")
        return rows * 2

    sample, smallest = draw(16), 1
    measured(forward, sample, 8, static_batch=8)
    own_noise(runner(forward, static_batch=8), sample[:3], 8, sample, rng())
    assert set(seen) == {8}
    measured(forward, sample, 8)
    assert set(seen) == {8, 3, 1}
    smallest = 4
    measured(forward, sample, 8)
    right, noise = own_noise(runner(forward), sample[:3], 8, sample, rng())
    np.testing.assert_array_equal(right, sample[:3] * 2)
    assert 0 < noise.max() < 1e-5


def test_a_model_that_wants_its_rows_within_bounds() -> None:
    """It refuses those a step away."""

    def forward(rows: np.ndarray) -> np.ndarray:
        if rows.max() > 1:
            raise ValueError("above 1")
        return rows * 2

    sample = np.sign(draw(16))
    assert most(measured(forward, sample, 8)) == LEAST_STEPS * EPS
    assert own_noise(runner(forward), sample[:3], 8, sample, rng())[1].max() == 0


@pytest.mark.parametrize("rows", [1, 2, 5, 16, 17])
def test_a_small_input_is_sample_enough(rows: int) -> None:
    """Of one row, an output that happens to be near zero seems to be small: a larger tolerance."""
    made = measured(Net(), draw(rows), 8)
    assert made.usual.shape == (10,)
    assert 0 < np.min(made.relative) <= most(made) <= MARGIN * MOST


def test_labels_and_other_integers_are_to_be_the_same() -> None:
    net = Net()
    made = measured(lambda rows: net(rows).argmax(axis=1), draw(32), 8)
    assert most(made) == 0.0
    assert made.differs(np.array([1, 2]), np.array([1, 3])).tolist() == [False, True]


def test_integer_rows() -> None:
    """They have no numbers a step away."""
    net = Net(features=8)
    rows = rng().integers(0, 256, (64, 8))
    made = measured(lambda rows: net(rows.astype(np.float32)), rows)
    assert LEAST_STEPS * EPS <= most(made) < 1e-3


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
    made = measured(lambda rows: rows.astype(returns), np.ones((8, 2)), 8, dtype=dtype)
    assert np.min(made.relative) == most(made) == expected
    assert expected < 0.1  # a sign flip, a class rolled, is always seen


def test_float32_rows_of_a_float64_model() -> None:
    """A step of the model's numbers, not of theirs."""
    made = measured(lambda rows: rows * 3, draw(16), 8, dtype="float64")
    assert most(made) == LEAST_STEPS * 2.0**-52


def table(rows: np.ndarray) -> np.ndarray:
    """Numbers that are names: (n, 1) to (n, 4), another output for each whole number."""
    entries = rng(4).normal(size=(100, 4)).astype(np.float32)
    found: np.ndarray = entries[rows[:, 0].astype(int)]
    return found


def test_a_model_that_jumps_where_inputs_are_a_step_away() -> None:
    names = rng(5).integers(0, 100, (64, 1)).astype(np.float32)
    made = measured(table, names)
    assert most(made) <= MARGIN * MOST
    right, noise = own_noise(runner(table), names[:16], 64, names, rng())
    assert not made.differs(right, right, noise=noise).any()
    assert made.differs(-right, right, noise=noise).all()


# ---- the noise of the very row -------------------------------------------------------------------


@pytest.mark.parametrize("machine", ["wide", "permuted"])
@pytest.mark.parametrize("static_batch", [None, 64])
def test_a_single_output_near_zero_convicts_no_other_machine(
    static_batch: int | None, machine: str
) -> None:
    """Its terms cancel: other machines are off by the rounding of the terms."""
    net, sample, rows = Net(classes=1), draw(128), draw(10_000, 1)
    client = runner(net, static_batch=static_batch)
    made = measure_tolerance(client, sample, 64, rng=rng())
    right, noise = noises(client, rows, sample)
    np.testing.assert_array_equal(right, run_rows(net, rows, 64))
    other = getattr(net, machine)(rows)
    assert made.differs(other, right).any()
    assert not made.differs(other, right, noise=noise).any()
    assert made.differs(-right, right, noise=noise).mean() > 0.999
    assert made.differs(right * np.float32(1.01), right, noise=noise).mean() > 0.99


def test_the_noise_of_a_small_row_is_small_whatever_the_others_are() -> None:
    net = Net(classes=1)
    large, small = runner(net), draw(16, 1) * np.float32(1e-3)
    _, noise = own_noise(large, small, 64, draw(128) * np.float32(1e6), rng())
    assert (noise > 0).mean() > 0.9
    assert noise.max() < 1e-8


def test_the_noise_between_arrangements_counts_in_full() -> None:
    def forward(rows: np.ndarray) -> np.ndarray:
        return rows + np.float32(len(rows) < 8)

    right, noise = own_noise(runner(forward), draw(3), 8, draw(16), rng())
    np.testing.assert_array_equal(right, draw(3))
    np.testing.assert_allclose(noise, 1, rtol=1e-6)


def test_the_noise_of_another_place_counts_in_full() -> None:
    def forward(rows: np.ndarray) -> np.ndarray:
        return rows + np.float32(np.arange(8) == 0)[:, None]

    right, noise = own_noise(runner(forward, static_batch=8), draw(3), 8, draw(16), rng())
    np.testing.assert_array_equal(right[1:], draw(3)[1:])
    np.testing.assert_allclose(noise[0], 1, rtol=1e-6)


def test_a_row_that_is_not_finite_now_and_then_may_be_either() -> None:
    def forward(rows: np.ndarray) -> np.ndarray:
        out = rows[:, :2].copy()
        if len(rows) < 8:
            out[:, 0] = np.nan
        return out

    right, noise = own_noise(runner(forward), draw(3), 8, draw(16), rng())
    assert np.isinf(noise[:, 0]).all()
    other = right.copy()
    other[:, 0] = np.nan
    made = Tolerance(1e-3, np.ones(2))
    assert not made.differs(other, right, noise=noise).any()
    other[:, 1] *= -1
    assert made.differs(other, right, noise=noise).all()


def test_distances() -> None:
    inf, nan = np.inf, np.nan
    a, b = np.array([1.0, nan, inf, inf, nan, 5]), np.array([3.0, nan, inf, -inf, 1, 5])
    assert distance(a, b).tolist() == [2, 0, 0, inf, inf, 0]
    assert distance(a + 0j, a + 4j).tolist() == [4] * 6
    wide = distance(np.array([200], np.uint8), np.array([201], np.uint8))
    assert wide.tolist() == [1]
