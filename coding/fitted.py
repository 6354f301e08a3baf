"""A decoder fitted to the run: ridge regression towards Berrut's weights.

Decoding is a matrix W from the outputs Y that came back to those that are missing, X. Berrut's
weights B depend on the nodes, and not on the model. From codewords of which all outputs are known,
W follows as the least squares solution that is drawn to B::

    W = B + (X - B Y) Y' (Y Y' + r s I)^-1        s: the mean of the diagonal of Y Y'

(Hoerl & Kennard, "Ridge Regression", Technometrics 12(1), 1970, about B instead of 0.) All outputs
of a row share their weights, so there are few numbers to learn, and ten codewords are enough for
most of them. No labels are needed. One Gram matrix of everything known serves all sets of shares.
"""

from collections.abc import Collection, Mapping

import numpy as np

from approxifer.coding.berrut import InterpolatingCode
from approxifer.coding.code import Array, Decoded, Reals, as_reals, combine
from approxifer.errors import ConfigError

FOLDS = 5
#: Strengths r that are tried; the one that predicts the parts left out best is taken.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


class FittedDecoder:
    """Learns from codewords of which everything is known, and decodes others.

    Parameters
    ----------
    code : InterpolatingCode

    Attributes
    ----------
    codewords : int
        Learnt from; before the first, Berrut's weights are used.
    """

    def __init__(self, code: InterpolatingCode) -> None:
        self.codewords = 0
        self._code = code
        self._grams = np.zeros((FOLDS, code.n + code.k, code.n + code.k))

    def learn(self, outputs: Array, blocks: Array) -> None:
        """Take in codewords; consecutive ones should be like each other, if any are.

        Parameters
        ----------
        outputs : array (n, B, *out)
            Of all shares, finite.
        blocks : array (k, B, *out)
            The exact outputs of the queries.

        Raises
        ------
        ConfigError
            If they are of other shapes.
        """
        n, k = self._code.n, self._code.k
        if (len(outputs), len(blocks)) != (n, k) or outputs.shape[1:] != blocks.shape[1:]:
            raise ConfigError(
                f"outputs of shape {outputs.shape} and blocks of shape {blocks.shape}: give "
                f"({n}, B, *out) and ({k}, B, *out)"
            )
        parts = np.array_split(np.arange(outputs.shape[1]), FOLDS)
        for gram, part in zip(self._grams, parts, strict=True):
            known = np.concatenate([outputs[:, part], blocks[:, part]])
            known = as_reals(known).reshape(n + k, -1).astype(np.float64, copy=False)
            gram += known @ known.T
        self.codewords += outputs.shape[1]

    def weights(self, present: Collection[int]) -> Reals:
        """Return the matrix (missing blocks, shares present) that decodes, in ascending order.

        Parameters
        ----------
        present : shares that came back
        """
        shares = sorted(present)
        missing, berrut = self._code.weights(shares)
        if not self.codewords or not len(missing):
            return berrut
        among = self._grams[:, shares][:, :, shares]  # Y Y', part by part
        across = self._grams[:, self._code.n + missing][:, :, shares] - berrut @ among
        whole, wanted = among.sum(axis=0), across.sum(axis=0)
        pull = np.trace(whole) / len(shares) * np.eye(len(shares))

        def change(strength: float, without: int | None = None) -> Reals:
            a, b = (whole, wanted) if without is None else (
                whole - among[without], wanted - across[without]
            )  # fmt: skip
            solved: Reals = np.linalg.solve(a + strength * pull, b.T).T
            return solved

        def error(strength: float) -> float:
            """Squared, on the parts left out, but for a constant."""
            return sum(
                float(np.sum(part @ among[f] * part) - 2 * np.sum(part * across[f]))
                for f, part in ((f, change(strength, f)) for f in range(FOLDS))
            )

        if not pull.any():  # all outputs are zero
            return berrut
        fitted: Reals = berrut + change(min(STRENGTHS, key=error))
        return fitted

    def decode(self, outputs: Mapping[int, Array]) -> Decoded:
        """Decode as the code does, with the weights learnt.

        Raises
        ------
        DecodeError, ConfigError
            As `Code.decode`.
        """
        decoded = self._code.decode(outputs)
        missing = np.flatnonzero(~decoded.exact)
        if len(missing):
            samples = np.stack([outputs[share] for share in sorted(outputs)])
            decoded.blocks[missing] = combine(self.weights(outputs), samples)
        return decoded
