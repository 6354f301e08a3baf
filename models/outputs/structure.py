"""The outputs that a model returns: one array, or several by their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from approxifer.errors import ModelError
from approxifer.packing import Packing


def mapped(returned: Any, leaf: Callable[[Any], Any]) -> Any:
    """Call ``leaf`` on what a model returns: on the one output; or on each, whose names are a
    dict's keys, a NamedTuple's or dataclass's fields, or ``output_0`` and so on."""
    named = _named(returned)
    if named is None:
        return leaf(returned)
    return {name: leaf(one) for name, one in named.items()}


def packed(returned: Any, rows: int, who: str) -> tuple[Packing, np.ndarray]:
    """The outputs that a model, or what comes after it, returns for some rows, as one array.

    Parameters
    ----------
    returned
        An array, or several in a tuple, list, dict, NamedTuple or dataclass.
    rows
        For how many. Of one array alone the caller checks it.
    who
        Returned it, for messages.

    Raises
    ------
    ModelError
        Something else was returned; texts; outputs of another number of rows.
    """
    named = _named(returned)
    if named is None:
        _check_numbers(returned, f"{who} returned")
        if not isinstance(returned, np.ndarray) or returned.ndim == 0:
            raise ModelError(
                f"{who} returned {describe(returned)} instead of an array with a row per input row,"
                " or several of them in a tuple, list, dict, NamedTuple or dataclass."
            )
        return Packing.single(returned), returned
    if not named:
        raise ModelError(f"{who} returned {describe(returned)}: there is no output in it.")
    for name, one in named.items():
        _check_numbers(one, f"{who} returned several outputs, and {name!r} is")
        if not isinstance(one, np.ndarray) or one.ndim == 0:
            raise ModelError(
                f"{who} returned several outputs, and {name!r} is {describe(one)}: each must be an"
                " array with a row per input row. Let it return the outputs alone, one deep."
            )
        if len(one) != rows or 0 in one.shape:
            raise ModelError(
                f"{who} returned several outputs, and {name!r} is of shape {one.shape} for {rows}"
                " rows. The first dimension of each output must be the batch, and none empty."
            )
    packing = Packing.of(named)
    return packing, packing.pack(list(named.values()))


def describe(value: Any) -> str:
    """Describe in a few words what a model returned."""
    if isinstance(value, dict):
        return f"a dict with {', '.join(repr(k) for k in list(value)[:5]) or 'nothing'}"
    if isinstance(value, (tuple, list)):
        inner = ", ".join(type(item).__name__ for item in value[:5])
        return f"a {type(value).__name__} of {len(value)} ({inner})"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and type {value.dtype}"
    return f"a {type(value).__name__}"


def _check_numbers(value: Any, before: str) -> None:
    if isinstance(value, np.ndarray) and value.dtype.kind not in "biufc":
        raise ModelError(
            f"{before} {describe(value)}; only numbers can be scored. Let it return classes"
            " by their numbers, or scores, and name them afterwards."
        )


def _named(returned: Any) -> dict[str, Any] | None:
    """Several outputs by their names, a dict's in the order of these; None where it is one, or no
    output at all."""
    if isinstance(returned, Mapping):
        if not all(isinstance(name, str) for name in returned):
            return None
        return {name: returned[name] for name in sorted(returned)}
    if is_dataclass(returned) and not isinstance(returned, type):
        return {one.name: getattr(returned, one.name) for one in fields(returned)}
    if not isinstance(returned, tuple | list) or not any(map(_is_array, returned)):
        return None  # a list of numbers, perhaps
    names = getattr(returned, "_fields", None) or [f"output_{i}" for i in range(len(returned))]
    return dict(zip(names, returned, strict=True))


def _is_array(value: Any) -> bool:
    return getattr(value, "ndim", 0) > 0
