"""The tolerance of several outputs: each is held to its own size and precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from approxifer.models import Runner
from approxifer.packing import Packing
from approxifer.pipeline.byzantine.noise import measure_tolerance, own_noise
from approxifer.pipeline.byzantine.tolerance import TolerancePerOutput

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(64, 4)).astype(np.float32)


def forward(rows: np.ndarray) -> dict[str, Any]:
    small = rows @ np.cos(np.arange(12, dtype=np.float32)).reshape(4, 3)
    return {"label": small.argmax(axis=1), "large": 1e6 + rows, "small": small / 1000}


RUNNER = Runner("it", "f", "float32", "cpu", 1, None, forward)


@pytest.fixture
def measured() -> tuple[Packing, np.ndarray, Any]:
    packing, outputs = RUNNER.run(ROWS)
    rng = np.random.default_rng(0)
    return packing, outputs, measure_tolerance(RUNNER, ROWS, 16, rng=rng, packing=packing)


def changed(packing: Packing, outputs: np.ndarray, name: str, by: float) -> np.ndarray:
    """The outputs with one of them off."""
    named: Any = packing.named(outputs.copy())
    named[name] = named[name] + np.asarray(by, named[name].dtype)
    return packing.pack([named[name] for name in packing.names])


@pytest.mark.parametrize(
    ("name", "by", "differs"),
    [
        ("large", 1.0, False),  # a millionth of its size: rounding
        ("large", 1e3, True),
        ("small", 1e-9, False),
        ("small", 1e-4, True),  # a tenth of its size, and nothing beside the large output
        ("label", 1, True),
    ],
)
def test_each_output_has_its_own(
    measured: tuple[Packing, np.ndarray, Any], name: str, by: float, differs: bool
) -> None:
    packing, outputs, tolerance = measured
    assert isinstance(tolerance, TolerancePerOutput)
    wrong = changed(packing, outputs, name, by)
    assert tolerance.differs(wrong, outputs).all() == differs
    assert not tolerance.differs(outputs, outputs).any()
    if differs:
        off, allowed = tolerance.worst(wrong, outputs)
        assert off > allowed
        assert off == pytest.approx(by, rel=0.1)


def test_noise_never_excuses_a_whole_number(measured: tuple[Packing, np.ndarray, Any]) -> None:
    packing, outputs, tolerance = measured
    few = ROWS[:3]
    right, noise = own_noise(RUNNER, few, 16, ROWS, np.random.default_rng(1), packing)
    np.testing.assert_array_equal(right, outputs[:3])
    assert noise.shape == right.shape
    wrong = changed(packing, right, "label", 1)
    assert tolerance.differs(wrong, right, noise=noise + 1e9).all()
    assert not tolerance.differs(right, right, noise=noise).any()
    near = changed(packing, right, "small", float(4 * noise.max()))
    assert not tolerance.differs(near, right, noise=noise + noise.max()).any()
