"""An output store that is there already, as a run goes on with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import NonNegativeInt, PositiveInt, TypeAdapter, ValidationError

from approxifer.datasets import OutputStore, Source
from approxifer.datasets.compare import code_as_now
from approxifer.errors import FingerprintError, StoreError
from approxifer.packing import Packing
from approxifer.pipeline.planning.partition import Layout


def follow(source: Source, store: OutputStore, *, append: bool) -> None:
    """Number the input's rows as the store does.

    Raises
    ------
    FingerprintError
        They are made up of other variables or tiles, or lie along other dimensions.
    """
    _check_rows(source, store)
    now, then = source.grid.shape, store.grid.shape
    if len(now) != len(then):
        raise FingerprintError(
            f"The output store {store.path} has rows along {', '.join(store.row_dims)}, and "
            f"these lie along {', '.join(source.row_dims)}: give sample_dim= (--sample-dim) as "
            "it was begun, or write to another path (--out)."
        )
    fixed = 1 if source.sample_dims else 0  # the tiles of an image that has grown are others
    for dim, size, before in list(zip(source.row_dims, now, then, strict=True))[fixed:]:
        if size != before:
            raise FingerprintError(
                f"The input had {before:,} along {dim!r} when the output store {store.path} was "
                f"begun, and has {size:,}: only along the first sample dimension can rows be "
                "appended. Write to another path (--out)."
            )
    source.follow(store.grid, appended=append and now[0] > then[0])


def _check_rows(source: Source, store: OutputStore) -> None:
    stored, now = store.attrs, source.described()
    for name, option in (("variables", "--variables"), ("tiles", "--tile, --halo")):
        if stored.get(name) != now.get(name):
            given, begun = (_in_words(one.get(name)) for one in (now, stored))
            raise FingerprintError(
                f"The output store {store.path} was begun with {name} {begun}, and is given "
                f"{given}: give them as it was begun ({option}), or write to another path (--out)."
            )


def _in_words(made_of: Any) -> str:
    if isinstance(made_of, list):
        return ", ".join(map(str, made_of))
    return "none" if made_of is None else str(made_of)


def attributes(store: OutputStore) -> dict[str, Any]:
    """The attributes of a store, of which a run is made again.

    Raises
    ------
    StoreError
        They are not as they were written.
    """
    attrs = store.attrs
    code, layout = code_as_now(attrs.get("code")), attrs.get("layout")
    try:
        TypeAdapter(Layout).validate_python(layout)
        Layout.of(layout or {})  # which takes no others
        TypeAdapter(PositiveInt).validate_python((code or {})["k"], strict=True)
        TypeAdapter(NonNegativeInt).validate_python((code or {})["byzantine"], strict=True)
    except (ValidationError, KeyError, TypeError) as error:
        raise StoreError(
            f"The output store {store.path} is not as approxifer writes it: code {code!r}, layout "
            f"{layout!r}. Restore its zarr.json from a copy, or write to another path."
        ) from error
    return attrs | {"code": code}


def check_outputs(path: Path, now: Packing, begun: Packing) -> None:
    """Refuse to go on with a store of other outputs, which accepted changes of code may bring.

    Raises
    ------
    FingerprintError
    """
    if [(p.shape, p.dtype) for p in now.parts] != [(p.shape, p.dtype) for p in begun.parts]:
        raise FingerprintError(
            f"The output store {path} holds {begun} for each row, and there would be {now}: give "
            "the model and postprocess= that it was begun with, or write to another path (--out)."
        )
