"""The queries: rows of the input as the model takes them; and how another process makes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from approxifer.datasets import Source, open_source
from approxifer.datasets.dtypes import sent_dtypes
from approxifer.datasets.grid import Grid
from approxifer.errors import InputError, ModelError
from approxifer.models import resolve_callable
from approxifer.models.names import first_line, full_name, is_importable
from approxifer.models.user_code.exits import NoExit

#: Rows at most of each of the two pieces of the input, of one chunk each, by which a worker shows
#: that it reads the same.
PROOF_ROWS = 64


@dataclass(frozen=True)
class Queries:
    """The input's rows as the model takes them: preprocessed, as real numbers."""

    source: Source
    preprocess: Callable[..., Any] | None
    features: Callable[..., Any] | None  #: what similar rows are compared by
    scheme: str
    dtype: str  #: precision of the model
    sent: np.dtype[Any] | None = None  #: dtype of what is loaded; None: the first that may be

    def load(self, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop): (stop - start, *feature)."""
        rows = self.preprocessed(self.source.read(start, stop))
        sent = self.sent or sent_dtypes(rows.dtype, self.scheme, self.dtype)[0]
        return rows.astype(sent, copy=False)

    def preprocessed(self, rows: np.ndarray) -> np.ndarray:
        """Rows (n, *stored), which the user's function may overwrite, as it returns them:
        (n, *feature)."""
        if self.preprocess is None:
            return rows
        count = len(rows)
        found = _called("preprocess", self.preprocess, rows)
        if found.ndim == 0 or len(found) != count:
            raise InputError(
                f"preprocess gave an array of shape {found.shape} for {count} rows: it must give "
                "one row for each"
            )
        return found

    def recipe(self, seed: int) -> Recipe | str:
        """Describe how another process makes these queries; or the reason for which none can.

        Parameters
        ----------
        seed
            Of the pieces of the input that are compared.
        """
        assert self.sent is not None, "known once the model is probed"
        if isinstance(self.source.opened, str):
            return self.source.opened
        if self.source.tiling is not None:
            return "tiles share the chunks at their borders"
        name = None
        if self.preprocess is not None:
            if not is_importable(self.preprocess):
                return "preprocess= cannot be imported"
            name = full_name(self.preprocess)
        rng = np.random.default_rng([seed, 3])
        pieces = []
        for first in rng.integers(self.source.rows, size=2).tolist():
            start = first // self.source.chunk * self.source.chunk
            stop = start + min(PROOF_ROWS, self.source.chunk)
            pieces.append((start, min(stop, self.source.rows)))
        return Recipe(self.source.opened, self.source.grid, name, self.sent.str, tuple(pieces))

    def compared(self, rows: np.ndarray) -> np.ndarray:
        """The numbers that order ``"similar"`` compares: the rows (n, *feature), or the user's
        features of them, (n, d)."""
        if self.features is None:
            return rows
        found = _called("order", self.features, rows)
        if found.ndim < 2 or len(found) != len(rows) or found.dtype.kind not in "biuf":
            raise InputError(
                f"order's function gave {found.dtype} of shape {found.shape} for {len(rows)} rows: "
                "it must give real numbers (n, d), d of them for each row"
            )
        return found


def _called(what: str, function: Callable[..., Any], rows: np.ndarray) -> np.ndarray:
    """Call a function of the user's."""
    count = len(rows)
    try:
        with NoExit(what):
            return np.asarray(function(rows))
    except ModelError:
        raise
    except Exception as error:
        raise InputError(
            f"{what} raised on {count} {rows.dtype} rows of shape {rows.shape[1:]}: "
            f"{first_line(error)}"
        ) from error


@dataclass(frozen=True)
class Recipe:
    """All that a process needs to read rows as the model takes them. Picklable."""

    opened: Mapping[str, Any]  #: arguments of `open_source`; may hold secrets
    grid: Grid
    preprocess: str | None
    sent: str
    pieces: tuple[tuple[int, int], ...]  #: spans of rows by which inputs are compared

    def open(self, missing: Callable[[str], None] | None = None) -> Queries:
        """Open the input here.

        Parameters
        ----------
        missing
            See `open_source`.

        Raises
        ------
        InputError, ModelError
            It, or the function that prepares rows, is not there.
        """
        source = open_source(**self.opened, missing=missing)
        source.follow(self.grid)
        prepare = None if self.preprocess is None else resolve_callable(self.preprocess)
        return Queries(source, prepare, None, "", "", np.dtype(self.sent))

    def proof(self, queries: Queries) -> str:
        """A digest of some of the rows, as the model takes them, and of all their shapes."""
        source = queries.source
        about = [source.rows, source.feature_shape, source.dtype.str, source.chunk]
        digest = hashlib.sha256(json.dumps(about).encode())
        for start, stop in self.pieces:
            digest.update(np.ascontiguousarray(queries.load(start, stop)).tobytes())
        return digest.hexdigest()

    def __repr__(self) -> str:  # its options may hold secrets
        return f"<Recipe of {self.pieces}>"
