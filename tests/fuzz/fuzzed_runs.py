"""Stores, models and arguments at random, and what a run does with them before it has workers."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import fuzzed_models
import numpy as np
import xarray as xr
import zarr
from hypothesis import strategies as st
from typer.testing import CliRunner

from approxifer.datasets import OutputStore
from approxifer.errors import ApproxiferError
from approxifer.pipeline.api import plan_run
from approxifer.pipeline.cli.main import app
from approxifer.pipeline.planning.options import Options
from approxifer.pipeline.planning.prepare import prepare, settle, store_attributes

DTYPES = (
    "f4", "f4", "f4", "f8", "f2", "?", "i1", "u1", "<i2", ">u2", "i4", "u4", "i8", "u8", "c8",
    "c16", ">f4", "U3", "S3", "M8[ns]", "m8[s]",
)  # fmt: skip
NAMES = st.one_of(
    st.sampled_from(
        ["x", "y", "n", "time", "sample", "status", "prediction", "worker", "output_0", "coords",
         "a/b", "a b", "", "..", "c", "zarr.json", "data", "é", "\u202e", "group", "dim_0"]
    ),
    st.text(max_size=5),
)  # fmt: skip
#: Attributes that readers act on, and what is not meant by them.
ATTRIBUTES = st.dictionaries(
    st.sampled_from(
        ["_FillValue", "scale_factor", "add_offset", "missing_value", "units", "calendar", "dtype",
         "_Unsigned", "coordinates", "grid_mapping", "bounds", "flag_values", "valid_range",
         "_ARRAY_DIMENSIONS", "long_name", "a/b", ""]
    ),
    st.one_of(
        st.sampled_from(
            ["days since 2000-01-01", "months since 1960-01-01", "hours since the flood", "days",
             "noleap", "360_day", "bool", "true", "n x y", "x", "NaN", "int8", "seconds"]
        ),
        st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.floats(), st.text(max_size=5),
        st.lists(st.one_of(st.integers(0, 3), st.text(max_size=2), st.none()), max_size=3),
        st.just({"a": {"b": []}}),
    ),
    max_size=3,
)  # fmt: skip
PYTHON_ATTRIBUTES = st.dictionaries(
    st.one_of(NAMES, st.integers(), st.none()),
    st.one_of(
        st.binary(max_size=3), st.sets(st.integers(0, 3), max_size=2), st.just(object()),
        st.datetimes(), st.complex_numbers(), st.just(np.datetime64("2000-01-01")),
        st.just(np.float32(1)), st.just(np.arange(3)), st.just(np.array([None, "a"], object)),
    ),
    max_size=2,
)  # fmt: skip


@st.composite
def values(draw: st.DrawFn, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """An array; of numbers, some of them extreme."""
    kind = np.dtype(dtype)
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    found = rng.integers(0, 9, size=shape).astype(kind if kind.kind not in "mM" else "i8")
    if kind.kind in "mM":
        found = found.astype(kind)
    strange = draw(st.sampled_from(["", "", "", "nan", "large", "same"]))
    if strange == "nan" and kind.kind in "fcmM":
        found.flat[:1] = np.nan if kind.kind in "fc" else np.array("NaT", kind)
    if strange == "large" and kind.kind in "iufc":
        info = np.iinfo(kind) if kind.kind in "iu" else np.finfo(kind)
        found.flat[-1:] = info.max
    if strange == "same":
        found[...] = found.ravel()[:1] if found.size else 0
    return found


def dimensions() -> st.SearchStrategy[list[tuple[str, int]]]:
    """Names and lengths of one to four dimensions."""
    one = st.tuples(NAMES, st.sampled_from([1, 2, 3, 6, 12, 0]))
    rows = st.tuples(NAMES, st.sampled_from([12, 12, 30, 1, 0]))
    return st.tuples(rows, st.lists(one, max_size=3)).map(lambda both: [both[0], *both[1]])


@st.composite
def store(draw: st.DrawFn, folder: Path) -> Path:
    """A Zarr store with one to three arrays, written without xarray's help."""
    path = folder / draw(st.sampled_from(["in.zarr", "in", "a b.zarr", "é.zarr"]))
    version: Any = draw(st.sampled_from([2, 3]))
    group = zarr.open_group(path, mode="w", zarr_format=version)
    group.attrs.update(draw(ATTRIBUTES))
    below = group.create_group("low") if draw(st.integers(0, 7)) == 0 else group
    dims = draw(dimensions())
    written: set[str] = set()
    others = st.lists(st.sampled_from(["x", "y", "n", "time", "lat"]), max_size=2)
    for name in ["x"] * (draw(st.integers(0, 9)) > 0) + draw(others):
        along = dims if name == "x" else dims[: draw(st.integers(0, 2))]
        shape = tuple(size for _, size in along)
        named = [dim for dim, _ in along]
        if name in written:
            continue
        written.add(name)
        attributes = draw(ATTRIBUTES)
        if version == 2 and draw(st.booleans()):
            attributes.setdefault("_ARRAY_DIMENSIONS", named)
        data = draw(values(shape, draw(st.sampled_from(DTYPES))))
        chunks = tuple(draw(st.integers(1, max(size, 1))) for size in shape)
        array = below.create_array(
            name, shape=shape, chunks=chunks, dtype=data.dtype,
            dimension_names=named if version == 3 and draw(st.integers(0, 5)) else None,
            attributes=attributes,
        )  # fmt: skip
        if draw(st.integers(0, 9)):
            array[...] = data
    if draw(st.booleans()):
        zarr.consolidate_metadata(path)
    spoil = draw(st.integers(0, 19))
    if spoil == 0:
        shutil.rmtree(path)
    elif spoil == 1 and (files := sorted(one for one in path.rglob("*") if one.is_file())):
        draw(st.sampled_from(files)).write_bytes(draw(st.binary(max_size=4)))
    return path


