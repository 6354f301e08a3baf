"""Mutations of files, drawn from a seeded generator: bytes, JSON documents, zip archives."""

import io
import json
import random
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

Entries = list[tuple[str, bytes]]

HOSTILE: list[Any] = [
    None, True, -1, 0, 2**31, 2**40, 2**63 - 1, -(2**63), 2**64, 10**4000, 1.5, 1e308, float("nan"),
    float("inf"), "", "x" * 100_000, "\x00", "\u202e", "\ud800", "a\nb", "../../x", "/dev/zero",
    "\xe9", "__class__", "self", "lambda", "None", "torch.os.system",
    "torch.ops.aten.from_file.default", "torch.ops.aten._sparse_coo_tensor_unsafe.default",
    "torch.ops.higher_order.while_loop", "9**9**9**9", "Float('1.5', precision=99999999999)",
    "__import__('os').getpid()", "1" * 5000, "(" * 3000, "Max(" * 30 + "s1" + ",s1)" * 30,
    "u999999999", [], {}, [[]], {"": 0}, {"as_int": 0}, {"as_int": 2**40}, [2**40, 2**40],
    {"as_expr": {"expr_str": "s1 // 0"}}, {"as_name": "nowhere"},
]  # fmt: skip


#: Beside these, in stores, journals, job files and YAML.
TEXTS: list[Any] = [
    *HOSTILE[:20], -1e308, "x" * 500, "\x1b]0;owned\x07\x1b[2J", "a\nnote: all is well",
    "$\\frac{", "\u202egnp.exe", "../../../escape", "/etc/passwd", "|O", "pickle", [None], [-1],
    [2**62], {"": {}}, {"id": "pickle"}, {"name": "bytes"}, [[1, 2], [3]], ["a", 1],
]  # fmt: skip


def spoil_bytes(rng: random.Random, data: bytes) -> bytes:
    """Flip, cut, insert, repeat or blank some bytes."""
    if not data:
        return rng.randbytes(rng.choice([1, 8]))
    spoilt = bytearray(data)
    at = rng.randrange(len(data))
    length = rng.choice([1, 2, 8, 100, 5000])
    match rng.randrange(6):
        case 0:
            for _ in range(rng.choice([1, 1, 3, 30])):
                spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
        case 1:
            del spoilt[at:]
        case 2:
            del spoilt[at : at + length]
        case 3:
            spoilt[at:at] = rng.randbytes(length)
        case 4:
            spoilt[at:at] = spoilt[at : at + length]
        case 5:
            spoilt[at : at + length] = rng.choice([b"\x00", b"\xff"]) * length
    return bytes(spoilt)


def _places(document: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """List each (container, key) of a JSON document."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in list(items):
        found.append((document, key))
        if isinstance(value, (dict, list)):
            _places(value, found)
    return found


def spoil_json(rng: random.Random, text: bytes, hostile: list[Any] = HOSTILE) -> bytes:
    """Replace, drop, swap, nest or rename values of a JSON document."""
    document = json.loads(text)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        try:
            places = _places(document, [])
        except RecursionError:  # deep enough
            break
        if not places:
            break
        box, key = rng.choice(places)
        match rng.randrange(8):
            case 0 | 1 | 2:
                box[key] = rng.choice(hostile)
            case 3:
                value = box[key]
                near = [v for b, k in places if type(v := b[k]) is type(value) and v != value]
                box[key] = json.loads(json.dumps(rng.choice(near))) if near else None
            case 4:
                del box[key]
            case 5:
                box[key] = _numbers(rng, box[key])
            case 6:
                for _ in range(rng.choice([1, 20, 100])):
                    box[key] = [box[key]]
            case 7 if isinstance(box, dict):
                box[str(rng.choice(hostile))] = box.pop(key)
            case _:
                box.append(json.loads(json.dumps(box[key])))
    return json.dumps(document).encode("utf-8", "surrogatepass")


def spoil_value(rng: random.Random, value: Any) -> Any:
    """Do the same to a value, with what people's texts may hold."""
    return json.loads(
        spoil_json(rng, json.dumps(value).encode(), TEXTS).decode("utf-8", "surrogatepass")
    )


def spoil_text(rng: random.Random, text: bytes) -> bytes:
    """Change a JSON text as a document, or as bytes."""
    return spoil_bytes(rng, text) if rng.random() < 0.25 else spoil_json(rng, text, TEXTS)


def _numbers(rng: random.Random, value: Any) -> Any:
    """Change the numbers inside a value, and keep its form."""
    if isinstance(value, dict):
        return {k: _numbers(rng, v) for k, v in value.items()}
    if isinstance(value, list):
        return [_numbers(rng, v) for v in value]
    if type(value) in (int, float):
        return rng.choice([value + 1, -value, value * 7, 0, 1, 2, 3, 2**20, 2**31, 2**62])
    return value


def read_zip(data: bytes) -> Entries:
    """Return the names and contents of an archive's entries."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def write_zip(entries: Entries, kind: int = zipfile.ZIP_STORED) -> bytes:
    """Write an archive; names may repeat."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, value in entries:
            info = zipfile.ZipInfo(name)
            info.compress_type = kind
            archive.writestr(info, value)
    return buffer.getvalue()


def spoil_entries(
    rng: random.Random, entries: Entries, text: Callable[[random.Random, bytes], bytes]
) -> bytes:
    """Change what an archive holds; its JSON entries by `text`, mostly."""
    changed = list(entries)
    at, other = rng.randrange(len(changed)), rng.randrange(len(changed))
    (name, value), (second, moved) = changed[at], changed[other]
    kind = zipfile.ZIP_STORED
    match rng.randrange(14):
        case 0:
            del changed[at]
        case 1:
            changed.append((name, moved))
        case 2:
            changed[at], changed[other] = (name, moved), (second, value)
        case 3:
            paths = [name.upper(), f"../{name}", f"/{name}", name + "\n", "x/" + name, "é" + name]
            changed[at] = (rng.choice(paths), value)
        case 4:
            changed[at] = (name, spoil_bytes(rng, value) if value else b"\x80")
        case 5:
            kind = rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
        case _:
            places = [i for i, (n, _) in enumerate(changed) if n.endswith(".json")]
            place = max(places, key=lambda i: len(changed[i][1]))
            if rng.random() < 0.3:
                place = rng.choice(places)
            changed[place] = (changed[place][0], text(rng, changed[place][1]))
    return write_zip(changed, kind)
