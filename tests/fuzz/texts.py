"""Mutated texts: journals, locks, states of detached jobs, job files and cluster files."""

from __future__ import annotations

import base64
import contextlib
import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml
from mutate import spoil_bytes, spoil_text, spoil_value

from approxifer.datasets import Journal, OutputStore, open_source
from approxifer.datasets.ownership import claim_journal, own_events
from approxifer.errors import ConfigError
from approxifer.pipeline.byzantine.evidence import output_of, undecided
from approxifer.pipeline.byzantine.membership import Membership
from approxifer.pipeline.byzantine.spot_checks import owed, proofs
from approxifer.pipeline.byzantine.taint import tainted_groups
from approxifer.pipeline.cli.detached import look, refuse_running
from approxifer.pipeline.cli.jobfile import JobFile, JobFolder
from approxifer.pipeline.cluster.spec import load_cluster
from approxifer.pipeline.planning.options import Options
from approxifer.pipeline.reporting.inspect import inspect_store

S = "20261129T120000-0a1b2c3d"


def events(store: str | None) -> list[dict[str, Any]]:
    """A journal in which every event that is read back occurs."""
    evidence = {
        "group": 0, "share": 1, "rows": 1, "of": 2, "deviation": None, "allowed": 1e-6,
        "referee": "client", "suspicion": "a row checked at random",
    }  # fmt: skip
    member = {
        "worker": "w0", "host": "h", "device": "cpu", "node": "n", "incarnation": 1,
        "hardware": "x", "life": 0,
    }  # fmt: skip
    output = {
        "dtype": "<f4", "shape": [2], "base64": base64.b64encode(bytes(8)).decode(),
    }  # fmt: skip
    attempt = {
        "share": 0, "attempt": 0, "worker": "w0", "member": 1, "fate": "used", "start": 0.1,
        "stop": 0.2, "error": None,
    }  # fmt: skip
    told: list[dict[str, Any]] = [
        {"event": "session", "store": store, "time": 1.7e9, "rows": 12, "code": {"k": 2}},
        {"event": "worker", "time": 0.1, "worker": "w0", "what": "ready"},
        {"event": "name", "index": 0, **member},
        {"event": "name", "index": 1, **member, "worker": "w1", "incarnation": 2},
        {"event": "group", "group": 0, "window": 0, "kind": "coded", "shares": {"0": "w0"},
         "members": {"0": 0}, "attempts": [attempt, attempt | {"fate": "dropped", "stop": None}]},
        {"event": "check", "member": 0, "group": 0, "share": 0, "of": 4, "rate": 0.5, "why": "used",
         "rows": [[1], [2, 3]], "checkers": [1, -1]},
        {"event": "mismatch", "number": 1, "member": 0, "checker": 1, "group": 0, "share": 0,
         "model": 0, "rows": [1], "outputs": [output, None]},
        {"event": "verdict", "of": [S, 1]},
        {"event": "mismatch", "number": 2, "member": 1, "checker": 0, "group": 0, "share": 0,
         "model": 0, "rows": [1], "outputs": [output, output]},
        {"event": "conviction", "kind": "node", "member": member | {"session": S},
         "evidence": evidence, "alone": False, "aside": False},
        {"event": "forgiven", "host": "h"},
        {"event": "failed", "row": 3, "error": "ValueError: no"},
        {"event": "window", "window": 0, "rows": 4, "time": 0.5},
        {"event": "close", "counts": {"exact": 8}, "evaluations": 9, "wall_seconds": 1.0},
    ]  # fmt: skip
    return [{"event": one["event"], "session": S} | one for one in told]


JOB: dict[str, Any] = {
    "data": "in.zarr", "model": "m:f", "out": "out.zarr", "k": 2, "stragglers": 1, "order": "none",
    "memory": "1GB", "cluster": {"kind": "local", "workers": 2}, "forgive": ["h"], "hedge": "cubed",
    "late": 2.0, "max_failed": 3, "seed": 0, "trust-model": False,
}  # fmt: skip
CLUSTERS: list[dict[str, Any]] = [
    {"kind": "local", "workers": 3, "threads": 1, "memory": "1GB", "env": {"A": "b"}},
    {"kind": "address", "address": "tcp://127.0.0.1:8786"},
    {"kind": "slurm", "memory": "1GB", "queue": "main", "walltime": "01:00:00", "wait": "5min",
     "worker-extra-args": ["--resources", "a=1"], "log-directory": "logs", "security": {}},
]  # fmt: skip
ODD_YAML = (
    "!!python/object/apply:os.system ['touch OWNED']", "&a [*a]", "{k: !!timestamp x}",
    "{k: !!int abc}", "{k: !!bool x}", "{k: !!set {a, b}}", "{k: !!binary '*'}", "k: 2020-99-99",
    "k: 2020-01-01", "? [a]\n: b", "[" * 3000, "{k: " * 3000, "k: &x [1]\nl: [*x, *x]", "k: 1e999",
    f"k: {'9' * 5000}", "k: \"\\x1b[2J\"", "k: .nan", "- a", "a: b: c", "\0", "%YAML 9.9\n--- a",
    "<<: {a: b}", "k: 190:20:30:40:50:60:70:80.5",
)  # fmt: skip


