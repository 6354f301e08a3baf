"""``output=``: what the user asks of the form of the predictions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from approxifer.datasets import Source
from approxifer.datasets.form import BESIDE, Form, Forms, fits, like, part_form
from approxifer.datasets.tiles.tiling import Joined
from approxifer.errors import ConfigError
from approxifer.packing import Packing, Part
from approxifer.pipeline.planning.kinds import LIKE_INPUT
from approxifer.text import did_you_mean, one_line

#: What a mapping may hold.
KEYS = ("variable", "dims", "coords", "attrs", "dtype", "chunks", "shards", "codec")


def forms_for(
    asked: Any, source: Source, packing: Packing, joined: tuple[Joined, ...] = ()
) -> Forms:
    """The forms of the predictions.

    Parameters
    ----------
    asked
        ``output=`` as given: None, ``"like-input"``, a mapping, or a template Dataset; of several
        outputs a mapping of their names to mappings, or to other names.
    source
        The input.
    packing
        The predictions, as the model returns them; of a tile without its border.
    joined
        The axes along which the one prediction of tiles is put together.

    Raises
    ------
    ConfigError
    """
    if packing.alone:
        return Forms((form_for(asked, source, packing.parts[0], joined),))
    if isinstance(asked, xr.Dataset):
        asked = _of_templates(asked, packing)
    each = dict.fromkeys(packing.names, asked) if asked is None or isinstance(asked, str) else asked
    for name in each:
        if name not in packing.names:
            hint = did_you_mean(name, packing.names) or "."
            raise ConfigError(
                f"output= has the key {name!r}{hint} The outputs are "
                f"{', '.join(packing.names)}: give a mapping for each, or a name"
            )
    coords, _ = source.coordinates(tuple(source.sizes))
    taken = {*BESIDE, *source.row_dims, *map(str, coords)}
    forms = []
    for part in packing.parts:
        settings = _settings_of(part, each)
        if (variable := _variable_of(settings, part)) in taken:
            raise ConfigError(
                f"the output {part.name!r} would be a variable {variable!r}, and the store has "
                "that name for rows' statuses and the like, or for a dimension or coordinate of "
                f'the input: give another, output={{"{part.name}": "..."}}'
            )
        forms.append(form_for(settings, source, part))
    return Forms(tuple(forms), alone=False)


def form_for(asked: Any, source: Source, part: Part, joined: tuple[Joined, ...] = ()) -> Form:
    """The form of one output.

    Parameters
    ----------
    asked
        None, ``"like-input"``, a mapping, or a template Dataset.
    source
        The input.
    part
        The output, as the model returns it.
    joined
        The axes along which those of tiles are put together.

    Raises
    ------
    ConfigError
    """
    shape = part.shape
    if asked is None:
        return part_form(source, part, joined)
    if isinstance(asked, str):  # its kind allows for no other
        _check_alike(source, part, joined)
        return part_form(source, replace(part, dims=None), joined, field=True)
    whole = _of_template(asked, source) if isinstance(asked, xr.Dataset) else asked
    given = {key: value for key, value in whole.items() if value is not None}
    for key in given:
        if key not in KEYS:
            hint = did_you_mean(key, KEYS) or "."
            raise ConfigError(f"output= has the key {key!r}{hint} Allowed: {', '.join(KEYS)}")
    settings = _settings(part_form(source, part, joined))
    if "dims" in given:
        settings |= _dims(given["dims"], source, shape, joined)
    dims = settings["dims"]
    for key, read in _READERS.items():
        if key in given:
            settings[key] = read(given[key], dims, shape)
    if "chunks" in given and "shards" not in given:
        settings["shards"] = None
    elif "shards" in given and "chunks" not in given:
        pairs = zip(settings["chunks"], settings["shards"], strict=True)
        settings["chunks"] = tuple(math.gcd(chunk, shard) for chunk, shard in pairs)
    if given.get("attrs") == LIKE_INPUT:
        settings["attrs"] = source.attrs
    return Form(shape, part.dtype, **settings)


def _settings_of(part: Part, each: Mapping[str, Any]) -> Any:
    """The settings of one of several outputs; a text is its variable's name."""
    given = each.get(part.name)
    if isinstance(given, str) and given != LIKE_INPUT:
        return {"variable": given}
    if given is None or isinstance(given, str | Mapping):
        return given
    raise ConfigError(f"output= has {given!r} for {part.name!r}: give a mapping, or a name")


def _variable_of(settings: Any, part: Part) -> Any:
    if isinstance(settings, xr.Dataset):
        return next(map(str, settings.data_vars))
    return (settings.get("variable") if isinstance(settings, Mapping) else None) or part.name


def _settings(form: Form) -> dict[str, Any]:
    """The fields of a form that can be asked for."""
    names = (*KEYS, "grid_mapping", "joined")
    return {name: getattr(form, name) for name in names}


def _check_alike(source: Source, part: Part, joined: tuple[Joined, ...]) -> None:
    shape = part.shape
    found = like(source, shape, joined)
    if found is None:
        row = dict(zip(source.feature_dims, source.feature_shape, strict=True))
        raise ConfigError(
            f"output={LIKE_INPUT!r}: the model turns a row into shape {shape}, and a row of the "
            f"input is {row or 'a single number'}: leave output= out, or name the dimensions, "
            'output={"dims": [...]}'
        )
    if not fits(source, found["dims"], part.name):
        raise ConfigError(
            f"output={LIKE_INPUT!r}: the input's dimensions {found['dims']} cannot be those "
            'of the output, which need names of their own: give others, output={"dims": [...]}'
        )


