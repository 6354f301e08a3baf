"""Types of numbers that can be coded.

A code sends weighted sums of queries to the workers, so a query must be made of numbers between
which one can interpolate. Half of token 17 and half of token 42 is no token.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike

from approxifer.errors import InputError

#: The schemes whose shares are the queries themselves, so that any number will do.
PLAIN_SCHEMES = ("uncoded", "replication", "replication-adaptive")

#: Bytes of the rows that are looked at for NaN, in three places of the input.
LOOKED_AT = 3 * 2**22

_KEPT = {"float32"}
_CAST = {"float16", "float64", "bool", "uint8", "int8", "int16", "uint16"}


def codable(dtype: DTypeLike, scheme: str) -> str | None:
    """Check that rows of this dtype can be scored under this scheme.

    Parameters
    ----------
    dtype
        The dtype of the input, ``Source.dtype``.
    scheme
        ``CodeSpec.scheme``.

    Returns
    -------
    str or None
        A note for the user when the rows are cast, None when they are sent as they are.

    Raises
    ------
    InputError
        The dtype is not made of numbers; or its numbers cannot be interpolated and the scheme does.
    """
    dtype = np.dtype(dtype)
    if dtype.name in _KEPT:
        return None
    if dtype.name in _CAST:
        return f"{dtype.name} rows are cast to float32"
    if dtype.kind not in "iufc":
        raise InputError(
            f"The input has dtype {dtype}, which is not made of numbers. "
            "Real numbers can be scored: floats, bool and integers. "
            "Choose another variable, or encode this one as numbers first."
        )
    if scheme in PLAIN_SCHEMES:
        return None
    raise InputError(
        f"The input has dtype {dtype}, and scheme={scheme!r} interpolates between rows: "
        "wide integers such as token ids, and numbers wider than float64, cannot be interpolated. "
        "Allowed are float16, float32, float64, bool, int8, uint8, int16 and uint16. "
        'Take scheme="uncoded" or scheme="replication", which send the rows as they are; '
        "or, where the integers are measurements, store them as float32."
    )


def not_finite(load: Callable[[int, int], np.ndarray], rows: int) -> list[str]:
    """A remark on rows that hold NaN or Inf, if there are any among those that are looked at.

    Parameters
    ----------
    load
        ``load(start, stop)`` gives these rows, as the model takes them.
    rows
        How many there are. Looked at are some at the beginning, the middle and the end.
    """
    first = load(0, 1)
    if first.dtype.kind not in "fc":
        return []
    each = max(LOOKED_AT // 3 // max(first.nbytes, 1), 1)
    starts: tuple[int, ...] = (0, (rows - each) // 2, rows - each)
    if 3 * each >= rows:
        each, starts = rows, (0,)
    found = seen = 0
    for start in starts:
        some = load(start, start + each)
        seen += len(some)
        found += int((~np.isfinite(some.reshape(len(some), -1))).any(axis=1).sum())
    if not found:
        return []
    return [
        f"{found:,} of {seen:,} rows looked at hold NaN or Inf: such rows are run as they are, "
        "outside any codeword, and their predictions may be NaN. Fill them in preprocess= "
        "(--preprocess), if the model cannot take them"
    ]
