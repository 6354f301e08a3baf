"""The coordinates of an input, as an output store can keep them.

An input's coordinates may hold anything. What Zarr v3 has a specification for, and plain xarray
opens without a warning, is kept as xarray itself would write it. The rest is left out, or changed
as little as that takes; either way it is noted, before any worker is asked for.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from xarray.conventions import decode_cf_variable, encode_cf_variable

from approxifer.datasets.codecs import check_memory
from approxifer.datasets.input.opening import DECODING
from approxifer.jsonable import jsonable
from approxifer.quiet import quiet
from approxifer.text import one_line, shortened

#: Attributes that are xarray's instructions on how to read; a decoded coordinate has none.
INSTRUCTIONS = (*DECODING, "coordinates", "_ARRAY_DIMENSIONS", "_Encoding")
_OF_TIMES = ("units", "calendar")
_NUMBERS = {
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "complex64", "complex128",
}  # fmt: skip
#: Bytes of the longest name: it becomes a folder's.
_LONGEST = 200


@dataclass
class Coordinates:
    """Coordinates, encoded.

    Attributes
    ----------
    kept : dict of str to xarray.Variable
        Numbers and text, with the attributes by which they are decoded.
    left_out : list of str
        Names.
    notes : list of str
        A sentence on each that is left out or changed.
    """

    kept: dict[str, xr.Variable] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class _UnfitError(Exception):
    """The coordinate cannot be kept; the message has the reason."""


def storable(
    coords: Mapping[Any, xr.Variable], *, taken: Collection[str] = (), notes: Collection[str] = ()
) -> Coordinates:
    """Encode coordinates for an output store; never fail.

    Parameters
    ----------
    coords
        By name, decoded.
    taken
        Names that the store itself uses.
    notes
        What is known already.
    """
    found = Coordinates(notes=list(notes))
    for name, coord in coords.items():
        remarks: list[str] = []
        shown = repr(shortened(name, 60)) if isinstance(name, str) else shortened(repr(name), 60)
        try:
            _check_name(name, taken)
            with quiet():
                found.kept[name] = _encoded(name, coord, remarks)
        except Exception as error:  # of a coordinate that can be anything
            found.left_out.append(str(name))
            why = str(error) if isinstance(error, _UnfitError) else shortened(one_line(error), 200)
            found.notes.append(f"the coordinate {shown} is left out: {why or type(error).__name__}")
        else:
            found.notes += [f"the coordinate {shown} {one}" for one in remarks]
    return found


def coarsened(
    coords: Mapping[Any, xr.Variable], factors: Mapping[str, int]
) -> tuple[dict[Any, xr.Variable], list[str]]:
    """Coordinates of a coarser grid: means of so many points by dimension, fewer at the end.

    Returns
    -------
    coordinates : dict of str to xarray.Variable
    notes : list of str
        On those of which there is no mean.
    """
    found: dict[Any, xr.Variable] = {}
    notes = []
    for name, coord in coords.items():
        windows = {dim: factors[dim] for dim in map(str, coord.dims) if factors.get(dim, 1) > 1}
        try:
            mean = xr.DataArray(coord).coarsen(windows, boundary="pad").mean if windows else None
            found[name] = coord if mean is None else mean(keep_attrs=True).variable
        except Exception as error:  # of a coordinate that can be anything
            notes.append(f"the coordinate {name!r} has no mean: {shortened(one_line(error), 100)}")
    return found, notes


def encoded_like(name: str, coord: xr.Variable, stored: xr.Variable) -> xr.Variable:
    """Encode a coordinate in the units and type of one that is stored.

    Raises
    ------
    ValueError
        Its values have no such form.
    """
    values = _values(coord, [])
    if not _is_time(values):
        plain = _encoded(name, coord, [])
    else:
        asked = {key: stored.attrs[key] for key in _OF_TIMES if key in stored.attrs}
        asked["dtype"] = stored.dtype
        found = encode_cf_variable(xr.Variable(coord.dims, values, {}, asked), name=name)
        plain = xr.Variable(coord.dims, found.values, stored.attrs)  # xarray may take other units
        back = decode_cf_variable(name, plain).values
        if not ((back == values) | (pd.isnull(back) & pd.isnull(values))).all():
            raise ValueError(f"its times are no {stored.dtype} in {stored.attrs.get('units')!r}")
    texts = plain.dtype.kind in "OT" and stored.dtype.kind in "OT"
    if plain.dtype != stored.dtype and not texts:
        raise ValueError(f"it is stored as {stored.dtype}, and is {plain.dtype} now")
    return plain


def equal(name: str, one: xr.Variable, other: xr.Variable) -> bool:
    """True if two encoded coordinates have the same values."""
    a, b = (decode_cf_variable(name, each).load().values for each in (one, other))
    if a.shape != b.shape:
        return False
    if "O" in (a.dtype.kind, b.dtype.kind) or "T" in (a.dtype.kind, b.dtype.kind):
        return bool(a.astype(object).tolist() == b.astype(object).tolist())
    return bool(((a == b) | (pd.isnull(a) & pd.isnull(b))).all())


def decoded(name: str, raw: xr.Variable) -> tuple[xr.Variable, str | None]:
    """Decode a coordinate as xarray does; times that it cannot decode stay numbers.

    Returns
    -------
    coordinate : xarray.Variable
        In memory, where it could be read.
    note : str or None
        On times that stay numbers.
    """
    try:
        values = xr.Variable(raw.dims, raw.values, raw.attrs)
    except Exception:  # a damaged or crafted chunk: `storable` meets it again, and notes it
        return raw, None
    try:
        return decode_cf_variable(name, values).load(), None
    except Exception as error:
        numbers = decode_cf_variable(name, values, decode_times=False, decode_timedelta=False)
        if importlib.util.find_spec("cftime") is None:
            why = "install cftime, which decodes other calendars and far years"
        else:
            why = shortened(one_line(error).split(" Try opening")[0], 160)
        units = " ".join(str(raw.attrs[key]) for key in _OF_TIMES if key in raw.attrs)
        return numbers, (
            f"the times of the coordinate {name!r} ({shortened(units, 60)}) cannot be decoded, and "
            f"are kept as numbers: {why}"
        )


def nameable(name: Any) -> str | None:
    """The reason why Zarr cannot have an array of this name, with what to do; None if it can."""
    if not isinstance(name, str):
        return "its name is no text; rename it"
    if not name or name == "zarr.json" or name.startswith("__") or set(name) <= {"."}:
        return "Zarr allows for no such name; rename it"
    if "/" in name or "\0" in name or len(name.encode()) > _LONGEST:
        return (
            f"Zarr makes a folder of its name, which can hold no '/' and {_LONGEST} bytes at most; "
            "rename it"
        )
    return None


def _check_name(name: Any, taken: Collection[str]) -> None:
    if isinstance(name, str) and name in taken:
        raise _UnfitError("the output has a variable of this name; rename it")
    if (why := nameable(name)) is not None:
        raise _UnfitError(why)


def _encoded(name: str, coord: xr.Variable, remarks: list[str]) -> xr.Variable:
    """The coordinate as numbers or text that are written as they are."""
    check_memory(f"the coordinate {name!r}", coord.size, np.dtype(np.int64))
    values = _values(coord, remarks)
    attrs = _attributes(coord.attrs, remarks, times=_is_time(values))
    plain = encode_cf_variable(xr.Variable(coord.dims, values, attrs), name=name)
    if plain.dtype.kind in "OUT":
        plain = xr.Variable(plain.dims, _text(plain.values, remarks), plain.attrs)
    elif plain.dtype.name not in _NUMBERS:
        raise _UnfitError(f"Zarr v3 has no specification for {values.dtype}")
    if any(key in plain.attrs for key in _OF_TIMES) and not _opens(name, plain):
        if _is_time(values):
            raise _UnfitError("xarray cannot read its times back")
        for key in _OF_TIMES:
            if key in plain.attrs:
                plain.attrs[f"undecoded_{key}"] = plain.attrs.pop(key)
        remarks.append("is kept as numbers, its units in the attribute 'undecoded_units'")
    return plain


def _values(coord: xr.Variable, remarks: list[str]) -> np.ndarray:
    """The values in one of numpy's types of which xarray can make numbers or text."""
    if isinstance(coord.dtype, pd.DatetimeTZDtype):
        remarks.append(f"is kept in UTC: Zarr has no time zones ({coord.dtype.tz})")
        return np.asarray(pd.DatetimeIndex(coord.to_index()).tz_convert("UTC").tz_localize(None))
    values = np.asarray(coord.values)
    if values.dtype.kind == "S" or _all(values, bytes):
        try:
            found = [bytes(value).decode() for value in values.flat]
        except UnicodeDecodeError:
            raise _UnfitError("Zarr v3 has no specification for bytes; make text of them") from None
        remarks.append("is kept as text: Zarr v3 has no specification for bytes")
        return np.array(found, dtype=object).reshape(values.shape)
    if _all(values, tuple):
        raise _UnfitError("it joins several levels (a MultiIndex), which are kept for themselves")
    if _all(values, pd.Timestamp):
        if len({value.tz for value in values.flat}) > 1:
            raise _UnfitError("it holds times of several zones")
        index = pd.DatetimeIndex(list(values.flat))
        remarks.append(f"is kept in UTC: Zarr has no time zones ({index.tz})")
        return np.asarray(index.tz_convert("UTC").tz_localize(None)).reshape(values.shape)
    return values


