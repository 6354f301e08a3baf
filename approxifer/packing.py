"""Several outputs of a model as one array of numbers while they travel, and back.

Whatever a model returns goes through the pipeline as one plain array with a row for each query: it
is fetched, checked, decoded and journalled like any other. Each output lies in columns of its own.
Linear codes treat every column by itself, so what is interpolated is each output for itself.

The columns have the dtype of the outputs, if that is one; else the widest of the floating or
complex ones, which holds the numbers of the narrower ones exactly. Whole numbers beside them are
cut into digits of 8, 16 or 32 bits, as many as such a number holds exactly; whole numbers of
several dtypes travel as bytes. So nothing is rounded, and no more is sent than there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from math import prod
from typing import Any

import numpy as np

#: Bytes of a whole number that a floating-point number of so many bytes holds exactly.
_DIGITS = {2: 1, 4: 2, 8: 4}


@dataclass(frozen=True)
class Part:
    """One of the outputs.

    Attributes
    ----------
    name : str
    shape : tuple of int
        Of one row.
    dtype : numpy.dtype
    dims : tuple of str or None
        Names of the dimensions of a row, where it has such by itself.
    about : str
        The meaning of its numbers, in words; empty: what the model makes of them.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    dims: tuple[str, ...] | None = field(default=None, compare=False)
    about: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.name} {self.shape} {self.dtype}"

    @property
    def exact(self) -> bool:
        """True for whole numbers, between which nothing lies."""
        return self.dtype.kind not in "fc"


@dataclass(frozen=True)
class Packing:
    """The way of outputs into one array.

    Attributes
    ----------
    parts : tuple of Part
    alone : bool
        True for a model that returns one array: it travels as it is.
    """

    parts: tuple[Part, ...]
    alone: bool = False

    @classmethod
    def of(cls, outputs: Mapping[str, np.ndarray]) -> Packing:
        """The packing of named outputs, each (B, *shape)."""
        return cls(tuple(Part(n, one.shape[1:], native(one.dtype)) for n, one in outputs.items()))

    @classmethod
    def single(cls, output: np.ndarray, name: str = "prediction") -> Packing:
        """The packing of one array (B, *shape), which stays as it is."""
        return cls((Part(name, output.shape[1:], output.dtype),), alone=True)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype in which the outputs travel."""
        kinds = {part.dtype for part in self.parts}
        if len(kinds) == 1:
            return kinds.pop()
        wide = [dtype for dtype in kinds if dtype.kind in "fc"]
        return np.result_type(*wide) if wide else np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in which one row travels."""
        return self.parts[0].shape if self.alone else (self._ends[-1],)

    @property
    def names(self) -> tuple[str, ...]:
        """The outputs' names."""
        return tuple(part.name for part in self.parts)

    @property
    def bytes(self) -> int:
        """Bytes of one row as it travels."""
        return prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        if self.alone:
            return f"{self.parts[0].shape} {self.parts[0].dtype}"
        return ", ".join(map(str, self.parts))

    def pack(self, outputs: Sequence[np.ndarray]) -> np.ndarray:
        """Put outputs, in the order of the parts and each (B, *shape), into one array."""
        if self.alone:
            return outputs[0]
        packed = np.empty((len(outputs[0]), *self.shape), self.dtype)
        for part, columns, output in zip(self.parts, self.columns(packed), outputs, strict=True):
            flat = np.ascontiguousarray(output, part.dtype).reshape(len(output), prod(part.shape))
            columns[:] = flat if (digit := self._digit(part)) is None else flat.view(digit)
        return packed

    def unpack(self, packed: np.ndarray) -> list[np.ndarray]:
        """The outputs of one array: of each part (B, *shape).

        Where whole numbers are not there, NaN among their digits, they are 0.
        """
        if self.alone:
            return [packed]
        found = []
        for part, columns in zip(self.parts, self.columns(packed), strict=True):
            digit = self._digit(part)
            if digit is not None:
                with np.errstate(invalid="ignore"):  # of what a worker may have made up
                    digits = np.nan_to_num(columns.real).astype(digit)
                flat = np.ascontiguousarray(digits).view(part.dtype)
            elif columns.dtype.kind == "c" and part.dtype.kind != "c":
                flat = columns.real.astype(part.dtype)
            else:
                with np.errstate(over="ignore"):  # likewise: what was decoded may be larger
                    flat = columns.astype(part.dtype)
            found.append(flat.reshape(len(packed), *part.shape))
        return found

    def columns(self, packed: np.ndarray) -> Iterator[np.ndarray]:
        """The columns of each part: views (B, n). Several outputs only."""
        for start, stop in pairwise(self._ends):
            yield packed[:, start:stop]

    def named(self, packed: np.ndarray) -> np.ndarray | dict[str, np.ndarray]:
        """The one output, or several by their names."""
        outputs = self.unpack(packed)
        return outputs[0] if self.alone else dict(zip(self.names, outputs, strict=True))

    @property
    def _ends(self) -> list[int]:
        """Before which column each part begins, and after which the last one ends."""
        return [0, *accumulate(map(self._width, self.parts))]

    def _width(self, part: Part) -> int:
        digit = self._digit(part)
        each = 1 if digit is None else part.dtype.itemsize // digit.itemsize
        return prod(part.shape) * each

    def _digit(self, part: Part) -> np.dtype[Any] | None:
        """The dtype of the digits of whole numbers; None for what travels as it is."""
        travels = self.dtype
        if not part.exact or part.dtype == travels:
            return None
        if travels.kind in "fc":
            real = travels.itemsize // (2 if travels.kind == "c" else 1)
            size = min(_DIGITS.get(real, 4), part.dtype.itemsize)
        else:
            size = 1
        return np.dtype(f"u{size}")


def native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """A dtype in this machine's order of bytes."""
    return dtype.newbyteorder("=")
