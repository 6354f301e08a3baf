"""The form of an output: what the model's results are called, and how they are kept.

By itself a prediction that has the shape of the input's row, with two dimensions at least, is a
field on the same grid: it has the row's dimensions and chunks. Any other has dimensions
``output_0`` and so on; one of several outputs has its name in place of ``output``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from approxifer import checks
from approxifer.checks import instance, whole_number
from approxifer.datasets.input.coords import INSTRUCTIONS, nameable
from approxifer.datasets.source import Source
from approxifer.datasets.tiles.tiling import Joined, described_joins
from approxifer.errors import ConfigError
from approxifer.jsonable import jsonable
from approxifer.packing import Packing, Part
from approxifer.text import one_line

PREDICTION = "prediction"
#: The variables beside the predictions.
BESIDE = ("status", "group", "worker", "residual")

#: How chunks are compressed unless it is asked otherwise.
DEFAULT_CODEC: Mapping[str, Any] = {"name": "zstd", "configuration": {"level": 1}}
_CODECS: dict[str, type[BloscCodec] | type[GzipCodec] | type[ZstdCodec]] = {
    "blosc": BloscCodec,
    "gzip": GzipCodec,
    "zstd": ZstdCodec,
}


@dataclass(frozen=True)
class Form:
    """The variable that holds the predictions.

    Attributes
    ----------
    shape : tuple of int
        Of one row's prediction.
    model_dtype : numpy.dtype
        Of what the model returns.
    dims : tuple of str
        Names of the dimensions of one row's prediction.
    variable : str
    dtype : numpy.dtype
        Of the stored numbers; holds each of the model's.
    chunks, shards : tuple of int
        Lengths along ``dims``; ``shards`` may be None.
    codec : mapping
        The compressor as Zarr v3 has it, ``{"name": ..., "configuration": {...}}``; ``"none"``.
    attrs : mapping
    grid_mapping : str or None
        The coordinate that describes the grid's projection, as the CF conventions have it.
    coords : mapping of str to xarray.Variable
        Coordinates beside, or instead of, the input's.
    joined : tuple of Joined
        The axes along which the outputs of tiles are put together.

    Raises
    ------
    ConfigError
    """

    shape: tuple[int, ...]
    model_dtype: np.dtype
    dims: tuple[str, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None = None
    variable: str = PREDICTION
    dtype: np.dtype | None = None
    codec: Mapping[str, Any] = field(default_factory=lambda: dict(DEFAULT_CODEC))
    attrs: Mapping[str, Any] = field(default_factory=dict)
    grid_mapping: str | None = None
    coords: Mapping[str, xr.Variable] = field(default_factory=dict)
    joined: tuple[Joined, ...] = ()

    def __post_init__(self) -> None:
        if not all(size > 0 for size in self.shape):
            raise ConfigError(
                f"output_shape is {self.shape}; a prediction cannot have an empty dimension."
            )
        if not _kept(self.model_dtype):
            raise ConfigError(
                f"output_dtype is {self.model_dtype}; predictions must be numbers that Zarr has: "
                "floats, integers, bool or complex, of at most 64 bits each."
            )
        if self.dtype is None:
            object.__setattr__(self, "dtype", self.model_dtype)
        self._check_names()
        self._check_stored()

    def _check_names(self) -> None:
        if len(self.dims) != len(self.shape):
            raise ConfigError(
                f"output= names the dimensions {self.dims}, and the model turns a row into shape "
                f"{self.shape}: give {len(self.shape)} names"
            )
        names = [self.variable, *self.dims]
        for name in names:
            if name in BESIDE or names.count(name) > 1:
                raise ConfigError(
                    f"output= uses the name {name!r} twice: variable and dimensions need names of "
                    f"their own, none of {', '.join(BESIDE)}"
                )
            if (why := nameable(name)) is not None:
                raise ConfigError(f"output= has the name {name!r}: {why}")
        for name, coord in self.coords.items():
            if name in (self.variable, *BESIDE) or (name in self.dims and coord.dims != (name,)):
                raise ConfigError(
                    f"output= has a coordinate {name!r} along {coord.dims}: the name is taken"
                )
            for dim, size in coord.sizes.items():
                if dim not in self.dims or size != self.lengths[self.dims.index(str(dim))]:
                    sizes = dict(zip(self.dims, self.lengths, strict=True))
                    raise ConfigError(
                        f"output= has a coordinate {name!r} of {size} along {dim!r}; a row's "
                        f"prediction has {sizes or 'no dimensions'}. Coordinates of the rows come "
                        "from the input"
                    )

    def _check_stored(self) -> None:
        assert self.dtype is not None
        if not _kept(self.dtype) or not np.can_cast(self.model_dtype, self.dtype, "safe"):
            raise ConfigError(
                f"output= asks for dtype {self.dtype}, and the model returns {self.model_dtype}: "
                "give one that holds all its numbers; to store less, let the model return it"
            )
        if strange := sorted(set(self.attrs) & set(INSTRUCTIONS)):
            raise ConfigError(
                f"output= has the attributes {strange}, by which xarray would change the numbers "
                "on reading: leave them out"
            )
        try:
            jsonable(self.attrs)
        except ConfigError as error:
            raise ConfigError(f"output= has attributes that JSON cannot hold: {error}") from error
        for shard, chunk in zip(self.shards or (), self.chunks, strict=bool(self.shards)):
            if shard % chunk:
                raise ConfigError(
                    f"output= asks for shards {self.shards} and chunks {self.chunks} along "
                    f"{self.dims}: a shard holds whole chunks"
                )
        for one in self.joined:
            if one.tile % (self.shards or self.chunks)[one.axis]:
                raise ConfigError(
                    f"output= asks for chunks {self.shards or self.chunks} along {self.dims}: the "
                    f"output of a tile is whole chunks, so along {self.dims[one.axis]!r} give a "
                    f"length that divides {one.tile}"
                )
        compressors(self.codec)

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths of the predictions along ``dims``: of tiles put together, the whole."""
        whole = {one.axis: one.length for one in self.joined}
        return tuple(whole.get(axis, size) for axis, size in enumerate(self.shape))

    @property
    def factors(self) -> dict[str, int]:
        """By dimension, how many points of the input make up one of the predictions."""
        return {self.dims[one.axis]: one.factor for one in self.joined}

    @property
    def stored_dtype(self) -> np.dtype:
        """The dtype of the stored numbers."""
        assert self.dtype is not None
        return self.dtype

    def __str__(self) -> str:
        sizes = zip(self.dims, self.lengths, strict=True)
        along = ", ".join(f"{dim}: {size}" for dim, size in sizes)
        what = "for each row" if not self.joined else "put together"
        return f"{self.variable} ({along}) {self.stored_dtype} {what}"

    def described(self) -> dict[str, Any]:
        """The form as a store keeps it, and compares it on resume."""
        return {
            "variable": self.variable,
            "dims": list(self.dims),
            "dtype": self.stored_dtype.name,
            "model_dtype": self.model_dtype.name,
            "chunks": list(self.chunks),
            "shards": None if self.shards is None else list(self.shards),
            "codec": jsonable(self.codec),
            "attrs": jsonable(self.attrs),
            "coords": {name: _mark(coord) for name, coord in self.coords.items()},
            **({"joined": described_joins(self.joined)} if self.joined else {}),
        }


