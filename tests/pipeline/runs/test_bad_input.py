"""Bad input is refused at once, in one line, and leaves nothing behind: no file, no process."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import shutil
import subprocess
import sys
import sysconfig
import time
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import toy_models
import xarray as xr
from bad_input import (
    arguments,
    begun,
    check_line,
    children,
    importable,
    refused,
    snapshot,
    without_cluster,
)
from typer.testing import CliRunner

import approxifer
from approxifer.errors import ApproxiferError, ConfigError, InputNotFoundError, ModelError
from approxifer.pipeline.cli.main import app


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`bad_models`, importable here and in processes that inherit the environment."""
    importable(tmp_path / "modules", monkeypatch)
    yield
    sys.modules.pop("bad_models", None)


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting a cluster is a failure here, and takes no time."""
    without_cluster(monkeypatch)


# ---- the input -----------------------------------------------------------------------------------

INPUTS = {
    "missing": (["IN={tmp}/none.zarr"], ["Found no dataset", "none.zarr"]),
    "a text file": (["IN={tmp}/text"], ["is not Zarr"]),
    "an empty folder": (["IN={tmp}/empty"], ["is not Zarr"]),
    "no such variable": (["--variable", "y"], ["'y'", "'x'"]),
    "no such dimension": (["--sample-dim", "time"], ["'time'", "sample"]),
    "two variables": (["IN={tmp}/two.zarr"], ["'t2m'", "'z500'", "variable"]),
    "no rows": (["IN={tmp}/norows.zarr"], ["row"]),
    "token ids": (["IN={tmp}/tokens.zarr"], ["int64", "scheme='systematic'", "uncoded"]),
    "text": (["IN={tmp}/names.zarr", "--scheme", "uncoded"], ["not made of numbers"]),
    "a damaged chunk": (["IN={tmp}/damaged.zarr"], ["rows 0 to", "'x'"]),
}


def write(path: Path, **variables: Any) -> None:
    data = {name: (("sample", "f")[: value.ndim], value) for name, value in variables.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr's, about strings
        xr.Dataset(data).to_zarr(path, consolidated=False)


@pytest.fixture
def inputs(tmp_path: Path, store: Path) -> Path:
    floats = np.ones((10, 3), np.float32)
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").mkdir()
    write(tmp_path / "two.zarr", t2m=floats, z500=floats)
    write(tmp_path / "norows.zarr", x=floats[:0])
    write(tmp_path / "tokens.zarr", x=np.ones((10, 3), np.int64))
    write(tmp_path / "names.zarr", x=np.array([["a", "b"]] * 4))
    shutil.copytree(store, tmp_path / "damaged.zarr")
    chunk = tmp_path / "damaged.zarr" / "x" / "c" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:40])
    return store


@pytest.mark.usefixtures("no_cluster", "inputs")
@pytest.mark.parametrize("name", INPUTS)
def test_inputs(tmp_path: Path, name: str) -> None:
    changes, messages = INPUTS[name]
    shown = refused(tmp_path, *changes)
    for message in messages:
        assert message in shown


# ---- the model -----------------------------------------------------------------------------------

MODELS = {
    "missing file": (["--model", "{tmp}/none.pt2"], ["none.pt2"]),
    "a text file": (["--model", "{tmp}/text.pt2"], ["text.pt2", "not a zip archive"]),
    "a pickle": (["--model", "{tmp}/pickled.pt2"], ["pickled.pt2", "pickle"]),
    "no such module": (["--model", "nowhere_at_all:f"], ["no module 'nowhere_at_all'"]),
    "no such name": (["--model", "bad_models:linaer"], ["no 'linaer'", "'linear'"]),
    "neither": (["--model", "resnet"], ["'resnet'"]),
    "a factory that raises": (["--model", "bad_models:broken"], ["no weights here"]),
    "a factory of nothing": (["--model", "bad_models:nothing"], ["returned a int"]),
    "raises on sample rows": (["--model", "bad_models:raises"], ["raised on float32 rows"]),
    "other rows out than in": (["--model", "bad_models:forgets_rows"], ["rows"]),
    "integers to interpolate": (["--model", "bad_models:integers"], ["int64", "interpolated"]),
    "dropout": (["--model", "bad_models:dropout"], ["random numbers", "eval()"]),
    "batch norm in training": (["--model", "bad_models:batchnorm"], ["BatchNorm", "eval()"]),
    "missing weights": (
        ["--model", "bad_models:small", "--state", "{tmp}/none.pt"],
        ["none.pt"],
    ),
    "weights that are none": (
        ["--model", "bad_models:small", "--state", "{tmp}/text.pt2"],
        ["text.pt2"],
    ),
    "no such dtype": (["--dtype", "float33"], ["'float33'"]),
    "no such device": (["--device", "abacus"], ["'abacus'"]),
    "no such preprocess": (["--preprocess", "bad_models:quarter"], ["no 'quarter'"]),
    "preprocess that is no name": (["--preprocess", "quarter"], ["'quarter'"]),
    "preprocess that drops rows": (["--preprocess", "bad_models:half"], ["one row for each"]),
    "preprocess that raises": (["--preprocess", "bad_models:cannot"], ["cannot do this"]),
    "preprocess that couples rows": (
        ["--preprocess", "bad_models:centred"],
        ["preprocess 'bad_models:centred'", "among other rows", "fixed statistics"],
    ),
    "preprocess of chance": (
        ["--preprocess", "bad_models:noisy"],
        ["preprocess 'bad_models:noisy'", "random numbers"],
    ),
    "features of chance": (
        ["--order", "similar", "--features", "bad_models:noisy"],
        ["features 'noisy'", "random numbers"],
    ),
    "features in another order": (["--features", "bad_models:half"], ["order='similar'"]),
    "features that are missing": (
        ["--order", "similar", "--features", "bad_models:quarter"],
        ["features='bad_models:quarter'", "no 'quarter'"],
    ),
    "features of half the rows": (
        ["--order", "similar", "--features", "bad_models:half"],
        ["features gave", "for each row"],
    ),
    "features that raise": (
        ["--order", "similar", "--features", "bad_models:cannot"],
        ["features raised", "cannot do this"],
    ),
}


@pytest.mark.usefixtures("no_cluster", "store")
@pytest.mark.parametrize("name", MODELS)
def test_models(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.pt2").write_text("hello")
    (tmp_path / "pickled.pt2").write_bytes(pickle.dumps({"a": 1}))
    changes, messages = MODELS[name]
    shown = refused(tmp_path, *changes)
    for message in messages:
        assert message in shown


class Payload:
    """An object whose unpickling makes a file, and gives an empty dict."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"[open({self.marker!r}, 'w').close(), {{}}][1]",)


