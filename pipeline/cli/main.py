"""The command line: ``approxifer score | submit | status | result | cancel | demo | ...``.

Exit codes: 0 whole, 1 finished with failed rows or broken off by a fault, 2 wrong usage or input,
130 interrupted. What is heavy is imported inside the commands, so that ``--help`` comes at once.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from approxifer.errors import ApproxiferError
from approxifer.pipeline.cli import jobs as job_commands
from approxifer.pipeline.cli.from_arguments import ScoreCommand, takes_arguments
from approxifer.pipeline.planning.arguments import RUN
from approxifer.text import ShownFormatter, one_line, say, shown
from approxifer.version import __version__

if TYPE_CHECKING:
    from approxifer.pipeline.reporting.report import Report

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

INTERRUPTED = 130

StateOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Weights for MODULE:FACTORY.")
]
PreprocessOption = Annotated[
    str | None, typer.Option(metavar="MODULE:FUNCTION", help="Applied to rows before the model.")
]
TrustOption = Annotated[
    bool, typer.Option("--trust-model", help="Load a file that can run code of its author's.")
]


class _Stop:
    """The handler of a signal to stop: what comes within two seconds of one says the same again,
    and would only break off what it has set going."""

    def __init__(self) -> None:
        self._last = -math.inf

    def __call__(self, *_: Any) -> None:
        now = time.monotonic()
        if now - self._last > 2:
            self._last = now
            raise KeyboardInterrupt


def main() -> None:
    """Run the command line. SIGTERM, of a batch system for instance, stops it as Ctrl-C does."""
    stop = _Stop()
    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as it is of what a shell put behind
        signal.signal(signal.SIGINT, stop)
    if not sys.flags.safe_path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # of MODULE:FACTORY, as with python -m; workers inherit it
    if logging.lastResort is not None:  # where nobody has said where to
        logging.lastResort.setFormatter(ShownFormatter())
    format_warning = warnings.formatwarning
    warnings.formatwarning = lambda *args, **options: shown(format_warning(*args, **options))
    try:
        app(prog_name="approxifer")
    except Exception:  # an error of ours: Python itself would show what others wrote as it is
        say(traceback.format_exc(), err=True)
        sys.exit(1)


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"approxifer {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Score a Zarr dataset with a torch model on a Dask cluster with unreliable workers."""


@contextmanager
def _exit_codes() -> Iterator[None]:
    """Turn errors that are meant for the user into one line and an exit code."""
    try:
        yield
    except ApproxiferError as error:
        say(f"approxifer: error: {one_line(error)}", err=True)
        raise typer.Exit(2 if error.usage else 1) from error
    except KeyboardInterrupt as error:
        say("approxifer: interrupted; the same command goes on where it stopped", err=True)
        raise typer.Exit(INTERRUPTED) from error


def _told(command: Callable[..., None]) -> Callable[..., None]:
    """A command with errors and exit codes as here."""

    @wraps(command)
    def told(*args: Any, **kwargs: Any) -> None:
        with _exit_codes():
            command(*args, **kwargs)

    return told


def _finish(report: Report, max_failed: int = 0) -> None:
    say(str(report))
    if failed := report.counts.get("failed", 0):
        say(
            f"approxifer: {failed:,} rows failed (status 4 in {report.out}); the same command with "
            "--retry-failed runs them again",
            err=True,
        )
        if failed > max_failed:
            raise typer.Exit(1)


@app.command(cls=ScoreCommand)
@takes_arguments
def score(
    options: dict[str, Any],
    *,
    max_failed: Annotated[
        int,
        typer.Option(
            min=0, help="Rows that may fail before the run counts as failed.", rich_help_panel=RUN
        ),
    ] = 0,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Say what would be done, and do nothing.", rich_help_panel=RUN
        ),
    ] = False,
    timeline: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Draw what the workers did: .png or .svg.", rich_help_panel=RUN
        ),
    ] = None,
) -> None:
    """Score every row of IN, and write predictions and how each was obtained to OUT."""
    with _exit_codes():
        if timeline is not None:
            from approxifer.pipeline.reporting.timeline import check_suffix

            check_suffix(timeline)  # now, not after the work
        from approxifer.pipeline import api

        if dry_run:
            say(api.plan_run(**options))
            return
        report = api.score(**options)
        if timeline is not None and (report.scored or report.workers):
            _draw(report, timeline)
        elif timeline is not None:
            say(
                f"approxifer: nothing was left to run, so {timeline} was not drawn; approxifer "
                f"inspect {report.out} --timeline {timeline} draws the last session that ran",
                err=True,
            )
    _finish(report, max_failed)


def _draw(report: Report, timeline: Path) -> None:
    from approxifer.datasets import Journal
    from approxifer.pipeline.reporting.timeline import draw_timeline

    draw_timeline(Journal.read(report.out), timeline, title=Path(report.out).name)


@app.command()
def demo(
    directory: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="Where data and results go.")
    ] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Seed of the faults.")] = 0,
) -> None:
    """Score real data on a local cluster of which workers are slow, hung and Byzantine."""
    with _exit_codes():
        from approxifer.pipeline.cli.demo import run_demo

        report = run_demo(directory, seed=seed)
    _finish(report)


@app.command()
def inspect(
    store: Annotated[str, typer.Argument(metavar="OUT", help="Output store, finished or not.")],
    timeline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw what the workers did: .png or .svg.")
    ] = None,
    session: Annotated[
        str | None, typer.Option(metavar="NAME", help="Session to draw. [the last]")
    ] = None,
) -> None:
    """Tell what happened: rows by status, sessions, workers."""
    with _exit_codes():
        from approxifer.pipeline.reporting.inspect import inspect_store

        say(inspect_store(store, timeline=timeline, session=session))


@app.command("train-parity")
def train_parity(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="As score takes it: .pt2, or MODULE:FACTORY.")
    ],
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA", help="Rows to learn from, without labels: a Zarr store or an .npz."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the parity models go.")],
    k: Annotated[int, typer.Option("-k", min=2, help="Queries per codeword.")],
    stragglers: Annotated[int, typer.Option("-s", min=1, help="Parity models to train.")] = 1,
    encoder: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Parity queries by addition, or, of images, concatenation."
        ),
    ] = "addition",
    arch: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FACTORY", help="Network to train. [the model's own]"),
    ] = None,
    variable: Annotated[
        str | None, typer.Option(metavar="NAME", help="Array in the store.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows to learn from, at most.")] = 60_000,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Each as many codewords as there are rows. [10]")
    ] = None,
    state: StateOption = None,
    preprocess: PreprocessOption = None,
    dtype: Annotated[str, typer.Option(metavar="NAME", help="What the model is fed.")] = "float32",
    trust_model: TrustOption = False,
    seed: Annotated[int, typer.Option(help="Seed of all random choices.")] = 0,
) -> None:
    """Train the parity models that scheme parm needs; the same command goes on where it stopped."""
    with _exit_codes():
        from approxifer.pipeline.cli.train_parity import train

        train(
            model, data, out,
            model_options={
                "state": state, "preprocess": preprocess, "dtype": dtype,
                "trust_model": trust_model,
            },
            variable=variable, rows=rows, k=k, stragglers=stragglers, encoder=encoder, arch=arch,
            epochs=epochs, seed=seed,
        )  # fmt: skip


for _command in (
    job_commands.submit,
    job_commands.status,
    job_commands.result,
    job_commands.cancel,
):
    app.command()(_told(_command))


if __name__ == "__main__":
    main()
