"""A loaded model: NumPy rows in, NumPy outputs out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from approxifer.checks import array
from approxifer.errors import ModelError
from approxifer.models.outputs.structure import packed
from approxifer.models.runtime import use_threads
from approxifer.models.user_code.exits import NoExit
from approxifer.packing import Packing

#: In which rows are given to a model as they are.
STORED = "stored"
#: Precisions in which rows are given to a model, and how they travel there in NumPy, which has no
#: bfloat16.
DTYPES: dict[str, np.dtype[Any] | None] = {
    STORED: None,
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(np.float32),
}


#: The part of a row's output that is kept, along each of its axes: (start, stop). None of it: all.
Crop = tuple[tuple[int, int], ...]
Then = Callable[[Packing, np.ndarray[Any, Any]], tuple[Packing, np.ndarray[Any, Any]]]


@dataclass(frozen=True)
class Runner:
    """A model on this process.

    Attributes
    ----------
    name : str
        For people.
    fingerprint : str
        Of what was really loaded here; another one than the handle's means another model.
    dtype : str
        Rows of any floating type are cast to it, but for ``"stored"``. Integer and boolean rows
        (token ids, masks) are passed on in their own type.
    device : str
    threads : int
        torch threads during a call.
    static_batch : int or None
        The only number of rows that a static-batch program takes.
    forward : callable
        ndarray -> ndarray, several of them, or whatever the model returns by mistake.
    crop : tuple of (int, int)
        The part of a row's output that is returned: of a tile's, all but its border.
    then : callable or None
        What is made of the model's outputs here, before they travel: `Packing`, packed outputs ->
        the same.
    """

    name: str
    fingerprint: str
    dtype: str
    device: str
    threads: int
    static_batch: int | None
    forward: Callable[[np.ndarray[Any, Any]], Any] = field(repr=False)
    crop: Crop = ()
    then: Then | None = field(default=None, repr=False)

    def __call__(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Run the model on (M, *feature) rows; return (M, *out).

        The rows are copied, so a model that works in place cannot spoil them. The outputs have the
        model's own type; bfloat16, which NumPy lacks, becomes float32. Several are packed into one
        array (`approxifer.packing`).

        Raises
        ------
        ModelError
            The model returned anything but arrays of numbers, takes another number of rows, or
            would have ended the process. What else it raises passes as it is.
        ConfigError
            The rows are no array of numbers.
        """
        return self.run(rows)[1]

    def run(self, rows: np.ndarray[Any, Any]) -> tuple[Packing, np.ndarray[Any, Any]]:
        """Do the same; also return how the outputs are packed."""
        rows = array("rows", rows)
        if self.static_batch is not None and rows.shape[:1] != (self.static_batch,):
            raise ModelError(
                f"model {self.name!r} was exported for exactly {self.static_batch} rows, got"
                f" {rows.shape[0] if rows.ndim else 0}. Use micro-batches of {self.static_batch},"
                " or export it with a dynamic first dimension (dynamic_shapes)."
            )
        use_threads(self.threads)
        wanted = DTYPES[self.dtype] if np.issubdtype(rows.dtype, np.floating) else None
        dtype = wanted or rows.dtype.newbyteorder("=")
        with NoExit(f"model {self.name!r}"):
            out = self.forward(rows.astype(dtype, order="C", copy=True))
        found = packed(out, len(rows), f"model {self.name!r}")
        if self.crop and found[0].alone:
            kept = found[1][(slice(None), *(slice(*part) for part in self.crop))]
            whole = np.ascontiguousarray(kept)
            found = Packing.single(whole), whole
        return found if self.then is None else self.then(*found)
