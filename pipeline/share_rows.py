"""Rows of a share: an array, or a description by which a worker reads them itself.

A description names rows of the input, and the weights of the mixtures among them: a few hundred
bytes, whatever the size of a row. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from approxifer.coding import Code
from approxifer.coding.code import mix

#: Load rows [start, stop) of the input as the model takes them.
Load = Callable[[int, int], np.ndarray]


@dataclass(frozen=True, eq=False)
class Part:
    """Rows that are made alike: each is one query, or a mixture of K.

    Attributes
    ----------
    blocks : int64 arrays (n,)
        Numbers of rows of the input: one array, or K that are mixed row by row.
    weights : tuple of float
        Of each block; empty where a row is one query as it is.
    """

    blocks: tuple[np.ndarray, ...]
    weights: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.blocks[0])

    def take(self, rows: np.ndarray) -> Part:
        """Some of the rows, by their places."""
        return Part(tuple(block[rows] for block in self.blocks), self.weights)


@dataclass(frozen=True, eq=False)
class Description:
    """Rows of a share, part after part."""

    parts: tuple[Part, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in memory."""
        return sum(block.nbytes for part in self.parts for block in part.blocks)

    @property
    def mixed(self) -> bool:
        """True if some rows are mixtures."""
        return any(part.weights for part in self.parts)

    def wire(self) -> list[Any]:
        """As lists of numbers, rows that follow each other as their first and their last."""
        return [
            [[_runs(block) for block in part.blocks], list(part.weights)] for part in self.parts
        ]

    @classmethod
    def of(cls, wire: Sequence[Any]) -> Description:
        """From `wire`."""
        return cls(
            tuple(
                Part(tuple(_rows(runs) for runs in blocks), tuple(weights))
                for blocks, weights in wire
            )
        )


#: The rows of a share: (B, *feature), or their description.
ShareRows: TypeAlias = np.ndarray | Description


def describe(code: Code, blocks: np.ndarray) -> list[ShareRows]:
    """Describe the shares of a group.

    Parameters
    ----------
    code
        One that is `describable`.
    blocks : int64 (k, B)
        For each block the numbers of its rows in the input.
    """
    found = list[ShareRows]()
    for share, block in enumerate(code.carries):
        if block is not None:
            part = Part((blocks[block],))
        else:
            assert code.mixtures is not None, "a describable code"
            part = Part(tuple(blocks), code.mixtures[share])
        found.append(Description((part,)))
    return found


def queries(rows: Sequence[int]) -> list[ShareRows]:
    """Describe queries, each by itself."""
    return [Description((Part((np.array([row], np.int64),)),)) for row in rows]


def take(rows: ShareRows, places: Sequence[int] | np.ndarray) -> ShareRows:
    """Some rows of a share, by their places in it; a copy."""
    chosen = np.asarray(places, np.int64)
    if isinstance(rows, np.ndarray):
        return rows[chosen]
    found, first = [], 0
    for part in rows.parts:
        here = chosen[(chosen >= first) & (chosen < first + len(part))] - first
        if len(here):
            found.append(part.take(here))
        first += len(part)
    return Description(tuple(found))


def join(several: Sequence[ShareRows]) -> ShareRows:
    """Rows of several shares as those of one; all are arrays, or all are described."""
    arrays = [one for one in several if isinstance(one, np.ndarray)]
    if arrays:
        return np.concatenate(arrays)
    parts = [part for one in several if isinstance(one, Description) for part in one.parts]
    joined: list[Part] = []
    for part in parts:
        if joined and not part.weights and not joined[-1].weights:
            blocks = (np.concatenate([joined[-1].blocks[0], part.blocks[0]]),)
            joined[-1] = Part(blocks)
        else:
            joined.append(part)
    return Description(tuple(joined))


def made(rows: Description, load: Load, chunk: int) -> tuple[np.ndarray, list[int]]:
    """Read described rows, and mix them.

    Parameters
    ----------
    rows
    load
        Reads the input.
    chunk : int
        Rows of one chunk of it, which is read once if several of its rows are wanted.

    Returns
    -------
    rows, blank
        (n, *feature), and the places of mixtures of what is not finite: zeros stand there. Such a
        mixture says nothing about its queries, and its output must not be decoded from.
    """
    found, blank, first = [], list[int](), 0
    for part in rows.parts:
        if not part.weights:
            found.append(_read(part.blocks[0], load, chunk))
        else:
            mixed = mix(part.weights, (_read(block, load, chunk) for block in part.blocks))
            spoilt = ~np.isfinite(mixed.reshape(len(mixed), -1)).all(axis=1)
            mixed[spoilt] = 0
            blank += (first + np.flatnonzero(spoilt)).tolist()
            found.append(mixed)
        first += len(part)
    return found[0] if len(found) == 1 else np.concatenate(found), blank


def _read(rows: np.ndarray, load: Load, chunk: int) -> np.ndarray:
    """Rows of the input in any order, each chunk read once: (n, *feature)."""
    wanted, places = np.unique(rows, return_inverse=True)
    # Rows that follow each other are read together; others only where one chunk holds them.
    apart = (np.diff(wanted) > 1) & (np.diff(wanted // chunk) > 0)
    parts = []
    for some in np.split(wanted, np.flatnonzero(apart) + 1):
        first = int(some[0])
        loaded = load(first, int(some[-1]) + 1)
        parts.append(loaded if len(loaded) == len(some) else loaded[some - first])
    found = parts[0] if len(parts) == 1 else np.concatenate(parts)
    in_order = len(places) == len(found) and bool((np.diff(places) > 0).all())
    return found if in_order else found[places]


def _runs(rows: np.ndarray) -> list[list[int]]:
    """Rows as runs of those that follow each other: first and last of each."""
    breaks = np.flatnonzero(np.diff(rows) != 1)
    firsts = np.concatenate([rows[:1], rows[breaks + 1]])
    lasts = np.concatenate([rows[breaks], rows[-1:]])
    return [[int(first), int(last)] for first, last in zip(firsts, lasts, strict=True)]


def _rows(runs: Sequence[Sequence[int]]) -> np.ndarray:
    def each() -> Iterator[np.ndarray]:
        for first, last in runs:
            yield np.arange(first, last + 1, dtype=np.int64)

    return np.concatenate(list(each()))
