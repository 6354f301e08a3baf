"""Reading a ``.pt2`` archive without running what its author put into it.

``torch.export.load`` unpickles: tensors marked ``use_pickle``, ``custom_obj_*`` and
``opaque_obj_*`` constants, the older ``*.pt`` weights and constants, and the sample inputs (first
safely, and when that fails, unsafely); it loads compiled libraries; and what it does with the graph
is told in `approxifer.models.pt2.graph`.

Therefore the file's bytes are read once, its entries are checked against a list of what is allowed,
and a **new archive** is written in memory out of the checked entries alone. Only that one is given
to torch, so it does not matter whether torch would have read the original in another way (an entry
twice, other letter case, a second directory, something before the archive).
"""

import io
import json
import math
import re
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from approxifer.errors import ModelError, UntrustedModelError
from approxifer.models.pt2.graph import clean, clean_graph
from approxifer.models.pt2.refused import Refused

MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
SAMPLE_INPUTS = "data/sample_inputs/model.pt"
MARKERS = ("archive_format", "archive_version", ".data/version")
#: Entries that are never loaded, and are dropped.
IGNORED = re.compile(r"extra/.*|\.data/serialization_id|\.format_version|\.storage_alignment")

#: Bytes of one number, by torch's codes of types: integers, floats, complex, bool and bfloat16, the
#: 8-bit floats, unsigned integers.
WIDTHS = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 2, 7: 4, 8: 8, 9: 4, 10: 8, 11: 16, 12: 1, 13: 2,
    28: 2, 29: 1, 30: 1, 31: 1, 32: 1, 33: 1, 34: 4, 35: 8,
}  # fmt: skip

REMEDY = (
    "Export the model again with torch.export.save (2.9 or newer) and plain tensors, or pass"
    " trust_model=True (--trust-model) if you trust whoever made the file: loading it then can run"
    " any code that is in it."
)


@dataclass(frozen=True)
class Program:
    """The bytes of a ``.pt2`` that may be given to torch.

    Attributes
    ----------
    data : bytes
        The archive: rebuilt from checked entries, or the original if it is trusted.
    text : str
        What stands for the graph in the fingerprint.
    """

    data: bytes = field(repr=False)
    text: str = field(repr=False)


def read_program(data: bytes, *, name: str, trust_model: bool = False) -> Program:
    """Check the bytes of a ``.pt2`` file and return what torch may load.

    Parameters
    ----------
    data : bytes
        The file's contents.
    name : str
        What to call it in messages.
    trust_model : bool
        Take a file that fails the check as it is. **Loading it can then run any code in it.**

    Raises
    ------
    ModelError
        It is no ``torch.export`` archive, or a damaged one.
    UntrustedModelError
        It contains something that is not on the allow-list.
    """
    records = _records(data, name)
    try:
        return _rebuild(records)
    except (Refused, RecursionError) as refusal:
        if trust_model:
            return Program(data, "trusted file " + _sha256(data))
        raise UntrustedModelError(
            f"model {name!r} has {refusal}. Only plain tensors and a graph of ATen operators are"
            f" loaded from a file. {REMEDY}"
        ) from None


