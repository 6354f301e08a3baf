"""Text from elsewhere, made fit to be shown: no control characters, no credentials.

A store, a journal, a model's error or a worker's name is written by others. Shown as it is, an
escape sequence in it would command the terminal, a line break would forge a line of the report, and
a URL could carry a password. Everything that is printed, drawn or raised passes through here.
"""

from __future__ import annotations

import logging
import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TextIO

#: What stands for a credential.
HIDDEN = "***"

#: Unicode's categories that are not shown as they are: controls, formats (such as those that turn
#: the direction of text), lone surrogates, private use, not assigned, separators of lines.
_HELD_BACK = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}

_USER_OF_URL = re.compile(r"(?<=://)[^/\s'\"@]+(?:@[^/\s'\"@]+)*@")
_NAMES = (
    r"[\w-]*(?:secret|token|passw(?:or)?d|passphrase|signature|credential|api[_-]?key|"
    r"account[_-]?key|access[_-]?key)[\w-]*"
)
_QUERY = re.compile(rf"([?&](?:{_NAMES}|key|sig|pwd|code)=)[^&#\s'\"]+", re.IGNORECASE)
_ENTRY = re.compile(
    rf"((?<![\w-])(?:{_NAMES}|(?<=['\"])(?:key|sig|pwd)(?=['\"]))['\"]?\s*[:=]\s*)"
    r"('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")",
    re.IGNORECASE,
)
_ASSIGNED = re.compile(rf"((?<![\w-])(?:{_NAMES})=)[^\s'\",;&)\]}}]+", re.IGNORECASE)


def printable(text: object, *, keep: str = "") -> str:
    """Replace what commands a terminal, or is not seen, by a visible escape.

    Parameters
    ----------
    text
        Anything; ``str`` of it is taken.
    keep
        Characters that stay all the same: ``"\\n"`` in a text of several lines.

    Returns
    -------
    str
        It can be encoded as UTF-8. An escape is that of a Python literal.

    >>> printable("a\\x1b[2J\\u202eb\\n")
    'a\\\\x1b[2J\\\\u202eb\\\\n'
    """
    raw = str(text)
    if raw.isascii() and raw.isprintable():
        return raw
    return "".join(
        char
        if char in keep or unicodedata.category(char) not in _HELD_BACK
        else char.encode("unicode_escape").decode("ascii")
        for char in raw
    )


def redacted(text: object) -> str:
    """Hide credentials: the user of a URL, and the values of names such as ``token``.

    >>> redacted("s3://me:pass@host/a?X-Amz-Signature=1f&list=2, {'secret': 'x'}, password=y")
    "s3://***@host/a?X-Amz-Signature=***&list=2, {'secret': '***'}, password=***"
    """
    raw = str(text)
    raw = _USER_OF_URL.sub(f"{HIDDEN}@", raw)
    raw = _QUERY.sub(rf"\1{HIDDEN}", raw)
    raw = _ENTRY.sub(lambda found: f"{found[1]}{found[2][0]}{HIDDEN}{found[2][0]}", raw)
    return _ASSIGNED.sub(rf"\1{HIDDEN}", raw)


def shown(text: object) -> str:
    """A text of several lines, fit for a terminal or a log."""
    return printable(redacted(text), keep="\n\t")


def say(text: object, *, err: bool = False, stream: TextIO | None = None) -> None:
    """Print a text of several lines for a person, whatever is in it and whatever is encodable.

    Parameters
    ----------
    err
        To stderr.
    stream
        Where to instead.
    """
    out = stream or (sys.stderr if err else sys.stdout)
    encoding = getattr(out, "encoding", None) or "utf-8"
    print(shown(text).encode(encoding, "backslashreplace").decode(encoding), file=out, flush=True)


def one_line(what: object) -> str:
    """A message, another library's for instance, fit to be shown, without line breaks."""
    return printable(" ".join(redacted(what).split()))


class ShownFormatter(logging.Formatter):
    """Of log records, fit for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return shown(super().format(record))


def shortened(text: object, most: int) -> str:
    """One piece of text, fit to be shown, of at most so many characters."""
    clean = printable(str(text)[: most + 1])
    return clean if len(clean) <= most else f"{clean[: most - 3]}..."


def did_you_mean(
    given: object, allowed: Iterable[str], aliases: Mapping[str, str] | None = None
) -> str:
    """Name what is nearest to a word that is not allowed, to end a sentence with.

    Parameters
    ----------
    aliases
        Others' names for what is allowed.

    Returns
    -------
    str
        Empty where nothing is near.

    >>> did_you_mean("similiar", ["none", "similar"])
    ", did you mean 'similar'?"
    """
    if not isinstance(given, str):
        return ""
    names = {**(aliases or {}), **{name: name for name in allowed}}
    word = given
    near = get_close_matches(word, names, n=1) or get_close_matches(word.lower(), names, n=1)
    name = names[near[0]] if near else None
    return f", did you mean {name!r}?" if name in names else ""


_DIGITS = frozenset("0123456789")


def duration(seconds: float) -> str:
    """Seconds as a person says them: ``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 07 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which worker-10 comes after worker-9."""
    return [
        (0, len(part.lstrip("0")), part.lstrip("0")) if part[0] in _DIGITS else (1, 0, part)
        for part in re.split(r"([0-9]+)", name)
        if part
    ]
