"""Statistics that choose what is checked beside randomly drawn rows, each with its settings.

What is learnt is learnt from the run's own outputs, lies included. A worker is held against what
the *others* returned: it cannot make its lies usual.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from approxifer.benchmarks.faulty import WORKERS
from approxifer.benchmarks.signals_chances import played
from approxifer.benchmarks.signals_features import FEATURES
from approxifer.benchmarks.signals_ridge import foretold
from approxifer.benchmarks.signals_story import Look, Story, stages
from approxifer.coding.protocol import Reals
from approxifer.pipeline.suspicion import Suspicion
from approxifer.pipeline.trust import Trust

#: Rows of history that a threshold is taken from, at most.
HISTORY = 4096
#: Smallest standard deviation along a direction, over that of all outputs: rounding.
ROUNDING = 1e-7
#: More rows of a suspected share than it can have: all of them.
ALL = 1 << 20

#: A story and settings to what is looked at with each.
Looks = Callable[[Story, Sequence[Any]], list[Look]]


@dataclass(frozen=True)
class Method:
    """A statistic.

    Attributes
    ----------
    settings : tuple
        To choose from.
    looks : callable
    says : callable
        A setting, for people.
    """

    settings: tuple[Any, ...]
    looks: Looks
    says: Callable[[Any], str]


# ---- today's suspicion ---------------------------------------------------------------------------


def suspicion(story: Story, settings: Sequence[int]) -> list[Look]:
    """More rows of the shares that `Suspicion` suspects, and of those of watched workers.

    As in `Trust`, but that all checks come out clean: else the story is over.
    """
    found, when = _suspects(story)
    nothing = Look.nothing(story).forced
    return [Look(nothing, np.where(found, more, 0), when) for more in settings]


@lru_cache(maxsize=1)  # the settings are tried one after the other on one story
def _suspects(story: Story) -> tuple[np.ndarray, np.ndarray]:
    suspicions, cleared = Suspicion(story.of.code), Counter[str]()
    when = Look.nothing(story).when
    found = np.zeros(when.shape, bool)
    for group in range(played(story)):
        names = {share: f"w{owner}" for share, owner in enumerate(story.owners[group].tolist())}
        sound = np.flatnonzero(story.sound[group]).tolist()
        outputs = {share: story.outputs[group, share] for share in sound}
        checked = {
            (one.group, one.share): one.worker for one in suspicions.add(group, outputs, names)
        }
        watched = suspicions.watched
        checked |= {(group, share): names[share] for share in sound if names[share] in watched}
        for at, worker in checked.items():
            found[at], when[at] = True, group
            cleared[worker] += worker in watched
            if worker in watched and cleared[worker] % Trust.CLEARED == 0:
                suspicions.cleared(worker)
    return found, when


# ---- directions in which honest outputs hardly vary ----------------------------------------------


@dataclass(frozen=True)
class NearNull:
    """A setting of `near_null`.

    Attributes
    ----------
    faint : float
        A direction counts if the variance along it is below this fraction of the mean of all.
    rate : float
        Rows of history that are further out than the threshold.
    """

    faint: float
    rate: float

    def __str__(self) -> str:
        return f"variance below {self.faint:g} of the mean, 1 in {1 / self.rate:,.0f} rows"


def near_null(story: Story, settings: Sequence[NearNull]) -> list[Look]:
    """The rows furthest from the mean along the principal directions of least variance."""
    looks = [Look.nothing(story) for _ in settings]
    groups, n, block = story.wrong.shape
    with np.errstate(invalid="ignore"):  # a signalling NaN
        values = story.outputs.reshape(groups * n * block, -1).astype(np.float64)
    finite = np.asarray(np.isfinite(values).all(axis=1))
    owners = np.repeat(story.owners.ravel(), block)
    forced = [look.forced.reshape(-1) for look in looks]
    for learnt, start, stop in stages(groups, n * block, played(story)):
        rows = np.flatnonzero(finite[: learnt * n * block])
        judged = np.arange(start * n * block, stop * n * block)
        judged = judged[finite[judged]]
        some = rows[:: -(-len(rows) // HISTORY)]
        moments = _moments(values[rows], owners[rows])
        for worker in range(WORKERS):
            theirs = judged[owners[judged] == worker]
            usual = _Directions.of(
                *(part[np.arange(WORKERS) != worker].sum(axis=0) for part in moments)
            )
            history = usual.distances(values[some[owners[some] != worker]])
            distances = usual.distances(values[theirs])
            for setting, into in zip(settings, forced, strict=True):
                if faint := usual.count(setting.faint):
                    least = np.quantile(history[:, faint - 1], 1 - setting.rate, method="higher")
                    into[theirs] = distances[:, faint - 1] > least
        for look in looks:
            look.when[start:learnt] = learnt - 1
    return looks


def _moments(values: Reals, owners: np.ndarray) -> tuple[Reals, Reals, Reals]:
    """Count, sum and sum of products of each worker's rows."""
    parts = [values[owners == worker] for worker in range(WORKERS)]
    return (
        np.array([len(part) for part in parts], np.float64),
        np.stack([part.sum(axis=0) for part in parts]),
        np.stack([part.T @ part for part in parts]),
    )


