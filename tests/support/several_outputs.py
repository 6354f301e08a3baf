"""Models of several outputs, and functions of outputs, of a few NumPy lines."""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import toy_models


class Scored(NamedTuple):
    """Outputs of several types."""

    mean: np.ndarray  #: (M,) float32
    large: np.ndarray  #: (M, 2) int64, beyond what a float64 holds
    positive: np.ndarray  #: (M,) bool


def both(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Two outputs of other shapes, sizes and precision; unevenly slow, as `toy_models.bent`."""
    bent = toy_models.bent(rows)
    return {"logits": bent, "field": 1e6 * np.sin(rows[:, :2, :3].astype(np.float64))}


def make_both() -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """A factory of it."""
    return both


def scored(rows: np.ndarray) -> Scored:
    """A NamedTuple of a float, whole numbers and a truth."""
    time.sleep(0.005)
    flat = rows.reshape(len(rows), -1).astype(np.float32)
    large = 2**60 + np.round(flat[:, :2] * 1000).astype(np.int64)
    return Scored(flat.mean(axis=1), large, flat[:, 0] > 0)


def make_scored() -> Callable[[np.ndarray], Scored]:
    """A factory of it."""
    return scored


def labelled(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Scores, and the class of the largest."""
    logits = toy_models.slow_linear(rows)
    return {"logits": logits, "label": logits.argmax(axis=1)}


def spread(scores: np.ndarray) -> dict[str, np.ndarray]:
    """Two results of one output: the range of the scores, and which is the largest."""
    return {"span": np.ptp(scores, axis=1), "first": scores.argmax(axis=1).astype(np.int16)}


def joined(outputs: dict[str, np.ndarray]) -> np.ndarray:
    """One result of several outputs: those of `both`."""
    found: np.ndarray = outputs["logits"] + outputs["field"].mean(axis=(1, 2))[:, None]
    return found


def signs(rows: np.ndarray) -> np.ndarray:
    """Outputs that are 1 or -1, unevenly slow."""
    return np.sign(toy_models.bent(rows) - 1)


def counted_signs(scores: np.ndarray) -> np.ndarray:
    """Count the ones; of other numbers, as interpolation makes them, there is none."""
    if not np.isin(scores, (-1, 1)).all():
        raise ValueError("no signs")
    found: np.ndarray = (scores > 0).sum(axis=1)
    return found


def coupled(scores: np.ndarray) -> np.ndarray:
    """A result that depends on the other rows."""
    found: np.ndarray = scores - scores.mean(axis=0)
    return found


def shortened(scores: np.ndarray) -> np.ndarray:
    """Fewer rows than there are."""
    return scores[1:]


def texts(scores: np.ndarray) -> np.ndarray:
    """No numbers."""
    return np.array(["cat", "dog"])[(scores[:, 0] > 0).astype(int)]


def ragged(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two outputs, one for fewer rows."""
    return rows, rows[1:]


def make_ragged() -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """A factory of it."""
    return ragged


def named_status(rows: np.ndarray) -> dict[str, np.ndarray]:
    """An output whose name the store has itself."""
    return {"logits": toy_models.linear(rows), "status": rows[:, 0, 0]}


def make_named_status() -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """A factory of it."""
    return named_status