@pytest.fixture(scope="module")
def program() -> bytes:
    """A good ``.pt2``."""
    import torch

    plain = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2)).eval()
        batch = {0: torch.export.Dim("batch", min=1, max=512)}
        exported = torch.export.export(net, (torch.zeros(3, 4, 4),), dynamic_shapes=(batch,))
        torch.export.save(exported, plain)
    return plain.getvalue()


def craft(program: bytes, path: Path, marker: Path) -> None:
    """Write the program with a pickle as one of its weights, which makes the marker's file."""
    import torch

    saved = io.BytesIO()
    torch.save(Payload(marker), saved)
    with zipfile.ZipFile(io.BytesIO(program)) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (n for n in records if n.endswith("data/weights/model_weights_config.json"))
    config = json.loads(records[name])
    meta = next(iter(config["config"].values()))
    meta["use_pickle"] = True
    records[name.replace("model_weights_config.json", meta["path_name"])] = saved.getvalue()
    records[name] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for record, data in records.items():
            archive.writestr(record, data)


@pytest.mark.usefixtures("no_cluster", "store")
def test_a_crafted_model_runs_nothing(tmp_path: Path, program: bytes) -> None:
    marker = tmp_path / "it_ran"
    craft(program, tmp_path / "crafted.pt2", marker)
    shown = refused(tmp_path, "--model", "{tmp}/crafted.pt2")
    assert "trust" in shown
    assert not marker.exists()
    # The payload is a real one.
    import torch

    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        torch.export.load(tmp_path / "crafted.pt2")
    assert marker.exists()


# ---- the code, the cluster, the rest -------------------------------------------------------------

