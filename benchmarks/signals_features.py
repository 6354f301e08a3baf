"""Features of pictures from which outputs are foretold; made of the inputs alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.linalg import eigh
from torch.nn import functional

PATCHES, SIDE = 400, 6
#: Pictures and patches from which whitening is learnt, and its smallest variance over the mean.
PICTURES, SAMPLE, FAINT = 500, 20_000, 0.01
AT_ONCE = 64
#: Principal components of the pixels, from so many pictures, and random waves over these.
COMPONENTS, LEARN, WAVES = 48, 2000, 1500


def nothing(rows: np.ndarray) -> np.ndarray:
    """No feature: what is foretold is the mean."""
    return np.zeros((len(rows), 1), np.float32)


def waves(rows: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Random Fourier features of principal components: (n, WAVES).

    A ridge regression on them comes near to one with a Gaussian kernel, as wide as pictures are
    apart (Rahimi & Recht, "Random features for large-scale kernel machines", NIPS 2007).
    """
    rng = np.random.default_rng(seed)
    flat = rows.reshape(len(rows), -1).astype(np.float32)
    flat -= flat.mean(axis=0)
    some, width = flat[:LEARN], flat.shape[1]
    leading = [max(0, width - COMPONENTS), width - 1]
    parts = flat @ eigh(some.T @ some, subset_by_index=leading)[1]
    pairs = parts[: len(parts) // 2 * 2].reshape(-1, 2, parts.shape[1])
    apart = np.sqrt(np.median(np.square(pairs[:, 0] - pairs[:, 1]).sum(axis=1)))
    directions = (rng.normal(size=(parts.shape[1], WAVES)) / apart).astype(np.float32)
    phases = rng.uniform(0, 2 * np.pi, WAVES).astype(np.float32)
    return _standard(np.cos(parts @ directions + phases))


def patches(rows: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Responses to random patches of pictures (n, side, side[, channels]): (n, 4 * PATCHES).

    Coates, Lee & Ng, "An analysis of single-layer networks in unsupervised feature learning",
    AISTATS 2011: whitened patches as filters, ReLU, pooled in 2 x 2 quarters.
    """
    pictures = torch.from_numpy(rows.astype(np.float32))
    pictures = pictures[:, None] if pictures.ndim == 3 else pictures.permute(0, 3, 1, 2)
    rng = np.random.default_rng(seed)
    some = pictures[torch.from_numpy(rng.permutation(len(pictures))[:PICTURES])]
    cut = functional.unfold(some, SIDE).permute(0, 2, 1).flatten(0, 1)
    cut = cut[torch.from_numpy(rng.permutation(len(cut))[:SAMPLE])]
    mean = cut.mean(dim=0)
    variances, directions = torch.linalg.eigh((cut - mean).T @ (cut - mean) / len(cut))
    whiten = directions / (variances + FAINT * variances.mean()).sqrt() @ directions.T
    filters = functional.normalize((cut[:PATCHES] - mean) @ whiten, dim=1) @ whiten
    shape = (len(filters), pictures.shape[1], SIDE, SIDE)
    found = [
        functional.adaptive_avg_pool2d(
            functional.conv2d(part, filters.reshape(shape), -filters @ mean).relu(), 2
        ).flatten(1)
        for part in torch.split(pictures, AT_ONCE)
    ]
    return _standard(torch.cat(found).numpy())


def _standard(made: np.ndarray) -> np.ndarray:
    made -= made.mean(axis=0)
    made /= made.std(axis=0) + np.float32(1e-6)
    return made


FEATURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "no input": nothing,
    "waves": waves,
    "patches": patches,
}