def make_corpus(folder: Path) -> None:
    """An output store of eight written rows; its journal is made for each case."""
    source = open_source(xr.DataArray(np.zeros((12, 3), np.float32), dims=("n", "f"), name="a"))
    with OutputStore.create(
        folder / "out.zarr", source=source, output_shape=(2,), output_dtype="f4", chunk=4, attrs={}
    ) as store:
        store.write_window(0, 8, prediction=np.ones((8, 2), np.float32), status=1, worker=0)


def read_mutated(rng: random.Random, corpus: Path, folder: Path) -> None:
    """Make one mutated text, and read it as its readers do."""
    rng.choice([_journal, _journal, _beside, _job, _cluster])(rng, corpus, folder)


def _journal(rng: random.Random, corpus: Path, folder: Path) -> None:
    out = folder / "out.zarr"
    shutil.copytree(corpus / "out.zarr", out)
    told = events(OutputStore.open(out, write=False).uuid if rng.random() < 0.9 else "0" * 32)
    for _ in range(rng.randint(0, 2)):
        number = rng.randrange(len(told))
        changed = spoil_value(rng, told[number])
        told[number] = changed if isinstance(changed, dict) else told[number]
    text = "".join(json.dumps(event) + "\n" for event in told).encode()
    if rng.random() < 0.3:
        text = spoil_bytes(rng, text)
    journal = out.with_name("out.zarr.journal.jsonl")
    journal.write_bytes(text)
    with contextlib.suppress(ConfigError):  # it has no session
        inspect_store(out, timeline=folder / "t.svg" if rng.random() < 0.02 else None)
    read, _ = own_events(OutputStore.open(out, write=False), nameless=True)
    members = Membership("now", read)
    void = members.tainted()
    proofs(read, void), owed(read, void), tainted_groups(read, members)
    for mismatch in undecided(read):
        [output_of(kept) for kept in mismatch["outputs"]]
    with OutputStore.open(out) as store:
        claim_journal(store)
        Journal(out).close()


def _beside(rng: random.Random, corpus: Path, folder: Path) -> None:
    """A lock, or a state, that somebody else has written."""
    out = folder / "out.zarr"
    shutil.copytree(corpus / "out.zarr", out)
    holder = {"pid": 1, "host": "elsewhere", "since": 1.0}
    (folder / "out.zarr.lock").write_bytes(spoil_text(rng, json.dumps(holder).encode()))
    job = JobFolder.of(out)
    job.path.mkdir()
    state = {"stage": "running", "told": "1 %", "host": "elsewhere", "pid": 1, "began": 1.0,
             "updated": 2.0, "code": None, "created": 1.0}  # fmt: skip
    (job.path / "state.json").write_bytes(spoil_text(rng, json.dumps(state).encode()))
    look(job)
    refuse_running(JobFile({"out": str(out)}))
    OutputStore.open(out).release()


def _text(rng: random.Random, value: Any) -> bytes:
    if rng.random() < 0.2:
        return rng.choice(ODD_YAML).encode()
    changed = spoil_value(rng, value)
    try:
        text = yaml.safe_dump(changed, allow_unicode=False).encode()
    except RecursionError:  # nested too deeply for PyYAML's writer; JSON is YAML, too
        text = json.dumps(changed).encode()
    return spoil_bytes(rng, text) if rng.random() < 0.4 else text


def _job(rng: random.Random, corpus: Path, folder: Path) -> None:
    path = folder / "job.yaml"
    path.write_bytes(_text(rng, JOB))
    job = JobFile.read(path)
    refuse_running(job)
    options = Options(**job.options)
    if options.cluster is not None:
        load_cluster(options.cluster)


def _cluster(rng: random.Random, corpus: Path, folder: Path) -> None:
    path = folder / "cluster.yaml"
    path.write_bytes(_text(rng, rng.choice(CLUSTERS)))
    load_cluster(path)
