"""Models of several inputs: a row of several variables is taken apart just before the call.

On its way a row is one array (V, *feature), so that whoever codes, sends and compares rows need not
know. Which of the variables is which input is settled by their names.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from approxifer.errors import ModelError


def parameters(function: Callable[..., Any]) -> dict[str, bool]:
    """Name the parameters of a function, and say whether it needs each."""
    try:
        found: Mapping[str, inspect.Parameter] = inspect.signature(function).parameters
    except (TypeError, ValueError):  # of one that is not written in Python
        return {}
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {
        name: one.default is inspect.Parameter.empty
        for name, one in found.items()
        if one.kind not in several
    }


def check_inputs(shape: Sequence[int], names: Sequence[str]) -> Sequence[str]:
    """Return the names of a batch's variables.

    Raises
    ------
    ModelError
        A row of this batch holds others than these.
    """
    if len(shape) < 2 or shape[1] != len(names):
        raise ModelError(
            f"rows have shape {tuple(shape[1:])}, and the model's inputs are {', '.join(names)}:"
            " what preprocess= returns must hold one after another along the first dimension of a"
            " row, as it was given them."
        )
    return names


def matched(takes: Mapping[str, bool], variables: Sequence[str], name: str) -> tuple[str, ...]:
    """Name the inputs to which the variables go; none where the model takes them together.

    Parameters
    ----------
    takes
        The model's inputs, and whether it needs each.
    variables
        In the order in which a row holds them; none where rows are of one variable.
    name
        Of the model, for messages.

    Raises
    ------
    ModelError
        It has several inputs that are not the variables.
    """
    required = [one for one, needed in takes.items() if needed]
    if len(required) < 2:
        return ()
    if set(required) <= set(variables) <= set(takes):
        return tuple(variables)
    given = f"the variables {', '.join(variables)}" if variables else "one variable"
    raise ModelError(
        f"model {name!r} takes {len(required)} inputs ({', '.join(takes)}). Only models of one"
        " batch of rows can be scored, or such whose inputs have the names of the variables, all of"
        f" one shape; here are rows of {given}. Give variables={','.join(required)}, or a model"
        " that takes a single array (M, ...)."
    )


@dataclass(frozen=True)
class ByName:
    """A function of several arrays, as one of rows (M, V, *feature)."""

    function: Callable[..., Any]
    names: tuple[str, ...]

    def __call__(self, rows: np.ndarray[Any, Any]) -> Any:
        """Call the function with each variable (M, *feature) by its name."""
        return self.function(**{
            one: np.ascontiguousarray(rows[:, place])
            for place, one in enumerate(check_inputs(rows.shape, self.names))
        })  # fmt: skip
