"""Signature and docstring of the functions that take the arguments of a run."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from approxifer.errors import ConfigError
from approxifer.pipeline.planning.arguments import default_in_words, described, grouped
from approxifer.pipeline.planning.options import Options

P = ParamSpec("P")
R = TypeVar("R")


def takes_options(
    options: Callable[P, Options],
) -> Callable[[Callable[[Options], R]], Callable[P, R]]:
    """Make of a function of `Options` one of its arguments, for people and for type checkers.

    The function's docstring gets the section *Parameters*, before its first other section.

    Parameters
    ----------
    options
        `Options` itself, whose signature the result has.
    """

    def decorate(function: Callable[[Options], R]) -> Callable[P, R]:
        @wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            given: dict[str, Any] = dict(kwargs)
            if args:
                given = {"data": args[0]} | given
            if len(args) > 1 or (args and "data" in kwargs):
                raise ConfigError(
                    f"{function.__name__}() takes one argument without a name, the data; name the "
                    "others"
                )
            return function(Options.of(given))

        signature = inspect.signature(options)
        returns = inspect.signature(function).return_annotation
        called.__signature__ = signature.replace(return_annotation=returns)  # type: ignore[attr-defined]
        called.__annotations__ = {}
        called.__doc__ = _with_parameters(inspect.getdoc(function) or "")
        return called

    return decorate


def _with_parameters(doc: str) -> str:
    head, line, tail = doc.partition("\nReturns\n-------\n")
    return f"{head}\nParameters\n----------\n{_parameters()}\n{line}{tail}"


def _parameters() -> str:
    lines: list[str] = []
    for group, arguments in grouped().items():
        lines += ["", f"**{group}**", ""] if lines else [f"**{group}**", ""]
        for argument in arguments:
            about = described(argument)
            default = default_in_words(argument)
            text = " ".join(filter(None, (about.help, about.more)))
            lines.append(f"{argument.name}" + (f" : default {default}" if default else ""))
            lines.append(textwrap.indent(textwrap.fill(text, 96), "    "))
    return "\n".join(lines)
