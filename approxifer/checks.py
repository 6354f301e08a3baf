"""Checks of arguments, with messages that help."""

from collections.abc import Sequence

import numpy as np

from approxifer.errors import ConfigError
from approxifer.text import did_you_mean


def whole_number(name: str, value: object, *, least: int) -> int:
    """Return `value` as an int.

    Raises
    ------
    ConfigError
        If it is no whole number (``True`` and ``8.0`` are none) or below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ConfigError(
            f"{name}={value!r} is a {type(value).__name__}; give a whole number of at least {least}"
        )
    if value < least:
        raise ConfigError(f"{name}={value} is too small; give a whole number of at least {least}")
    return int(value)


def one_of(name: str, value: object, allowed: Sequence[str]) -> str:
    """Return `value` if it is one of the `allowed` names.

    Raises
    ------
    ConfigError
        If it is not; the message lists them all and names one that is near.
    """
    if isinstance(value, str) and value in allowed:
        return value
    near = did_you_mean(value, allowed)
    raise ConfigError(f"{name}={value!r} is unknown; it is one of {', '.join(allowed)}{near}")
