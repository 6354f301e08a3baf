"""What becomes of a run under spot checks: exact chances over what is drawn. Pure.

A share of R rows of which w are wrong passes m drawn ones with probability C(R-w, m) / C(R, m). The
draws of different shares are independent, and until a worker is convicted nothing depends on them,
every check so far having come out clean. So a run's chance to end without a conviction is a
product, and no draw has to be played; once the liar is convicted its rows are run again, and none
is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import comb

from approxifer.benchmarks.signals_story import Look, Material, Story
from approxifer.coding.protocol import Reals

#: Chance of no conviction below which what a run would still leave is not worth playing.
OVER = 1e-4


def missed(rows: np.ndarray, wrong: np.ndarray, drawn: np.ndarray | float) -> Reals:
    """Chance that none of the ``wrong`` ones is among ``drawn`` rows.

    Of a number that is not whole the next lower or higher one is drawn, so that it is the mean.
    """
    rows, wrong, drawn = np.broadcast_arrays(rows, wrong, drawn)
    low = np.floor(drawn)
    up = drawn - low
    below, above = (_missed(rows, wrong, low + step) for step in (0, 1))
    chance: Reals = np.where(up > 0, (1 - up) * below + up * above, below)
    return chance


def _missed(rows: np.ndarray, wrong: np.ndarray, drawn: np.ndarray) -> Reals:
    drawn = np.minimum(drawn, rows)
    chance: Reals = comb(rows - wrong, drawn) / comb(rows, drawn)
    return chance


def played(story: Story) -> int:
    """Groups after which the liar is convicted all but surely, though one row of each share is
    checked: later ones need no look."""
    drawn = np.where(np.arange(story.of.code.n) < story.of.code.k, 1.0, 0.0)
    passed = _passed(story, story.of.block, story.wrong.sum(axis=2), drawn)
    alive = np.cumprod(passed.prod(axis=1))
    over = np.flatnonzero(alive < OVER)
    return int(over[0]) + 1 if len(over) else len(alive)


def _passed(story: Story, rows: np.ndarray | int, wrong: np.ndarray, drawn: np.ndarray) -> Reals:
    """`missed`, and for outputs that are not finite certainty, one way or the other."""
    chance: Reals = np.where(
        story.sound, missed(np.asarray(rows), wrong, drawn), ~story.wrong.any(axis=2)
    )
    return chance


@dataclass(frozen=True)
class Outcome:
    """Expectations over the draws of one run.

    Attributes
    ----------
    evaluations : float
        Per query.
    convicted : float
        Probability.
    wrong_rows : float
        In the final output.
    suspected : float
        Fraction of honest workers' shares that a statistic had checked more than others.
    """

    evaluations: float
    convicted: float
    wrong_rows: float
    suspected: float


def play(story: Story, look: Look, check: float, *, usual: float = 0.0) -> Outcome:
    """Check ``check`` rows of every data share, and what a statistic asks for.

    Parity shares are run, but not checked: nothing is decoded from them here.

    Parameters
    ----------
    story : Story
    look : Look
    check : float
        In the mean.
    usual : float
        Rows that the statistic has checked in a group of a clean run, in the mean: what it costs
        once the liar is gone.
    """
    groups, n, block = story.wrong.shape
    k = story.of.code.k
    number = np.arange(groups)[:, None]
    rest = block - look.forced.sum(axis=2)
    wrong = (story.wrong & ~look.forced).sum(axis=2)
    drawn, all_drawn = drawn_rows(look, story.of, check)
    first = _passed(story, rest, wrong, drawn)
    both = missed(rest, wrong, all_drawn) * ~(story.wrong & look.forced).any(axis=2)
    later = np.divide(both, first, out=np.zeros_like(both), where=first > 0)

    passed = np.ones(groups)
    np.multiply.at(passed, np.broadcast_to(number, first.shape), first)
    np.multiply.at(passed, look.when, later)
    alive = np.cumprod(passed)
    before = np.concatenate([[1.0], alive[:-1]])

    asked = np.bincount(look.when.ravel(), asked_rows(look, story.of, check).ravel(), groups)
    theirs = story.owners == story.liar
    redone = np.cumsum(theirs[:, :k].sum(axis=1)) * block
    checks = drawn.sum() + (before * asked).sum() + ((1 - before) * usual).sum()
    evaluations = groups * n * block + checks + ((before - alive) * redone).sum()
    honest = ~theirs[: played(story)]
    return Outcome(
        float(evaluations / (groups * k * block)),
        float(1 - alive[-1]),
        float(story.wrong[:, :k].sum() * alive[-1]),
        float(look.suspect[: len(honest)][honest].mean()),
    )


def drawn_rows(look: Look, of: Material, check: float) -> tuple[Reals, Reals]:
    """Rows of each share drawn anyway, and with those that a statistic adds: (G, N) each."""
    rest = of.block - look.forced.sum(axis=2)
    drawn = np.where(np.arange(of.code.n) < of.code.k, np.minimum(check, rest), 0.0)
    return drawn, np.minimum(drawn + look.more, rest)


def asked_rows(look: Look, of: Material, check: float) -> Reals:
    """Rows that a statistic has checked beside those drawn anyway: (G, N)."""
    drawn, all_drawn = drawn_rows(look, of, check)
    rows: Reals = look.forced.sum(axis=2) + all_drawn - drawn
    return rows