def _all(values: np.ndarray, kind: type) -> bool:
    return (
        values.dtype.kind == "O"
        and bool(values.size)
        and all(isinstance(value, kind) for value in values.flat)
    )


def _is_time(values: np.ndarray) -> bool:
    first = values.flat[0] if values.dtype.kind == "O" and values.size else None
    return values.dtype.kind in "mM" or type(first).__module__.startswith("cftime")


def _text(values: np.ndarray, remarks: list[str]) -> np.ndarray:
    """Text as objects, which Zarr v3 writes as strings of any length."""
    texts = values.astype(object)
    absent = [not isinstance(value, str) and pd.isna(value) is True for value in texts.flat]
    missing = np.array(absent).reshape(texts.shape)
    texts[missing] = ""
    if strange := [value for value in texts.flat if not isinstance(value, str)]:
        raise _UnfitError(f"it holds {type(strange[0]).__name__}, for which Zarr has no form")
    if missing.all():
        raise _UnfitError("all of its values are missing")
    "".join(texts.flat).encode()  # lone surrogates are no text
    if missing.any():
        remarks.append(f"has '' where text is missing ({int(missing.sum()):,} values)")
    return texts


def _attributes(attrs: Mapping[Any, Any], remarks: list[str], *, times: bool) -> dict[str, Any]:
    """Attributes as JSON has them, without those that xarray would obey."""
    instructions = (*INSTRUCTIONS, *(_OF_TIMES if times else ()))
    plain = {str(key): _plain(value) for key, value in attrs.items() if key not in instructions}
    if changed := [name for name, (_, as_it_is) in plain.items() if not as_it_is]:
        remarks.append(f"has attributes that JSON cannot hold, kept as text: {', '.join(changed)}")
    if dropped := [str(key) for key in attrs if key in instructions]:
        remarks.append(
            f"loses attributes by which xarray would change it on reading: {', '.join(dropped)}"
        )
    return {name: value for name, (value, _) in plain.items()}


def _plain(value: Any) -> tuple[Any, bool]:
    """An attribute's value as JSON has it, and whether it is the same."""
    try:
        return jsonable(value), not isinstance(value, set | frozenset)
    except Exception:  # of a value that can be anything
        text = value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
        return text, False


def _opens(name: str, plain: xr.Variable) -> bool:
    """True if xarray reads it back."""
    try:
        decode_cf_variable(name, plain).load()
    except Exception:  # without cftime, say, or out of range
        return False
    return True
