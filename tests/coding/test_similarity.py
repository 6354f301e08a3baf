"""Codewords of similar rows."""

import numpy as np
import pytest

from approxifer.coding import order_rows


def spread(rows, perm, k):
    """Root mean square distance of rows from their codeword's mean."""
    whole = rows[perm][: len(rows) // k * k].reshape(-1, k, rows[0].size)
    return np.sqrt(np.square(whole - whole.mean(axis=1, keepdims=True)).sum(axis=2).mean())


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_clusters_are_found(dtype):
    """24 tight clusters of k rows, shuffled, in 50 dimensions: most become a codeword."""
    rng = np.random.default_rng(0)
    k = 5
    centres = np.repeat(rng.integers(60, 190, size=(24, 50)), k, axis=0)
    rows = (centres + rng.integers(0, 3, size=centres.shape)).astype(dtype)
    shuffle = rng.permutation(len(rows))
    perm = order_rows(rows[shuffle], k, "similar")
    clusters = (shuffle[perm] // k).reshape(-1, k)
    whole = (clusters == clusters[:, :1]).all(axis=1)
    assert whole.mean() > 0.75  # a cut in the middle may go through a cluster


def test_a_curve_is_followed():
    """Rows along a curve: every codeword is a stretch of it, in order."""
    t = np.random.default_rng(0).permutation(160) / 160
    rows = np.stack([t, t**2, np.sin(t)], axis=1)
    codewords = t[order_rows(rows, 8, "similar")].reshape(-1, 8)
    steps = np.diff(codewords, axis=1) * 160
    assert np.allclose(np.abs(steps), 1)
    assert (np.sign(steps) == np.sign(steps[:, :1])).all()


def test_closer_than_random_on_a_cloud():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(2000, 3, 20)) * (0.8 ** np.arange(20))
    similar, random = (order_rows(rows, 8, how, seed=0) for how in ("similar", "random"))
    assert spread(rows, similar, 8) < 0.75 * spread(rows, random, 8)


def test_more_features_than_are_looked_at():
    rng = np.random.default_rng(2)
    rows = (np.arange(40) % 10)[:, None] + rng.normal(scale=0.01, size=(40, 6000))
    codewords = (order_rows(rows, 4, "similar") % 10).reshape(-1, 4)
    assert (codewords == codewords[:, :1]).all()


def test_the_same_on_every_call():
    rows = np.random.default_rng(3).normal(size=(700, 30)).astype(np.float32)
    first = order_rows(rows, 8, "similar", seed=5)
    np.testing.assert_array_equal(first, order_rows(rows.copy(), 8, "similar", seed=5))


def test_the_block_does_not_matter():
    rows = np.random.default_rng(3).normal(size=(70, 3))
    np.testing.assert_array_equal(
        order_rows(rows, 4, "similar", block=2), order_rows(rows, 4, "similar")
    )


@pytest.mark.parametrize(
    "rows",
    [
        np.zeros((0, 4)),
        np.zeros((5, 0)),
        np.ones((1, 4)),
        np.ones((3, 4)),
        np.full((37, 4), 0.1),
        np.arange(37.0),
        np.arange(37.0)[:, None],
        np.zeros((37, 2, 2), bool),
        np.full((37, 3), np.nan),
        np.where(np.arange(37)[:, None] % 2, np.inf, np.arange(37.0)[:, None]),
    ],
    ids=["none", "featureless", "one", "few", "alike", "flat", "single", "bool", "nan", "inf"],
)
@pytest.mark.parametrize("k", [1, 4, 50])
def test_degenerate_rows(rows, k):
    perm = order_rows(rows, k, "similar")
    assert perm.dtype == np.int64
    assert sorted(perm.tolist()) == list(range(len(rows)))


def test_a_single_feature_is_sorted():
    rows = np.random.default_rng(4).permutation(42).astype(np.float64)
    ordered = rows[order_rows(rows, 4, "similar")]
    steps = np.abs(np.diff(ordered[:40].reshape(-1, 4), axis=1))
    np.testing.assert_array_equal(steps, 1)
    assert abs(ordered[40] - ordered[41]) == 1  # the short codeword is the last
