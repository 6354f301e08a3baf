"""The probe of the user's functions of rows: does a result depend on nothing but its row?

Rows are read again to be repaired or checked, and by a run that goes on, in windows of another
length perhaps. One that ``preprocess`` then turns into another query gets a wrong output, or an
honest worker's output is taken for a corruption. What ``postprocess`` makes of an output is not to
depend on the outputs that come back with it either.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from approxifer.errors import InputError
from approxifer.pipeline.byzantine.tolerance import distance, magnitude

Function = Callable[[np.ndarray], np.ndarray]

#: Largest difference allowed, as a fraction of a row's size, and in steps of coarser numbers:
#: libraries take other kernels for other numbers of rows.
ALLOWED, ALLOWED_STEPS = 1e-5, 4.0


def probe_by_rows(
    name: str,
    function: Function,
    rows: np.ndarray,
    *,
    what: str = "preprocess",
    seed: int = 0,
) -> None:
    """Call ``preprocess`` on sample rows, or ``postprocess`` on their outputs: twice, then on a
    third and on the rest of them, both in another order.

    What it takes from all rows, such as the largest number, is missing in one of the two parts.

    Parameters
    ----------
    name
        Of the function, for messages.
    function
        (n, *feature) -> (n, *result); may work in place.
    rows : (n, *feature)
        As they are stored, or the outputs. They are not changed.
    what
        The argument, for messages.
    seed
        Of the other order.

    Raises
    ------
    InputError
        The results are random, a row's depends on other rows or its place, or the function returns
        one array each time.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    third = max(1, len(rows) // 3)
    returned = function(rows.copy())
    first = returned.copy()
    if said := _difference(function(rows.copy()), first):
        raise InputError(
            f"{what} {name!r} gives other results for the same rows ({said}): it draws random "
            "numbers, or keeps something between calls. Rows are read again to be repaired, and by "
            "a run that goes on, and must come out the same. Let it draw nothing (augmentation is "
            "for training), or store its results and score those"
        )
    for some in (order[:third], order[third:]):
        if len(some) and (said := _difference(function(rows[some]), first[some])):
            raise InputError(
                f"{what} {name!r} gives a row another result among other rows ({said}): it "
                "couples the rows of a batch, as normalising by the batch's own mean does, and a "
                "row's output would depend on which rows are read with it. Let it use fixed "
                "statistics, those of the training data for instance, or do it outside: store its "
                "results and score those"
            )
    if _difference(returned, first):
        raise InputError(
            f"{what} {name!r} returns one array each time, and overwrites what it returned "
            "before: let it return a new one"
        )


def probe_features(name: str, function: Function, rows: np.ndarray) -> None:
    """Call the function of ``order`` twice on sample rows.

    It may look at the rows of a call together, at their mean for instance: only rows of one call
    are compared with each other.

    Parameters
    ----------
    name
        Of the function, for messages.
    function
        (n, *query) -> (n, d).
    rows : (n, *query)
        As the model takes them. They are not changed.

    Raises
    ------
    InputError
        The results are random, or the function changes the rows that it is given.
    """
    given = rows.copy()
    first, again = function(given), function(rows.copy())
    if distance(given, rows).any():
        raise InputError(
            f"order {name!r} changes the rows that it is given, and these are the rows that are "
            "scored: let it work on a copy of them"
        )
    if said := _difference(again, first):
        raise InputError(
            f"order {name!r} gives other results for the same rows ({said}): it draws random "
            "numbers, or keeps something between calls. The order of the rows, and what is "
            "interpolated from them, would be another one each time. Let it draw nothing, or from "
            "a generator that it seeds itself"
        )


def _difference(found: np.ndarray, expected: np.ndarray) -> str:
    """The difference between results for the same rows, in words; none if it may be rounding."""
    if (found.shape, found.dtype) != (expected.shape, expected.dtype):
        return (
            f"{found.dtype} rows of shape {found.shape[1:]} instead of {expected.dtype} rows of "
            f"shape {expected.shape[1:]}"
        )
    allowed, axes = 0.0, tuple(range(1, found.ndim))
    off, size = distance(found, expected), magnitude(expected).max(axis=axes, initial=0.0)
    if found.dtype.kind in "fc":
        allowed = max(ALLOWED, ALLOWED_STEPS * float(np.finfo(found.dtype).eps))
    else:
        off = np.where(found != expected, np.maximum(off, 1), 0)  # large ones are no exact floats
    each = off.max(axis=axes, initial=0.0)
    with np.errstate(all="ignore"):
        # A row that happens to be near zero is off by the rounding of its terms.
        each = np.where(each > 0, each / np.maximum(size, np.median(size)), 0)
    differ = int((each > allowed).sum())
    if not differ:
        return ""
    return (
        f"in {differ} of {len(each)} sample rows, by up to {each.max():.2g} of the row's size; "
        f"allowed is {allowed:.0g}"
    )
