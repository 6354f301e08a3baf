"""What Byzantine workers answer: honest outputs, changed. Pure.

==================================== ===============================================================
`Noise`, `SignFlip`, `Zeros`         other numbers
`BitFlips`, `NotANumber`             a few numbers as broken hardware leaves them
`Roll`, `SwapTopTwo`, `ShuffleRows`  the right numbers in the wrong place
`Replay`                             the right numbers of another share
`Collude`                            the same wrong numbers as an accomplice
`WrongShape`                         no output at all
==================================== ===============================================================

Each takes ``shares=`` and ``rows=``, the fractions that are lied about, by keyword; `Lie` has them,
and says how a lie is told.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from approxifer.errors import ConfigError
from approxifer.pipeline.faults.corrupted_output import Array, Liar, Lie, check_count

#: Threads of a GPU that run in step.
WARP = 32


# ---- numbers -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Noise(Lie):
    """Gaussian noise is added: of standard deviation ``sigma`` (ApproxIFER, arXiv 2109.09868, has
    1, 10 and 100), or of ``sigma`` standard deviations of the share's outputs if ``relative``."""

    sigma: float = 1.0
    relative: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.sigma < np.inf:
            raise ConfigError(f"sigma={self.sigma!r}: give a finite number above 0.")

    def tell(self, output: Array, chosen: Array, rng: np.random.Generator) -> Array:
        _need_floats(self, output)
        unit = float(output.std(dtype=np.float64)) if self.relative else 1.0
        told = output[chosen]
        noise = self.sigma * unit * rng.standard_normal(told.shape)
        return (told + noise).astype(output.dtype)


@dataclass(frozen=True)
class SignFlip(Lie):
    """Every output has the other sign."""

    def tell(self, output: Array, chosen: Array, rng: np.random.Generator) -> Array:
        _need_floats(self, output)
        return -output[chosen]


@dataclass(frozen=True)
class Zeros(Lie):
    """Every output is zero."""

    def tell(self, output: Array, chosen: Array, rng: np.random.Generator) -> Array:
        return np.zeros_like(output[chosen])


