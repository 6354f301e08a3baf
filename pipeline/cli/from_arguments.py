"""Command-line options made of the declared arguments of a run."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import Field
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from approxifer.pipeline.planning.arguments import (
    FORMER,
    declared,
    default_in_words,
    described,
    required,
)
from approxifer.pipeline.planning.kinds import Flag, Texts
from approxifer.text import say


class ScoreCommand(TyperCommand):
    """A command that says what became of the options of earlier versions."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for arg in args:
            option = arg.partition("=")[0]
            name = option.removeprefix("--").replace("-", "_")
            if option.startswith("--") and name in FORMER:
                say(
                    f"approxifer: error: {option} is of an earlier version; give {FORMER[name]}, "
                    "here as --NAME VALUE",
                    err=True,
                )
                raise typer.Exit(2)
        return super().parse_args(ctx, args)


def takes_arguments(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command every declared argument as an option, beside those of its own.

    The command is called with a dict of those that were given, and its own options by name.
    """

    shown = {name: one for name, one in declared().items() if described(one).shell}

    def called(**given: Any) -> None:
        named = {name: _value(one, given.pop(name)) for name, one in shown.items()}
        command({k: v for k, v in named.items() if v is not None}, **given)

    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    parameters = [_parameter(one) for one in shown.values()]
    called.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [*parameters, *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own)]
    )
    called.__name__, called.__doc__ = command.__name__, command.__doc__
    return called


def _parameter(one: Field[Any]) -> inspect.Parameter:
    about, words = described(one), default_in_words(one)
    shown = f"{about.help} \\[{words}]" if words else about.help
    default: Any = inspect.Parameter.empty
    if one.name == "data":
        annotation: Any = Annotated[str, typer.Argument(metavar="IN", help=about.help)]
    elif isinstance(about.kind, Flag):
        name = one.name.replace("_", "-")
        flag = f"--no-{name}" if one.default else f"--{name}"
        annotation, default = (
            Annotated[
                bool,
                typer.Option(
                    flag,
                    help=about.off if one.default else about.help,
                    rich_help_panel=about.group,
                    show_default=False,
                ),
            ],
            False,
        )
    else:
        flags = [f"--{one.name.replace('_', '-')}", *([f"-{about.letter}"] * bool(about.letter))]
        option = typer.Option(
            *flags,
            metavar=about.kind.metavar,
            help=shown,
            rich_help_panel=about.group,
            show_default=False,
        )
        parsed: Any = list[str] if isinstance(about.kind, Texts) else about.kind.parsed
        needed = required(one)
        annotation = Annotated[parsed if needed else parsed | None, option]
        default = default if needed else None
    return inspect.Parameter(
        one.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def _value(one: Field[Any], given: Any) -> Any:
    """A value as `score` takes it; None where the default is to hold."""
    if isinstance(described(one).kind, Flag):
        return (not one.default) if given else None
    return given or None if isinstance(described(one).kind, Texts) else given