def _dims(
    given: Any, source: Source, shape: tuple[int, ...], joined: tuple[Joined, ...]
) -> dict[str, Any]:
    """The dimensions that are asked for, and what follows from them."""
    names = (given,) if isinstance(given, str) else given
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"output= has dims {given!r}: give a list of names, one for each axis")
    if clash := sorted(set(names) & set(source.row_dims)):
        raise ConfigError(
            f"output= has dims {list(names)}: {clash[0]!r} is the rows' own; name the others"
        )
    found = like(source, shape, joined)
    if found is not None and tuple(names) == found["dims"]:
        return found
    plain = {"chunks": shape, "shards": None, "grid_mapping": None}
    return plain | {"dims": tuple(names), "joined": joined}


def _lengths(given: Any, dims: tuple[str, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The lengths of chunks or shards along the dimensions; whole where nothing is said."""
    if not isinstance(given, Mapping) or not all(
        isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in given.values()
    ):
        raise ConfigError(f'output= has chunks {given!r}: give lengths by dimension, {{"x": 100}}')
    if strange := [dim for dim in given if dim not in dims]:
        raise ConfigError(
            f"output= has chunks along {strange[0]!r}; a row's prediction has the dimensions "
            f"{list(dims)}. Along the rows a chunk is what is committed at once: window= sets it"
        )
    return tuple(int(given.get(dim, size)) for dim, size in zip(dims, shape, strict=True))


def _coords(given: Any, dims: tuple[str, ...], shape: tuple[int, ...]) -> dict[str, xr.Variable]:
    if not isinstance(given, Mapping):
        raise ConfigError(f"output= has coords {given!r}: give values by name")
    return {str(name): _coord(str(name), one) for name, one in given.items()}


def _coord(name: str, given: Any) -> xr.Variable:
    """A coordinate: values along the dimension of its name, a tuple as xarray takes it, or a
    mapping of dims, data and attrs."""
    try:
        if isinstance(given, xr.Variable | xr.DataArray):
            return xr.as_variable(given).to_base_variable()
        if isinstance(given, Mapping):
            return xr.Variable(given["dims"], given["data"], given.get("attrs"))
        if isinstance(given, tuple):
            return xr.Variable(*given)
        values = np.asarray(given)
        return xr.Variable((name,) if values.ndim else (), values)
    except Exception as error:  # of what can be anything
        raise ConfigError(
            f"output= has a coordinate {name!r} that is none: {one_line(error)}. Give values, or "
            '{"dims": [...], "data": [...], "attrs": {...}}'
        ) from error


def _attrs(given: Any, dims: tuple[str, ...], shape: tuple[int, ...]) -> dict[str, Any]:
    if given == LIKE_INPUT:
        return {}  # the input has them
    if not isinstance(given, Mapping):
        raise ConfigError(f"output= has attrs {given!r}: give a mapping, or {LIKE_INPUT!r}")
    return {str(key): value for key, value in given.items()}


def _dtype(given: Any, dims: tuple[str, ...], shape: tuple[int, ...]) -> np.dtype:
    try:
        found: np.dtype = np.dtype(given)
    except TypeError as error:
        raise ConfigError(f"output= has dtype {given!r}, which numpy does not know") from error
    return found


def _codec(given: Any, dims: tuple[str, ...], shape: tuple[int, ...]) -> dict[str, Any]:
    return dict(given) if isinstance(given, Mapping) else {"name": given}


def _variable(given: Any, dims: tuple[str, ...], shape: tuple[int, ...]) -> str:
    if not isinstance(given, str):
        raise ConfigError(f"output= has variable {given!r}: give a name")
    return given


_READERS: dict[str, Callable[[Any, tuple[str, ...], tuple[int, ...]], Any]] = {
    "variable": _variable,
    "coords": _coords,
    "attrs": _attrs,
    "dtype": _dtype,
    "chunks": _lengths,
    "shards": _lengths,
    "codec": _codec,
}


def _of_templates(template: xr.Dataset, packing: Packing) -> dict[str, xr.Dataset]:
    """A template of several variables as one for each output: by their names, or in their order
    where the outputs have no names of their own."""
    names, variables = packing.names, list(map(str, template.data_vars))
    nameless = all(name == f"output_{i}" for i, name in enumerate(names))
    if set(variables) != set(names) and not (nameless and len(variables) == len(names)):
        raise ConfigError(
            f"output= is a Dataset of the variables {', '.join(variables) or 'none'}, and the "
            f"outputs are {', '.join(names)}: give one variable for each, of its name"
        )
    pairs = zip(names, names if set(variables) == set(names) else variables, strict=True)
    return {name: template[[variable]] for name, variable in pairs}


def _of_template(template: xr.Dataset, source: Source) -> dict[str, Any]:
    """A template as a mapping: its one variable, and the coordinates that have no other dimensions
    than a row's prediction."""
    if len(template.data_vars) != 1:
        raise ConfigError(
            f"output= is a Dataset of the variables {list(map(str, template.data_vars))}: a model "
            "returns one array, so give a Dataset of one variable"
        )
    ((name, variable),) = template.data_vars.items()
    dims = [str(dim) for dim in variable.dims if dim not in source.sample_dims]
    found: dict[str, Any] = {
        "variable": str(name),
        "dims": dims,
        "attrs": dict(variable.attrs),
        "dtype": variable.dtype,
        "coords": {
            str(key): one.variable
            for key, one in variable.coords.items()
            if set(one.dims) <= set(dims)
        },
    }
    for key in ("chunks", "shards"):
        lengths = variable.encoding.get(key)
        if lengths and len(lengths) == variable.ndim:
            along = zip(variable.dims, lengths, strict=True)
            found[key] = {str(d): int(n) for d, n in along if d not in source.sample_dims}
    return found
