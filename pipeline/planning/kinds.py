"""Kinds of arguments: what a value may be, checked the same from Python, a file or a shell.

Nothing heavy is imported at the top: the command line's help is made of this.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from approxifer.checks import MOST, texts, told
from approxifer.errors import ConfigError
from approxifer.text import did_you_mean

#: The form of an output that is as the input's.
LIKE_INPUT = "like-input"

_TOPK = re.compile(r"topk:[1-9][0-9]*")
_NEAR = {"topk": "topk:5", "top": "topk:5"}
_TYPED = re.compile(r"\s*\d*\.?\d+(e-?\d+)?\s*")


@dataclass(frozen=True)
class Kind:
    """Any value; the base class of the others.

    Attributes
    ----------
    metavar : str
        What stands for a value in the command line's help.
    """

    metavar: str = "TEXT"

    #: What the command line turns its text into.
    parsed: Callable[..., Any] = str

    def check(self, name: str, value: Any) -> Any:
        """Return the value, as it is kept.

        Raises
        ------
        ConfigError
        """
        return value


@dataclass(frozen=True)
class Text(Kind):
    """A text."""

    def check(self, name: str, value: Any) -> Any:
        if not isinstance(value, str):
            raise ConfigError(f"{name}={told(value)}: give a text")
        return value


@dataclass(frozen=True)
class PathTo(Kind):
    """The path of a file or a folder."""

    def check(self, name: str, value: Any) -> Any:
        if not isinstance(value, str | os.PathLike):
            raise ConfigError(f"{name}={told(value)}: give a path")
        return value


@dataclass(frozen=True)
class Flag(Kind):
    """True or False: a text that reads "no" is neither."""

    parsed: Callable[..., Any] = bool

    def check(self, name: str, value: Any) -> bool:
        if not isinstance(value, bool) and str(getattr(value, "dtype", "")) != "bool":
            raise ConfigError(f"{name}={told(value)}: give True or False")
        return bool(value)


@dataclass(frozen=True, kw_only=True)
class Whole(Kind):
    """A whole number, kept as Python's own."""

    least: int
    most: int = MOST
    metavar: str = "N"
    parsed: Callable[..., Any] = int

    def check(self, name: str, value: Any) -> int:
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        if not whole or not self.least <= value <= self.most:
            bound = f"at most {self.most}" if whole and value > 0 else f"at least {self.least}"
            raise ConfigError(f"{name}={told(value)}: give a whole number, {bound}")
        return int(value)


@dataclass(frozen=True, kw_only=True)
class Number(Kind):
    """A real number in a range."""

    least: float
    most: float = float("inf")
    metavar: str = "X"
    parsed: Callable[..., Any] = float

    def check(self, name: str, value: Any) -> float:
        number = isinstance(value, Real) and not isinstance(value, bool)
        whole = isinstance(value, Integral)  # which may be beyond all floats
        if not number or not self.least <= value <= (min(self.most, MOST) if whole else self.most):
            bounds = f", at least {self.least:g}"
            if self.most < float("inf"):
                bounds = f" from {self.least:g} to {self.most:g}"
            raise ConfigError(f"{name}={told(value)}: give a number{bounds}")
        return float(value)


@dataclass(frozen=True, kw_only=True)
class OneOf(Kind):
    """One of several names; beside them maybe numbers of a kind, or anything callable."""

    names: tuple[str, ...]
    number: Number | None = None
    callables: bool = False  #: a function, or "module:function"
    metavar: str = "NAME"

    def check(self, name: str, value: Any) -> Any:
        if isinstance(value, str) and value in self.names:
            return value
        if self.callables and (callable(value) or (isinstance(value, str) and ":" in value)):
            return value
        if self.number is not None:
            if isinstance(value, str) and _TYPED.fullmatch(value):  # from a shell
                value = float(value)
            if isinstance(value, Real):
                return self.number.check(name, value)
        allowed = ", ".join(map(repr, self.names))
        if self.number is not None:
            allowed += f", or a number from {self.number.least:g} to {self.number.most:g}"
        if self.callables:
            allowed += ", or a function of rows, also as 'module:function'"
        near = did_you_mean(value, self.names) or "."
        raise ConfigError(f"{name}={told(value)} is unknown{near} Allowed: {allowed}")


