"""Checks of arguments, with messages that help.

NumPy is imported where arrays are checked: the command line's help needs the others alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

from approxifer.errors import ConfigError
from approxifer.text import did_you_mean, shortened

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, DTypeLike, NDArray

#: The largest whole number that anything here is counted in.
MOST = 2**63 - 1


def told(value: object) -> str:
    """A value for a message, whatever it is: in short, on one line."""
    try:
        return shortened(" ".join(repr(value).split()), 120)
    except Exception:  # of an integer of 5,000 digits, or a class of the user's
        return f"<{type(value).__name__}>"


def whole_number(name: str, value: object, *, least: int, most: int = MOST) -> int:
    """Return `value` as an int.

    Raises
    ------
    ConfigError
        If it is no whole number (``True`` and ``8.0`` are none), below `least` or above `most`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ConfigError(
            f"{name}={told(value)} is a {type(value).__name__}; give a whole number of at least "
            f"{least}"
        )
    number = int(value)
    if not least <= number <= most:
        wrong, bound = (
            ("small", f"at least {least}") if number < least else ("large", f"at most {most}")
        )
        raise ConfigError(f"{name}={told(value)} is too {wrong}; give a whole number of {bound}")
    return number


def one_of(name: str, value: object, allowed: Sequence[str]) -> str:
    """Return `value` if it is one of the `allowed` names.

    Raises
    ------
    ConfigError
        If it is not; the message lists them all and names one that is near.
    """
    if isinstance(value, str) and value in allowed:
        return value
    near = did_you_mean(value, allowed) if isinstance(value, str) else ""
    raise ConfigError(f"{name}={told(value)} is unknown; it is one of {', '.join(allowed)}{near}")


def instance(name: str, value: object, kinds: type | tuple[type, ...], give: str) -> None:
    """Refuse a value that is of none of these types.

    Parameters
    ----------
    give
        What is to be given, for the message: ``"a text"``.

    Raises
    ------
    ConfigError
    """
    if not isinstance(value, kinds):
        raise ConfigError(f"{name}={told(value)} is a {type(value).__name__}; give {give}")


def texts(name: str, values: object, give: str) -> tuple[str, ...]:
    """Return several texts; one alone may be given as it is.

    Parameters
    ----------
    give
        What is to be given, for the message.

    Raises
    ------
    ConfigError
    """
    if isinstance(values, str):
        return (values,)
    try:
        found = tuple(values) if isinstance(values, Iterable) else (values,)
    except TypeError:  # an array without a dimension
        found = (values,)
    if not all(isinstance(one, str) for one in found):
        raise ConfigError(f"{name}={told(values)}: give {give}")
    return found


def array(
    name: str, values: ArrayLike, *, single: bool = False, numbers: bool = True
) -> NDArray[Any]:
    """Return `values` as an array of numbers or booleans, of one dimension at least.

    Parameters
    ----------
    single
        Whether a single number will do, too.
    numbers
        False: of anything.

    Raises
    ------
    ConfigError
    """
    import numpy as np

    try:
        found = np.asarray(values)
    except Exception as error:  # lists of unequal lengths, and what else claims to be an array
        raise ConfigError(f"{name}={told(values)} is no array; give numbers") from error
    if (numbers and found.dtype.kind not in "biufc") or not (found.ndim or single):
        raise ConfigError(
            f"{name} is {found.dtype} of shape {found.shape}; give an array"
            f"{' of numbers' if numbers else ''}, with a dimension for the rows"
        )
    return found


def row_numbers(name: str, values: ArrayLike) -> NDArray[np.int64]:
    """Return `values` as the numbers of rows; whether there are such rows is not checked.

    Raises
    ------
    ConfigError
    """
    found = array(name, values)
    if not found.size:  # of an empty list, which NumPy takes for floats
        found = found.astype("int64")
    if found.dtype.kind not in "iu" or found.ndim != 1:
        raise ConfigError(f"{name} is {found.dtype} of shape {found.shape}; give numbers of rows")
    return found.astype("int64", copy=False)


def span(start: object, stop: object, rows: int) -> tuple[int, int]:
    """Return the bounds of rows [start, stop), of so many.

    Raises
    ------
    ConfigError
    """
    first = whole_number("start", start, least=-MOST)
    last = whole_number("stop", stop, least=-MOST)
    if not 0 <= first <= last <= rows:
        raise ConfigError(f"There are no rows {first} to {last}: there are rows 0 to {rows}")
    return first, last


def dtype(name: str, value: DTypeLike) -> np.dtype[Any]:
    """Return `value` as a dtype.

    Raises
    ------
    ConfigError
    """
    import numpy as np

    try:
        return np.dtype(value)
    except Exception as error:  # TypeError, ValueError, SyntaxError of a text that is parsed
        raise ConfigError(
            f"{name}={told(value)} is no dtype; give one as numpy has it, such as 'float32'"
        ) from error
