"""Exported networks, of both modes of export, load and compute what their modules do."""

import io
import warnings
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
import torch

from approxifer.errors import UntrustedModelError
from approxifer.models.archive import read_program
from approxifer.models.handle import open_model
from approxifer.models.pt2 import operators, passed, trial

#: Exported strictly in the default run too: the others differ in little.
STRICT = ["cnn", "unet bilinear", "encoder", "rotary", "lstm", "fourier", "bicubic", "no grad"]
#: Specialised to the number of rows by strict export itself.
STATIC = {"grid sample"}


def export(name: str, *, strict: bool, decomposed: bool = False) -> bytes:
    module, rows = networks.make(name)
    fixed = strict and name in STATIC
    shapes = None if fixed else ({0: torch.export.Dim("batch", min=1, max=512)},)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            module, (torch.from_numpy(rows),), dynamic_shapes=shapes, strict=strict
        )
        if decomposed:
            program = program.run_decompositions()
        torch.export.save(program, buffer)
    return buffer.getvalue()


def check(name: str, data: bytes, folder: Path) -> None:
    path = folder / "model.pt2"
    path.write_bytes(data)
    module, rows = networks.make(name)
    out = open_model(path).load()(rows)
    with torch.no_grad():
        expected = module(torch.from_numpy(rows)).numpy()
    assert out.dtype == expected.dtype
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


Exported = dict[tuple[str, bool], bytes]


@pytest.fixture(scope="module")
def exported() -> Exported:
    """All networks of the default run, tried in one child."""
    wanted = [(name, False) for name in networks.NETWORKS] + [(name, True) for name in STRICT]
    made = {(name, strict): export(name, strict=strict) for name, strict in wanted}
    programs = [read_program(data, name=name).data for (name, _), data in made.items()]
    assert not any(trial.try_out(programs))
    assert all(passed.known(data) for data in programs)
    return made


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", networks.NETWORKS)
def test_exported_networks_load_and_compute_the_same(
    name: str, exported: Exported, tmp_path: Path
) -> None:
    check(name, exported[name, False], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", STRICT)
def test_networks_exported_strictly(name: str, exported: Exported, tmp_path: Path) -> None:
    check(name, exported[name, True], tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", ["strict", "decomposed"])
def test_all_networks_exported_in_other_ways(kind: str, tmp_path: Path) -> None:
    refused = {
        "antialias": "_upsample_bilinear2d_aa.default",
        "circular": "empty.memory_format",
    }
    made = {
        name: export(name, strict=kind == "strict", decomposed=kind == "decomposed")
        for name in networks.NETWORKS
    }
    if kind == "decomposed":
        for name, operator in refused.items():
            with pytest.raises(UntrustedModelError, match=operator):
                read_program(made.pop(name), name=name)
    assert not any(trial.try_out([read_program(d, name=n).data for n, d in made.items()]))
    for name, data in made.items():
        check(name, data, tmp_path)


class Inverse(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.pinv(x)


class Strided(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_strided(x, (2, 2), (1, 1))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Inverse(), r"the operator 'torch\.ops\.aten\.linalg_pinv.*trust_model=True"),
        (Strided(), r"'torch\.ops\.aten\.as_strided\.default', which views any part.*trust_model"),
    ],
)
def test_a_refusal_names_the_operator_and_the_way_round(
    module: torch.nn.Module, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(module, (torch.ones(4, 4),)), path)
    with pytest.raises(UntrustedModelError, match=message):
        open_model(path)


def test_the_list_holds_the_core_operators_or_says_why_not() -> None:
    core = set()
    for full in torch._C._dispatch_get_all_op_names():
        namespace, _, name = full.partition("::")
        packet, _, overload = name.partition(".")
        if namespace == "aten":
            found: Any = getattr(getattr(torch.ops.aten, packet), overload or "default", None)
            if found is not None and torch.Tag.core in found.tags:
                core.add(f"{packet}.{overload or 'default'}")
    assert len(core) > 150
    assert core - operators.ATEN == operators.LEFT_OUT.keys() & core
    assert not operators.ATEN & operators.LEFT_OUT.keys()


def test_all_listed_operators_exist_and_none_writes_into_what_it_is_given() -> None:
    for name in operators.ATEN:
        packet, overload = name.split(".")
        schema = getattr(getattr(torch.ops.aten, packet), overload)._schema
        written = [a.name for a in schema.arguments if a.alias_info and a.alias_info.is_write]
        assert all(argument.name != "out" for argument in schema.arguments), name
        if written and not packet.endswith("_"):  # batch statistics, in training mode
            assert written in (["running_mean", "running_var"], ["self"]), (name, written)
