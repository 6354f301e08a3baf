"""Types of numbers that can be coded.

A code sends weighted sums of queries to the workers, so a query must be made of numbers between
which one can interpolate. Half of token 17 and half of token 42 is no token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from approxifer import checks
from approxifer.errors import InputError

#: The schemes whose shares are the queries themselves, so that any number will do.
PLAIN_SCHEMES = ("uncoded", "replication", "replication-adaptive")

#: Bytes of the rows that are looked at for NaN, in three places of the input.
LOOKED_AT = 3 * 2**22

#: ``dtype`` of a run whose model takes the rows in their own type.
STORED = "stored"

_SMALL = {"bool", "uint8", "int8", "int16", "uint16"}
_FLOATS = {"float16", "float32", "float64"}
#: Integers that float64 holds exactly.
_WIDE = {"int32", "uint32"}


def sent_dtypes(
    dtype: DTypeLike, scheme: str, wanted: str = "float32"
) -> tuple[np.dtype[Any], ...]:
    """Return the dtypes in which rows may be sent to the workers: the first that the model takes.

    Schemes that send rows as they are do so with integers: token ids reach an embedding. There an
    embedding may want wider ones, and a network of measurements floats.

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
    ConfigError
        An argument is not what it should be.
    """
    dtype = checks.dtype("dtype", dtype)
    checks.instance("scheme", scheme, str, "a scheme's name")
    checks.instance("wanted", wanted, str, "a precision's name")
    if dtype.kind not in "biufc":
        raise InputError(
            f"The input has dtype {dtype}, which is not made of numbers. "
            "Real numbers can be scored: floats, bool and integers. "
            "Choose another variable, or encode this one as numbers first."
        )
    real = np.dtype(np.float64 if wanted == "float64" else np.float32)
    if dtype.name in _FLOATS:
        keep = wanted == STORED or (dtype.name, wanted) == ("float64", "float64")
        return (dtype if keep else np.dtype(np.float32),)
    if scheme in PLAIN_SCHEMES:
        if wanted == STORED or dtype.kind not in "biu":
            return (dtype,)
        wider = (np.dtype(np.int64),) if dtype.kind in "iu" and dtype.itemsize < 8 else ()
        return (dtype, *wider, real)
    if dtype.name in _SMALL and wanted != STORED:
        return (np.dtype(np.float32),)
    if dtype.name in _WIDE and wanted == "float64":
        return (real,)
    raise InputError(
        f"The input has dtype {dtype}, and scheme={scheme!r} interpolates between rows: "
        "integers such as token ids, and numbers wider than float64, cannot be interpolated. "
        'Take scheme="uncoded" or scheme="replication", which send the rows as they are. '
        "Where the integers are measurements: int32 and uint32 are sent as float64 with "
        'dtype="float64"; bool and integers of 8 and 16 bits as float32 (but not with '
        f'dtype="{STORED}"); store others as float32, or cast them in preprocess=.'
    )


def codable(dtype: DTypeLike, scheme: str, wanted: str = "float32") -> str | None:
    """Describe what happens to rows of this dtype; the arguments are those of `sent_dtypes`.

    Returns
    -------
    str or None
        A note for the user when the rows are cast, None when they are sent as they are.

    Raises
    ------
    InputError
        As `sent_dtypes`.
    """
    return cast_note(dtype, sent_dtypes(dtype, scheme, wanted)[0])


def cast_note(dtype: DTypeLike, sent: np.dtype[Any]) -> str | None:
    """A note for the user where rows are sent in another dtype."""
    dtype = np.dtype(dtype)
    return None if sent.name == dtype.name else f"{dtype.name} rows are cast to {sent.name}"


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
