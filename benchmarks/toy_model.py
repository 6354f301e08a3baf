"""A model of a few NumPy lines: what is measured with it is everything but the model.

Workers import it, and never torch.
"""

from collections.abc import Callable
from functools import cache

import numpy as np

OUTPUTS = 10


@cache
def _weights(features: int) -> np.ndarray:
    phases = np.arange(features * OUTPUTS, dtype=np.float32).reshape(features, OUTPUTS)
    weights: np.ndarray = np.cos(phases) / np.sqrt(np.float32(features))
    return weights


def project(rows: np.ndarray) -> np.ndarray:
    """(M, *feature) to (M, 10) float32, another answer for every row."""
    flat = rows.reshape(len(rows), -1).astype(np.float32, copy=False)
    scores: np.ndarray = np.tanh(flat @ _weights(flat.shape[1]))
    return scores


def project_factory() -> Callable[[np.ndarray], np.ndarray]:
    """Make `project`: a model that has a name."""
    return project
