"""Plain JSON values out of what numpy and pathlib hand around."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np


def jsonable(value: Any) -> Any:
    """Rewrite a value as JSON would give it back.

    Keys become strings, tuples and arrays lists, numpy scalars and enum members plain numbers and
    strings, paths strings: two values are equal after this exactly if their JSON is.

    Raises
    ------
    TypeError
        Something in it has no counterpart in JSON.
    """
    if isinstance(value, Enum):
        return jsonable(value.value)
    if isinstance(value, np.generic | np.ndarray) and value.dtype.kind not in "mM":  # no numbers
        return jsonable(value.tolist())
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {_key(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(jsonable(item) for item in value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(
        f"{value!r} of type {type(value).__name__} has no form in JSON. "
        "Give None, bools, numbers, strings, lists and dicts of them."
    )


def _key(key: Any) -> str:
    plain = jsonable(key)
    return plain if isinstance(plain, str) else str(plain)
