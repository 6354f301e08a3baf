"""What is usual of the outputs of shares, learnt from a run's own groups; and how odd others are.

Pure. Two things are looked at: how far a share's output is from what the group's other shares
foretell (`approxifer.coding.precision`), and plain statistics of the output by itself, which see
lies that are easily foretold (zeros, constants). `approxifer.pipeline.rarity` makes p-values of
what is found.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from approxifer.coding.foretelling import CHUNK, TINY, mean_products
from approxifer.coding.precision import WIDEST, Precision, Whitening
from approxifer.coding.protocol import Array, Reals
from approxifer.pipeline.rarity import Pools, middle, spread

#: Groups of history, and the numbers that they may hold together.
GROUPS = 500
NUMBERS = 1 << 22

#: Numbers in the outputs of a share, over all groups, for every other share that is to foretell
#: them: with fewer the past would be foretold better than the future.
ENOUGH = 20

#: What is looked at: the first against the other shares, the others by themselves.
WHAT = ("residual", "norm", "spread between rows", "entropy")


def statistics(outputs: Array) -> Reals:
    """Describe the outputs of shares, each by itself.

    Parameters
    ----------
    outputs : array (m, B, *out)
        Finite real numbers.

    Returns
    -------
    array (m, 3)
        Logarithm of the root mean square; logarithm of that of the differences from the mean row;
        mean entropy in nats, over the last axis, of the softmax of the outputs over their root mean
        square.
    """
    last = outputs.shape[-1] if outputs.ndim > 2 else 1
    values = outputs.reshape(*outputs.shape[:2], -1, last).astype(np.float64)
    peak = np.maximum(np.abs(values).max(axis=(1, 2, 3), initial=0), TINY)
    values /= peak[:, None, None, None]
    size = _root_mean_square(values)
    between = _root_mean_square(values - values.mean(axis=1, keepdims=True))
    values -= values.max(axis=3, keepdims=True)
    values /= size[:, None, None, None]
    powers = np.exp(values)
    total = powers.sum(axis=3)
    entropy = np.log(total) - (powers * values).sum(axis=3) / total
    return np.stack(
        [np.log(size) + np.log(peak), np.log(between) + np.log(peak), entropy.mean(axis=(1, 2))],
        axis=1,
    )


def _real(output: Array) -> Array:
    """Complex numbers as two real ones."""
    return np.stack([output.real, output.imag], axis=-1) if np.iscomplexobj(output) else output


def _root_mean_square(values: Reals) -> Reals:
    """Of each share, and positive."""
    found: Reals = np.sqrt(np.square(values).mean(axis=(1, 2, 3)))
    return np.maximum(found, TINY)


@dataclass(eq=False)
class Seen:
    """What is kept of a group of n shares. Of those that did not come back: NaN, None.

    Attributes
    ----------
    group : int
    owners : list of n worker names
    statistics : array (n, 3)
    products : array (n, n)
        See `approxifer.coding.foretelling.mean_products`.
    outputs : dict of share to array (B, *out)
        Only until the products can be taken as they are to be.
    size : int
        Numbers in the output of a share.
    """

    group: int
    owners: list[str | None]
    statistics: Reals
    products: Reals
    outputs: dict[int, Array]
    size: int = 0

    @classmethod
    def of(
        cls, group: int, outputs: Mapping[int, Array], workers: Mapping[int, str], n: int
    ) -> Seen:
        """Look at a group's outputs: finite numbers."""
        outputs = {share: _real(output) for share, output in outputs.items() if output.size}
        found = np.full((n, 3), np.nan)
        some = sorted(outputs)
        step = max(1, CHUNK // max(1, outputs[some[0]].size)) if some else 1
        for part in (some[start : start + step] for start in range(0, len(some), step)):
            found[part] = statistics(np.stack([outputs[share] for share in part]))
        owners = [workers[share] if share in outputs else None for share in range(n)]
        kept = {share: outputs[share] for share in some}
        size = kept[some[0]].size if some else 0
        return cls(group, owners, found, np.full((n, n), np.nan), kept, size)

    @property
    def n(self) -> int:
        """Shares of a group."""
        return len(self.owners)

    @property
    def rows(self) -> int:
        """Rows of a share, while the outputs are kept."""
        return len(next(iter(self.outputs.values()), ()))

    def measure(self, whitening: Whitening | None) -> None:
        """Take the products of the outputs, as they are or made white."""
        some = list(self.outputs)
        if some:
            found = whitening.products(self.outputs) if whitening else mean_products(self.outputs)
            self.products[np.ix_(some, some)] = found

    def without(self, *shares: int) -> Seen:
        """The same, had these shares not come back."""
        owners, outputs = list(self.owners), dict(self.outputs)
        found, products = self.statistics.copy(), self.products.copy()
        for share in shares:
            owners[share] = None
            outputs.pop(share, None)
            found[share] = products[share] = products[:, share] = np.nan
        return Seen(self.group, owners, found, products, outputs, self.size)


@dataclass(frozen=True, eq=False)
class Verdict:
    """How odd the shares of a group are.

    Attributes
    ----------
    ranks, chances : arrays (n, 2)
        p-values of the residual, and of the oddest statistic: see
        `approxifer.pipeline.rarity.Pool`. 1 where nothing is known.
    spreads : array (n, 4)
        How far each of `WHAT` is from its centre.
    """

    ranks: Reals
    chances: Reals
    spreads: Reals


class Usual:
    """What is usual, from the groups of a history.

    Parameters
    ----------
    history : list of Seen
    before : Usual, optional
        What was usual when there were a few groups fewer.
    """

    def __init__(self, history: list[Seen], before: Usual | None = None) -> None:
        products = np.stack([seen.products for seen in history])
        self.precision: Precision = Precision.learn(products, before.precision if before else None)
        self._foretell = sum(seen.size for seen in history) >= ENOUGH * history[0].n
        looks = self._looks(history)
        self._center = middle(looks)
        excess = self._excess(looks)
        self._spread = spread(excess)
        scores = _scores(excess / self._spread)
        owners = np.array([seen.owners for seen in history], object)
        self._pools = [Pools(scores[..., kind], owners) for kind in range(2)]

    def judge(self, seen: Seen) -> Verdict:
        """Hold a group against it."""
        spreads = self._excess(self._looks([seen]))[0] / self._spread
        scores = _scores(spreads)
        found = np.ones((2, *scores.shape))
        for share, owner in enumerate(seen.owners):
            for kind, pools in enumerate(self._pools):
                if owner is not None and np.isfinite(scores[share, kind]):
                    found[:, share, kind] = pools.against(owner).chances(scores[share, kind])
        return Verdict(found[0], found[1], spreads)

    def _looks(self, history: list[Seen]) -> Reals:
        """`WHAT` of groups: (groups, n, 4)."""
        products = np.stack([seen.products for seen in history])
        surprise = self.precision.surprise(products if self._foretell else np.nan * products)
        alone = np.stack([seen.statistics for seen in history])
        return np.concatenate([surprise[..., None], alone], axis=2)

    def _excess(self, looks: Reals) -> Reals:
        """Less the centre; statistics also less what all shares of the group have in common."""
        excess: Reals = looks - self._center
        if excess.shape[1] > 1:
            excess[..., 1:] -= middle(excess[..., 1:], axis=1)[:, None]
        return excess


class History:
    """The groups of one kind, and what is usual for them.

    Parameters
    ----------
    n : int
        Shares of a group.
    burn_in : int
        Groups before any is judged.
    """

    def __init__(self, n: int, burn_in: int) -> None:
        self._burn_in = burn_in
        self._seen: deque[Seen] = deque(maxlen=max(burn_in, min(GROUPS, NUMBERS // (n * n))))
        self._whitening: Whitening | None = None
        self._usual: Usual | None = None
        self._rows = 0
        self._unlearnt = 0

    def add(self, seen: Seen) -> list[tuple[Seen, Usual]]:
        """Take a group in.

        What is usual is learnt anew whenever there is a tenth more to learn from. A group of less
        than half the rows of the first (the last of a window) is judged, but not learnt from.

        Returns
        -------
        list
            The groups that can be judged now, and what to hold them against.
        """
        self._rows = self._rows or seen.rows
        short = 2 * seen.rows < self._rows
        if self._usual is None:
            if not short:
                self._seen.append(seen)
            if len(self._seen) < self._burn_in:
                return []
            self._usual = self._begin()
            return [(one, self._usual) for one in self._seen]
        self.measure(seen)
        found = [(seen, self._usual)]
        if not short:
            self._seen.append(seen)
            self._unlearnt += 1
        if self._unlearnt >= max(5, len(self._seen) // 10):
            self._usual = self._learn(self._usual)
        return found

    def measure(self, seen: Seen) -> None:
        """Take a group's products as those of the history are taken."""
        seen.measure(self._whitening)
        seen.outputs = {}

    def forget(self, worker: str) -> None:
        """Drop the shares of a worker."""
        for number, seen in enumerate(self._seen):
            theirs = [share for share, owner in enumerate(seen.owners) if owner == worker]
            if theirs:
                self._seen[number] = seen.without(*theirs)
        if self._usual is not None:
            self._usual = self._learn()

    def _begin(self) -> Usual:
        """Learn what is usual for the first time, and before that how to make residuals white.

        In each group the share that stands out most is left out of the latter: it may be a lie.
        """
        for seen in self._seen:
            seen.measure(None)
        products = np.stack([seen.products for seen in self._seen])
        precision = Precision.learn(products)
        surprise = precision.surprise(products)
        excess = surprise - middle(surprise)
        samples = []
        for seen, odd in zip(self._seen, excess, strict=True):
            some = np.flatnonzero(np.isfinite(odd))
            if len(some) > 3:
                some = np.delete(some, np.argmax(odd[some]))
                outputs = np.stack([seen.outputs[share] for share in some.tolist()])
                flat = outputs.reshape(*outputs.shape[:2], -1)
                samples.append((flat, precision.weights(some)))
        if samples and samples[0][0].shape[2] <= WIDEST:
            self._whitening = Whitening.learn(samples)
        for seen in self._seen:
            self.measure(seen)
        return self._learn()

    def _learn(self, before: Usual | None = None) -> Usual:
        self._unlearnt = 0
        return Usual(list(self._seen), before)


def _scores(spreads: Reals) -> Reals:
    """Of residual and statistics: (..., n, 4) to (..., n, 2)."""
    return np.stack([spreads[..., 0], np.abs(spreads[..., 1:]).max(axis=-1)], axis=-1)
