"""``postprocess=``: what is made of a model's outputs before they are stored.

A function of one's own gets the model's one output (n, *out), or a dict of its several ones, and
returns an array, or several, with a row for each.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from approxifer.errors import ConfigError, ModelError
from approxifer.models.handle import callable_source
from approxifer.models.names import first_line, resolve_callable
from approxifer.models.outputs.structure import packed
from approxifer.models.sources import CallableSource
from approxifer.models.user_code.exits import NoExit
from approxifer.packing import Packing, Part

#: The name of the model's one output in a store.
PREDICTION = "prediction"
#: The name of what a function of one's own makes of it, where that is stored too.
POSTPROCESSED = "postprocessed"

TOPK = re.compile(r"topk:([1-9][0-9]*)")
_NONE = "-1 where an output is NaN"


@dataclass(frozen=True)
class Postprocess:
    """A function of a model's outputs, for any process.

    Attributes
    ----------
    name : str
        As stores keep it.
    source : CallableSource
        How to get the function.
    classes : int
        Classes that the model must have for it; 0: it takes any outputs.
    about : tuple of (str, str)
        Of each result of ours its name, behind ``prediction_``, and its meaning.
    dims : tuple of str
        Of a row's result of ours.
    """

    name: str
    source: CallableSource
    classes: int = 0
    about: tuple[tuple[str, str], ...] = ()
    dims: tuple[str, ...] = ()

    @property
    def own(self) -> bool:
        """True for a function of the user's."""
        return not self.about

    def check(self, outputs: Packing) -> None:
        """Refuse outputs of which there are no classes.

        Raises
        ------
        ConfigError
        """
        if not self.classes:
            return
        part = outputs.parts[0]
        if not outputs.alone or len(part.shape) != 1 or part.dtype.kind not in "fiub":
            raise ConfigError(
                f"postprocess={self.name!r} is for a model that returns one real number for each "
                f"class, and this one turns a row into {outputs}: give a function of your own, "
                "postprocess='module:function'"
            )
        if part.shape[0] < self.classes:
            raise ConfigError(
                f"postprocess={self.name!r}: the model has {part.shape[0]} classes; give "
                f"topk:{part.shape[0]} or fewer"
            )

    def load(self) -> Callable[[Packing, np.ndarray], tuple[Packing, np.ndarray]]:
        """The function in this process, of packed outputs and their packing."""
        return partial(_apply, self.source.build(dtype="", device="cpu").forward, self.name)

    def parts(self, made: Packing, *, keep: bool) -> tuple[Part, ...]:
        """The results as they are stored: beside the model's outputs (``keep``), or instead."""
        if self.own:
            one = POSTPROCESSED if keep else PREDICTION
            names = (one,) if made.alone else made.names
            about = [f"made of the output of the model by {self.name}"] * len(names)
        else:
            names = tuple(f"{PREDICTION}_{name}" for name, _ in self.about)
            names = (PREDICTION,) if made.alone and not keep else names
            about = [meaning for _, meaning in self.about]
        dims = None if self.own else self.dims
        return tuple(
            Part(name, part.shape, part.dtype, dims, meaning)
            for name, part, meaning in zip(names, made.parts, about, strict=True)
        )


def open_postprocess(given: str | Callable[..., Any]) -> Postprocess:
    """Turn what a user gives into a function for any process.

    Parameters
    ----------
    given
        ``"argmax"``, ``"softmax"``, ``"topk:5"``, ``"module:function"`` or a function.

    Raises
    ------
    ModelError
        There is none of that name, or it cannot be sent to workers.
    """
    if given == "argmax":
        meaning = f"number of the class with the largest output; {_NONE}"
        return Postprocess(given, _ours(argmax), 1, (("argmax", meaning),))
    if given == "softmax":
        meaning = "probability of each class: softmax of the output of the model"
        return Postprocess(given, _ours(softmax), 1, (("softmax", meaning),), ("output_0",))
    if isinstance(given, str) and (found := TOPK.fullmatch(given)):
        count = int(found[1])
        about = (
            ("indices", f"numbers of the {count} classes with the largest outputs; {_NONE}"),
            ("values", "their outputs, the largest first"),
        )
        return Postprocess(given, _ours(partial(topk, count=count)), count, about, ("rank",))
    function = resolve_callable(given, "postprocess")
    name, source = callable_source(function, "postprocess")
    return Postprocess(given if isinstance(given, str) else name, source)


def _ours(function: Callable[..., Any]) -> CallableSource:
    return callable_source(function, "postprocess")[1]


def argmax(scores: np.ndarray) -> np.ndarray:
    """The class with the largest score of each row, the first of equals: (n, C) -> int64 (n,)."""
    found: np.ndarray = np.where(_whole(scores), scores.argmax(axis=1), -1).astype(np.int64)
    return found


def softmax(scores: np.ndarray) -> np.ndarray:
    """Probabilities of scores: (n, C) -> (n, C), of whole numbers in float64."""
    with np.errstate(invalid="ignore"):  # of rows that are not finite
        wide = scores.astype(np.float64)
        found = np.exp(wide - wide.max(axis=1, keepdims=True))
        found /= found.sum(axis=1, keepdims=True)
    kept: np.ndarray = found.astype(scores.dtype if scores.dtype.kind == "f" else np.float64)
    return kept


def topk(scores: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """The classes with the largest scores, the largest first, and these: (n, C) -> (n, count)."""
    last = scores.shape[1] - 1
    # Backwards, and back: so that of equals the first comes first.
    order = last - np.argsort(scores[:, ::-1], axis=1, kind="stable")[:, ::-1][:, :count]
    values, whole = np.take_along_axis(scores, order, axis=1), _whole(scores)[:, None]
    if scores.dtype.kind == "f":
        values = np.where(whole, values, np.nan).astype(scores.dtype)
    return {"indices": np.where(whole, order, -1).astype(np.int64), "values": values}


def _whole(scores: np.ndarray) -> np.ndarray:
    """The rows without NaN: bool (n,)."""
    found: np.ndarray = (scores == scores).all(axis=1)
    return found


def _apply(
    function: Callable[[Any], Any], name: str, packing: Packing, outputs: np.ndarray
) -> tuple[Packing, np.ndarray]:
    """Call a function on outputs, of which it gets a copy.

    Raises
    ------
    ModelError
        It raised, or did not return numbers with a row for each row.
    """
    rows = len(outputs)
    try:
        with NoExit(f"postprocess {name!r}"):
            returned = function(packing.named(outputs.copy()))
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"postprocess {name!r} raised on {rows} rows of outputs {packing}: {first_line(error)}"
        ) from error
    made, result = packed(returned, rows, f"postprocess {name!r}")
    if len(result) != rows:
        raise ModelError(
            f"postprocess {name!r} returned an array of shape {result.shape} for {rows} rows: it "
            "must return one row for each"
        )
    return made, result
