"""Ways to find the share of a group that is a lie; what `benchmarks.locators` compares."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from approxifer.coding import Code
from approxifer.coding.foretelling import mean_products, residuals
from approxifer.coding.interpolate import leave_one_out
from approxifer.coding.interpolating import InterpolatingCode
from approxifer.coding.precision import Precision
from approxifer.coding.protocol import Reals
from approxifer.coding.published import published_votes
from approxifer.pipeline.rarity import Pool, middle, spread
from approxifer.pipeline.usual import History, Seen

#: Clean groups in which somebody may be suspected.
RATE = 0.01

#: Outputs (N, B, *out) to the share suspected, or None.
Judge = Callable[[np.ndarray], int | None]
#: Mean products (groups, N, N) to scores (groups, N).
Score = Callable[[Reals], Reals]


def published(code: InterpolatingCode) -> Judge:
    """The published vote, which always names one."""

    def judge(outputs: np.ndarray) -> int:
        votes = published_votes(outputs, code.nodes, code.k, code.spec.byzantine)
        return int(votes.sum(axis=0).argmax())

    return judge


def alone(code: Code) -> Judge:
    """`Code.locate`, which knows nothing but the group."""

    def judge(outputs: np.ndarray) -> int | None:
        return next(iter(code.locate(dict(enumerate(outputs))).suspects), None)

    return judge


def berrut_residual(code: InterpolatingCode) -> Score:
    """Leave-one-out residuals of Berrut's interpolant."""
    weights = np.eye(code.n) - leave_one_out(code.nodes, frozenset(range(code.n)))
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)

    def score(products: Reals) -> Reals:
        squares = np.einsum("gij,ij->gi", weights @ products, weights)
        logs: Reals = np.log(np.maximum(squares, 1e-300)) / 2
        return logs

    return score


def dct_syndrome(code: InterpolatingCode) -> Score:
    """What an error in one share alone would explain of the DCT syndromes.

    Chebyshev points of the first kind make the shares a DCT code: were outputs polynomials of
    degree below K along a codeword, their coefficients K to N-1 would vanish (Borah & Harshan,
    arXiv 2507.01330).
    """
    angles = np.arccos(np.array(code.nodes))
    checks = np.cos(np.arange(code.k, code.n)[:, None] * angles)
    weights = checks.T @ checks

    def score(products: Reals) -> Reals:
        logs: Reals = np.log([residuals(weights, one) for one in products]) / 2
        return logs

    return score


def with_history(score: Score, history: Sequence[np.ndarray]) -> Judge:
    """Standardise scores share by share, and suspect the highest if it is rarer than allowed."""
    raw = score(_products(history))
    center = middle(raw)
    width = spread((raw - center)[..., None])[:, 0]
    pool = Pool.of(np.sort(((raw - center) / width).ravel()))

    def judge(outputs: np.ndarray) -> int | None:
        scores = (score(_products([outputs]))[0] - center) / width
        oddest = int(scores.argmax())
        chance = pool.chances(float(scores[oddest]))[1]
        return oddest if chance < RATE / len(scores) else None

    return judge


def learnt(history: Sequence[np.ndarray]) -> tuple[Judge, Judge]:
    """What `Suspicion` does to a group: by residuals alone, and with plain statistics."""
    groups = History(len(history[0]), burn_in=len(history))
    for number, outputs in enumerate(history):
        judged = groups.add(_seen(number, outputs))
    usual = judged[-1][1]

    def chances(outputs: np.ndarray) -> Reals:
        seen = _seen(-1, outputs)
        groups.measure(seen)
        return usual.judge(seen).chances

    def residual(outputs: np.ndarray) -> int | None:
        found = chances(outputs)[:, 0]
        return int(found.argmin()) if found.min() < RATE / len(found) else None

    def both(outputs: np.ndarray) -> int | None:
        found = chances(outputs).min(axis=1)
        return int(found.argmin()) if found.min() < RATE / 2 / len(found) else None

    return residual, both


def _seen(number: int, outputs: np.ndarray) -> Seen:
    """A group whose shares nobody else ran."""
    names = {share: f"{number}-{share}" for share in range(len(outputs))}
    return Seen.of(number, dict(enumerate(outputs)), names, len(outputs))


def _products(history: Sequence[np.ndarray]) -> Reals:
    return np.stack([mean_products(dict(enumerate(outputs))) for outputs in history])


def locators(code: InterpolatingCode, history: Sequence[np.ndarray]) -> dict[str, Judge]:
    """All of them, those with a memory taught."""
    residual, both = learnt(history)
    precision = Precision.learn(_products(history))
    return {
        "published vote": published(code),
        "one group alone": alone(code),
        "Berrut residual": with_history(berrut_residual(code), history),
        "DCT syndromes": with_history(dct_syndrome(code), history),
        "learnt precision": with_history(precision.surprise, history),
        "and made white": residual,
        "and statistics": both,
    }
