"""Small mutations of bytes and of JSON, by a seeded generator."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

#: What stands in the place of a value.
JUNK: list[Any] = [
    None, True, -1, 0, 2**31, 2**63, 2**64, 10**30, 1e308, -1e308, float("nan"), float("inf"), "",
    "x" * 500, "\x1b]0;owned\x07\x1b[2J", "a\nnote: all is well", "$\\frac{", "\u202egnp.exe",
    "\ud800", "../../../escape", "/etc/passwd", "|O", "pickle", [], {}, [[]], [None], [-1],
    [2**62], {"": {}}, {"id": "pickle"}, {"name": "bytes"}, [[1, 2], [3]], ["a", 1],
]  # fmt: skip


def of_bytes(rng: random.Random, content: bytes) -> bytes:
    """One to four changes: bits, pieces that are cut or doubled, or rubbish."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(data))
        length = rng.choice([1, 2, 4, 8, 64])
        match rng.randrange(6):
            case 0:
                del data[at : at + length]
            case 1:
                data[at:at] = rng.randbytes(length)
            case 2:
                data[at : at + length] = rng.randbytes(length)
            case 3:
                data[at:at] = data[max(0, at - length) : at]
            case 4:
                del data[at:]
            case 5 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
    return bytes(data)


def of_value(rng: random.Random, value: Any) -> Any:
    """One to three changes of a JSON value: a part is replaced, left out, renamed or doubled."""
    found = copy.deepcopy(value)
    for _ in range(rng.randint(1, 3)):
        places = list(_places(found))
        if not places:
            return rng.choice(JUNK)
        holder, key = rng.choice(places)
        if key not in (holder if isinstance(holder, dict) else range(len(holder))):
            continue
        match rng.randrange(5):
            case 0 | 1:
                holder[key] = copy.deepcopy(rng.choice(JUNK))
            case 2:
                del holder[key]
            case 3 if isinstance(holder, dict):
                holder[str(rng.choice(JUNK))] = holder.pop(key)
            case _:
                other, at = rng.choice(places)
                holder[key] = copy.deepcopy(other[at]) if other is not holder else holder[key]
    return found


def _places(value: Any) -> Any:
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def of_json(rng: random.Random, content: bytes) -> bytes:
    """A JSON text, changed as a value or as bytes."""
    if rng.random() < 0.25:
        return of_bytes(rng, content)
    return json.dumps(of_value(rng, json.loads(content))).encode()
