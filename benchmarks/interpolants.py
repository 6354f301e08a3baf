"""Decoders that were tried beside Berrut's weights: how the missing outputs follow from the others.

A decoder is learnt from codewords of which all is known, for one set of shares that came back; it
then mixes the outputs of others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import numpy as np
from scipy.interpolate import make_smoothing_spline

from approxifer.coding.berrut import InterpolatingCode
from approxifer.coding.code import combine
from approxifer.coding.fitted import FOLDS, STRENGTHS, FittedDecoder

#: Outputs of the shares present (p, B, *out) to those of the missing blocks (m, B, *out).
Decode = Callable[[np.ndarray], np.ndarray]
#: Code, shares present, outputs of all shares (n, B, *out) and of all blocks (k, B, *out).
Learn = Callable[[InterpolatingCode, Sequence[int], np.ndarray, np.ndarray], Decode]

#: Of the smoothing splines; the nodes lie in [-1, 1].
SMOOTHNESS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def floater_hormann(at: np.ndarray, nodes: np.ndarray, degree: int) -> np.ndarray:
    """Evaluate the basis of Floater and Hormann's rational interpolant; degree 0 is Berrut's.

    Floater & Hormann, "Barycentric rational interpolation with no poles and high rates of
    approximation", Numerische Mathematik 107(2), 2007, equations (11) and (18).

    Parameters
    ----------
    at : (m,)
        None of them a node.
    nodes : (p,)
        Distinct, in any order, p > degree.
    degree : int

    Returns
    -------
    (m, p)
    """
    order = np.argsort(nodes)
    x, p = nodes[order], len(nodes)
    weights = np.zeros(p)
    for k in range(p):
        for i in range(max(0, k - degree), min(k, p - 1 - degree) + 1):
            others = [j for j in range(i, i + degree + 1) if j != k]
            weights[k] += (-1) ** i / np.prod(x[k] - x[others])
    terms = np.empty((len(at), p))
    terms[:, order] = weights / (at[:, None] - x)
    basis: np.ndarray = terms / terms.sum(axis=1, keepdims=True)
    return basis


@lru_cache(maxsize=4096)
def smoothing_spline(
    at: tuple[float, ...], nodes: tuple[float, ...], smoothness: float
) -> np.ndarray:
    """Evaluate a cubic smoothing spline, which is linear in its values: (m, p).

    NeRCC (arXiv 2402.04377) and LeTCC (arXiv 2406.00300) decode so. At least five nodes.
    """
    order = np.argsort(nodes)
    x, units = np.array(nodes)[order], np.eye(len(nodes))
    columns = [make_smoothing_spline(x, unit[order], lam=smoothness)(at) for unit in units]
    return np.stack(columns, axis=1)


def interpolated(
    code: InterpolatingCode,
    present: Sequence[int],
    outputs: np.ndarray,
    blocks: np.ndarray,
    *,
    degree: int,
) -> Decode:
    """Floater and Hormann's weights, which need no learning."""
    at, nodes, _ = _places(code, present)
    return partial(combine, floater_hormann(at, nodes, degree))


def smoothed(
    code: InterpolatingCode, present: Sequence[int], outputs: np.ndarray, blocks: np.ndarray
) -> Decode:
    """The smoothing spline that decodes the codewords known best."""
    at, nodes, missing = _places(code, present)
    matrices = [smoothing_spline(tuple(at), tuple(nodes), s) for s in SMOOTHNESS]
    samples, wanted = outputs[list(present)], blocks[missing]
    errors = [np.square(combine(matrix, samples) - wanted).sum() for matrix in matrices]
    return partial(combine, matrices[int(np.argmin(errors))])


def fitted(
    code: InterpolatingCode, present: Sequence[int], outputs: np.ndarray, blocks: np.ndarray
) -> Decode:
    """Ridge regression towards Berrut's weights: `approxifer.coding.fitted`."""
    decoder = FittedDecoder(code)
    decoder.learn(outputs, blocks)
    return partial(combine, decoder.weights(present))


def fitted_full(
    code: InterpolatingCode, present: Sequence[int], outputs: np.ndarray, blocks: np.ndarray
) -> Decode:
    """The same, but each number of an output has weights of its own, for all numbers of all shares
    present: many more to learn."""
    missing, berrut = code.weights(present)

    def flat(values: np.ndarray) -> np.ndarray:
        return values.swapaxes(0, 1).reshape(values.shape[1], -1).astype(np.float64)

    samples = outputs[list(present)]
    known, left = flat(samples), flat(blocks[missing] - combine(berrut, samples))
    centre, offset = known.mean(axis=0), left.mean(axis=0)
    known, left = known - centre, left - offset
    parts = np.array_split(np.arange(len(known)), FOLDS)
    among = np.stack([known[part].T @ known[part] for part in parts])
    across = np.stack([known[part].T @ left[part] for part in parts])
    pull = np.trace(among.sum(axis=0)) / known.shape[1] * np.eye(known.shape[1])

    def solve(strength: float, use: np.ndarray) -> np.ndarray:
        return np.linalg.solve(among[use].sum(axis=0) + strength * pull, across[use].sum(axis=0))

    def error(strength: float) -> float:
        total = 0.0
        for f in range(FOLDS):
            change = solve(strength, np.arange(FOLDS) != f)
            total += np.sum(change * (among[f] @ change)) - 2 * np.sum(change * across[f])
        return float(total)

    change = solve(min(STRENGTHS, key=error), np.arange(FOLDS) >= 0)

    def decode(samples: np.ndarray) -> np.ndarray:
        shape = (samples.shape[1], len(missing), *samples.shape[2:])
        correction = ((flat(samples) - centre) @ change + offset).reshape(shape).swapaxes(0, 1)
        decoded: np.ndarray = combine(berrut, samples) + correction
        return decoded

    return decode


def _places(
    code: InterpolatingCode, present: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the missing blocks and the shares present lie, and which blocks are missing."""
    missing, _ = code.weights(present)
    return np.array(code.queries)[missing], np.array(code.nodes)[list(present)], missing


DECODERS: dict[str, Learn] = {
    "berrut": partial(interpolated, degree=0),
    "floater-hormann 1": partial(interpolated, degree=1),
    "floater-hormann 2": partial(interpolated, degree=2),
    "smoothing spline": smoothed,
    "fitted": fitted,
    "fitted, full": fitted_full,
}
