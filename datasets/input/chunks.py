"""Parts of a chunked array, of which neighbouring ones share chunks: each is read once while it is
near at hand.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import groupby, product

import numpy as np

#: Bytes of chunks that are kept.
KEPT_BYTES = 2**27

At = tuple[int, ...]


class KeptChunks:
    """An array whose chunks are kept for a while.

    Parameters
    ----------
    read
        Reads a part of the array.
    shape, chunks
        Its lengths, and those of its chunks.
    dtype
    most
        Bytes that are kept beyond the part that is being read.
    """

    def __init__(
        self,
        read: Callable[[Sequence[slice]], np.ndarray],
        shape: Sequence[int],
        chunks: Sequence[int],
        dtype: np.dtype,
        *,
        most: int = KEPT_BYTES,
    ) -> None:
        self._read, self._shape, self._chunks, self._dtype = read, shape, chunks, dtype
        self._most = most
        self._kept: OrderedDict[At, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, at: Sequence[slice]) -> np.ndarray:
        """A part of the array, which is the caller's own."""
        spans = [
            range(part.start // length, math.ceil(part.stop / length))
            for part, length in zip(at, self._chunks, strict=True)
        ]
        found = np.empty([part.stop - part.start for part in at], self._dtype)
        with self._lock:
            for together in self._missing(spans):
                self._load(together)
            for number in product(*spans):
                self._kept.move_to_end(number)
                inside, outside = [], []
                for part, place in zip(at, self._place(number), strict=True):
                    low, high = max(part.start, place.start), min(part.stop, place.stop)
                    inside.append(slice(low - place.start, high - place.start))
                    outside.append(slice(low - part.start, high - part.start))
                found[tuple(outside)] = self._kept[number][tuple(inside)]
            self._forget()
        return found

    def _missing(self, spans: Sequence[range]) -> list[list[At]]:
        """The chunks that are not kept, for the reader's sake together: all where they make up a
        box, else those that lie in a line."""
        missing = [number for number in product(*spans) if number not in self._kept]
        if not missing:
            return []
        lows, highs = np.min(missing, axis=0), np.max(missing, axis=0)
        if np.prod(highs - lows + 1) == len(missing):
            return [missing]
        lines = groupby(enumerate(missing), key=lambda one: (one[1][:-1], one[1][-1] - one[0]))
        return [[number for _, number in line] for _, line in lines]

    def _load(self, numbers: Sequence[At]) -> None:
        first, last = self._place(numbers[0]), self._place(numbers[-1])
        values = self._read([slice(a.start, b.stop) for a, b in zip(first, last, strict=True)])
        for number in numbers:
            part = zip(self._place(number), first, strict=True)
            at = tuple(slice(p.start - f.start, p.stop - f.start) for p, f in part)
            self._kept[number] = values[at].copy()

    def _place(self, number: At) -> list[slice]:
        along = zip(number, self._chunks, self._shape, strict=True)
        return [slice(i * length, min((i + 1) * length, size)) for i, length, size in along]

    def _forget(self) -> None:
        held = sum(one.nbytes for one in self._kept.values())
        while held > self._most:
            _, oldest = self._kept.popitem(last=False)
            held -= oldest.nbytes