@dataclass(frozen=True, eq=False)
class _Directions:
    """The principal directions of outputs, that of least variance first."""

    mean: Reals
    variances: Reals
    directions: Reals

    @classmethod
    def of(cls, count: Reals, total: Reals, products: Reals) -> _Directions:
        mean = total / count
        variances, directions = np.linalg.eigh(products / count - np.outer(mean, mean))
        return cls(mean, np.maximum(variances, ROUNDING**2 * variances.mean()), directions)

    def count(self, faint: float) -> int:
        """Directions whose variance is below this fraction of the mean."""
        return int((self.variances < faint * self.variances.mean()).sum())

    def distances(self, values: Reals) -> Reals:
        """Squared distance from the mean, in standard deviations, along the first 1, 2, ...
        directions: (m, C)."""
        along = (values - self.mean) @ self.directions
        found: Reals = np.cumsum(along**2 / self.variances, axis=1)
        return found


# ---- an estimate from the inputs -----------------------------------------------------------------


@dataclass(frozen=True)
class Furthest:
    """A setting of `estimate`.

    Attributes
    ----------
    features : str
        The kind that outputs are foretold from.
    rows : int
        Of each share so many are checked that are furthest from the estimate, instead of as many
        random ones.
    white : bool
        Whether deviations are made white, or only divided by their standard deviations.
    """

    features: str
    rows: int
    white: bool

    def __str__(self) -> str:
        return f"{self.rows} a share, {'white' if self.white else 'standardised'}"


def estimate(story: Story, settings: Sequence[Furthest]) -> list[Look]:
    """The rows furthest from what a ridge regression on features of the inputs foretells.

    Every share has as many rows checked. Of honest ones it does not matter which: the first.
    """
    looks = []
    for setting in settings:
        look = replace(Look.nothing(story), instead=True)
        look.forced[:, :, : setting.rows] = True
        if story.liar is not None:
            said = foretold(story.of, story.seed, setting.features)
            far = said.deviations(story.outputs[said.at], white=setting.white)
            order = np.argsort(-far, axis=1, kind="stable")[:, : setting.rows]
            chosen = np.zeros(far.shape, bool)
            np.put_along_axis(chosen, order, True, axis=1)
            look.forced[said.at], look.when[said.at] = chosen, said.when
        looks.append(look)
    return looks


def together(story: Story, settings: Sequence[tuple[Furthest, int]]) -> list[Look]:
    """`estimate`, and `suspicion` beside it."""
    looks = []
    for furthest, more in settings:
        (look,), (beside,) = estimate(story, [furthest]), suspicion(story, [more])
        looks.append(replace(look, more=beside.more, when=np.maximum(look.when, beside.when)))
    return looks


def _more(rows: int) -> str:
    return "all rows" if rows == ALL else f"{rows} rows more"


#: By name; those that foretell outputs by the kind of features.
METHODS = {
    "suspicion": Method((16, ALL), suspicion, _more),
    "near-null": Method(
        tuple(NearNull(faint, rate) for faint in (1e-6, 1e-3, 0.1, 100) for rate in (1e-2, 1e-3)),
        near_null,
        str,
    ),
    **{
        kind: Method(
            tuple(Furthest(kind, rows, white) for rows in (1, 2) for white in (False, True)),
            estimate,
            str,
        )
        for kind in FEATURES
    },
    "furthest and suspicion": Method(
        tuple((Furthest("no input", rows, True), more) for rows in (1, 2) for more in (16, ALL)),
        together,
        lambda both: f"{both[0]}; {_more(both[1])}",
    ),
}