OPTIONS = {
    "byzantine": (["-e", "1", "-k", "2000"], ["2000", "1024"]),
    "too many shares": (["-k", "2000"], ["1024"]),
    "scheme": (["--scheme", "sistematic"], ["'sistematic'", "systematic"]),
    "order": (["--order", "similiar"], ["'similiar'", "did you mean 'similar'"]),
    "repair": (["--repair", "dubious"], ["'dubious'", "'doubtful'", "'exact'"]),
    "redundancy": (["--redundancy", "lasy"], ["'lasy'", "'lazy'"]),
    "heal": (["--heal", "kill"], ["'kill'", "'restart'"]),
    "assurance": (["--assurance", "2"], ["assurance=2", "0.999"]),
    "referee": (["--referee", "judge"], ["referee='judge'", "'client'", "'quorum'"]),
    "quarantine": (["--quarantine", "rack"], ["quarantine='rack'", "'worker'", "'node'"]),
    "forgive": (["--forgive", "node7"], ["node7", "nothing was convicted there"]),
    "late": (["--late", "0.5"], ["late=0.5", "at least 1"]),
    "seed": (["--seed", "-1"], ["seed=-1", "at least 0"]),
    "no size": (["--memory", "much"], ["memory='much'"]),
    "infinite memory": (["--memory", "1e999GB"], ["memory='1e999GB'"]),
    "too little memory": (["--memory", "2kB"], ["does not hold two windows", "memory="]),
    "too little for the window": (
        ["--memory", "50kB", "--window", "400"],
        ["does not hold two windows of 400 rows"],
    ),
    "too few workers": (["--cluster", "{tmp}/two.yaml", "-k", "8"], ["9", "2 workers"]),
    "too few for any code": (["--cluster", "{tmp}/two.yaml", "-s", "2"], ["3 workers", "are 2"]),
    "no cluster file": (["--cluster", "{tmp}/none.yaml"], ["none.yaml", "no such cluster file"]),
    "a folder": (["--cluster", "{tmp}"], ["cannot be read"]),
    "not text": (["--cluster", "{tmp}/binary.yaml"], ["cannot be read"]),
    "not YAML": (["--cluster", "{tmp}/bad.yaml"], ["not valid YAML"]),
    "a list": (["--cluster", "{tmp}/list.yaml"], ["list", "mapping"]),
    "unknown key": (["--cluster", "{tmp}/key.yaml"], ["'worker'", "did you mean 'workers'"]),
    "unknown kind": (["--cluster", "{tmp}/kind.yaml"], ["'locl'", "did you mean 'local'"]),
    "no memory": (["--cluster", "{tmp}/slurm.yaml"], ["'slurm'", "memory is missing", "4GB"]),
    "bad value": (["--cluster", "{tmp}/value.yaml"], ["workers", "'many'"]),
    "no workers": (["--cluster", "{tmp}/zero.yaml"], ["workers", "0"]),
    "no address": (["--cluster", "{tmp}/address.yaml"], ["address", "tcp://"]),
}  # fmt: skip

YAML = {
    "two": b"kind: local\nworkers: 2\n",
    "binary": b"\xff\xfe\x00\x80",
    "bad": b"kind: [local\nworkers: }\n",
    "list": b"- kind\n- local\n",
    "key": b"worker: 4\n",
    "kind": b"kind: locl\n",
    "slurm": b"kind: slurm\nqueue: short\n",
    "value": b"workers: many\n",
    "zero": b"workers: 0\n",
    "address": b"kind: address\n",
}


@pytest.mark.usefixtures("no_cluster", "store")
@pytest.mark.parametrize("name", OPTIONS)
def test_options(tmp_path: Path, name: str) -> None:
    for file, text in YAML.items():
        (tmp_path / f"{file}.yaml").write_bytes(text)
    changes, messages = OPTIONS[name]
    shown = refused(tmp_path, *changes)
    for message in messages:
        assert message in shown


@pytest.mark.usefixtures("no_cluster", "store")
@pytest.mark.parametrize(
    "changes",
    [["-k", "0"], ["-k", "-2"], ["-s", "-1"], ["-e", "-1"], ["--block", "0"], ["-k", "x"]],
)
def test_values_that_the_command_line_itself_refuses(tmp_path: Path, changes: list[str]) -> None:
    before = snapshot(tmp_path)
    result = CliRunner().invoke(app, arguments(tmp_path, *changes))
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    assert f"Invalid value for '{changes[0]}'" in result.stderr
    assert "Traceback" not in result.stderr
    assert snapshot(tmp_path) == before


