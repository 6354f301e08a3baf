"""The input as it is read for shares: by a worker, or by the client in its stead."""

from __future__ import annotations

import threading

import numpy as np

from approxifer.pipeline.queries import Queries, Recipe
from approxifer.pipeline.share_rows import Description, made


class InputReader:
    """Reads what shares describe; may be called from several threads."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._opened: Queries | None = None
        self._lock = threading.Lock()
        self._missing = 0  #: chunks that were read and not there

    def _queries(self) -> Queries:
        with self._lock:
            if self._opened is None:
                self._opened = self._recipe.open(self._count)
            return self._opened

    def _count(self, key: str) -> None:
        self._missing += 1

    def proof(self) -> str:
        """A digest that is another one where another input is read: see `Recipe.proof`."""
        return self._recipe.proof(self._queries())

    def made(self, rows: Description) -> tuple[np.ndarray, list[int], bool]:
        """Read a share's rows: see `share_rows.made`; and whether chunks were not there meanwhile,
        for which Zarr gives the fill value."""
        queries, before = self._queries(), self._missing
        found, blank = made(rows, queries.load, queries.source.chunk)
        return found, blank, self._missing > before
