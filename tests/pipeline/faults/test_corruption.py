"""Each corruption by itself: what it changes, what it leaves, and how often; no cluster."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from scipy.stats import binom

from approxifer.errors import ConfigError
from approxifer.pipeline.faults.corruption import (
    WARP,
    BitFlips,
    Collude,
    Corruption,
    Noise,
    NotANumber,
    Replay,
    Roll,
    ShuffleRows,
    SignFlip,
    SwapTopTwo,
    WrongShape,
    Zeros,
)

#: (B, classes)
OUTPUT = np.random.default_rng(11).normal(3.0, 2.0, size=(40, 10)).astype(np.float32)
OTHER = np.random.default_rng(12).normal(3.0, 2.0, size=(40, 10)).astype(np.float32)

WHOLE = [Noise(), Noise(0.5, relative=True), SignFlip(), Zeros(), Roll(), SwapTopTwo()]
WHOLE += [ShuffleRows(), Collude(), BitFlips(values=400), NotANumber(400)]
FEW = [BitFlips(), BitFlips(bits=4, values=8, clustered=True), NotANumber(3)]
ALIKE = [*WHOLE, *FEW, Replay()]  #: those that return as many numbers as they are given
ALL = [*ALIKE, WrongShape(), WrongShape(dtype=True)]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def corrupted(corruption: Corruption, output: np.ndarray = OUTPUT, seed: int = 0) -> np.ndarray:
    """The output of a new corruptor that has had another share before."""
    corruptor = corruption.bind(rng(seed))
    corruptor.corrupt(output + output.dtype.type(1))
    return corruptor.corrupt(output)


def changed(found: np.ndarray, honest: np.ndarray = OUTPUT) -> np.ndarray:
    """Which rows (B,) are other ones; NaN counts as a change."""
    return (found != honest).reshape(len(honest), -1).any(axis=1)


def named(corruptions: list[Corruption]) -> pytest.MarkDecorator:
    """A test of each of them."""
    return pytest.mark.parametrize("corruption", corruptions, ids=repr)


# ---- what is true of all -------------------------------------------------------------------------


@named(ALL)
def test_the_honest_output_is_left_as_it_is(corruption: Corruption) -> None:
    output = OUTPUT.copy()
    for rows in (1.0,) if isinstance(corruption, WrongShape) else (1.0, 0.3):
        found = corrupted(replace(corruption, rows=rows), output)
        assert output.tobytes() == OUTPUT.tobytes()
        assert not np.shares_memory(found, output)


@named(ALL)
def test_every_share_is_corrupted_by_default(corruption: Corruption) -> None:
    corruptor = corruption.bind(rng())
    corruptor.corrupt(OTHER)
    for output in rng(1).normal(size=(20, 8, 10)).astype(np.float32):
        if isinstance(corruption, Replay):
            corruptor.corrupt(output[::-1])
        found = corruptor.corrupt(output)
        assert (found.shape, found.dtype) != (output.shape, output.dtype) or (found != output).any()


@named(ALIKE)
def test_shape_and_type_stay(corruption: Corruption) -> None:
    for dtype in (np.float32, np.float64, np.float16):
        output = OUTPUT.astype(dtype)
        found = corrupted(corruption, output)
        assert (found.shape, found.dtype) == (output.shape, output.dtype)
        fields = rng(2).normal(size=(6, 4, 5)).astype(dtype)
        found = corrupted(corruption, fields)
        assert (found.shape, found.dtype) == (fields.shape, fields.dtype)


@named(WHOLE)
def test_whole_corruptions_change_every_row(corruption: Corruption) -> None:
    assert changed(corrupted(corruption)).all()


@named(ALL)
def test_the_same_seed_gives_the_same(corruption: Corruption) -> None:
    few = corruption if isinstance(corruption, WrongShape) else replace(corruption, rows=0.5)
    assert corrupted(few, seed=3).tobytes() == corrupted(few, seed=3).tobytes()


@named([Noise(), BitFlips(), NotANumber(), ShuffleRows(), SignFlip(rows=0.5), Roll(rows=0.5)])
def test_another_seed_gives_another(corruption: Corruption) -> None:
    assert corrupted(corruption, seed=3).tobytes() != corrupted(corruption, seed=4).tobytes()


@named([Noise(), BitFlips(), ShuffleRows(rows=0.5), SignFlip(shares=0.5), Collude(rows=0.5)])
def test_what_was_returned_before_makes_no_difference(corruption: Corruption) -> None:
    outputs = rng(5).normal(size=(30, 8, 10)).astype(np.float32)
    there, back = corruption.bind(rng()), corruption.bind(rng())
    forward = [there.corrupt(output).tobytes() for output in outputs]
    backward = [back.corrupt(output).tobytes() for output in outputs[::-1]]
    assert forward == backward[::-1]


@named(ALL)
def test_it_can_be_sent_and_not_be_changed(corruption: Corruption) -> None:
    assert pickle.loads(pickle.dumps(corruption)) == corruption
    with pytest.raises(FrozenInstanceError):
        corruption.shares = 0.5  # type: ignore[misc]


# ---- how often -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shares", [0.05, 0.3])
@named([Zeros(), Noise(), Replay(), Collude(), WrongShape(), SignFlip(rows=0.2)])
def test_so_many_shares(corruption: Corruption, shares: float) -> None:
    count = 1000
    corruptor = replace(corruption, shares=shares).bind(rng(6))
    hits = 0
    for output in rng(7).normal(size=(count, 4, 3)):
        found = corruptor.corrupt(output)
        hits += found.shape != output.shape or bool((found != output).any())
    low, high = binom.interval(0.999, count, shares)
    assert low <= hits <= high


def test_no_share_at_all() -> None:
    assert Zeros(shares=0.0).bind(rng()).corrupt(OUTPUT) is OUTPUT


@pytest.mark.parametrize(("rows", "count"), [(0.1, 4), (0.25, 10), (0.001, 1), (0.99, 40)])
@named([*WHOLE, Replay()])
def test_so_many_rows(corruption: Corruption, rows: float, count: int) -> None:
    found = corrupted(replace(corruption, rows=rows))
    assert changed(found).sum() == count
    np.testing.assert_array_equal(found[~changed(found)], OUTPUT[~changed(found)])


@named([BitFlips(values=3, rows=0.1), BitFlips(values=64, clustered=True, rows=0.1)])
def test_few_values_change_in_the_chosen_rows(corruption: Corruption) -> None:
    assert 1 <= changed(corrupted(corruption)).sum() <= 4


def test_rows_are_drawn_for_each_share() -> None:
    corruptor = Zeros(rows=0.1).bind(rng())
    hit = np.zeros(40, dtype=int)
    for output in rng(8).normal(size=(300, 40, 2)):
        hit += changed(corruptor.corrupt(output), output)
    assert hit.sum() == 300 * 4
    low, high = binom.interval(0.9999, 300, 0.1)
    assert ((low <= hit) & (hit <= high)).all()


# ---- each by itself ------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [1.0, 10.0, 100.0])
def test_noise(sigma: float) -> None:
    output = rng(9).normal(size=(200, 100))
    noise = corrupted(Noise(sigma), output) - output
    assert noise.std() == pytest.approx(sigma, rel=0.03)
    assert noise.mean() == pytest.approx(0, abs=0.03 * sigma)
    own = corrupted(Noise(sigma, relative=True), 5 * output) - 5 * output
    assert own.std() == pytest.approx(sigma * 5 * output.std(), rel=0.03)


def test_noise_relative_to_the_share_also_in_one_row() -> None:
    found = corrupted(Noise(0.01, relative=True, rows=0.02))
    assert changed(found).sum() == 1
    assert 0 < np.abs(found - OUTPUT).max() < 0.05 * OUTPUT.std()


def test_sign_zeros_roll() -> None:
    np.testing.assert_array_equal(corrupted(SignFlip()), -OUTPUT)
    assert not corrupted(Zeros()).any()
    np.testing.assert_array_equal(corrupted(Roll(3)), OUTPUT[:, [7, 8, 9, 0, 1, 2, 3, 4, 5, 6]])
    np.testing.assert_array_equal(corrupted(Roll(-3)), np.roll(OUTPUT, -3, axis=1))


def test_the_top_two_swapped() -> None:
    found = corrupted(SwapTopTwo())
    before, after = np.argsort(OUTPUT), np.argsort(found)
    np.testing.assert_array_equal(after[:, :-2], before[:, :-2])
    np.testing.assert_array_equal(after[:, -2:], before[:, :-3:-1])
    assert (changed(found.T, OUTPUT.T)).all()
    np.testing.assert_array_equal(np.sort(found), np.sort(OUTPUT))


def test_rows_shuffled_none_in_its_place() -> None:
    for size in (2, 3, 8):
        for seed in range(20):
            found = corrupted(ShuffleRows(), OUTPUT[:size], seed=seed)
            assert changed(found, OUTPUT[:size]).all()
            np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(OUTPUT[:size], axis=0))
    one = OUTPUT[:1]
    np.testing.assert_array_equal(corrupted(ShuffleRows(), one), one)


def flipped(found: np.ndarray, honest: np.ndarray) -> np.ndarray:
    """How many bits of each value differ, flat."""
    raw = f"u{honest.itemsize}"
    return np.bitwise_count(found.ravel().view(raw) ^ honest.ravel().view(raw))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bits", [1, 2, 5, 16])
def test_so_many_bits_of_so_many_values(bits: int, dtype: type) -> None:
    output = OUTPUT.astype(dtype)
    found = flipped(corrupted(BitFlips(bits, values=7), output), output)
    np.testing.assert_array_equal(np.sort(found)[-8:], [0] + 7 * [bits])


def test_bits_flip_anywhere() -> None:
    """Sign, exponent and fraction: every bit of a float32 is hit."""
    seen = 0
    for seed in range(20):
        found = corrupted(BitFlips(1, values=400), seed=seed)
        seen |= int(np.bitwise_or.reduce((found.view("u4") ^ OUTPUT.view("u4")).ravel()))
    assert seen == 2**32 - 1


def test_clustered_flips_are_a_run_from_a_warps_beginning() -> None:
    starts = set()
    for seed in range(60):
        found = flipped(corrupted(BitFlips(3, values=20, clustered=True), seed=seed), OUTPUT)
        where = np.flatnonzero(found)
        starts.add(int(where[0]))
        assert where[0] % WARP == 0
        assert len(where) == min(20, OUTPUT.size - where[0])
        np.testing.assert_array_equal(where, np.arange(where[0], where[0] + len(where)))
    assert starts == set(range(0, OUTPUT.size, WARP))
    small = corrupted(BitFlips(values=100, clustered=True), OUTPUT[:2])
    assert (flipped(small, OUTPUT[:2]) == 2).all()


def test_not_a_number() -> None:
    assert np.isnan(corrupted(NotANumber(5))).sum() == 5
    assert np.isposinf(corrupted(NotANumber(5, infinite=True))).sum() == 5
    assert np.isnan(corrupted(NotANumber(10_000))).all()


@pytest.mark.parametrize("age", [1, 3])
def test_replay_returns_older_outputs(age: int) -> None:
    corruptor = Replay(age).bind(rng())
    outputs = rng(10).normal(size=(8, 4, 3))
    for i, output in enumerate(outputs):
        found = corruptor.corrupt(output)
        np.testing.assert_array_equal(found, outputs[i - age] if i >= age else output)
        assert corruptor.corrupt(np.full((2, 3), float(i))).shape == (
            2,
            3,
        )  # another shape, kept apart


def test_replay_keeps_what_it_ran_even_if_its_memory_is_written_over() -> None:
    corruptor = Replay().bind(rng())
    buffer = OUTPUT.copy()
    corruptor.corrupt(buffer)
    buffer[:] = 0
    np.testing.assert_array_equal(corruptor.corrupt(OTHER), OUTPUT)


def test_replay_now_and_then_returns_the_share_just_before() -> None:
    corruptor = Replay(shares=0.3).bind(rng())
    before = None
    for output in rng(13).normal(size=(50, 4, 3)):
        found = corruptor.corrupt(output)
        assert (found == output).all() or (found == before).all()
        before = output


def test_colluders_agree_whoever_they_are() -> None:
    for corruption in (Collude(), Collude(5, shares=0.5), Collude(5, rows=0.1)):
        one, other = corruption.bind(rng(1)), corruption.bind(rng(2))
        for output in rng(14).normal(size=(20, 8, 10)).astype(np.float32):
            assert one.corrupt(output).tobytes() == other.corrupt(output).tobytes()
    assert corrupted(Collude(1)).tobytes() != corrupted(Collude(2)).tobytes()


def test_colluders_agree_on_a_row_whatever_comes_with_it() -> None:
    whole = corrupted(Collude(3))
    np.testing.assert_allclose(
        corrupted(Collude(3), OUTPUT[[31, 4, 17]]), whole[[31, 4, 17]], rtol=1e-6
    )


@named([Collude(), Noise(), SignFlip(), Zeros(), ShuffleRows(), BitFlips(), NotANumber()])
def test_one_output_to_a_row(corruption: Corruption) -> None:
    for output in (OUTPUT[:, 0], OUTPUT[:, :1]):
        found = corrupted(corruption, output)
        assert found.shape == output.shape
        assert changed(found, output).any()


def test_colluders_lie_about_zeros_too() -> None:
    found = corrupted(Collude(), np.zeros((3, 4), np.float32))
    assert (found != 0).all()


def test_wrong_shape_or_type() -> None:
    np.testing.assert_array_equal(corrupted(WrongShape()), OUTPUT[:-1])
    wide = corrupted(WrongShape(dtype=True))
    assert wide.dtype == np.float64
    np.testing.assert_array_equal(wide, OUTPUT)
    assert corrupted(WrongShape(dtype=True), OUTPUT.astype(np.float64)).dtype == np.float32
    assert corrupted(WrongShape(), OUTPUT[:1]).shape == (0, 10)


@named([Zeros(), Roll(), SwapTopTwo(), ShuffleRows(), Replay(), WrongShape()])
def test_integers_too(corruption: Corruption) -> None:
    output = np.arange(1, 13).reshape(4, 3)
    corruptor = corruption.bind(rng())
    corruptor.corrupt(output[::-1])
    found = corruptor.corrupt(output)
    assert found.shape != output.shape or changed(found, output).all()


# ---- what is refused -----------------------------------------------------------------------------


@named([Noise(), SignFlip(), BitFlips(), NotANumber(), Collude()])
def test_floats_are_needed(corruption: Corruption) -> None:
    with pytest.raises(ConfigError, match=r"needs floating outputs, and the model returns int64"):
        corruption.bind(rng()).corrupt(np.arange(12).reshape(4, 3))


@named([Roll(), SwapTopTwo()])
def test_classes_are_needed(corruption: Corruption) -> None:
    for output in (OUTPUT[:, 0], OUTPUT[:, :1]):
        with pytest.raises(ConfigError, match=r"two or more outputs along the last axis"):
            corruption.bind(rng()).corrupt(output)


def test_a_roll_that_changes_nothing() -> None:
    with pytest.raises(ConfigError, match=r"Roll\(.*by=20\) changes nothing: a row has 10"):
        Roll(20).bind(rng()).corrupt(OUTPUT)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Zeros(shares=1.5), r"shares=1.5: give a fraction from 0 to 1"),
        (lambda: Zeros(shares=-0.1), r"shares=-0.1"),
        (lambda: Noise(shares=float("nan")), r"shares=nan"),
        (lambda: Zeros(rows=0.0), r"rows=0.0: give a fraction above 0 and up to 1"),
        (lambda: SignFlip(rows=2), r"rows=2"),
        (lambda: Noise(sigma=0.0), r"sigma=0.0: give a finite number above 0"),
        (lambda: Noise(sigma=float("inf")), r"sigma=inf"),
        (lambda: Roll(by=0), r"by=0 changes nothing"),
        (lambda: BitFlips(bits=0), r"bits=0: give 1 to 16"),
        (lambda: BitFlips(bits=17), r"bits=17"),
        (lambda: BitFlips(values=0), r"values=0: give a whole number from 1 up"),
        (lambda: NotANumber(values=-1), r"values=-1"),
        (lambda: Replay(age=0), r"age=0: give a whole number from 1 up"),
        (lambda: Collude(shared_seed=-1), r"shared_seed=-1: give a whole number from 0 up"),
        (lambda: WrongShape(rows=0.5), r"rows=0.5: a share has one shape and type"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(make: Callable[[], Corruption], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        make()
