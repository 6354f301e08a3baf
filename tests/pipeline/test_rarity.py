"""How rare a score is, and what the middle and the spread of scores are."""

import numpy as np
import pytest
from scipy.stats import expon, norm

from approxifer.pipeline.rarity import Pool, Pools, middle, spread

# ---- p-values ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [180, 1000, 5000])
@pytest.mark.parametrize("level", [1e-2, 5e-4])
def test_the_continued_tail_keeps_its_promise_if_it_is_exponential(size: int, level: float) -> None:
    """Over many pools, each with its own threshold, the chance to exceed it is the level."""
    rng = np.random.default_rng(size)
    exceeded = [
        expon.sf(threshold(Pool.of(np.sort(rng.exponential(size=size))), level)) for _ in range(300)
    ]
    assert 0.6 * level < np.mean(exceeded) < 1.25 * level


@pytest.mark.parametrize("size", [180, 5000])
def test_it_is_careful_if_the_tail_is_lighter(size: int) -> None:
    rng = np.random.default_rng(size)
    exceeded = [
        norm.sf(threshold(Pool.of(np.sort(rng.normal(size=size))), 5e-4)) for _ in range(200)
    ]
    assert np.mean(exceeded) < 5e-4


def test_a_few_lies_in_the_pool_hide_none() -> None:
    rng = np.random.default_rng(0)
    honest = rng.normal(size=1000)
    lies = 50 + rng.normal(size=30)
    pool = Pool.of(np.sort(np.concatenate([honest, lies])))
    assert pool.chances(12.0)[1] < 5e-4
    assert Pool.of(np.sort(honest)).chances(7.0)[1] < 5e-4


def test_p_values_by_rank() -> None:
    pool = Pool.of(np.arange(99.0))
    assert [pool.chances(score)[0] for score in (-1, 0, 49.5, 98, 99)] == [1, 1, 0.5, 0.02, 0.01]
    assert pool.chances(1e6)[0] == 0.01
    assert pool.chances(49.5)[1] == 0.5
    falling = [pool.chances(score)[1] for score in np.linspace(0, 300, 500)]
    assert (np.diff(falling) <= 0).all()
    assert 0 < falling[-1] < 1e-3


def test_a_pool_of_few_or_none_has_ranks_alone() -> None:
    assert Pool.of(np.empty(0)).chances(5.0) == (1.0, 1.0)
    assert Pool.of(np.arange(20.0)).chances(100.0) == (1 / 21, 1 / 21)


def test_a_worker_is_held_against_the_others_alone() -> None:
    scores = np.array([[1.0, 2.0, 100.0], [3.0, np.nan, 200.0]])
    owners = np.array([["a", "b", "liar"], ["c", None, "liar"]], object)
    pools = Pools(scores, owners)
    assert pools.against("liar").scores.tolist() == [1, 2, 3]
    assert pools.against("a").scores.tolist() == [2, 3, 100, 200]
    assert pools.against("somebody").scores.tolist() == [1, 2, 3, 100, 200]


def threshold(pool: Pool, level: float) -> float:
    """The score whose chance is `level`."""
    low, high = pool.begin, pool.begin + 1000 * pool.scale
    for _ in range(60):
        between = (low + high) / 2
        low, high = (between, high) if pool.chances(between)[1] > level else (low, between)
    return high


# ---- medians -------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1])
def test_middle_is_the_median_of_what_is_known(axis: int) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(6, 7, 4))
    values[rng.random(values.shape) < 0.4] = np.nan
    values[0, :, 0] = values[:, 0, 0] = np.nan
    known = np.isfinite(values).any(axis=axis)
    found = middle(values, axis)
    np.testing.assert_array_equal(found[~known], 0)
    np.testing.assert_allclose(
        found[known], np.nanmedian(np.moveaxis(values, axis, 0)[:, known], axis=0)
    )


def test_spread_is_a_standard_deviation_that_a_few_lies_do_not_move() -> None:
    rng = np.random.default_rng(0)
    sizes = np.array([1.0, 2.0, 4.0])
    excess = sizes[:, None] * rng.normal(size=(2000, 3, 1))
    excess[::20] = 1e3
    np.testing.assert_allclose(spread(excess)[:, 0], sizes, rtol=0.15)


def test_spread_of_few_groups_is_drawn_to_the_common_one_and_never_nothing() -> None:
    excess = np.tile([0.1, 0.1, 10.0], (5, 1))[..., None]
    first, _, last = spread(excess)[:, 0]
    assert 0.14 < first < 0.15
    assert 6 < last < 8
    assert (spread(np.zeros((5, 3, 1))) > 0).all()
