"""What is kept of the outputs of a group."""

import numpy as np
import pytest

from approxifer.pipeline.usual import Seen, statistics


def seen(outputs: np.ndarray, group: int = 0) -> Seen:
    names = {share: f"w{share}" for share in range(len(outputs))}
    return Seen.of(group, dict(enumerate(outputs)), names, len(outputs))


def test_statistics_of_known_outputs() -> None:
    rows = np.array([[[3.0, 4.0], [3.0, 4.0]], [[1.0, 1.0], [-1.0, -1.0]]])
    norms, between, entropy = statistics(rows).T
    np.testing.assert_allclose(norms, [np.log(np.sqrt(12.5)), 0.0])
    assert between[0] < -300  # no row differs from the mean row
    assert between[1] == pytest.approx(0.0)
    chance = 1 / (1 + np.exp(-1 / np.sqrt(12.5)))
    assert entropy[0] == pytest.approx(-chance * np.log(chance) - (1 - chance) * np.log1p(-chance))
    assert entropy[1] == pytest.approx(np.log(2))


def test_statistics_of_a_scale() -> None:
    outputs = np.random.default_rng(0).normal(size=(3, 5, 4))
    difference = statistics(1e200 * outputs) - statistics(outputs)
    np.testing.assert_allclose(difference, np.log(1e200) * np.array([[1, 1, 0]] * 3), atol=1e-9)


@pytest.mark.parametrize("shape", [(3, 5), (3, 1, 4), (3, 5, 1), (3, 2, 3, 4)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int64, bool])
def test_statistics_of_any_shape_and_type_are_finite(shape: tuple[int, ...], dtype: type) -> None:
    outputs = (10 * np.random.default_rng(0).normal(size=shape)).astype(dtype)
    found = statistics(outputs)
    assert found.shape == (3, 3)
    assert np.isfinite(found).all()
    assert np.isfinite(statistics(np.zeros_like(outputs))).all()


def test_complex_outputs_are_two_numbers() -> None:
    rows = np.random.default_rng(0).normal(size=(4, 5, 3, 2))
    made = seen(rows[..., 0] + 1j * rows[..., 1])
    np.testing.assert_array_equal(made.statistics, statistics(rows))
    assert made.size == 30
