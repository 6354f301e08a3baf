"""Codewords of similar rows: cut the window in two, again and again, down to K rows.

Interpolating between unlike queries is what costs coded inference its accuracy, and bulk scoring,
unlike serving, may choose which queries meet in a codeword.
"""

import numpy as np
from numpy.typing import NDArray

from approxifer.checks import whole_number
from approxifer.coding.code import Array, Reals
from approxifer.errors import ConfigError

COMPONENTS = 32  # dimensions in which rows are compared
SAMPLE_ROWS = 512  # rows from which these are found
SAMPLE_FEATURES = 4096  # features that are looked at
SQUARINGS = 10  # of a covariance, to find its first direction
CHUNK = 1 << 21  # numbers converted to double precision at a time


def order_by_similarity(rows: Array, k: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Order rows such that each K consecutive ones lie close together.

    The rows are seen in their first 32 principal components. The set is sorted along its own first
    component and cut in the middle, at a multiple of K; so is each half, until K rows are left,
    which stay sorted along their own first component.

    Parameters
    ----------
    rows : numeric array (n, *feature)
        NaN and infinity count as 0.
    k : int
    seed : int
        For the sample from which the components are found (512 rows, 4,096 features).

    Returns
    -------
    int64 array (n,)
        The same on every call; a change of BLAS or its number of threads may change it.

    Raises
    ------
    ConfigError
        If the rows are not numbers.
    """
    if rows.dtype.kind not in "biuf":
        raise ConfigError(
            f"rows are {rows.dtype}; how='similar' compares real numbers. "
            "Take another order, or convert them"
        )
    k = whole_number("k", k, least=1)
    seed = whole_number("seed", seed, least=0)
    if not rows.size:
        return np.arange(len(rows), dtype=np.int64)
    points = _principal(rows.reshape(len(rows), -1), seed)
    leaves: list[NDArray[np.int64]] = []
    pending = [np.arange(len(rows), dtype=np.int64)]
    while pending:
        members = pending.pop()
        members = members[np.argsort(_along_first(points[members]), kind="stable")]
        if len(members) <= k:
            leaves.append(members)
            continue
        codewords = -(-len(members) // k)
        middle = codewords // 2 * k
        pending += [members[middle:], members[:middle]]  # the first half is next: it comes first
    return np.concatenate(leaves)


def _principal(rows: Array, seed: int) -> Reals:
    """Project rows (n, features) onto the first principal components of a sample of them.

    By way of the sample's Gram matrix, which is small where there are many features.
    """
    n, features = rows.shape
    rng = np.random.default_rng(seed)
    columns = np.sort(rng.choice(features, min(features, SAMPLE_FEATURES), replace=False))
    some = np.sort(rng.choice(n, min(n, SAMPLE_ROWS), replace=False))
    sample = _finite(rows[some[:, None], columns])
    mean = sample.mean(axis=0)
    sample -= mean
    power, directions = np.linalg.eigh(sample @ sample.T)
    strong = [i for i in range(len(power))[::-1][:COMPONENTS] if power[i] > 1e-12 * power[-1]]
    axes = sample.T @ (directions[:, strong] / np.sqrt(power[strong]))
    points = np.empty((n, axes.shape[1]))
    step = max(1, CHUNK // len(columns))
    for start in range(0, n, step):
        part = _finite(rows[start : start + step, columns])
        points[start : start + step] = (part - mean) @ axes
    return points


def _along_first(points: Reals) -> Reals:
    """Coordinate of points (m, d) along their first principal component, up to its scale.

    The covariance to the power 2^10, by repeated squaring, has nothing left but that direction.
    (LAPACK is not used: thousands of small calls make its threads wait for each other, on a busy
    machine for many seconds. For the same reason einsum sums, not BLAS.)
    """
    centred = points - points.mean(axis=0)
    power = np.einsum("mi,mj->ij", centred, centred)
    for _ in range(SQUARINGS):
        if not (trace := np.trace(power)) > 0:  # all points are alike
            return np.zeros(len(points))
        power /= trace
        power = power @ power
    direction = power[:, np.diag(power).argmax()]
    along: Reals = centred @ (direction / np.linalg.norm(direction))
    return along


def _finite(rows: Array) -> Reals:
    """Return a double-precision copy without NaN and infinity."""
    return np.nan_to_num(rows.astype(np.float64), copy=False, nan=0.0, posinf=0.0, neginf=0.0)
