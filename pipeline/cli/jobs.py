"""Commands for jobs that outlive their shell: ``submit``, ``status``, ``result``, ``cancel``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from approxifer.errors import ClusterError, ConfigError
from approxifer.text import say

if TYPE_CHECKING:
    from approxifer.pipeline.cli.jobfile import JobFolder, JobState

#: Seconds that `cancel` waits for a job's end: outputs that are being written are written first.
PATIENCE = 300.0

JobArgument = Annotated[
    Path, typer.Argument(metavar="JOB", help="The job file; or the output that it writes.")
]


def submit(
    job_file: Annotated[Path, typer.Argument(metavar="JOB.yaml", help="Arguments of score().")],
) -> None:
    """Start a job that goes on when this shell ends, and return."""
    from approxifer.pipeline.api import plan_run
    from approxifer.pipeline.cli.detached import refuse_running, start
    from approxifer.pipeline.cli.jobfile import JobFile

    job = JobFile.read(job_file)
    refuse_running(job)
    say(plan_run(**job.options))  # bad input is refused now
    state = start(job)
    say(
        f"submitted: process {state.pid} on {state.host}, log in {job.folder.log}\n"
        f"approxifer status {job_file} tells how far it is, approxifer result {job_file} waits for "
        "its report"
    )


def status(job: JobArgument) -> None:
    """Tell how far a job is, or how it ended."""
    state = _state(_folder(job))
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(state.updated))
    say(f"{state.stage} at {when} (process {state.pid} on {state.host})\n{state.told}")
    raise typer.Exit(state.code or 0)


def result(job: JobArgument) -> None:
    """Wait for a job's end, and print its report; the exit code is that of score."""
    folder = _folder(job)
    said = ""
    while (state := _state(folder)).stage == "running":
        if state.told != said:
            say(state.told, err=True)
            said = state.told
        time.sleep(2.0)
    say(state.told, err=state.stage != "done")
    raise typer.Exit(state.code or 0)


def cancel(job: JobArgument) -> None:
    """Stop a job; its output stays, and submitting it again goes on from there."""
    folder = _folder(job)
    if _state(folder).stage == "running":
        folder.ask_to_cancel()
        end = time.monotonic() + PATIENCE
        while (state := _state(folder)).stage == "running":
            if time.monotonic() > end:
                raise ClusterError(
                    f"the job was asked to stop {PATIENCE:g} s ago and runs on (process "
                    f"{state.pid} on {state.host}: {state.told}). It stops as soon as it can; "
                    f"kill {state.pid} there if it does not"
                )
            time.sleep(0.2)
    say(_state(folder).told)


def _folder(job: Path) -> JobFolder:
    from approxifer.pipeline.cli.jobfile import JobFile, JobFolder

    if job.suffix in (".yaml", ".yml"):
        return JobFile.read(job).folder
    return JobFolder.of(job)


def _state(folder: JobFolder) -> JobState:
    from approxifer.pipeline.cli.detached import look

    state = look(folder)
    if state is None:
        raise ConfigError(
            f"no job was submitted here: there is no {folder.path}. approxifer submit JOB.yaml "
            "starts one; approxifer inspect OUT tells of an output that score has written"
        )
    return state