@st.composite
def dataarray(draw: st.DrawFn) -> xr.DataArray:
    """A DataArray with coordinates and attributes that no store could hold as they are."""
    dims = [(dim or "n", size) for dim, size in draw(dimensions())]
    dims = list(dict(dims).items()) if draw(st.integers(0, 5)) else dims
    shape = tuple(size for _, size in dims)
    array = xr.DataArray(
        draw(values(shape, draw(st.sampled_from((*DTYPES, "O"))))),
        dims=[dim for dim, _ in dims],
        name=draw(st.one_of(st.none(), NAMES, st.integers(0, 3))),
        attrs=draw(st.one_of(ATTRIBUTES, PYTHON_ATTRIBUTES)),
    )
    for name in draw(st.lists(NAMES, max_size=2, unique=True)):
        along = dims[: draw(st.integers(0, 2))]
        coord = draw(values(tuple(size for _, size in along), draw(st.sampled_from(DTYPES))))
        attrs = draw(st.one_of(ATTRIBUTES, PYTHON_ATTRIBUTES))
        try:
            array = array.assign_coords({name: ([dim for dim, _ in along], coord, attrs)})
        except ValueError:  # xarray has no such coordinate
            continue
    if draw(st.integers(0, 7)) == 0:
        with contextlib.suppress(ValueError):  # names that occur twice
            array = array.chunk()
    return array


def of_six() -> st.SearchStrategy[xr.DataArray]:
    """Rows of six numbers, as `programs` take them."""
    kinds = st.sampled_from(["f4", "f4", "f8", "f2", "u1", "i8", "?"])
    return st.tuples(st.sampled_from([3, 12, 30]), kinds).flatmap(
        lambda one: values((one[0], 6), one[1]).map(lambda rows: xr.DataArray(rows, name="x"))
    )


