"""Types of numbers that can be coded.

A code sends weighted sums of queries to the workers, so a query must be made of numbers between
which one can interpolate. Half of token 17 and half of token 42 is no token.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from approxifer.errors import InputError

#: The schemes whose shares are the queries themselves, so that any number will do.
PLAIN_SCHEMES = ("uncoded", "replication")

#: ``dtype`` of a run whose model takes the rows in their own type.
STORED = "stored"

_SMALL = {"bool", "uint8", "int8", "int16", "uint16"}
_FLOATS = {"float16", "float32", "float64"}
#: Integers that float64 holds exactly.
_WIDE = {"int32", "uint32"}


def sent_dtype(dtype: DTypeLike, scheme: str, wanted: str = "float32") -> np.dtype[Any]:
    """Return the dtype in which rows are sent to the workers.

    Parameters
    ----------
    dtype
        Of the rows: as they are stored, or as ``preprocess`` returns them.
    scheme
        ``CodeSpec.scheme``.
    wanted
        The precision that the model takes, or `STORED`: rows are sent as they are.

    Raises
    ------
    InputError
        The rows are not made of numbers; or their numbers cannot be interpolated and the scheme
        does.
    """
    dtype = np.dtype(dtype)
    if dtype.kind not in "biufc":
        raise InputError(
            f"The input has dtype {dtype}, which is not made of numbers. "
            "Real numbers can be scored: floats, bool and integers. "
            "Choose another variable, or encode this one as numbers first."
        )
    plain = scheme in PLAIN_SCHEMES
    if dtype.name in _FLOATS:
        keep = wanted == STORED or (dtype.name, wanted) == ("float64", "float64")
        return dtype if keep else np.dtype(np.float32)
    if dtype.name in _SMALL and wanted != STORED:
        return np.dtype(np.float32)
    if plain:
        return dtype
    if dtype.name in _WIDE and wanted == "float64":
        return np.dtype(np.float64)
    raise InputError(
        f"The input has dtype {dtype}, and scheme={scheme!r} interpolates between rows: "
        "integers such as token ids, and numbers wider than float64, cannot be interpolated. "
        'Take scheme="uncoded" or scheme="replication", which send the rows as they are. '
        "Where the integers are measurements: int32 and uint32 are sent as float64 with "
        'dtype="float64"; bool and integers of 8 and 16 bits as float32 (but not with '
        f'dtype="{STORED}"); store others as float32, or cast them in preprocess=.'
    )


def codable(dtype: DTypeLike, scheme: str, wanted: str = "float32") -> str | None:
    """Describe what happens to rows of this dtype; the arguments are those of `sent_dtype`.

    Returns
    -------
    str or None
        A note for the user when the rows are cast, None when they are sent as they are.

    Raises
    ------
    InputError
        As `sent_dtype`.
    """
    dtype = np.dtype(dtype)
    sent = sent_dtype(dtype, scheme, wanted)
    return None if sent.name == dtype.name else f"{dtype.name} rows are cast to {sent.name}"
