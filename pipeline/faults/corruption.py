"""Wrong outputs of Byzantine workers: correct ones, changed. Pure.

==================================== ===============================================================
`Noise`, `SignFlip`, `Zeros`         other numbers
`BitFlips`, `NotANumber`             a few numbers as broken hardware leaves them
`Roll`, `SwapTopTwo`, `ShuffleRows`  the right numbers in the wrong place
`Replay`                             the right numbers of another share
`Collude`                            the same wrong numbers as an accomplice
`WrongShape`                         no output at all
==================================== ===============================================================

Each takes ``shares=`` and ``rows=``, the fractions that are corrupted, by keyword. Nothing here
knows of Dask, so that a simulation corrupts recorded outputs as a real worker does its own::

    corruptor = Noise(sigma=10.0, shares=0.05).bind(np.random.default_rng(seed))
    returned = corruptor.corrupt(output)  # (B, *out) in, (B, *out) out

The result follows from the seed and that output alone: not from what came before, nor from the
number of calls (`Replay`, which has a memory, is the exception).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np

from approxifer.errors import ConfigError

#: Threads of a GPU that run in step.
WARP = 32

Array = np.ndarray[Any, Any]
#: Correct output (B, *out), chosen rows (n,), generator -> those rows corrupted (n, *out).
CorruptRows = Callable[[Array, Array, np.random.Generator], Array]


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """The base of all corruptions.

    Attributes
    ----------
    shares : float
        The fraction of shares that are corrupted, each drawn on its own.
    rows : float
        The fraction of rows that are wrong in such a share: rounded, at least one, drawn for each
        share.
    """

    shares: float = 1.0
    rows: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is no fraction."""
        check_shares(self.shares)
        if not 0 < self.rows <= 1:
            raise ConfigError(f"rows={self.rows!r}: give a fraction above 0 and up to 1.")

    def bind(self, rng: np.random.Generator) -> Corruptor:
        """Bind it to one worker: one number is drawn, as its seed."""
        return Corruptor(self, rng)

    def corrupt_rows(self, output: Array, chosen: Array, rng: np.random.Generator) -> Array:
        """Make wrong rows, without a change to `output`.

        Parameters
        ----------
        output : (B, *out)
            The correct output of the share.
        chosen : (n,) int
            The rows that become wrong, in ascending order.
        rng : numpy.random.Generator
            For this share.

        Returns
        -------
        ndarray (n, *out)
        """
        raise NotImplementedError


class Corruptor:
    """One worker's corruption, with its seed. Made by `Corruption.bind`; for any thread."""

    def __init__(self, corruption: Corruption, rng: np.random.Generator) -> None:
        self._corruption = corruption
        self._seed = int(rng.integers(2**63))

    def corrupt(self, output: Array) -> Array:
        """Corrupt the output of a share.

        Parameters
        ----------
        output : (B, *out)
            The correct output; not modified, but returned as it is where nothing is changed.

        Raises
        ------
        ConfigError
            A corruption that makes no sense for such outputs.
        """
        return self.apply(output, self._corruption.corrupt_rows)

    def apply(self, output: Array, corrupt: CorruptRows) -> Array:
        """Corrupt the given fraction of shares and rows."""
        rng = np.random.default_rng([self._seed, crc32(output.tobytes())])
        if rng.random() >= self._corruption.shares:
            return output
        total = len(output)
        if self._corruption.rows == 1:
            return corrupt(output, np.arange(total), rng)
        count = max(1, round(self._corruption.rows * total))
        chosen = np.sort(rng.permutation(total)[:count])
        wrong = output.copy()
        wrong[chosen] = corrupt(output, chosen, rng)
        return wrong


def check_shares(shares: float) -> None:
    """Refuse a fraction of shares that is none (`ConfigError`)."""
    if not 0 <= shares <= 1:
        raise ConfigError(f"shares={shares!r}: give a fraction from 0 to 1.")


def check_count(name: str, value: int) -> None:
    """Refuse a count that is none (`ConfigError`)."""
    if not (isinstance(value, int) and value >= 1):
        raise ConfigError(f"{name}={value!r}: give a whole number from 1 up.")


# ---- numbers -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Noise(Corruption):
    """Gaussian noise is added: of standard deviation ``sigma`` (ApproxIFER, arXiv 2109.09868, has
    1, 10 and 100), or of ``sigma`` standard deviations of the share's outputs if ``relative``."""

    sigma: float = 1.0
    relative: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.sigma < np.inf:
            raise ConfigError(f"sigma={self.sigma!r}: give a finite number above 0.")

    def corrupt_rows(self, output: Array, chosen: Array, rng: np.random.Generator) -> Array:
        _need_floats(self, output)
        unit = float(output.std(dtype=np.float64)) if self.relative else 1.0
        told = output[chosen]
        noise = self.sigma * unit * rng.standard_normal(told.shape)
        return (told + noise).astype(output.dtype)


@dataclass(frozen=True)
class SignFlip(Corruption):
    """Every output has the other sign."""

    def corrupt_rows(self, output: Array, chosen: Array, rng: np.random.Generator) -> Array:
        _need_floats(self, output)
        return -output[chosen]


@dataclass(frozen=True)
class Zeros(Corruption):
    """Every output is zero."""

    def corrupt_rows(self, output: Array, chosen: Array, rng: np.random.Generator) -> Array:
        return np.zeros_like(output[chosen])


