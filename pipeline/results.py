"""Results of a run: what workers return, and what is stored of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from approxifer.errors import ModelError
from approxifer.models.outputs.postprocess import Postprocess
from approxifer.packing import Packing

#: The attribute that holds what outputs were made into, of stores of which that was asked.
POSTPROCESS = "postprocess"

Then = Callable[[Packing, np.ndarray], tuple[Packing, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Results:
    """The outputs of workers, and what is stored of them.

    Attributes
    ----------
    travel : Packing
        Of what workers return.
    kept : Packing
        Of what is stored: the model's outputs (``keep``), then what is made of them.
    then : callable or None
        What makes it, on the client; None: what workers return is stored.
    made : Packing or None
        Of what it makes.
    keep : bool
        The model's outputs are stored, too.
    postprocess : Postprocess or None
        What is asked for, wherever it runs.
    """

    travel: Packing
    kept: Packing
    then: Then | None = None
    made: Packing | None = None
    keep: bool = False
    postprocess: Postprocess | None = None

    def attrs(self) -> dict[str, Any]:
        """Attributes of the store, which a run that goes on must agree with."""
        if self.postprocess is None:
            return {}
        return {POSTPROCESS: {"function": self.postprocess.name, "keep": self.keep}}

    def stored(self, outputs: np.ndarray) -> np.ndarray:
        """Make what is stored of outputs (n, *travel): (n, *kept).

        Raises
        ------
        ModelError
            ``postprocess`` raised, or returned something else than on the sample rows.
        """
        if self.then is None:
            return outputs
        if not len(outputs):
            return np.empty((0, *self.kept.shape), self.kept.dtype)
        made, result = self.then(self.travel, outputs)
        if made != self.made:
            raise ModelError(f"postprocess returned {made} after {self.made}: let it return one")
        if not self.keep:
            return result
        return self.kept.pack([*self.travel.unpack(outputs), *made.unpack(result)])

    @property
    def comparable(self) -> bool:
        """True if what workers return can be told from what is stored."""
        return self.then is None or self.keep

    def returned(self, stored: np.ndarray) -> np.ndarray:
        """Recover what workers returned from what is stored: (n, *kept) -> (n, *travel)."""
        if self.then is None:
            return stored
        return self.travel.pack(self.kept.unpack(stored)[: len(self.travel.parts)])