@dataclass(frozen=True)
class BitFlips(Lie):
    """``bits`` different bits of ``values`` outputs are flipped, wherever they stand in the float.

    ``clustered``: of consecutive outputs, from the beginning of a warp (every 32nd output of the
    rows lied about) on; else of outputs drawn on their own. After the fault study arXiv 2605.04213:
    fewer than 40 % of the events on a GPU flipped a single bit, and what they hit was aligned
    with warps. Flips of low bits change next to nothing; others leave a NaN, sometimes a
    signalling one, at which NumPy warns when it is cast.
    """

    bits: int = 2
    values: int = 1
    clustered: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("values", self.values)
        if not (isinstance(self.bits, int) and 1 <= self.bits <= 16):
            raise ConfigError(f"bits={self.bits!r}: give 1 to 16, as many as a float16 has.")

    def tell(self, output: Array, chosen: Array, rng: np.random.Generator) -> Array:
        _need_floats(self, output)
        told = np.ascontiguousarray(output[chosen])
        raw = told.reshape(-1).view(f"u{told.itemsize}")
        if self.clustered:
            start = WARP * int(rng.integers(-(-raw.size // WARP)))
            where = np.arange(start, min(start + self.values, raw.size))
        else:
            where = _places(raw.size, self.values, rng)
        width = 8 * told.itemsize
        order = rng.permuted(np.tile(np.arange(width), (len(where), 1)), axis=1)
        masks = np.left_shift(raw.dtype.type(1), order[:, : self.bits].astype(raw.dtype))
        raw[where] ^= np.bitwise_or.reduce(masks, axis=1)
        return told


@dataclass(frozen=True)
class NotANumber(Lie):
    """``values`` outputs are NaN, or infinite if ``infinite``."""

    values: int = 1
    infinite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("values", self.values)

    def tell(self, output: Array, chosen: Array, rng: np.random.Generator) -> Array:
        _need_floats(self, output)
        told = np.ascontiguousarray(output[chosen])
        told.reshape(-1)[_places(told.size, self.values, rng)] = np.inf if self.infinite else np.nan
        return told


# ---- the right numbers in the wrong place --------------------------------------------------------


@dataclass(frozen=True)
class Roll(Lie):
    """Classes are rolled: each output along the last axis stands ``by`` places further."""

    by: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.by == 0:
            raise ConfigError("by=0 changes nothing: give the places by which classes are rolled.")

    def tell(self, output: Array, chosen: Array, rng: np.random.Generator) -> Array:
        if self.by % _classes(self, output) == 0:
            raise ConfigError(f"{self} changes nothing: a row has {output.shape[-1]} classes.")
        return np.roll(output[chosen], self.by, axis=-1)


@dataclass(frozen=True)
class SwapTopTwo(Lie):
    """The two highest outputs along the last axis have changed places: the least lie that turns
    every prediction."""

    def tell(self, output: Array, chosen: Array, rng: np.random.Generator) -> Array:
        _classes(self, output)
        told = output[chosen]
        top = np.argpartition(told, -2, axis=-1)[..., -2:]
        np.put_along_axis(told, top, np.take_along_axis(told, top[..., ::-1], axis=-1), axis=-1)
        return told


@dataclass(frozen=True)
class ShuffleRows(Lie):
    """Each row has the output of another row of the share, none its own; of a share of one row
    nothing is changed."""

    def tell(self, output: Array, chosen: Array, rng: np.random.Generator) -> Array:
        cycle = rng.permutation(len(output))
        source = np.empty_like(cycle)
        source[cycle] = np.roll(cycle, 1)
        return output[source[chosen]]


@dataclass(frozen=True)
class Replay(Lie):
    """The share gets the honest output of an older one of the same shape: of the ``age``-th that
    this worker ran before it. Until there is one the worker is honest."""

    age: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("age", self.age)

    def arm(self, rng: np.random.Generator) -> Liar:
        """A worker with a memory of ``age`` outputs of each shape."""
        return _Replayer(self, rng)


class _Replayer(Liar):
    def __init__(self, lie: Replay, rng: np.random.Generator) -> None:
        super().__init__(lie, rng)
        self._age = lie.age
        self._kept: dict[tuple[tuple[int, ...], str], deque[Array]] = {}

    def lie(self, output: Array) -> Array:
        shape = (output.shape, output.dtype.str)
        kept = self._kept.setdefault(shape, deque(maxlen=self._age))
        older = kept[0] if len(kept) == self._age else output
        kept.append(output.copy())
        return self.spread(output, lambda _, chosen, __: older[chosen])


# ---- several workers, and what is no output ------------------------------------------------------


@dataclass(frozen=True)
class Collude(Lie):
    """Workers with the same ``secret`` return the same wrong output for the same row, so that one
    confirms the other: classes rolled by one, and a secret pattern as large as the row added.

    With ``shares`` or ``rows`` below 1 they also agree on the shares and rows, provided that their
    honest outputs of a share are equal bit by bit, as on machines of one kind.
    """

    secret: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (isinstance(self.secret, int) and self.secret >= 0):
            raise ConfigError(f"secret={self.secret!r}: give a whole number from 0 up.")

    def arm(self, rng: np.random.Generator) -> Liar:
        """A worker whose seed is the secret."""
        return super().arm(np.random.default_rng(self.secret))

    def tell(self, output: Array, chosen: Array, rng: np.random.Generator) -> Array:
        _need_floats(self, output)
        told = output[chosen].astype(np.float64)
        size = np.sqrt(np.mean(told**2, axis=tuple(range(1, told.ndim)), keepdims=True))
        size[size == 0] = 1.0
        pattern = np.random.default_rng(self.secret).standard_normal(output.shape[1:])
        rolled = np.roll(told, 1, axis=-1) if told.ndim > 1 else told
        said: Array = rolled + size * pattern
        return said.astype(output.dtype)


@dataclass(frozen=True)
class WrongShape(Lie):
    """One row too few; with ``dtype`` instead all rows in another type: float32 becomes float64,
    any other type float32."""

    dtype: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rows != 1:
            raise ConfigError(
                f"rows={self.rows!r}: a share has one shape and type. Leave rows out."
            )

    def tell(self, output: Array, chosen: Array, rng: np.random.Generator) -> Array:
        if self.dtype:
            return output.astype(np.float64 if output.dtype == np.float32 else np.float32)
        return output[:-1].copy()


def _places(size: int, count: int, rng: np.random.Generator) -> Array:
    """So many different places, all of them if there are no more."""
    return rng.choice(size, min(size, count), replace=False)


def _need_floats(lie: Lie, output: Array) -> None:
    if output.dtype.kind != "f":
        raise ConfigError(
            f"{lie} needs floating outputs, and the model returns {output.dtype}. Use Zeros, Roll,"
            " SwapTopTwo, ShuffleRows, Replay or WrongShape."
        )


def _classes(lie: Lie, output: Array) -> int:
    """Outputs along the last axis."""
    if output.ndim < 2 or output.shape[-1] < 2:
        raise ConfigError(
            f"{lie} needs two or more outputs along the last axis, and a row of the model's has"
            f" shape {output.shape[1:]}. Use Noise, SignFlip or ShuffleRows."
        )
    return int(output.shape[-1])