def _kept(dtype: np.dtype) -> bool:
    """True for numbers that Zarr has a dtype for: none that are wider than 64 bits."""
    return dtype.kind in "fiubc" and dtype.itemsize <= (16 if dtype.kind == "c" else 8)


@dataclass(frozen=True)
class Forms:
    """The variables that hold the predictions.

    Attributes
    ----------
    each : tuple of Form
    alone : bool
        False where the predictions are several outputs, be there only one of them.

    Raises
    ------
    ConfigError
    """

    each: tuple[Form, ...]
    alone: bool = True

    def __post_init__(self) -> None:
        names = [form.variable for form in self.each]
        sizes: dict[str, int] = {}
        coords: dict[str, xr.Variable] = {}
        for form in self.each:
            if names.count(form.variable) > 1:
                raise ConfigError(f"output= gives two outputs the name {form.variable!r}")
            if strange := sorted({form.variable, *form.coords} & set(self.dims) - set(form.dims)):
                raise ConfigError(
                    f"output= uses {strange[0]!r} as the name of a variable and of a dimension of "
                    "another: give them names of their own"
                )
            for dim, size in zip(form.dims, form.lengths, strict=True):
                if sizes.setdefault(dim, size) != size:
                    raise ConfigError(
                        f"output= has the dimension {dim!r} with {sizes[dim]} and with {size}: "
                        "variables that share a dimension are of one length along it"
                    )
            for name, coord in form.coords.items():
                before: Any = coords.setdefault(name, coord)
                if name in names or not before.identical(coord):
                    raise ConfigError(
                        f"output= has a coordinate {name!r} twice, or a variable of that name"
                    )

    @property
    def packing(self) -> Packing:
        """The way of the predictions into one array."""
        parts = tuple(Part(form.variable, form.shape, form.model_dtype) for form in self.each)
        return Packing(parts, self.alone)

    @property
    def dims(self) -> dict[str, tuple[int, int]]:
        """The dimensions of a row's predictions, with the lengths of what is one file, and whole.

        Along one that several variables share, the first decides.
        """
        found: dict[str, tuple[int, int]] = {}
        for form in self.each:
            lengths = form.shards or form.chunks
            for dim, length, size in zip(form.dims, lengths, form.lengths, strict=True):
                found.setdefault(dim, (length, size))
        return found

    @property
    def coords(self) -> dict[str, xr.Variable]:
        """Coordinates beside, or instead of, the input's."""
        return {name: coord for form in self.each for name, coord in form.coords.items()}

    @property
    def factors(self) -> dict[str, int]:
        """By dimension, how many points of the input make up one of the predictions."""
        return {dim: factor for form in self.each for dim, factor in form.factors.items()}

    @property
    def variables(self) -> set[str]:
        """The variables' names."""
        return {form.variable for form in self.each}

    @property
    def taken(self) -> set[str]:
        """Names that the sample dimension cannot have in the store."""
        return {*self.variables, *BESIDE, *self.dims}

    def __str__(self) -> str:
        return "; ".join(map(str, self.each))

    def described(self) -> dict[str, Any]:
        """The forms as a store keeps them, and compares them on resume."""
        each = [form.described() for form in self.each]
        return each[0] if self.alone else {"variables": each}


