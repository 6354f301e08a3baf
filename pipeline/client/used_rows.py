"""The rows of a group's shares that end in the output, and the draw of those that are checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from approxifer.coding import Code, block_rows, gather
from approxifer.pipeline.byzantine.outliers import Outliers
from approxifer.pipeline.byzantine.spot_checks import choose_rows, random_rows
from approxifer.pipeline.client.collect import DecodedGroup, RowGroup
from approxifer.pipeline.client.context import Setup
from approxifer.pipeline.client.dispatch import GroupTransfer
from approxifer.pipeline.share_rows import ShareRows, take


@dataclass(frozen=True, eq=False)
class DrawnRows:
    """Rows of one share that are to be checked."""

    share: int
    member: int  #: incarnation of the worker that ran it
    of: int  #: rows that the bound is about: those that stay in the output
    rate: float  #: the part of the rows that was drawn at random
    rows: list[tuple[int, ...]]  #: for each the queries of the input that it is made of
    queries: list[ShareRows]  #: m of one row each
    outputs: np.ndarray  #: (m, *out)


def draw(
    batch: RowGroup,
    group: GroupTransfer,
    decoded: DecodedGroup,
    setup: Setup,
    outliers: dict[tuple[int, bool], Outliers],
    rng: np.random.Generator,
) -> list[DrawnRows]:
    """Draw rows of each share that is used, and what is not finite for no visible reason.

    A share is used if it stands for a block, or if a block is decoded: then of all rows of the
    codewords that hold a query of that block, a short codeword's padding included. Where decoded
    rows never stay in the output, a share that is only decoded from is checked all the same, and
    the bound is not about it. The ``outliers`` are those of a model, and of shares that mix several
    blocks or carry one.
    """
    code, members = batch.code, batch.members
    blocks = [len(rows) for rows in block_rows(members, code.k)]
    carriers = {decoded.carrier(j): blocks[j] for j in range(code.k)}
    carriers.pop(None, None)
    exact = code.exact(list(decoded.outputs))
    mixed = 0
    if decoded.decoded is not None:
        mixed = max((blocks[j] for j in np.flatnonzero(~exact)), default=0)
    found = []
    for share, output in decoded.outputs.items():
        written = carriers.get(share, 0)
        relevant = max(written, mixed)
        if not relevant:
            continue
        queries = group.shares[share]
        odd = np.flatnonzero(_finite(queries, relevant) & ~_finite(output, relevant))
        alike = (code.models[share], code.carries[share] is None)
        usual = outliers.setdefault(alike, Outliers(rng))
        rows = choose_rows(usual.distances(output[:relevant]), odd, setup.check, rng)
        found.append(
            DrawnRows(
                share,
                decoded.used[share].member,
                of=written if setup.repair == "exact" else relevant,
                rate=random_rows(setup.check, relevant) / relevant,
                rows=[sources(batch, share, int(row)) for row in rows],
                queries=[take(queries, [row]) for row in rows],
                outputs=output[rows],
            )
        )
    return found


def sources(batch: RowGroup, share: int, row: int) -> tuple[int, ...]:
    """The rows of the input that a row of a share is made of."""
    start, members, k = batch.window.start, batch.members, batch.code.k
    places = range(row * k, (row + 1) * k)
    if (block := batch.code.carries[share]) is not None:
        places = range(places[block], places[block] + 1)
    last = len(members) - 1  # a short codeword repeats its last row
    return tuple(start + int(members[min(place, last)]) for place in places)


def query_of(
    load: Callable[[int, int], np.ndarray], code: Code, rows: tuple[int, ...], share: int
) -> np.ndarray:
    """A row of a share, made again from the input: (1, *feature)."""
    queries = np.concatenate([load(row, row + 1) for row in rows])
    if len(rows) > 1:
        queries = code.encode(gather(queries, np.arange(len(rows)), code.k))[share]
    return np.asarray(queries[:1])


def _finite(rows: ShareRows, count: int) -> np.ndarray:
    """The first rows whose numbers are all finite, as far as that is known here: bool (count,)."""
    if not isinstance(rows, np.ndarray) or rows.dtype.kind not in "fc":
        return np.ones(count, bool)
    finite: np.ndarray = np.isfinite(rows[:count].reshape(count, -1))
    return np.asarray(finite.all(axis=1))
