"""The noise of honest runs: no corruption passes for rounding, and no rounding for a corruption."""

from __future__ import annotations

import numpy as np
import pytest
from honest_runs import EPS, FILL, Net, draw, measured, most, noises, rng, runner

from approxifer.models import run_rows
from approxifer.pipeline.byzantine.noise import (
    LEAST_STEPS,
    LEAST_STEPS_16,
    MARGIN_16,
    MOST,
    measure_tolerance,
    own_noise,
)
from approxifer.pipeline.byzantine.tolerance import MARGIN, Tolerance, distance

# ---- how far honest runs differ ------------------------------------------------------------------


def test_small_corruptions_do_not_pass() -> None:
    net = Net()
    made = measured(net, draw(128))
    assert made.usual.shape == np.shape(made.relative) == (10,)
    assert LEAST_STEPS * EPS <= np.min(made.relative) <= most(made) < 1e-4
    np.testing.assert_allclose(made.usual, np.median(np.abs(net(draw(128))), axis=0), rtol=0.1)
    honest = net(draw(2_000, 1))
    for place in range(10):
        wrong = honest.copy()
        wrong[:, place] += np.float32(1e-3 * made.usual[place])
        # Where the value itself is many times its usual size more is allowed.
        assert made.differs(wrong, honest).mean() > 0.999


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
    for wrong in (-honest, np.roll(honest, 1, axis=1), honest * np.float32(1.01)):
        assert made.differs(wrong, honest)[finite].all()


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
    for wrong in (-honest, np.roll(honest, 1, axis=1), honest * np.float32(1.01)):
        assert made.differs(wrong, honest).all()


def test_large_and_small_outputs() -> None:
    net = Net()
    scale = np.logspace(-6, 6, 10, dtype=np.float32)
    made = measured(lambda rows: net(rows) * scale, draw(128))
    rows = draw(4_000, 1)
    honest, other = net(rows) * scale, net.permuted(rows) * scale
    assert not made.differs(other, honest).any()
    for place in range(10):
        wrong = honest.copy()
        wrong[:, place] *= -1
        assert made.differs(wrong, honest).mean() > 0.99  # the others are as good as zero


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
    wrong = right.copy()
    wrong[:, 0] += np.float32(0.01)
    assert made.differs(wrong, right, noise=noise).all()


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
    wrong = honest.copy()
    wrong[:, 3] = wrong[:, 3].conj()
    assert made.differs(wrong, honest).mean() > 0.999


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


def test_one_ill_conditioned_output_does_not_let_corruptions_of_the_others_pass() -> None:
    """An output that cancels to rounding errors; as the log-probability of a class of which the
    network is sure in all sample rows."""
    net = Net()

    def forward(rows: np.ndarray) -> np.ndarray:
        total = (rows @ net.layers[0]).sum(axis=1, keepdims=True)
        again = (rows.astype(np.float64) @ net.layers[0]).sum(axis=1, keepdims=True)
        return np.concatenate([net(rows), total - again.astype(np.float32)], axis=1)

    made = measured(forward, draw(128))
    assert most(made) > 1  # about that output no worker is convicted
    honest = forward(draw(1_000, 1))
    wrong = honest.copy()
    wrong[:, 0] *= np.float32(1.01)
    assert made.differs(wrong, honest).mean() > 0.9


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
