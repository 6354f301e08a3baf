"""Losses and what is recovered, with a linear model: smooth, so that little is left to chance."""

from collections import Counter
from itertools import product

import numpy as np
import pytest

from approxifer.benchmarks.erasures import always, draw_losses, now_and_then, recover
from approxifer.benchmarks.recording import record
from approxifer.benchmarks.toy_model import project
from approxifer.coding import CodeSpec


def queries(rows: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, 6)).astype(np.float32)


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
@pytest.mark.parametrize("order", ["random", "similar"])
def test_systematic_is_exact_where_nothing_was_lost(rows: int, order: str) -> None:
    code = CodeSpec(scheme="systematic", k=4, stragglers=2).build()
    made = record("toy", queries(rows), project, code.spec, block=None, order=order)
    kept = always(code, 2, made.block, np.random.default_rng(0))
    assert kept.shape[1:] == (made.block, 6)
    often = Counter(tuple(np.flatnonzero(~one)) for one in kept.reshape(-1, 6))
    assert len(often) == 15
    assert 3 <= min(often.values()) <= max(often.values()) <= min(often.values()) + 1
    kept = kept[0]
    assert (kept.sum(axis=1) == 4).all()
    found = recover(made, kept)
    assert np.array_equal(found.outputs[found.exact], made.plain[found.exact])
    assert not np.allclose(found.outputs[~found.exact], made.plain[~found.exact], atol=1e-3)
    assert np.isfinite(found.outputs).all()
    # Two of six shares lost, four of them data: a third of the rows, but for the uneven end.
    assert (~found.exact).mean() == pytest.approx(1 / 3, abs=0.1)
    assert np.array_equal(recover(made, np.ones_like(kept)).outputs, made.plain)


def test_replication_loses_nothing() -> None:
    code = CodeSpec(scheme="replication", k=4, stragglers=1).build()
    made = record("toy", queries(40), project, code.spec, block=None, order="random")
    found = recover(made, always(code, 1, made.block, np.random.default_rng(0))[0])
    assert found.exact.all()
    assert np.array_equal(found.outputs, made.plain)


@pytest.mark.parametrize(
    ("scheme", "stragglers", "chance"),
    [*product(["systematic", "berrut", "replication"], [1, 2], [0.05, 0.3]), ("uncoded", 0, 0.2)],
)
def test_what_cannot_be_decoded_is_submitted_again_until_it_can(
    scheme: str, stragglers: int, chance: float
) -> None:
    code = CodeSpec(scheme=scheme, k=4, stragglers=stragglers).build()
    kept, run = now_and_then(code, chance, 4000, np.random.default_rng(0))
    assert all(code.decodable(np.flatnonzero(one).tolist()) for one in kept)
    assert run >= 4000 * code.n
    if scheme == "uncoded":  # each lost one, again and again: a geometric series
        assert run / (4000 * code.n) == pytest.approx(1 / (1 - chance), rel=0.02)
    if scheme == "systematic":  # as few as will do: one where one too many was lost
        lost = np.random.default_rng(0).random((4000, code.n)) < chance
        beyond = np.maximum(lost.sum(axis=1) - stragglers, 0)
        assert run - 4000 * code.n == pytest.approx(beyond.sum() / (1 - chance), rel=0.1)
