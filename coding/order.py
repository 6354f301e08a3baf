"""Rows to blocks: the rows of a window that form a codeword, and the block that carries each.

Everything follows from a permutation: ``perm[(g*B + b)*K + j]`` is the row of the window that block
j carries in codeword b of group g. So K consecutive entries are a codeword, and the entries
`Group.start` to `Group.stop` are a group. The last group may have a smaller B, and its last
codeword fewer than K members: `gather` pads it by repeating the last row, `block_rows` leaves that
padding out.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from approxifer.checks import array, one_of, row_numbers, told, whole_number
from approxifer.coding.code import Array
from approxifer.coding.similarity import order_by_similarity
from approxifer.coding.spec import MAX_SHARES
from approxifer.errors import ConfigError

ORDERS = ("none", "natural", "similar", "random")

#: Rows of a window, which is held in memory.
MOST_ROWS = 2**40


@dataclass(frozen=True)
class Group:
    """One group's entries in the permutation.

    Attributes
    ----------
    start, stop : int
        Its members are ``perm[start:stop]``.
    block : int
        Rows per block, that is codewords: B, in the last group often smaller.
    """

    start: int
    stop: int
    block: int


def groups(n: int, k: int, block: int | None = None) -> list[Group]:
    """Cut n ordered rows into groups of `k` blocks.

    Parameters
    ----------
    n : int
        Rows of the window.
    k : int
        Queries per codeword.
    block : int, optional
        Rows per block, B. One group holds everything if left out.

    Returns
    -------
    list of Group
        Empty if n is 0.

    Raises
    ------
    ConfigError
        If an argument is not what it should be.
    """
    n = whole_number("n", n, least=0, most=MOST_ROWS)
    k = whole_number("k", k, least=1, most=MAX_SHARES)
    size = n if block is None else whole_number("block", block, least=1) * k
    return [
        Group(start, stop := min(start + size, n), -(-(stop - start) // k))
        for start in range(0, n, size or 1)
    ]


def order_rows(
    rows: Array | int,
    k: int,
    how: str = "none",
    *,
    block: int | None = None,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Choose the rows of a window that form a codeword.

    Parameters
    ----------
    rows : array (n, *feature) or int
        The rows; or only their number, where `how` does not look at them.
    k : int
        Queries per codeword.
    how : "none", "natural", "similar" or "random"
        - ``"none"``: each block is a contiguous slab of rows, ``perm[(g*B + b)*K + j] ==
          (g*K + j)*B + b``. In a group whose last codeword is short, the blocks which that codeword
          does not reach have one row fewer.
        - ``"natural"``: K consecutive rows are a codeword. For smooth dimensions: time, latitude.
        - ``"similar"``: K rows that lie close together are a codeword; see `order_by_similarity`.
        - ``"random"``: any; seeded.
    block : int, optional
        Rows per block, B. One group holds everything if left out.
    seed : int
        For ``"random"``, and for the rows that ``"similar"`` looks at first.

    Returns
    -------
    int64 array (n,)
        A permutation; ``out[perm] = ordered`` undoes the order.

    Raises
    ------
    ConfigError
        If an argument is not what it should be.
    """
    one_of("how", how, ORDERS)
    k = whole_number("k", k, least=1, most=MAX_SHARES)
    seed = whole_number("seed", seed, least=0)
    if isinstance(rows, np.ndarray):
        n = len(array("rows", rows, numbers=False))
    else:
        n = whole_number("rows", rows, least=0, most=MOST_ROWS)
    parts = groups(n, k, block)
    match how:
        case "none":
            slabs = [_slabs(part, k) for part in parts]
            return np.concatenate(slabs) if slabs else np.empty(0, np.int64)
        case "natural":
            return np.arange(n, dtype=np.int64)
        case "random":
            return np.random.default_rng(seed).permutation(n).astype(np.int64, copy=False)
        case _:
            if not isinstance(rows, np.ndarray):
                raise ConfigError(
                    "how='similar' looks at the rows; give an array (n, *feature), not "
                    f"{told(rows)}"
                )
            return order_by_similarity(rows, k, seed=seed)


def _slabs(group: Group, k: int) -> NDArray[np.int64]:
    """Order one group block-major: block j is slab j of its rows."""
    members = group.stop - group.start
    lengths = np.array([len(range(j, members, k)) for j in range(k)], np.int64)
    starts = group.start + np.cumsum(lengths) - lengths
    rows: NDArray[np.int64] = starts + np.arange(group.block)[:, None]  # (B, k), a codeword a line
    return rows.ravel()[:members]


def gather(rows: Array, members: NDArray[np.int64], k: int) -> Array:
    """Collect the blocks of one group.

    Parameters
    ----------
    rows : array (n, *feature)
        The window.
    members : int array
        The group's part of the permutation, ``perm[group.start:group.stop]``.
    k : int
        Queries per codeword.

    Returns
    -------
    array (k, B, *feature)
        A copy, of the rows' dtype. A short last codeword is padded by repeating its last row.

    Raises
    ------
    ConfigError
        If an argument is not what it should be, or a member is no row of the window.
    """
    rows, members = array("rows", rows, numbers=False), row_numbers("members", members)
    k = whole_number("k", k, least=1, most=MAX_SHARES)
    if len(members) and not 0 <= members.min() <= members.max() < len(rows):
        raise ConfigError(
            f"members {members.min()} to {members.max()} of {len(rows)} rows: not all are there"
        )
    short = -len(members) % k
    padded = np.concatenate([members, np.repeat(members[-1:], short)])
    blocks: Array = rows[padded.reshape(-1, k).T]
    return blocks


def block_rows(members: NDArray[np.int64], k: int) -> list[NDArray[np.int64]]:
    """List the rows that each block of one group carries.

    Parameters
    ----------
    members : int array
        The group's part of the permutation, ``perm[group.start:group.stop]``.
    k : int
        Queries per codeword.

    Returns
    -------
    list of k int arrays
        Entry b of array j is the row that block j carries in codeword b. Padding is left out, so
        some arrays may be one shorter than B: ``out[rows] = block[:len(rows)]``.

    Raises
    ------
    ConfigError
        If an argument is not what it should be.
    """
    members = row_numbers("members", members)
    return [members[j::k] for j in range(whole_number("k", k, least=1, most=MAX_SHARES))]
