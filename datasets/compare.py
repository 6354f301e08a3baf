"""Comparison of a store's beginnings with a run: input, model, code and layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from approxifer.checks import instance
from approxifer.errors import FingerprintError
from approxifer.jsonable import jsonable

_ABSENT = object()


def code_as_now(code: Any) -> Any:
    """A store's ``code`` as a store begun today would have it; anything else as it is.

    Older stores have ``grid``, which no longer distinguishes anything, and ``adaptive`` instead of
    a scheme of that name.
    """
    if not isinstance(code, dict):
        return code
    now = {key: value for key, value in code.items() if key not in ("grid", "adaptive")}
    if code.get("adaptive"):
        now["scheme"] = f"{code.get('scheme')}-adaptive"
    return now


def check_same(path: Path, *, given: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    """Compare what a run gives with what the store was begun with, field by field.

    Parameters
    ----------
    given
        Attributes of the run. All are compared except ``version``: a newer approxifer may go on
        with an older one's store. Where ``rows``, the length of the input,
        differs, the error is about that.
    stored
        Attributes of the store. Those that ``given`` lacks do not count.

    Raises
    ------
    FingerprintError
        Names each field that differs, with both values.
    """
    instance("attrs", given, Mapping, "attributes by name")
    expected = jsonable({key: value for key, value in given.items() if key != "version"})
    begun = jsonable({key: value for key, value in stored.items() if key in expected})
    if "code" in begun:
        begun["code"] = code_as_now(begun["code"])
    differences = _differences(expected, begun)
    others = {name for name, _, _ in differences} - {"rows", "input"}
    if any(name == "rows" for name, _, _ in differences):
        before, now = begun.get("rows", 0), expected["rows"]
        change = f"has {'grown' if now > before else 'shrunk'}: {before:,} to {now:,} rows"
        append = "Give append=True (--append) to have the new rows scored too, or write" * (
            now > before
        )
        raise FingerprintError(
            f"The input {change} since the output store {path} was begun, so it cannot be resumed. "
            f"{append if now > before else 'Write'} to another path (--out), or score the input as "
            "it was." + (f" Also different: {', '.join(sorted(others))}." if others else "")
        )
    if any(name == "input" for name, _, _ in differences):
        raise FingerprintError(
            f"The input is not the one that the output store {path} was begun with: its numbers, "
            "its other dimensions, or how it is stored have changed. Write to another path "
            "(--out), or score the input as it was."
            + (f" Also different: {', '.join(sorted(others))}." if others else "")
        )
    if differences:
        fields = "\n".join(f"  {name}: given {a}, stored {b}" for name, a, b in differences)
        raise FingerprintError(
            f"The output store {path} was begun differently, so it cannot be resumed:\n{fields}\n"
            "Give what the store was begun with, or write to another path (--out), or delete "
            "the store and its journal to begin again."
        )


def _differences(given: Any, stored: Any, name: str = "") -> list[tuple[str, str, str]]:
    """The fields that differ: their dotted names, and both values in short."""
    if isinstance(given, dict) and isinstance(stored, dict):
        found = []
        for key in sorted(given.keys() | stored.keys()):
            inner = f"{name}.{key}" if name else key
            found += _differences(given.get(key, _ABSENT), stored.get(key, _ABSENT), inner)
        return found
    return [] if given == stored else [(name, _short(given), _short(stored))]


def _short(value: Any) -> str:
    text = "nothing" if value is _ABSENT else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