def default_form(source: Source, shape: tuple[int, ...], dtype: Any) -> Form:
    """The form that a prediction has by itself: like the input's row, or ``output_0, ...``."""
    instance("output_shape", shape, (tuple, list), "the lengths of a row's prediction")
    shape = tuple(whole_number("output_shape", size, least=0) for size in shape)
    return part_form(source, Part(PREDICTION, shape, checks.dtype("output_dtype", dtype)))


def part_form(
    source: Source, part: Part, joined: tuple[Joined, ...] = (), *, field: bool | None = None
) -> Form:
    """The form that one output has by itself; ``field``: as the input's row, or not. The outputs
    of tiles are ``joined``."""
    fields = like(source, part.shape, joined) if field is not False else None
    if field is None and fields is not None:
        able = joined or (part.dims is None and len(part.shape) > 1)
        fields = fields if able and fits(source, fields["dims"], part.name) else None
    if fields is None:
        stem = "output" if part.name == PREDICTION else part.name
        dims = plain_dims(part.shape, stem) if part.dims is None else part.dims
        fields = {"dims": dims, "chunks": part.shape, "joined": joined}
    if part.about:
        fields["attrs"] = {"long_name": part.about}
    return Form(part.shape, part.dtype, variable=part.name, **fields)


def like(
    source: Source, shape: tuple[int, ...], joined: tuple[Joined, ...] = ()
) -> dict[str, Any] | None:
    """The fields of a form that are as the input's row, or as that of each of its variables; None
    where the shapes differ.

    Of tiles, the axes that are put together are as the input's, whatever the others are.
    """
    tiled = () if source.tiling is None else source.tiling.dims
    cut = {one.axis: dim for one, dim in zip(joined, tiled, strict=True)}
    named = source.attrs.get("grid_mapping")
    whole = all(one.factor == 1 for one in joined) and isinstance(named, str)
    fields: dict[str, Any] = {"grid_mapping": named if whole else None, "joined": joined}
    for first in range(source.stacked + 1):
        dims, lengths = source.feature_dims[first:], source.feature_shape[first:]
        same = len(dims) == len(shape) and all(
            cut.get(axis) == dim if dim in tiled else size == length
            for axis, (dim, size, length) in enumerate(zip(dims, shape, lengths, strict=True))
        )
        if same:
            chunks, shards = source.feature_chunks[first:], source.feature_shards
            if cut:
                chunks = tuple(shape[i] if i in cut else c for i, c in enumerate(chunks))
            kept = None if shards is None or cut else shards[first:]
            return fields | {"dims": dims, "chunks": chunks, "shards": kept}
    if cut:
        dims = tuple(cut.get(axis, name) for axis, name in enumerate(plain_dims(shape)))
        return fields | {"dims": dims, "chunks": shape, "shards": None}
    return None


def plain_dims(shape: tuple[int, ...], stem: str = "output") -> tuple[str, ...]:
    """``output_0``, ``output_1``, ...: dimensions that nobody has named."""
    return tuple(f"{stem}_{axis}" for axis in range(len(shape)))


def fits(source: Source, dims: tuple[str, ...], variable: str = PREDICTION) -> bool:
    """True if dimensions of the input's row can be those of a prediction."""
    names = (*dims, variable, *BESIDE, *source.row_dims)
    return len(set(names)) == len(names) and all(nameable(one) is None for one in names)


def compressors(codec: Mapping[str, Any]) -> list[BytesBytesCodec]:
    """A codec as zarr has it.

    Raises
    ------
    ConfigError
    """
    name, settings = codec.get("name"), codec.get("configuration", {})
    if name == "none" and not settings:
        return []
    try:
        return [_CODECS[str(name)].from_dict(dict(codec))]
    except Exception as error:  # of settings that can be anything
        why = "" if isinstance(error, KeyError) else f": {one_line(error)}"
        raise ConfigError(
            f"output= asks for the codec {dict(codec)!r}{why}. Give {', '.join(_CODECS)} or none; "
            'with settings, {"name": "zstd", "configuration": {"level": 3}}'
        ) from error


def _mark(coord: xr.Variable) -> str:
    """Values of a coordinate, in short."""
    values = np.asarray(coord.values)
    content = repr(values.tolist()) if values.dtype.kind == "O" else values.tobytes()
    whole = content.encode() if isinstance(content, str) else content
    shown = f"{coord.dtype}{coord.dims}{sorted(map(str, coord.attrs.items()))}".encode()
    return hashlib.sha256(shown + whole).hexdigest()[:16]