def arguments() -> st.SearchStrategy[dict[str, Any]]:
    """Arguments of a run, mostly few."""
    texts = st.one_of(NAMES, st.sampled_from(["like-input", "float64", "fuzzed_models:same"]))
    junk = st.one_of(
        st.integers(-1, 40), st.floats(), texts, st.integers(2**62, 2**70), st.booleans(),
    )  # fmt: skip

    def mostly(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.one_of(good, good, good, junk)

    likely: dict[str, st.SearchStrategy[Any]] = {
        "variable": st.one_of(st.just("x"), st.just("x"), NAMES),
        "sample_dim": st.one_of(NAMES, st.just("n,time")),
        "scheme": st.sampled_from(
            ["systematic", "berrut", "replication", "replication-adaptive", "uncoded", "parm"]
        ),
        "k": mostly(st.integers(1, 8)),
        "stragglers": mostly(st.integers(0, 2)),
        "byzantine": mostly(st.integers(0, 2)),
        "dtype": st.sampled_from(["stored", "float64", "float16", "bfloat16", "float32", "int"]),
        "repair": mostly(st.sampled_from(["exact", "none", 0.9])),
        "order": st.one_of(
            st.sampled_from(["none", "natural", "similar", "random", "fuzzed_models:flat"]), junk
        ),
        "block": mostly(st.integers(1, 20)),
        "window": mostly(st.integers(1, 40)),
        "memory": st.one_of(st.sampled_from(["1GB", "8kB", "1", "1e300GB", "-3"]), junk),
        "check": mostly(st.integers(0, 3)),
        "hedge": st.one_of(st.sampled_from(["cubed", "spark", "2,0.5"]), junk),
        "seed": mostly(st.integers(0, 9)),
        "output": st.one_of(
            st.just("like-input"),
            st.dictionaries(
                st.sampled_from(["variable", "dims", "coords", "attrs", "dtype", "chunks",
                                 "shards", "codec", "nonsense"]),
                st.one_of(junk, st.lists(NAMES, max_size=3), st.dictionaries(NAMES, junk)),
                max_size=2,
            ),
        ),
        "storage_options": st.dictionaries(NAMES, junk, max_size=1),
        "cluster": st.dictionaries(
            st.sampled_from(["kind", "workers", "threads", "memory", "address", "queue"]),
            st.one_of(st.sampled_from(["local", "slurm", "address", "1GB"]), junk), max_size=2,
        ),
        "preprocess": st.sampled_from(fuzzed_models.NAMES).map("fuzzed_models:{}".format),
        "device": st.sampled_from(["auto", "cpu", "cuda", "mps", "tpu"]),
    }  # fmt: skip
    names = st.lists(st.sampled_from(sorted(likely)), max_size=2, unique=True)
    return names.flatmap(lambda some: st.fixed_dictionaries({name: likely[name] for name in some}))


def models() -> st.SearchStrategy[str]:
    """The name of a factory; of one that works in every second run."""
    some = st.sampled_from(fuzzed_models.NAMES)
    good = st.sampled_from(["linear", "flat", "same", "scalar"])
    return st.one_of(good, good, some).map("fuzzed_models:{}".format)


def by_command(data: Path, given: dict[str, Any]) -> str:
    """Give it to the command line with ``--dry-run``; the exit code, or the message."""
    words = ["score", str(data), "--dry-run"]
    for name, value in given.items():
        if name == "cluster":  # a file's name, there
            continue
        text = json.dumps(value) if isinstance(value, dict) else str(value)
        letter = {"k": "-k", "stragglers": "-s", "byzantine": "-e"}.get(name)
        words += [letter or f"--{name.replace('_', '-')}", text]
    result = CliRunner().invoke(app, words)
    if not isinstance(result.exception, SystemExit | None):
        raise result.exception
    assert result.exit_code in (0, 2), result.output
    assert result.exit_code or "cost" in result.stdout or "finished" in result.stdout
    assert "Traceback" not in result.output
    return "" if not result.exit_code else result.stderr


def by_call(data: Any, given: dict[str, Any]) -> str:
    """Give it to the function, and begin the output where that is all right."""
    try:
        plan_run(data=data, **given)
    except ApproxiferError as error:
        return str(error) or "no message"
    options = Options.of({"data": data, **given})
    prepared = prepare(options)
    spec, layout = settle(prepared, 1024)
    with OutputStore.create(
        options.out,
        source=prepared.source,
        output_shape=prepared.results.kept.shape,
        output_dtype=prepared.results.kept.dtype,
        forms=prepared.forms,
        chunk=layout.chunk,
        attrs=store_attributes(prepared, spec, layout),
    ) as made:
        made.dataset().load()  # as anybody would read it
    shutil.rmtree(options.out)
    return ""


def programs() -> dict[str, bytes]:
    """Programs for rows of six numbers: any batch, at most four, exactly three, bytes, two more
    inputs."""
    import torch

    class Bytes(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1).float() * 2

    class Scaled(torch.nn.Module):
        def forward(self, x: torch.Tensor, by: float = 2.0) -> torch.Tensor:
            return x.flatten(1) * by

    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 2))
    rows = torch.zeros(3, 6)
    batch = torch.export.Dim("batch", min=1, max=4)
    made: dict[str, tuple[torch.nn.Module, tuple[Any, ...], Any]] = {
        "any": (plain, (rows,), ({0: torch.export.Dim.AUTO},)),
        "most": (plain, (rows,), ({0: batch},)),
        "three": (plain, (rows,), None),
        "bytes": (Bytes(), (rows.to(torch.uint8),), ({0: torch.export.Dim.AUTO},)),
        "scaled": (Scaled(), (rows, 3.0), ({0: torch.export.Dim.AUTO}, None)),
    }
    found = {}
    for name, (module, inputs, shapes) in made.items():
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(module.eval(), inputs, dynamic_shapes=shapes)
            torch.export.save(program, buffer)
        found[name] = buffer.getvalue()
    return found
