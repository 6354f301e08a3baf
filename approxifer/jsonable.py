"""Plain JSON values out of what numpy and pathlib hand around."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np

from approxifer.checks import told
from approxifer.errors import ConfigError


def jsonable(value: Any) -> Any:
    """Rewrite a value as JSON would give it back.

    Keys become strings, tuples and arrays lists, numpy scalars and enum members plain numbers and
    strings, paths strings: two values are equal after this exactly if their JSON is.

    Raises
    ------
    ConfigError
        Something in it has no counterpart in JSON.
    """
    try:
        return _plain(value)
    except RecursionError as error:
        raise ConfigError(f"{told(value)} is nested too deeply for JSON.") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, np.generic | np.ndarray) and value.dtype.kind not in "mM":  # no numbers
        return _plain(value.tolist())
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {_key(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        members = [_plain(item) for item in value]
        try:
            return sorted(members)
        except TypeError:  # numbers and texts, say
            return sorted(members, key=json.dumps)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise ConfigError(
        f"{told(value)} of type {type(value).__name__} has no form in JSON. "
        "Give None, bools, numbers, strings, lists and dicts of them."
    )


def _key(key: Any) -> str:
    plain = _plain(key)
    return plain if isinstance(plain, str) else str(plain)
