"""The outputs that a model returns: their names, and what is refused, in words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from approxifer.errors import ModelError
from approxifer.models import Runner, open_model, probe
from approxifer.models.outputs.structure import packed

ROWS = np.arange(12.0, dtype=np.float32).reshape(6, 2)


class Pair(NamedTuple):
    score: Any
    label: Any


@dataclass
class Record:
    score: Any
    label: Any


A, B = np.ones((6, 3), "f4"), np.arange(6)


@pytest.mark.parametrize(
    ("returned", "names"),
    [
        ({"score": A, "label": B}, ("label", "score")),
        ({"label": B, "score": A}, ("label", "score")),  # whatever the dict's order
        (Pair(A, B), ("score", "label")),
        (Record(A, B), ("score", "label")),
        ((A, B), ("output_0", "output_1")),
        ([A], ("output_0",)),
        (A, ("prediction",)),
    ],
)
def test_names(returned: Any, names: tuple[str, ...]) -> None:
    packing, outputs = packed(returned, 6, "it")
    assert packing.names == names
    assert packing.alone == isinstance(returned, np.ndarray)
    assert len(outputs) == 6
    by_name = dict(zip(names, packing.unpack(outputs), strict=True))
    for name in ("label", "output_1"):
        if name in by_name:
            np.testing.assert_array_equal(by_name[name], B)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({"a": A, "b": B[1:]}, r"'b' is of shape \(5,\) for 6 rows"),
        ({"a": A, "b": np.array(["x"] * 6)}, "'b' is an array .* only numbers"),
        ((A, None), "'output_1' is a NoneType"),
        ({"a": A, "b": (A, A)}, r"'b' is a tuple of 2 .* one deep"),
        ({"a": A, "b": np.ones((6, 0))}, "none empty"),
        ({"a": A, "b": np.float32(3)}, "'b' is a float32"),
        ({}, "no output in it"),
        ({3: A}, "returned a dict with 3"),
        ([1.0, 2.0], r"a list of 2 \(float, float\)"),
        ("text", "returned a str"),
        (np.float32(1), "returned a float32"),
        (np.array(["x"] * 6), "only numbers"),
    ],
)
def test_what_is_refused(returned: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        packed(returned, 6, "it")


class TwoHeads(torch.nn.Module):
    """A tuple, or a dict."""

    def __init__(self, named: bool = False) -> None:
        super().__init__()
        self.named = named
        self.first, self.second = torch.nn.Linear(2, 3), torch.nn.Linear(2, 1)

    def forward(self, x: torch.Tensor) -> Any:
        one, two = self.first(x), self.second(x).double()
        return {"one": one, "label": one.argmax(1), "two": two} if self.named else (one, two)


@pytest.mark.parametrize("named", [False, True])
def test_modules_and_programs(tmp_path: Path, named: bool) -> None:
    module = TwoHeads(named).eval()
    batch = torch.export.Dim("batch")
    program = torch.export.export(module, (torch.ones(4, 2),), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "two.pt2")
    expected = module(torch.from_numpy(ROWS))
    expected = expected if named else dict(zip(("output_0", "output_1"), expected, strict=True))
    for model in (module, tmp_path / "two.pt2"):
        found = probe(open_model(model), ROWS, 8)
        assert found.packing.dtype == np.float64
        assert set(found.packing.names) == set(expected)
        for name, output in found.packing.named(found.outputs[:6]).items():  # type: ignore[union-attr]
            np.testing.assert_allclose(output, expected[name].detach(), rtol=1e-5)
            assert output.dtype == expected[name].detach().numpy().dtype


def runner(forward: Any) -> Runner:
    return Runner("it", "f", "float32", "cpu", 1, None, forward)


def test_a_small_output_that_couples_rows_is_found_beside_a_large_one() -> None:
    def forward(rows: np.ndarray) -> dict[str, np.ndarray]:
        return {"large": 1e9 * (1 + rows), "small": rows - rows.mean(axis=0)}

    with pytest.raises(ModelError, match="another output among other rows"):
        probe(runner(forward), np.random.default_rng(0).normal(size=(16, 2)).astype("f4"), 8)


def test_every_batch_has_the_same_outputs() -> None:
    def forward(rows: np.ndarray) -> dict[str, np.ndarray]:
        return {"low" if rows[0, 0] < 5 else "high": rows}

    with pytest.raises(ModelError, match="returned the outputs high after low"):
        probe(runner(forward), np.arange(32.0, dtype="f4").reshape(16, 2), 4)
