"""Workers that are honest for a while, and workers whose answers are no plain arrays."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import toy_models
import xarray as xr

from approxifer.pipeline.faults.corruption import Array, Corruption, Corruptor


@dataclass(frozen=True)
class Later(Corruption):
    """Every output is one too large, from the ``after``-th share on."""

    after: int = 6

    def bind(self, rng: np.random.Generator) -> Corruptor:
        """A worker that counts its shares."""
        return _Counting(self, rng)


class _Counting(Corruptor):
    def __init__(self, corruption: Later, rng: np.random.Generator) -> None:
        super().__init__(corruption, rng)
        self._left = corruption.after

    def corrupt(self, output: Array) -> Array:
        self._left -= 1
        return output if self._left >= 0 else output + 1


@dataclass(frozen=True)
class Once(Corruption):
    """Every output is one too large, once a file is there."""

    flag: str = ""

    def bind(self, rng: np.random.Generator) -> Corruptor:
        """A worker that looks for the file at each share."""
        return _Watching(self, rng)


class _Watching(Corruptor):
    def __init__(self, corruption: Once, rng: np.random.Generator) -> None:
        super().__init__(corruption, rng)
        self._flag = Path(corruption.flag)

    def corrupt(self, output: Array) -> Array:
        return output + 1 if self._flag.exists() else output


class Sub(np.ndarray):
    """An array that agrees with everything."""

    def __ne__(self, other: object) -> Any:
        return np.zeros(self.shape, bool)


class Unreadable:
    """Makes an error of reading it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("no number",)


#: What is returned instead of an output: as large, but for the last ones.
DRESSES: dict[str, Callable[[Array], Any]] = {
    "masked": lambda output: np.ma.masked_array(np.full_like(output, 7.0), mask=True),
    "subclass": lambda output: (output + 1).view(Sub),
    "data array": lambda output: xr.DataArray(output + 1),
    "list": lambda output: (output + 1).tolist(),
    "scalar": lambda output: output.dtype.type(7.0),
    "nothing": lambda output: None,
    "objects": lambda output: output.astype(object),
    "swapped bytes": lambda output: output.astype(output.dtype.newbyteorder()),
    "huge": lambda output: np.zeros((len(output), 10**6), output.dtype),
    "unreadable": lambda output: Unreadable(),
}


@dataclass(frozen=True)
class Dressed(Corruption):
    """Every answer is of another kind, by its name in `DRESSES`; or those of so many rows."""

    kind: str = "masked"
    of: int | None = None

    def bind(self, rng: np.random.Generator) -> Corruptor:
        """A worker that has no other answers, and has imported what it needs for them."""
        pickle.dumps(DRESSES[self.kind](np.zeros((2, 3), np.float32)))
        return _Dressing(self, rng)


class _Dressing(Corruptor):
    def __init__(self, corruption: Dressed, rng: np.random.Generator) -> None:
        super().__init__(corruption, rng)
        self._kind, self._of = corruption.kind, corruption.of

    def corrupt(self, output: Array) -> Array:
        if self._of not in (None, len(output)):
            return output
        return DRESSES[self._kind](output)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Accomplice:
    """A worker with every row of some of its shares wrong, which confirms its partners' wrong rows.

    They share a folder, in which each row is named that one of them has corrupted; they know a
    share of theirs by its ``block`` different rows; and they answer at once.
    """

    folder: str
    block: int
    shares: float = 0.5

    def bind(self, rng: np.random.Generator) -> Callable[[Any], Any]:
        """Called once for each worker; what it returns, for each share or check."""

        def spoil(run: Any) -> Any:
            corrupts = rng.random() < self.shares

            def answer(rows: Array) -> Array:
                outputs = toy_models.linear(rows)
                names = [self._name(row) for row in rows]
                if corrupts and len(np.unique(rows.reshape(len(rows), -1), axis=0)) == self.block:
                    for name in names:
                        name.touch()
                wrong = [name.exists() for name in names]
                outputs[wrong] = np.roll(outputs[wrong], 1, axis=-1)
                return outputs

            return answer

        return spoil

    def _name(self, row: Array) -> Path:
        return Path(self.folder) / hashlib.sha256(np.ascontiguousarray(row).tobytes()).hexdigest()
