"""Parameters of which a few are tried by default, and all by the slow tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow_after(count: int, values: Iterable[Any]) -> list[Any]:
    """Mark all but the first few as slow; a tuple holds the values of several arguments."""
    found = []
    for number, value in enumerate(values):
        several = value if isinstance(value, tuple) else (value,)
        marks = (pytest.mark.slow,) if number >= count else ()
        found.append(pytest.param(*several, marks=marks))
    return found
