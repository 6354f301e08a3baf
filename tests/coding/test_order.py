"""Rows to blocks: the formula, the tail, and the way back."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from approxifer.coding import block_rows, gather, groups, order_rows
from approxifer.errors import ConfigError

HOW = ["none", "natural", "similar", "random"]
fixed = settings(derandomize=True, deadline=None, max_examples=80)
windows = given(
    n=st.integers(0, 90),
    k=st.integers(1, 9),
    block=st.none() | st.integers(1, 7),
    how=st.sampled_from(HOW),
)


@fixed
@windows
@example(n=0, k=3, block=None, how="similar")
@example(n=2, k=5, block=4, how="none")
def test_there_and_back(n, k, block, how):
    """Through groups, blocks and rows, padding never written, every row exactly once."""
    rows = np.random.default_rng(n).normal(size=(n, 2, 3)).astype(np.float32)
    perm = order_rows(rows, k, how, block=block, seed=3)
    assert perm.dtype == np.int64
    assert sorted(perm.tolist()) == list(range(n))
    out, written = np.full_like(rows, np.nan), np.zeros(n, int)
    for group in groups(n, k, block):
        members = perm[group.start : group.stop]
        blocks = gather(rows, members, k)
        assert blocks.shape == (k, group.block, 2, 3)
        for block_, of in zip(blocks, block_rows(members, k), strict=True):
            out[of] = block_[: len(of)]
            written[of] += 1
    np.testing.assert_array_equal(out, rows)
    np.testing.assert_array_equal(written, 1)
    undone = np.empty_like(rows)
    undone[perm] = rows[perm]
    np.testing.assert_array_equal(undone, rows)


@fixed
@windows
def test_gather_and_block_rows_follow_the_formula(n, k, block, how):
    rows = np.random.default_rng(n).permutation(n)
    perm = order_rows(rows, k, how, block=block)
    size = block or max(1, -(-n // k))
    for g, group in enumerate(groups(n, k, block)):
        members = perm[group.start : group.stop]
        blocks, of = gather(rows, members, k), block_rows(members, k)
        for j in range(k):
            for b in range(group.block):
                at = (g * size + b) * k + j
                if at < n:
                    assert of[j][b] == perm[at]
                    assert blocks[j, b] == rows[perm[at]]
                else:
                    assert len(of[j]) == b  # left out
                    assert blocks[j, b] == rows[perm[-1]]  # padded by the last row


@fixed
@given(n=st.integers(0, 300), k=st.integers(1, 9), block=st.none() | st.integers(1, 20))
def test_groups_tile_the_rows(n, k, block):
    parts = groups(n, k, block)
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])][: len(parts)]
    assert (parts[-1].stop if parts else 0) == n
    size = block or max(1, -(-n // k))
    for part in parts[:-1]:
        assert (part.stop - part.start, part.block) == (size * k, size)
    for part in parts[-1:]:
        assert 0 < part.stop - part.start <= size * k
        assert (part.block - 1) * k < part.stop - part.start <= part.block * k


def test_none_is_block_major():
    k, size = 3, 4
    perm = order_rows(24, k, "none", block=size)
    for g in range(2):
        for b in range(size):
            for j in range(k):
                assert perm[(g * size + b) * k + j] == (g * k + j) * size + b


def test_none_keeps_the_slabs_of_a_short_group_contiguous():
    # 12 rows fill one group; 8 are left: blocks of 3, the last codeword has two members.
    perm = order_rows(20, 3, "none", block=4)
    (full, tail) = groups(20, 3, 4)
    assert (full.block, tail.block) == (4, 3)
    assert [rows.tolist() for rows in block_rows(perm[full.start : full.stop], 3)] == [
        [0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11],
    ]  # fmt: skip
    assert [rows.tolist() for rows in block_rows(perm[tail.start : tail.stop], 3)] == [
        [12, 13, 14], [15, 16, 17], [18, 19],
    ]  # fmt: skip


def test_fewer_rows_than_a_codeword():
    (group,) = groups(2, 4)
    assert (group.start, group.stop, group.block) == (0, 2, 1)
    perm = order_rows(2, 4)
    assert [rows.tolist() for rows in block_rows(perm, 4)] == [[0], [1], [], []]
    assert gather(np.array([5, 6]), perm, 4).tolist() == [[5], [6], [6], [6]]


def test_natural_is_the_identity():
    assert order_rows(7, 3, "natural", block=1).tolist() == list(range(7))


def test_random_is_seeded():
    first, again, other = (order_rows(50, 4, "random", seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first != np.arange(50)).any()


def test_the_number_of_rows_is_enough_where_the_rows_are_not_looked_at():
    rows = np.zeros((11, 2))
    for how in ("none", "natural", "random"):
        np.testing.assert_array_equal(
            order_rows(rows, 3, how, block=2), order_rows(11, 3, how, block=2)
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"how": "similer"},
            r"how='similer' is unknown.*none, natural, similar, random.*'similar'",
        ),
        ({"how": "similar"}, r"looks at the rows; give an array.*not 10"),
        ({"rows": np.array(["a", "b"]), "how": "similar"}, r"rows are <U1.*real numbers"),
        ({"rows": -1}, r"rows=-1 is too small"),
        ({"rows": [[1.0], [2.0]]}, r"rows=\[\[1.0\], \[2.0\]\] is a list"),
        ({"k": 0}, r"k=0 is too small"),
        ({"k": 2.0}, r"k=2.0 is a float"),
        ({"block": 0}, r"block=0 is too small"),
        ({"block": True}, r"block=True is a bool"),
        ({"seed": -1}, r"seed=-1 is too small"),
        ({"seed": None}, r"seed=None is a NoneType"),
    ],
)
def test_nonsense_is_refused_with_the_remedy(arguments, message):
    with pytest.raises(ConfigError, match=message):
        order_rows(**{"rows": 10, "k": 2} | arguments)