def _sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def _records(data: bytes, name: str) -> list[tuple[str, zipfile.ZipInfo, zipfile.ZipFile]]:
    """List the archive's entries, or say what kind of file this is instead."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, OSError) as error:
        what = "a pickle" if data[:1] == b"\x80" else "not a zip archive"
        raise ModelError(
            f"model {name!r} is {what}, not a torch.export program (.pt2). Save it with"
            " torch.export.save(torch.export.export(module, (rows,), dynamic_shapes=...), path);"
            " a file of weights goes with model='package.module:factory', state=path."
        ) from error
    short = {entry.partition("/")[2] for entry in names}
    if "data.pkl" in short and "archive_format" not in short:
        kind = "TorchScript" if any(s.startswith("code/") for s in short) else "torch.save"
        raise ModelError(
            f"model {name!r} is a {kind} file, not a torch.export program (.pt2). Give weights as"
            " state= beside model='package.module:factory', or export the module with"
            " torch.export.save."
        )
    if "archive_format" not in short and "serialized_exported_program.json" not in names:
        raise ModelError(
            f"model {name!r} is a zip archive but no torch.export program: it has no"
            " archive_format. Save the model with torch.export.save."
        )
    stored = [i.file_size for i in archive.infolist() if i.compress_type == zipfile.ZIP_STORED]
    if sum(stored) > len(data):
        raise ModelError(
            f"model {name!r} is damaged: its entries claim more bytes than the file has. Copy or"
            " export it again."
        )
    return [(info.filename, info, archive) for info in archive.infolist()]


def _rebuild(records: list[tuple[str, zipfile.ZipInfo, zipfile.ZipFile]]) -> Program:
    """Write a new archive out of the entries that are allowed; refuse all others."""
    roots = {filename.partition("/")[0] for filename, _, _ in records}
    if "serialized_exported_program.json" in roots:
        raise Refused("the older layout of torch 2.7 and before, in which everything is pickled")
    if len(roots) != 1:
        raise Refused(f"more than one top folder ({', '.join(sorted(roots)[:3])})")
    entries: dict[str, bytes] = {}
    for filename, info, archive in records:
        record = filename.partition("/")[2]
        if record in entries:
            raise Refused(f"the entry {record!r} twice")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1:
            raise Refused(f"the compressed or encrypted entry {record!r}")
        try:
            entries[record] = archive.read(info)
        except (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError) as error:
            raise ModelError(
                f"the model file is damaged: {record!r} cannot be read ({error}). Copy or export"
                " it again."
            ) from error
    return _canonical(entries)


def _canonical(entries: Mapping[str, bytes]) -> Program:
    for needed in ("archive_format", MODEL, WEIGHTS, CONSTANTS):
        if needed not in entries:
            raise Refused(f"no {needed!r} (a model of another name, or another layout)")
    if entries["archive_format"] != b"pt2":
        raise Refused(f"the archive format {entries['archive_format'][:20]!r}")
    if entries.get("byteorder", sys.byteorder.encode()) != sys.byteorder.encode():
        raise Refused("the byte order of another kind of machine")
    text = json.dumps(clean_graph(_json(entries, MODEL)), separators=(",", ":"))
    kept = {MODEL: text.encode(), SAMPLE_INPUTS: b""}
    for path in (WEIGHTS, CONSTANTS):
        kept |= _payload(entries, path)
    for marker in MARKERS:
        value = entries.get(marker, b"")
        if marker != "archive_format" and not re.fullmatch(rb"[0-9]{1,4}\n?", value):
            raise Refused(f"{value[:20]!r} as {marker}")
        kept[marker] = value
    known = {*kept, "byteorder"}
    for record in entries:
        if record not in known and not IGNORED.fullmatch(record):
            raise Refused(f"the entry {record!r}")
    return Program(_write(kept), text)


def _json(entries: Mapping[str, bytes], path: str) -> Any:
    try:
        return json.loads(entries[path], parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Refused(f"{path!r} that is not JSON") from None


def _no_constant(text: str) -> None:
    """Refuse NaN and Infinity, which are no JSON; torch writes them as strings."""
    raise ValueError(text)


def _payload(entries: Mapping[str, bytes], path: str) -> dict[str, bytes]:
    """Return a config of weights or constants, checked, and the raw records to which it points."""
    document = _json(entries, path)
    config = document.get("config") if isinstance(document, dict) else None
    if not isinstance(config, dict):
        raise Refused(f"no table in {path!r}")
    kept: dict[str, bytes] = {}
    checked: dict[str, Any] = {}
    kinds: dict[str, Any] = {}
    for name, meta in config.items():
        if not isinstance(meta, dict):
            raise Refused(f"no description of {name!r} in {path!r}")
        if meta.get("use_pickle") is not False:
            raise Refused(f"a pickled tensor or object ({name!r} in {path!r}: use_pickle)")
        checked |= clean("config", {name: meta})
        record = f"{path.rpartition('/')[0]}/{meta.get('path_name')}"
        if record not in entries:
            raise Refused(f"no record {record!r} for {name!r}")
        described = meta.get("tensor_meta")
        kind, elements, extent = _described(described)
        if not entries[record] and elements:
            raise ModelError(
                f"the model file has no values for {name!r}: it was exported from fake tensors."
                " Export the module with its weights."
            )
        if kinds.setdefault(record, kind) != kind or extent > len(entries[record]):
            raise Refused(f"a description of {name!r} that does not fit its values")
        kept[record] = entries[record]
    kept[path] = json.dumps({"config": checked}).encode()
    return kept


def _described(meta: Any) -> tuple[int, int, int]:
    """Return a described tensor's type, how many numbers it has, and to which byte they reach."""
    try:
        sizes, strides = ([int(n["as_int"]) for n in meta[k]] for k in ("sizes", "strides"))
        offset, kind = int(meta["storage_offset"]["as_int"]), meta["dtype"]
        width = WIDTHS[kind]
        if min([offset, *sizes, *strides]) < 0:
            raise ValueError
        last = sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
    except (TypeError, KeyError, ValueError):
        raise Refused("a tensor without fixed sizes") from None
    elements = math.prod(sizes)
    return kind, elements, (offset + last + 1) * width if elements else 0


def _write(records: Mapping[str, bytes]) -> bytes:
    """Write records the way torch's reader wants them: stored, under one top folder."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, value in records.items():
            archive.writestr(zipfile.ZipInfo(f"model/{name}"), value)
    return buffer.getvalue()