@pytest.mark.usefixtures("no_cluster", "store")
def test_a_dry_run_refuses_the_same(tmp_path: Path) -> None:
    assert "'nope'" in refused(tmp_path, "--order", "nope", "--dry-run")
    assert "Found no dataset" in refused(tmp_path, "IN={tmp}/none.zarr", "--dry-run")
    assert "does not hold" in refused(tmp_path, "--memory", "2kB", "--dry-run")


@pytest.mark.usefixtures("no_cluster", "store")
def test_with_progress_the_error_is_still_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, arguments(tmp_path, "--model", "bad_models:raises"))
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert all(line.startswith("approxifer: ") for line in lines)
    assert [line.startswith("approxifer: error: ") for line in lines].count(True) == 1
    assert lines[-1].startswith("approxifer: error: ")


# ---- from Python ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_cluster", "store")
@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"k": 0}, ConfigError, "k=0"),
        ({"stragglers": -1}, ConfigError, "stragglers=-1"),
        ({"block": 0}, ConfigError, "block=0"),
        ({"patience": -1}, ConfigError, "patience=-1"),
        ({"hedge": True}, ConfigError, "hedge=True"),
        ({"client": "tcp://127.0.0.1:1"}, ConfigError, "client: str given"),
        ({"cluster": {"workers": 2}, "k": 8}, ApproxiferError, "9"),
        ({"cluster": {"workres": 2}}, ConfigError, "did you mean 'workers'"),
        ({"data": "none.zarr"}, InputNotFoundError, "none.zarr"),
        ({"model": lambda rows: rows}, ModelError, "lambda"),
        ({"model": 3}, ModelError, "3|int"),
        ({"preprocess": lambda rows: rows}, ModelError, "lambda"),
    ],
    ids=str,
)
def test_from_python(
    tmp_path: Path, changes: dict[str, Any], kind: type[Exception], message: str
) -> None:
    before, running = snapshot(tmp_path), children()
    good = {
        "data": tmp_path / "in.zarr",
        "model": toy_models.linear,
        "out": tmp_path / "out.zarr",
        "progress": False,
    }
    with pytest.raises(kind, match=message):
        approxifer.score(**(good | changes))
    assert snapshot(tmp_path) == before
    assert children() <= running


# ---- as a user calls it --------------------------------------------------------------------------


def command() -> str:
    found = shutil.which("approxifer", path=sysconfig.get_path("scripts"))
    if found is None:
        pytest.skip("approxifer is not installed beside this Python")
    return found


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("name", ["missing input", "crafted model", "too few workers", "begun"])
def test_the_real_command(tmp_path: Path, program: bytes, name: str) -> None:
    marker = tmp_path / "it_ran"
    changes = {
        "missing input": ["IN={tmp}/none.zarr"],
        "crafted model": ["--model", "{tmp}/crafted.pt2"],
        "too few workers": ["--cluster", "{tmp}/two.yaml", "-k", "8"],
        "begun": ["--block", "6"],
    }[name]
    if name == "crafted model":
        craft(program, tmp_path / "crafted.pt2", marker)
    if name == "begun":
        begun(tmp_path)
    (tmp_path / "two.yaml").write_bytes(YAML["two"])
    before, begin = snapshot(tmp_path), time.monotonic()
    call = [command(), *arguments(tmp_path, *changes), "--no-progress"]
    seen: set[str] = set()
    with subprocess.Popen(
        call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        process = psutil.Process(running.pid)
        while running.poll() is None and time.monotonic() - begin < 60:
            with contextlib.suppress(psutil.Error):
                seen |= {" ".join(child.cmdline()) for child in process.children(recursive=True)}
            time.sleep(0.02)
        running.kill()
        stdout, stderr = running.communicate()
    assert running.returncode == 2, stderr
    assert stdout == ""
    check_line(stderr)
    assert not [line for line in seen if "multiprocessing" in line]  # no server, no worker
    assert snapshot(tmp_path) == before
    assert not marker.exists()
    assert time.monotonic() - begin < 20
