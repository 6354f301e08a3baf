"""The command line: ``approxifer score | submit | status | result | cancel | demo | ...``.

Exit codes: 0 whole, 1 finished with failed rows or broken off by a fault, 2 wrong usage or input,
130 interrupted. What is heavy is imported inside the commands, so that ``--help`` comes at once.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
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
from approxifer.text import ShownFormatter, one_line, say, shown
from approxifer.version import __version__

if TYPE_CHECKING:
    from approxifer.pipeline.reporting.report import Report

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # it would swallow the defaults in brackets
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


def main() -> None:
    """Run the command line. SIGTERM, of a batch system for instance, stops it as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
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


@app.command()
def score(
    source: Annotated[
        str, typer.Argument(metavar="IN", help="Zarr store to score: a path or an fsspec URL.")
    ],
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="A torch.export program (.pt2), or MODULE:FACTORY.")
    ],
    out: Annotated[
        str,
        typer.Option(metavar="OUT", help="Output store; one that is there already is resumed."),
    ],
    variable: Annotated[
        str | None, typer.Option(metavar="NAME", help="Array in the store to score.")
    ] = None,
    sample_dim: Annotated[
        str | None, typer.Option(metavar="NAME", help="Dimension of the rows. [the first]")
    ] = None,
    cluster: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Cluster file. [a local cluster]")
    ] = None,
    scheme: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Code: systematic, berrut, parm, replication, uncoded. [systematic]",
        ),
    ] = None,
    k: Annotated[
        int | None, typer.Option("-k", min=1, help="Queries per codeword. [at most 8]")
    ] = None,
    stragglers: Annotated[
        int | None, typer.Option("-s", min=0, help="Stragglers tolerated per group. [1]")
    ] = None,
    byzantine: Annotated[
        int | None, typer.Option("-e", min=0, help="Byzantine workers tolerated. [0]")
    ] = None,
    adaptive: Annotated[
        bool,
        typer.Option("--adaptive", help="Replication: E + 1 copies, more where these differ."),
    ] = False,
    order: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Which rows form a codeword: none, natural, similar, random."
        ),
    ] = None,
    decoder: Annotated[
        str | None, typer.Option(metavar="NAME", help="How to decode: berrut, fitted. [berrut]")
    ] = None,
    repair: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Decoded rows to run again: exact (all), doubtful, none. [exact]"
        ),
    ] = None,
    agreement: Annotated[
        float | None,
        typer.Option(
            metavar="FRACTION",
            help="With doubtful: rows that are to be of the model's class. [0.995]",
        ),
    ] = None,
    redundancy: Annotated[
        str | None, typer.Option(metavar="NAME", help="When parity shares are sent: eager, lazy.")
    ] = None,
    patience: Annotated[
        float | None, typer.Option(min=0.0, help="Wait for exactness, in median share times.")
    ] = None,
    late: Annotated[
        float | None, typer.Option(min=0.0, help="Resubmit a share after so many medians. [2]")
    ] = None,
    hedge: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Uncoded, replication: copy slow shares as cubed, spark, or MULTIPLE,AFTER.",
        ),
    ] = None,
    check: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="ROWS",
            help="Rows of each share run again elsewhere. [3 with -e, else 0]",
        ),
    ] = None,
    assurance: Annotated[
        float | None,
        typer.Option(
            metavar="FRACTION",
            help="Check until fewer of any worker's rows can be wrong, with 95 % confidence.",
        ),
    ] = None,
    referee: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Who settles differences: client, quorum. [client]"),
    ] = None,
    quarantine: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Shut out a convicted worker, or its node. [node, if several]"
        ),
    ] = None,
    forgive: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="Use a convicted node again; may be given repeatedly."),
    ] = None,
    block: Annotated[
        int | None, typer.Option(min=1, metavar="ROWS", help="Rows per share.")
    ] = None,
    window: Annotated[
        int | None, typer.Option(min=1, metavar="ROWS", help="Rows committed at once.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory for the client's windows. [1GB]")
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FUNCTION", help="What similar rows are compared by. [pixels]"),
    ] = None,
    parity: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Parity models, of train-parity.")
    ] = None,
    state: StateOption = None,
    preprocess: PreprocessOption = None,
    dtype: Annotated[
        str | None, typer.Option(metavar="NAME", help="What the model is fed. [float32]")
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="auto, cpu or cuda. [auto]")
    ] = None,
    trust_model: TrustOption = False,
    in_flight: Annotated[
        float | None, typer.Option(min=1.0, help="Shares sent out for each worker. [3]")
    ] = None,
    heal: Annotated[
        str | None, typer.Option(metavar="NAME", help="Hung workers: restart, or avoid.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all random choices. [0]")] = None,
    max_failed: Annotated[
        int, typer.Option(min=0, help="Rows that may fail before the run counts as failed.")
    ] = 0,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run rows again that failed earlier.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    no_progress: Annotated[
        bool, typer.Option("--no-progress", help="Show no progress on stderr.")
    ] = False,
    timeline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw what the workers did: .png or .svg.")
    ] = None,
) -> None:
    """Score every row of IN, and write predictions and how each was obtained to OUT."""
    given: dict[str, Any] = {
        "model": model, "out": out, "variable": variable, "sample_dim": sample_dim,
        "cluster": cluster and str(cluster), "scheme": scheme, "k": k, "stragglers": stragglers,
        "byzantine": byzantine, "adaptive": adaptive or None, "order": order,
        "features": features, "parity": parity and str(parity), "decoder": decoder,
        "repair": repair, "agreement": agreement, "redundancy": redundancy,
        "patience": patience, "late": late, "hedge": hedge, "in_flight": in_flight,
        "check": check, "assurance": assurance, "referee": referee, "quarantine": quarantine,
        "forgive": forgive or None, "block": block, "window": window,
        "memory": memory, "state": state and str(state), "preprocess": preprocess, "dtype": dtype,
        "device": device, "trust_model": trust_model or None, "heal": heal, "seed": seed,
        "retry_failed": retry_failed or None,
        "progress": False if no_progress else None,
    }  # fmt: skip
    # What is left out is left to score()'s own defaults.
    given = {name: value for name, value in given.items() if value is not None}
    with _exit_codes():
        if timeline is not None:
            from approxifer.pipeline.reporting.timeline import check_suffix

            check_suffix(timeline)  # now, not after the work
        from approxifer.pipeline import api

        if dry_run:
            say(api.plan_run(source, **given))
            return
        report = api.score(source, **given)
        if timeline is not None:
            _draw(report, timeline)
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
    """Score real data on a local cluster of which workers are slow, hung and lying."""
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