@dataclass(frozen=True)
class Made(Kind):
    """The function of outputs: one of several names, ``topk:5``, or the user's own."""

    metavar: str = "NAME"

    def check(self, name: str, value: Any) -> Any:
        if callable(value):
            return value
        text = value if isinstance(value, str) else ""
        known = text in ("argmax", "softmax") or _TOPK.fullmatch(text)
        if known or (":" in text and not text.startswith("topk:")):
            return value
        near = did_you_mean(text.partition(":")[0], ("argmax", "softmax", "topk:5"), _NEAR) or "."
        raise ConfigError(
            f"{name}={told(value)} is unknown{near} Allowed: 'argmax', 'softmax', 'topk:5' with "
            "any number of at least 1, or a function of outputs, also as 'module:function'"
        )


@dataclass(frozen=True)
class Texts(Kind):
    """Several texts; one alone may be given as it is."""

    parsed: Callable[..., Any] = list

    def check(self, name: str, value: Any) -> tuple[str, ...]:
        return texts(name, value, f"a list of them ({self.metavar.lower()}s)")


@dataclass(frozen=True)
class Names(Kind):
    """A name, or several."""

    def check(self, name: str, value: Any) -> str | tuple[str, ...]:
        return value if isinstance(value, str) else Texts(self.metavar).check(name, value)


@dataclass(frozen=True)
class Settings(Kind):
    """A mapping of names to settings, from a shell as JSON. Messages never show it: it may hold
    credentials."""

    metavar: str = "JSON"

    def check(self, name: str, value: Any) -> Mapping[str, Any]:
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                value = None
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise ConfigError(
                f"{name}: give a mapping of names to settings, on the command line as JSON: "
                f"--{name.replace('_', '-')} '{{\"anon\": true}}'"
            )
        return dict(value)


@dataclass(frozen=True)
class Lengths(Kind):
    """Lengths by dimension, from a shell as ``y=256,x=256``; or one for all."""

    least: int = 0
    alone: bool = False  #: whether one number may stand for all
    metavar: str = "DIM=N,..."

    def check(self, name: str, value: Any) -> Any:
        given = value
        if isinstance(value, str):
            pairs = [one.partition("=") for one in value.split(",")]
            given = {dim.strip(): _number(length) for dim, _, length in pairs}
            if self.alone and "=" not in value:
                given = _number(value)
        if self.alone and isinstance(given, Integral):
            return Whole(least=self.least).check(name, given)
        whole = Whole(least=self.least)
        try:
            found = {str(dim): whole.check(name, length) for dim, length in dict(given).items()}
        except (ConfigError, TypeError, ValueError):
            found = {}
        if not found:
            alone = f"a whole number of at least {self.least}, or " if self.alone else ""
            raise ConfigError(
                f"{name}={told(value)}: give {alone}lengths by dimension, {{'y': 256, 'x': 256}}, "
                f"on the command line --{name} y=256,x=256, each at least {self.least}"
            )
        return found


def _number(text: str) -> Any:
    return int(text) if text.strip().isdecimal() else text


@dataclass(frozen=True)
class FormOf(Kind):
    """The form of an output: a name, a mapping (from a shell as JSON), or a template Dataset."""

    metavar: str = "FORM"

    def check(self, name: str, value: Any) -> Any:
        if value == LIKE_INPUT if isinstance(value, str) else hasattr(value, "data_vars"):
            return value
        if isinstance(value, str) and value.lstrip().startswith("{"):
            try:
                value = json.loads(value)
            except ValueError as error:
                raise ConfigError(f"{name}={told(value)} is no JSON: {error}") from error
        if not isinstance(value, Mapping):
            raise ConfigError(
                f"{name}={told(value)}: give {LIKE_INPUT!r}, a mapping such as "
                f"{{'dims': ['y', 'x']}} (on the command line as JSON), or an xarray.Dataset; the "
                "path of the output store is out= (--out)"
            )
        return dict(value)


@dataclass(frozen=True)
class Size(Kind):
    """A number of bytes, also as ``"1GB"``."""

    metavar: str = "SIZE"

    def check(self, name: str, value: Any) -> Any:
        bytes_of(name, value)
        return value


def bytes_of(name: str, value: Any) -> int:
    """A size in bytes.

    Raises
    ------
    ConfigError
    """
    from dask.utils import parse_bytes

    try:
        size = int(parse_bytes(value))
    except (ValueError, TypeError, AttributeError, OverflowError):
        size = 0
    if size < 1 or isinstance(value, bool):
        raise ConfigError(f"{name}={told(value)}: give a size such as '1GB'")
    return size
