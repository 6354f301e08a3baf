"""Confidence of a decoded class, from the outputs of its codeword.

Two things count: that the shares with most weight in the decode are of the decoded class themselves
(in similar order the queries of a codeword mostly are of one class), and the margin of the highest
score over the second, relative to the differences between the codeword's outputs. The margin alone
misleads: where unlike queries were mixed, it is often large, and the class wrong.
"""

from collections.abc import Mapping

import numpy as np

from approxifer.coding.code import Array, Code, Decoded, Reals


def confidence(code: Code, outputs: Mapping[int, Array], decoded: Decoded) -> Reals:
    """Score the decoded rows; only the order of the scores has a meaning.

    ``support ** 2 * margin / spread``, where

    - support is the part of the decoding weights, as absolute values, that lies on shares whose own
      highest output is the decoded row's;
    - margin is the decoded row's highest output less its second;
    - spread is the root mean square of what the codeword's outputs deviate from their mean.

    Its threshold is calibrated on each run; its form was chosen by looking at LeNet-5 on MNIST's
    test images, K=8.

    Parameters
    ----------
    code : Code
    outputs : mapping of share to floating-point array (B, C), C >= 2
        From which was decoded.
    decoded : Decoded

    Returns
    -------
    array (k, B)
        At least 0; infinite where exact; 0 where outputs are not finite.
    """
    scores = np.full(decoded.blocks.shape[:2], np.inf)
    present = sorted(outputs)
    missing, weights = code.weights(present)
    if not len(missing):
        return scores
    samples = np.stack([outputs[share] for share in present]).astype(np.float64)
    rows = decoded.blocks[missing].astype(np.float64)
    same = samples.argmax(axis=2)[None] == rows.argmax(axis=2)[:, None]  # (m, p, B)
    near = np.abs(weights) / np.abs(weights).sum(axis=1, keepdims=True)
    support = np.einsum("mp,mpb->mb", near, same)
    with np.errstate(all="ignore"):
        second, first = np.moveaxis(np.partition(rows, -2, axis=2)[..., -2:], 2, 0)
        spread = np.sqrt(np.square(samples - samples.mean(axis=0)).mean(axis=(0, 2)))
        found = support**2 * (first - second) / spread
    known = np.isfinite(rows).all(axis=2) & ~np.isnan(found)
    scores[missing] = np.where(known, found, 0.0)
    return scores
