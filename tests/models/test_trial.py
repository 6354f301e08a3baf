"""A crafted program that passes the static check cannot end, stall or fill the client."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from crafted import MODEL, Craft, take_apart

from approxifer.errors import ModelError, UntrustedModelError
from approxifer.models import open_model
from approxifer.models.archive import read_program
from approxifer.models.pt2 import guards, passed, trial
from approxifer.models.pt2.nodes import check_nodes
from approxifer.models.pt2.refused import Refused


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, also in this process."""
    monkeypatch.setattr(passed, "_here", set())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "approxifer" / "models"


def no_child(*_: Any) -> list[str]:
    raise AssertionError("a child was started")


def test_one_trial_for_one_file(
    fresh: Path, program: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(program)
    first = open_model(path)
    (entry,) = fresh.iterdir()
    assert (fresh.stat().st_mode & 0o777, entry.stat().st_mode & 0o777) == (0o700, 0o600)
    monkeypatch.setattr(trial, "_child", no_child)
    assert open_model(path) == first
    passed._here.clear()
    assert open_model(path) == first  # from the disk
    first.load()  # as a worker does: no child
    passed._here.clear()
    fresh.chmod(0o777)
    with pytest.raises(AssertionError, match="child"):
        open_model(path)
    fresh.chmod(0o700)
    entry.write_text(json.dumps("another"))
    with pytest.raises(AssertionError, match="child"):
        open_model(path)


@pytest.mark.parametrize("how", ["file", "link", "nowhere"])
def test_a_cache_that_cannot_be_used_is_no_error(
    how: str, fresh: Path, program: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(trial, "_child", lambda programs: ["" for _ in programs])
    (tmp_path / "elsewhere").mkdir()
    fresh.parent.mkdir(parents=True)
    if how == "file":
        fresh.write_text("")
    elif how == "link":
        fresh.symlink_to(tmp_path / "elsewhere")
    else:
        monkeypatch.setattr(passed, "_folder", lambda: Path("/proc/nowhere"))
    trial.ensure_tried(program, "a")
    trial.ensure_tried(program, "a")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_the_child_gets_no_secrets(
    fresh: Path, program: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, str] = {}
    start = subprocess.Popen

    def watch(*args: Any, **options: Any) -> Any:
        seen.update(options["env"])
        return start([sys.executable, "-c", "pass"], **{**options, "env": {}})

    monkeypatch.setenv("SOME_TOKEN", "secret")
    monkeypatch.setattr(subprocess, "Popen", watch)
    with pytest.raises(ModelError, match="exit code 0 while loading"):
        trial.ensure_tried(program, "a")
    assert "secret" not in seen.values()
    assert not fresh.exists()


@pytest.mark.slow
def test_crash_endless_work_and_hunger_are_model_errors(
    fresh: Path, program: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Programs that the static check would refuse, given to the child itself."""

    def crafted(expression: str) -> bytes:
        craft = Craft(tmp_path / "marker", take_apart(read_program(program, name="a").data))

        def change(model: Any) -> None:
            graph = model["graph_module"]["graph"]
            name = graph["inputs"][-1]["as_tensor"]["name"]
            graph["tensor_values"][name]["sizes"][1] = {"as_expr": {"expr_str": expression}}

        craft.edit(MODEL, change)
        return craft.write()

    plain = read_program(program, name="a").data
    monkeypatch.setattr(trial, "LOAD_SECONDS", 2.0)
    end = "__import__('os').kill(__import__('os').getpid(), 11)"
    started = time.monotonic()
    faults = trial.try_out([plain, crafted(end), crafted("9**9**9**9"), b"nonsense", plain])
    assert time.monotonic() - started < 100
    assert faults[0] == faults[4] == ""
    assert "SIGSEGV while loading" in faults[1]
    assert "too long" in faults[2] or "too much memory" in faults[2]
    assert "could not be loaded" in faults[3]
    assert passed.known(plain)
    assert len(list(fresh.iterdir())) == 1


def nodes_of(*nodes: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "nodes": [
            {
                "target": target,
                "inputs": [{"name": n, "arg": a} for n, a in inputs.items()],
                "outputs": [{"as_sym_int": {"as_name": f"n{i}"}}],
            }
            for i, (target, inputs) in enumerate(nodes)
        ]
    }


def squared(count: int) -> dict[str, Any]:
    return nodes_of(
        *(
            (
                "_operator.mul",
                {k: {"as_sym_int": {"as_name": f"n{i - 1}"}} for k in "ab"},
            )
            for i in range(count)
        )
    )


@pytest.mark.parametrize(
    "graph",
    [
        nodes_of(("torch.ops.aten.full.default", {"size": {"as_ints": [1 << 20, 1 << 20]}})),
        nodes_of(("torch.ops.aten.arange.default", {"end": {"as_int": 1 << 40}})),
        nodes_of(("torch.ops.aten.max_pool1d.default", {"kernel_size": {"as_ints": [1 << 40]}})),
        nodes_of(("torch.ops.aten.one_hot.default", {"num_classes": {"as_int": 1 << 40}})),
        nodes_of(("torch.ops.aten.upsample_nearest2d.vec",
                  {"scale_factors": {"as_floats": [1e6]}})),
        squared(40),
        {"nodes": [{"target": "_operator.mul"}]},
        {"nodes": 3},
    ],
)  # fmt: skip
def test_nodes_that_could_make_too_much(graph: Any) -> None:
    with pytest.raises(Refused):
        check_nodes(graph)


def test_nodes_of_networks_are_within_bounds() -> None:
    check_nodes(squared(4))
    check_nodes(
        nodes_of(
            ("torch.ops.aten.slice.Tensor", {"end": {"as_int": 2**63 - 1}}),
            ("torch.ops.aten.full.default", {"size": {"as_ints": [4096, 4096]}}),
            ("torch.ops.aten.full.default", {"fill_value": {"as_int": -(2**63)}}),
        )
    )


ones = torch.ones
LSTM = [ones(16, 8), ones(16, 4), ones(16), ones(16)]
OPTIONS = (True, 1, 0.0, False, False, True)


@pytest.mark.parametrize(
    ("check", "fine", "crafted"),
    [
        (guards.attention, (ones(1, 2, 8, 4),) * 3,
         (ones(1, 2, 8, 4), ones(1, 2, 4, 4), ones(1, 2, 64, 4))),
        (guards.flash_attention, (ones(1, 2, 8, 4),) * 3,
         (ones(9, 2, 8, 4), ones(1, 2, 8, 4), ones(1, 2, 8, 4))),
        (guards.batch_norm, (ones(2, 3), *[ones(3)] * 4, 0.1, 1e-5),
         (ones(2, 3), *[ones(1)] * 4, 0.1, 1e-5)),
        (guards.weight_norm, (ones(3, 4), ones(3, 1), 0), (ones(3, 4), ones(1, 1), 0)),
        (guards.lstm, (ones(2, 5, 8), [ones(1, 2, 4)] * 2, LSTM, *OPTIONS),
         (ones(2, 5, 8), [ones(1, 2, 1 << 16)] * 2, LSTM, *OPTIONS)),
        (guards.gru, (ones(2, 5, 8), ones(1, 2, 4), [p[:12] for p in LSTM], *OPTIONS),
         (ones(2, 5, 8), ones(1, 2, 4), [p[:4] for p in LSTM], *OPTIONS)),
        (guards.rnn, (ones(2, 5, 8), ones(1, 2, 4), [p[:4] for p in LSTM], *OPTIONS),
         (ones(2, 5, 8), ones(1, 1, 4), [p[:4] for p in LSTM], *OPTIONS)),
        (guards.grid_sampler, (None, None, 2, 1, False), (None, None, 9, 1, False)),
        (guards.fourier, (ones(2, 4), [1], 0), (ones(2, 4), [1, 7], 0)),
        (guards.division, (ones(2), 2), (ones(2).long(), -1)),
    ],
)  # fmt: skip
def test_sizes_that_kernels_trust_are_compared(
    check: Callable[..., None], fine: tuple[Any, ...], crafted: tuple[Any, ...]
) -> None:
    mode = {"rounding_mode": "trunc"} if check is guards.division else {}
    check(*fine, **mode)
    with pytest.raises(ModelError, match="does not fit"):
        check(*crafted, **mode)


class Attention(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        keys, values = x.new_ones(1, 1, 5, 4), x.new_ones(1, 1, 5, 4)
        return torch.nn.functional.scaled_dot_product_attention(x[None, None], keys, values)


def test_the_check_runs_in_the_program(
    fresh: Path, exporter: Callable[..., bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys that are fewer than the values: torch's kernel would read behind their end."""
    rows = np.ones((3, 4), np.float32)
    craft = Craft(tmp_path / "marker", take_apart(exporter(Attention(), rows)))

    def change(model: Any) -> None:
        nodes = model["graph_module"]["graph"]["nodes"]
        made = [node for node in nodes if node["target"] == "torch.ops.aten.new_ones.default"]
        assert "[1, 1, 5, 4]" in json.dumps(made[1]["inputs"])
        made[1]["inputs"] = json.loads(json.dumps(made[1]["inputs"]).replace("5, 4]", "99, 4]"))

    craft.edit(MODEL, change)
    path = tmp_path / "model.pt2"
    path.write_bytes(craft.write())
    monkeypatch.setattr(trial, "_child", lambda programs: ["" for _ in programs])
    with pytest.raises(ModelError, match="attention"):
        open_model(path).load()(rows)


def test_entries_that_overlap_do_not_multiply(program: bytes) -> None:
    """One stored kilobyte that a thousand entries of the directory claim."""
    import struct

    end = program.rindex(b"PK\x05\x06")
    size, start = struct.unpack("<II", program[end + 12 : end + 20])
    directory = program[start : start + size]
    count = struct.unpack("<H", program[end + 10 : end + 12])[0]
    head = program[:start] + directory * 20
    tail = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count * 20, count * 20, size * 20, start, 0)
    with pytest.raises(ModelError, match=r"claim more bytes|twice"):
        read_program(head + tail, name="a")


@pytest.mark.parametrize("field", ["sizes", "strides", "storage_offset", "dtype"])
def test_weights_that_are_not_there(field: str, program: bytes, tmp_path: Path) -> None:
    craft = Craft(tmp_path / "marker", take_apart(program))

    def change(config: Any) -> None:
        meta = next(iter(config["config"].values()))["tensor_meta"]
        false = {"storage_offset": {"as_int": 9}, "dtype": 8}
        meta[field] = false.get(field) or [{"as_int": 1 << 20}] * len(meta["sizes"])

    craft.edit("data/weights/model_weights_config.json", change)
    with pytest.raises(UntrustedModelError, match="does not fit its values"):
        read_program(craft.write(), name="a")


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    os.mkfifo(path)
    with pytest.raises(ModelError, match="no regular file"):
        open_model(path)


def test_a_program_that_contradicts_itself_is_a_model_error(
    fresh: Path, program: bytes, tmp_path: Path
) -> None:
    """Torch asserts the names of the modules only when it makes one of the program."""
    craft = Craft(tmp_path / "marker", take_apart(program))

    def change(model: Any) -> None:
        model["graph_module"]["module_call_graph"][0]["fqn"] = "net"

    craft.edit(MODEL, change)
    path = tmp_path / "model.pt2"
    path.write_bytes(craft.write())
    with pytest.raises(ModelError, match="cannot be run"):
        open_model(path)
