"""The queries: rows of the input as the model takes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from approxifer.datasets import Source
from approxifer.datasets.dtypes import cast_note, sent_dtypes
from approxifer.errors import InputError, ModelError
from approxifer.models import ModelHandle, Probe, probe
from approxifer.models.names import first_line
from approxifer.models.user_code.exits import NoExit


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


def probe_model(
    queries: Queries, handle: ModelHandle, batch: int
) -> tuple[Queries, Probe, np.ndarray, str | None]:
    """Probe the model on sample rows, in the first of the dtypes for them that it takes.

    Parameters
    ----------
    batch
        Rows of a micro-batch.

    Returns
    -------
    queries, probe, sample, note
        The queries in that dtype, what was found, the rows (n, *feature), and a note on a cast.

    Raises
    ------
    ModelError
        It takes none of them, or couples the rows of a batch.
    """
    rows = queries.preprocessed(queries.source.read(0, min(queries.source.rows, 2 * batch)))
    refused: ModelError | None = None
    for sent in sent_dtypes(rows.dtype, queries.scheme, queries.dtype):
        sample = rows.astype(sent, copy=False)
        try:
            found = probe(handle, sample, batch)
        except ModelError as error:
            refused = refused or error
            continue
        # What preprocess returns is the user's own choice.
        note = cast_note(rows.dtype, sent) if queries.preprocess is None else None
        return replace(queries, sent=sent), found, sample, note
    assert refused is not None, "there is a dtype for any rows"
    raise refused
