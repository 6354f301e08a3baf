"""Losses and what is recovered, with a linear model: smooth, so that little is left to chance."""

from collections import Counter

import numpy as np
import pytest

from approxifer.benchmarks.accuracy import figures
from approxifer.benchmarks.losses import Recovered, draw_losses, recover
from approxifer.benchmarks.toy import project
from approxifer.coding import CodeSpec


@pytest.mark.parametrize(("n", "lost", "codewords"), [(9, 1, 40), (5, 2, 33), (4, 3, 1), (3, 0, 5)])
def test_every_set_of_losses_is_drawn_equally_often(n: int, lost: int, codewords: int) -> None:
    drawn = draw_losses(n, lost, codewords, np.random.default_rng(0))
    assert drawn.shape == (codewords, lost)
    often = Counter(map(tuple, drawn.tolist()))
    assert all(len(set(pattern)) == lost for pattern in often)
    assert max(often.values()) - min(often.values()) <= 1


def test_losses_are_seeded() -> None:
    one, same, other = (draw_losses(9, 2, 30, np.random.default_rng(s)) for s in (0, 0, 1))
    assert (one == same).all()
    assert (one != other).any()


@pytest.mark.parametrize("rows", [80, 83])  # the second with a padded codeword
@pytest.mark.parametrize("block", [None, 4])
@pytest.mark.parametrize("order", ["random", "similar"])
def test_systematic_is_exact_where_nothing_was_lost(
    rows: int, block: int | None, order: str
) -> None:
    queries = np.random.default_rng(0).normal(size=(rows, 6)).astype(np.float32)
    code = CodeSpec(scheme="systematic", k=4, stragglers=2).build()
    found = recover(queries, code, project, order=order, lost=2, seed=0, block=block)
    truth = project(queries)
    assert np.allclose(found.available, truth, atol=1e-6)
    assert np.allclose(found.degraded[found.exact], truth[found.exact], atol=1e-6)
    assert not np.allclose(found.degraded[~found.exact], truth[~found.exact], atol=1e-3)
    assert np.isfinite(found.degraded).all()
    # Two of six shares lost, four of them data: a third of the rows, but for the uneven end.
    assert (~found.exact).mean() == pytest.approx(1 / 3, abs=0.1)


def test_replication_loses_nothing() -> None:
    queries = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    code = CodeSpec(scheme="replication", k=4, stragglers=1).build()
    found = recover(queries, code, project, order="random", lost=1, seed=0)
    assert found.exact.all()
    classes = project(queries).argmax(axis=1)
    assert figures(found, classes) == {"available": 1.0, "degraded": None, "overall": 1.0}


def test_figures() -> None:
    eye = np.eye(4)
    found = Recovered(
        available=eye,
        degraded=eye[[0, 1, 3, 3]],
        exact=np.array([True, True, False, False]),
    )
    assert figures(found, np.arange(4)) == {"available": 1.0, "degraded": 0.5, "overall": 0.75}
