"""Models of several inputs, and of whose outputs a part is kept."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from approxifer.errors import ModelError
from approxifer.models import ensure, open_model
from approxifer.models.cache import cropped

ROWS = np.random.default_rng(0).normal(size=(4, 2, 5)).astype("f4")
EXPECTED = ROWS[:, 1] - 2 * ROWS[:, 0]


class Two(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.twice = torch.nn.Parameter(torch.tensor(2.0))

    def forward(
        self, v: torch.Tensor, u: torch.Tensor, w: torch.Tensor | None = None
    ) -> torch.Tensor:
        return v - self.twice * u if w is None else w


def two(v: np.ndarray, *, u: np.ndarray) -> np.ndarray:
    found: np.ndarray = v - 2 * u
    return found


class Object:
    def __call__(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return two(v, u=u)


@pytest.fixture(scope="module")
def program() -> Any:
    tensors = (torch.zeros(4, 5), torch.ones(4, 5))
    batch = torch.export.Dim("batch")
    return torch.export.export(Two().eval(), tensors, dynamic_shapes=({0: batch}, {0: batch}))


@pytest.mark.parametrize("kind", ["module", "function", "object", "program"])
def test_each_input_gets_the_variable_of_its_name(kind: str, program: Any) -> None:
    kinds = {"module": Two(), "function": two, "object": Object(), "program": program}
    model: Any = kinds[kind]
    handle = pickle.loads(pickle.dumps(open_model(model, variables=["u", "v"])))
    runner = handle.load()
    np.testing.assert_allclose(runner(ROWS), EXPECTED, rtol=1e-6)
    assert runner.fingerprint == handle.fingerprint
    turned = open_model(model, variables=["v", "u"])
    np.testing.assert_allclose(turned.load()(ROWS[:, ::-1]), EXPECTED, rtol=1e-6)
    assert turned.fingerprint != handle.fingerprint  # workers keep both
    assert turned.stored_fingerprint == handle.stored_fingerprint
    with pytest.raises(ModelError, match="one after another"):
        runner(ROWS[:, :1])


@pytest.mark.slow
def test_a_file_of_several_inputs_is_tried(program: Any, tmp_path: Path) -> None:
    torch.export.save(program, tmp_path / "two.pt2")
    runner = open_model(tmp_path / "two.pt2", variables=["u", "v"]).load()
    np.testing.assert_allclose(runner(ROWS), EXPECTED, rtol=1e-6)


def test_one_input_gets_all_variables_together() -> None:
    handle = open_model(lambda rows, scale=1: rows.sum(axis=1) * scale, variables=["u", "v"])
    np.testing.assert_array_equal(handle.load()(ROWS), ROWS.sum(axis=1))
    assert open_model(np.negative, variables=["u", "v"]).inputs == ()


@pytest.mark.parametrize("variables", [(), ("u",), ("u", "x"), ("u", "v", "x")])
def test_other_names_are_refused(variables: tuple[str, ...]) -> None:
    with pytest.raises(ModelError, match=r"takes 2 inputs \(v, u, w\)\..*variables=v,u"):
        open_model(Two(), variables=variables)


def test_an_input_that_need_not_be_given_is_if_there_is_a_variable_for_it() -> None:
    three = np.concatenate([ROWS, ROWS[:, :1] + 1], axis=1)
    found = open_model(Two(), variables=["u", "v", "w"]).load()(three)
    np.testing.assert_array_equal(found, three[:, 2])


def test_inputs_of_several_shapes_are_refused() -> None:
    class Mixed(torch.nn.Module):
        def forward(self, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return u.sum(1) + v

    mixed = torch.export.export(Mixed(), (torch.zeros(4, 5), torch.zeros(4)))
    with pytest.raises(ModelError, match=r"takes 2 inputs \(u, v\)\..*one shape and type"):
        open_model(mixed, variables=["u", "v"])


def test_a_part_of_the_output_is_kept() -> None:
    handle = open_model(two, variables=["u", "v"])
    whole = ensure(handle)
    part = cropped(handle, ((1, 4),))
    assert ensure(part).forward is whole.forward  # loaded once
    for runner in (ensure(part), pickle.loads(pickle.dumps(part)).load()):
        np.testing.assert_array_equal(runner(ROWS), whole(ROWS)[:, 1:4])
        assert runner.fingerprint == part.fingerprint
    assert len({handle.fingerprint, part.fingerprint, cropped(handle, ((0, 4),)).fingerprint}) == 3
