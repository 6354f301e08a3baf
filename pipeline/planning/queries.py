"""The probe of the model on sample queries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from approxifer.datasets.dtypes import cast_note, sent_dtypes
from approxifer.errors import ModelError
from approxifer.models import ModelHandle, Probe, probe
from approxifer.pipeline.queries import Queries


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
