"""The public names: documented, annotated, and no bad argument ends in an error of another's."""

from __future__ import annotations

import functools
import importlib
import inspect
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import approxifer
from approxifer.coding import CodeSpec
from approxifer.datasets import Journal, OutputStore, open_source
from approxifer.datasets.form import Forms, default_form
from approxifer.errors import ApproxiferError, ClusterError
from approxifer.models import open_model
from approxifer.pipeline import api
from approxifer.pipeline.planning.arguments import declared

PACKAGES = ("", ".coding", ".datasets", ".models", ".pipeline")


def public() -> dict[str, Any]:
    """Everything in an ``__all__``, by its full name."""
    found = {}
    for package in PACKAGES:
        module = importlib.import_module(f"approxifer{package}")
        found |= {f"{module.__name__}.{name}": getattr(module, name) for name in module.__all__}
    return found


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Those that are functions, and the methods of those that are classes."""
    for name, one in public().items():
        if inspect.isclass(one):
            for method in dir(one):
                member = inspect.getattr_static(one, method)
                wrapped = getattr(member, "__func__", getattr(member, "fget", member))
                ours = str(getattr(wrapped, "__module__", "")).startswith("approxifer")
                if not method.startswith("_") and inspect.isfunction(wrapped) and ours:
                    yield f"{name}.{method}", wrapped
        elif callable(one):
            yield name, one


def test_public_names_are_documented() -> None:
    missing = [name for name, one in functions() if not inspect.getdoc(one)]
    missing += [n for n, one in public().items() if inspect.isclass(one) and not one.__doc__]
    missing += [p for p in PACKAGES if not importlib.import_module(f"approxifer{p}").__doc__]
    assert not missing


def test_public_functions_are_annotated() -> None:
    bare = []
    for name, one in functions():
        signature = inspect.signature(one)
        parameters = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
        empty = [p.name for p in parameters if p.annotation is inspect.Parameter.empty]
        if empty or signature.return_annotation is inspect.Signature.empty:
            bare.append((name, empty))
    assert not bare


# ---- bad arguments -------------------------------------------------------------------------------

ROWS = np.linspace(-1, 1, 24, dtype=np.float32).reshape(8, 3)

#: Of simple kinds, none of which most parameters take.
BAD: list[Any] = [
    None, True, -1, 0, 3, 10**30, 10**5000, 1.5, -0.5, math.nan, math.inf, 1 + 2j, "", "nonsense",
    "\0", "\ud800", "x" * 5000, "a:b", "mean/../..", b"", b"x", [], [[1], [1, 2]], ["a"], [-1],
    [1.5], (), {}, {"a": 1}, {1: object()}, {3}, object(), int, len, lambda rows: rows,
    np.zeros(()), np.zeros((0,)), np.zeros((2, 5)), np.zeros((2, 2), "U1"), np.zeros(2, object),
    np.full((8, 3), np.nan), np.array([2**62]), np.array([99, -7]), Path(), Path("/dev/null/x"),
    xr.DataArray(np.zeros((0, 2))), xr.Dataset(), range(3), np.datetime64("NaT"),
]  # fmt: skip


def flat(rows: np.ndarray) -> np.ndarray:
    """A model, also of no rows."""
    return rows.reshape(len(rows), math.prod(rows.shape[1:]))


Made = tuple[Callable[..., Any], dict[str, Any]]


def coding(folder: Path) -> dict[str, Made]:
    """Functions of the codes, with good arguments."""
    c = approxifer.coding
    found: dict[str, Made] = {
        "CodeSpec": (CodeSpec, {"scheme": "systematic", "k": 2, "stragglers": 1, "byzantine": 0}),
        "block_rows": (c.block_rows, {"members": np.arange(5), "k": 2}),
        "build_code": (c.build_code, {"spec": CodeSpec("uncoded", 2)}),
        "gather": (c.gather, {"rows": ROWS, "members": np.arange(5), "k": 2}),
        "groups": (c.groups, {"n": 8, "k": 2, "block": 2}),
        "order_rows": (c.order_rows, {"rows": ROWS, "k": 2, "how": "none", "block": 2, "seed": 0}),
        "order_rows similar": (c.order_rows, {"rows": ROWS, "k": 2, "how": "similar", "seed": 0}),
        "register": (c.register, {"scheme": c.SCHEMES["parm"]}),
    }
    for scheme, byzantine in (
        ("uncoded", 0), ("replication", 1), ("parm", 0), ("berrut", 1), ("systematic", 0)
    ):  # fmt: skip
        code = CodeSpec(scheme, 2, byzantine=byzantine).build()
        shares = code.encode(np.stack([ROWS, ROWS]))
        outputs = dict(enumerate(shares))
        for method in ("decodable", "exact", "weights"):
            found[f"Code.{method} {scheme}"] = getattr(code, method), {"present": [0, 1]}
        for method in ("decode", "residual", "suspects"):
            call = getattr(code, method)
            found[f"Code.{method} {scheme}"] = call, {"outputs": outputs}
            found[f"Code.{method} {scheme} of one"] = (
                functools.partial(one_output, call),
                {"output": ROWS},
            )
        found[f"Code.encode {scheme}"] = code.encode, {"blocks": np.stack([ROWS, ROWS])}
    return found


def one_output(call: Callable[..., Any], output: Any) -> Any:
    """A call with a bad output beside good ones."""
    return call({0: output, 1: ROWS, 2: ROWS})


def datasets(folder: Path) -> dict[str, Made]:
    """Functions of input and output, with good arguments."""
    source = open_source(xr.DataArray(ROWS, dims=("n", "f"), name="x"))
    made = OutputStore.create(
        folder / "made.zarr",
        source=source, output_shape=(2,), output_dtype="f4", chunk=4, attrs={"model": "m"},
    )  # fmt: skip
    journal = Journal(folder / "made.zarr")
    path = folder / "none.zarr"
    growth = made.growth(source, Forms((default_form(source, (2,), "f4"),)))
    window = {
        "start": 0, "stop": 4, "prediction": np.ones((4, 2), np.float32), "status": 1, "group": 0,
        "worker": 0, "residual": 0.5,
    }  # fmt: skip
    created = {"path": path, "source": source, "output_shape": (2,), "output_dtype": "f4",
               "chunk": 4, "attrs": {}}  # fmt: skip
    return {
        "Journal": (closed(Journal), {"path": path}),
        "Journal.append": (journal.append, {"event": {"event": "x"}}),
        "Journal.read": (Journal.read, {"path": path}),
        "OutputStore.check": (made.check, {"attrs_expected": {"model": "m"}}),
        "OutputStore.check_path": (OutputStore.check_path, {"path": path}),
        "OutputStore.close": (made.close, {"counts": {}, "workers": [], "extra": {}}),
        "OutputStore.create": (closed(OutputStore.create), created),
        "OutputStore.exists": (OutputStore.exists, {"path": path}),
        "OutputStore.grow": (made.grow, {"growth": growth, "attrs": {}}),
        "OutputStore.growth": (made.growth, {"source": source, "forms": None}),
        "OutputStore.keep": (made.keep, {"attrs": {"a": 1}}),
        "OutputStore.name_itself": (made.name_itself, {"uuid": "u"}),
        "OutputStore.open": (closed(OutputStore.open), {"path": folder / "made.zarr"}),
        "OutputStore.read_prediction": (made.read_prediction, {"start": 0, "stop": 4}),
        "OutputStore.read_window": (
            made.read_window, {"start": 0, "stop": 4, "names": ("status",)}
        ),
        "OutputStore.set_pending": (made.set_pending, {"rows": [1, 2]}),
        "OutputStore.write_window": (made.write_window, window),
        "Source.coordinates": (source.coordinates, {"dims": ("f",)}),
        "Source.fingerprint": (source.fingerprint, {"length": 8}),
        "Source.follow": (source.follow, {"grid": source.grid, "appended": False}),
        "Source.read": (source.read, {"start": 0, "stop": 4}),
        "Source.reads_again": (source.reads_again, {"window": 4}),
        "codable": (
            approxifer.datasets.codable,
            {"dtype": "f4", "scheme": "systematic", "wanted": "float32"},
        ),
        "open_source": (
            open_source,
            {"data": str(folder / "made.zarr"), "variable": "prediction", "sample_dim": "n",
             "storage_options": None},
        ),
    }  # fmt: skip


def closed(make: Callable[..., Any]) -> Callable[..., None]:
    """A call that gives up at once what it has opened."""

    @functools.wraps(make)
    def called(*args: Any, **kwargs: Any) -> None:
        with make(*args, **kwargs):
            pass

    return called


def models(folder: Path) -> dict[str, Made]:
    """Functions of the models, with good arguments."""
    m = approxifer.models
    handle = open_model(flat)
    opened = {
        "model": flat, "state": None, "dtype": "float32", "device": "auto", "trust_model": False,
        "preprocess": None,
    }  # fmt: skip
    return {
        "ModelHandle.load": (handle.load, {"threads": 1}),
        "Runner": (handle.load(), {"rows": ROWS}),
        "ensure": (m.ensure, {"handle": handle, "threads": 1}),
        "forget": (m.forget, {"fingerprint": "f"}),
        "get": (m.get, {"fingerprint": handle.fingerprint}),
        "open_model": (open_model, opened),
        "probe": (m.probe, {"model": handle, "rows": ROWS, "micro_batch": 4, "seed": 0}),
        "resolve_callable": (m.resolve_callable, {"spec": flat, "what": "preprocess"}),
        "run_rows": (functools.partial(m.run_rows, flat), {"rows": ROWS, "micro_batch": 4}),
    }


#: That hold what they are given, take nothing, or are given by others.
PLAIN = {
    "Decoded", "Group", "Scheme", "Probe", "Stopped", "CodeSpec.build", "Journal.close",
    "Journal.sync", "OutputStore.dataset", "OutputStore.forget_writers", "OutputStore.release",
    "OutputStore.status", "OutputStore.attrs", "OutputStore.coordinate_notes", "Source.coords",
    "Source.notes", "Source.sample_dim", "CodeSpec.adaptive", "CodeSpec.n",
    "Code.describable", "Source.variable", "Source.described", "Source.unstored",
    "ModelHandle.cropped", "ModelHandle.with_postprocess", "Runner.run",
    "Probe.output_dtype", "Probe.output_shape",
    "raise_malloc_thresholds",
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("table", [coding, datasets, models])
def test_bad_arguments_raise_errors_of_ours(
    table: Callable[[Path], dict[str, Made]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    strange = []
    for name, (call, good) in table(tmp_path).items():
        for parameter in good:
            for bad in BAD:
                strange += strangely(call, good, parameter, bad, where=name)
    assert not strange, "\n".join(strange)


def strangely(
    call: Callable[..., Any], good: dict[str, Any], parameter: str, bad: Any, *, where: str = ""
) -> list[str]:
    """A line if the call ends in what is no error of ours."""
    try:
        call(**{**good, parameter: bad})
        return []
    except ApproxiferError as error:
        str(error)
        return []
    except Exception as error:
        found = f"{error!r:.200}"
    shown = f"<{type(bad).__name__}>" if isinstance(bad, int) else repr(bad)[:60]
    return [f"{where} {parameter}={shown}: {found}"]


def test_every_public_function_is_tried(tmp_path: Path) -> None:
    tried = {
        name.split(" ")[0]
        for table in (coding, datasets, models)
        for name in table(tmp_path / table.__name__)
    }
    classes = {name for name in tried if "." not in name} | {name.split(".")[0] for name in tried}
    for full, one in public().items():
        name = full.rpartition(".")[2]
        if callable(one) and name not in ("score", "submit"):
            assert name in classes | PLAIN, name
    for full, _ in functions():
        name = ".".join(full.split(".")[2:])
        assert name in tried | PLAIN | {"score", "submit"} or not name, full


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", range(2))
def test_bad_arguments_of_a_run_raise_errors_of_ours(
    part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_workers(*_: Any, **__: Any) -> None:
        raise ClusterError("none is started here")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(api, "open_workers", no_workers)
    good = {
        "data": xr.DataArray(ROWS, dims=("n", "f")), "model": flat, "out": tmp_path / "out.zarr",
        "progress": False,
    }  # fmt: skip
    strange = []
    for name in list(declared())[part::2]:
        for bad in BAD:
            strange += strangely(approxifer.score, good, name, bad)
    assert not strange, "\n".join(strange)


def test_a_run_takes_the_data_alone_without_a_name() -> None:
    for call in (approxifer.score, approxifer.submit):
        with pytest.raises(ApproxiferError, match="name the others"):
            call("in.zarr", "model.pt2", "out.zarr")  # type: ignore[call-arg, misc]


def test_what_cannot_be_called_is_no_model() -> None:
    with pytest.raises(ApproxiferError, match="cannot be called"):
        approxifer.models.run_rows(3, ROWS, 4)  # type: ignore[arg-type]
