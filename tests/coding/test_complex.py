"""Complex outputs: both parts are decoded, compared and learnt from, as pairs of real ones are."""

import numpy as np
import pytest

from approxifer.coding import CodeSpec
from approxifer.coding.code import root_mean_square
from approxifer.coding.fitted import FittedDecoder

SPECS = [
    CodeSpec("systematic", 4, 2),
    CodeSpec("berrut", 4, 1),
    CodeSpec("parm", 4, 2),
    CodeSpec("replication", 3, 1),
]


def outputs(n: int, dtype: str) -> dict[int, np.ndarray]:
    """Of all shares: (6, 3), smooth along the shares."""
    angle = np.linspace(0, 1, n)[:, None, None] + np.arange(18).reshape(1, 6, 3)
    return dict(enumerate((np.sin(angle) + 3j * np.cos(angle)).astype(dtype)))


def paired(values: np.ndarray) -> np.ndarray:
    return np.stack([values.real, values.imag], axis=-1)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.scheme)
@pytest.mark.parametrize("lost", [(), (0,)])
def test_both_parts_count(spec: CodeSpec, dtype: str, lost: tuple[int, ...]) -> None:
    code = spec.build()
    back = {share: one for share, one in outputs(code.n, dtype).items() if share not in lost}
    pairs = {share: paired(one) for share, one in back.items()}
    decoded, expected = code.decode(back), code.decode(pairs)
    assert decoded.blocks.dtype == dtype
    np.testing.assert_allclose(paired(decoded.blocks), expected.blocks, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(  # twice as many numbers, and the same sum of squares
        code.residual(back), code.residual(pairs) * np.sqrt(2), rtol=1e-4, atol=1e-6
    )


def test_a_difference_in_the_imaginary_part_alone() -> None:
    a, b = np.zeros((1, 2, 3), np.complex64), np.full((1, 2, 3), 4j, np.complex64)
    np.testing.assert_array_equal(root_mean_square(a, b), [4, 4])


def test_the_locator_sees_an_imaginary_part_that_is_off() -> None:
    code = CodeSpec("berrut", 3, 0, 1).build()
    back = outputs(code.n, "complex64")
    back[2] = back[2] + np.complex64(50j)
    assert code.suspects(back) == {2}


def test_weights_are_fitted_to_both_parts() -> None:
    code = CodeSpec("systematic", 4, 1).build()
    back = outputs(code.n, "complex64")
    found, expected = FittedDecoder(code), FittedDecoder(code)
    stacked = np.stack(list(back.values()))
    found.learn(stacked, stacked[:4])
    expected.learn(paired(stacked), paired(stacked)[:4])
    np.testing.assert_allclose(found.weights([1, 2, 3, 4]), expected.weights([1, 2, 3, 4]))