@dataclass(frozen=True)
class BitFlips(Corruption):
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

    def corrupt_rows(self, output: Array, chosen: Array, rng: np.random.Generator) -> Array:
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
class NotANumber(Corruption):
    """``values`` outputs are NaN, or infinite if ``infinite``."""

    values: int = 1
    infinite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("values", self.values)

    def corrupt_rows(self, output: Array, chosen: Array, rng: np.random.Generator) -> Array:
        _need_floats(self, output)
        told = np.ascontiguousarray(output[chosen])
        told.reshape(-1)[_places(told.size, self.values, rng)] = np.inf if self.infinite else np.nan
        return told


# ---- the right numbers in the wrong place --------------------------------------------------------


@dataclass(frozen=True)
class Roll(Corruption):
    """Classes are rolled: each output along the last axis stands ``by`` places further."""

    by: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.by == 0:
            raise ConfigError("by=0 changes nothing: give the places by which classes are rolled.")

    def corrupt_rows(self, output: Array, chosen: Array, rng: np.random.Generator) -> Array:
        if self.by % _classes(self, output) == 0:
            raise ConfigError(f"{self} changes nothing: a row has {output.shape[-1]} classes.")
        return np.roll(output[chosen], self.by, axis=-1)


@dataclass(frozen=True)
class SwapTopTwo(Corruption):
    """The two highest outputs along the last axis change places: the least corruption that turns
    every prediction."""

    def corrupt_rows(self, output: Array, chosen: Array, rng: np.random.Generator) -> Array:
        _classes(self, output)
        told = output[chosen]
        top = np.argpartition(told, -2, axis=-1)[..., -2:]
        np.put_along_axis(told, top, np.take_along_axis(told, top[..., ::-1], axis=-1), axis=-1)
        return told


@dataclass(frozen=True)
class ShuffleRows(Corruption):
    """Each row has the output of another row of the share, none its own; of a share of one row
    nothing is changed."""

    def corrupt_rows(self, output: Array, chosen: Array, rng: np.random.Generator) -> Array:
        cycle = rng.permutation(len(output))
        source = np.empty_like(cycle)
        source[cycle] = np.roll(cycle, 1)
        return output[source[chosen]]


@dataclass(frozen=True)
class Replay(Corruption):
    """The share gets the honest output of an older one of the same shape: of the ``age``-th that
    this worker ran before it. Until there is one the worker is honest."""

    age: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("age", self.age)

    def bind(self, rng: np.random.Generator) -> Corruptor:
        """A worker with a memory of ``age`` outputs of each shape."""
        return _Replayer(self, rng)


class _Replayer(Corruptor):
    def __init__(self, corruption: Replay, rng: np.random.Generator) -> None:
        super().__init__(corruption, rng)
        self._age = corruption.age
        self._kept: dict[tuple[tuple[int, ...], str], deque[Array]] = {}

    def corrupt(self, output: Array) -> Array:
        shape = (output.shape, output.dtype.str)
        kept = self._kept.setdefault(shape, deque(maxlen=self._age))
        older = kept[0] if len(kept) == self._age else output
        kept.append(output.copy())
        return self.apply(output, lambda _, chosen, __: older[chosen])


# ---- several workers, and what is no output ------------------------------------------------------


@dataclass(frozen=True)
class Collude(Corruption):
    """Workers with the same ``shared_seed`` return the same wrong output for the same row, so that
    one confirms the other: classes rolled by one, and a pattern as large as the row added.

    With ``shares`` or ``rows`` below 1 they also agree on the shares and rows, provided that their
    honest outputs of a share are equal bit by bit, as on machines of one kind.
    """

    shared_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (isinstance(self.shared_seed, int) and self.shared_seed >= 0):
            raise ConfigError(f"shared_seed={self.shared_seed!r}: give a whole number from 0 up.")

    def bind(self, rng: np.random.Generator) -> Corruptor:
        """Bind it to a worker whose seed is the shared one."""
        return super().bind(np.random.default_rng(self.shared_seed))

    def corrupt_rows(self, output: Array, chosen: Array, rng: np.random.Generator) -> Array:
        _need_floats(self, output)
        told = output[chosen].astype(np.float64)
        size = np.sqrt(np.mean(told**2, axis=tuple(range(1, told.ndim)), keepdims=True))
        size[size == 0] = 1.0
        pattern = np.random.default_rng(self.shared_seed).standard_normal(output.shape[1:])
        rolled = np.roll(told, 1, axis=-1) if told.ndim > 1 else told
        said: Array = rolled + size * pattern
        return said.astype(output.dtype)


@dataclass(frozen=True)
class WrongShape(Corruption):
    """One row too few; with ``dtype`` instead all rows in another type: float32 becomes float64,
    any other type float32."""

    dtype: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rows != 1:
            raise ConfigError(
                f"rows={self.rows!r}: a share has one shape and type. Leave rows out."
            )

    def corrupt_rows(self, output: Array, chosen: Array, rng: np.random.Generator) -> Array:
        if self.dtype:
            return output.astype(np.float64 if output.dtype == np.float32 else np.float32)
        return output[:-1].copy()


def _places(size: int, count: int, rng: np.random.Generator) -> Array:
    """So many different places, all of them if there are no more."""
    return rng.choice(size, min(size, count), replace=False)


def _need_floats(corruption: Corruption, output: Array) -> None:
    if output.dtype.kind != "f":
        raise ConfigError(
            f"{corruption} needs floating outputs, and the model returns {output.dtype}. Use Zeros,"
            " Roll, SwapTopTwo, ShuffleRows, Replay or WrongShape."
        )


def _classes(corruption: Corruption, output: Array) -> int:
    """Outputs along the last axis."""
    if output.ndim < 2 or output.shape[-1] < 2:
        raise ConfigError(
            f"{corruption} needs two or more outputs along the last axis, and a row of the model's"
            f" has shape {output.shape[1:]}. Use Noise, SignFlip or ShuffleRows."
        )
    return int(output.shape[-1])
