"""A job that outlives the shell it was submitted from.

``python -m approxifer.pipeline.cli.detached FOLDER`` runs it, in a session of its own; `start`
begins that, and `look` tells what has become of it. The job's options go through a pipe, never
through a file or the command line: they may hold credentials.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from concurrent.futures import CancelledError
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType

from approxifer.errors import ApproxiferError, ConfigError
from approxifer.pipeline.cli.jobfile import JobFile, JobFolder, JobState, Stage
from approxifer.pipeline.reporting.progress import describe
from approxifer.text import duration, one_line, redacted, say

#: Seconds between two reports of a running job.
EVERY = 1.0
#: Seconds without one, after which a job on another host is taken for dead: clocks differ, and a
#: shared file system may show files late.
SILENT = 120.0
#: Seconds by which the system's word on when a process was created may change: its clock is set.
SLACK = 5.0
#: Seconds that a process takes at most before it says something.
START = 120.0


def start(job: JobFile, *, timeout: float = 60.0) -> JobState:
    """Run a job in a process of its own, which nothing that happens to this one's shell reaches.

    Returns
    -------
    JobState
        The first that it says of itself.

    Raises
    ------
    ConfigError
        It is running already.
    ApproxiferError
        It did not start.
    """
    refuse_running(job)
    folder = job.folder
    folder.begin(job)
    with folder.open_log() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "approxifer.pipeline.cli.detached", str(folder.path)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:  # it has ended: see below
        pipe.write(json.dumps(asdict(job)).encode())
    end = time.monotonic() + timeout
    while (state := folder.state()) is None:
        if process.poll() is not None or time.monotonic() > end:
            raise ApproxiferError(f"the job did not start: see {folder.log}")
        time.sleep(0.05)
    return state


def refuse_running(job: JobFile) -> None:
    """Refuse a job that is running already.

    Raises
    ------
    ConfigError
    """
    found = look(job.folder)
    if found is not None and found.stage == "running":
        raise ConfigError(
            f"a job for {job.options['out']} is running (process {found.pid} on {found.host}, "
            f"{found.told}): wait for it, or cancel it"
        )


def look(folder: JobFolder) -> JobState | None:
    """The last report of a job; one that died without one is ``lost``."""
    state = folder.state()
    if state is None or state.stage != "running":
        return state
    quiet = time.time() - state.updated
    here = state.host == socket.gethostname()
    dead = not _alive(state) if here else abs(quiet) > SILENT  # in the future: of a wrong clock
    if not dead:
        return state
    state = folder.state() or state  # it may have ended just now
    if state.stage != "running":
        return state
    told = (
        f"it died {duration(max(0.0, quiet))} ago ({state.told}); submit it again and it goes on "
        f"from there. Its log: {folder.log}"
    )
    return replace(state, stage="lost", told=told, code=1)


def _alive(state: JobState) -> bool:
    """True if the job's process is there, and no zombie. One of its number that was created at
    another time is another one."""
    import psutil

    try:
        process = psutil.Process(state.pid)
        created = process.create_time()
        there = process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError, OverflowError):
        return False
    if state.created is not None:
        return bool(there and abs(created - state.created) < SLACK)
    return bool(there and state.began - START < created < state.began + SLACK)


def _created() -> float:
    import psutil

    return float(psutil.Process().create_time())


def run(folder: JobFolder, options: bytes) -> JobState:
    """Do the work, saying how it goes. SIGTERM and SIGINT stop it as a wish to cancel does.

    Parameters
    ----------
    folder
    options
        Of a `JobFile`, as `start` sends them.
    """
    from approxifer.pipeline.api import submit

    began = time.time()
    state = JobState(
        "running", "starting", socket.gethostname(), os.getpid(), began, began, created=_created()
    )
    folder.say(state)

    def stop(number: int, frame: FrameType | None) -> None:
        folder.ask_to_cancel()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    stage: Stage = "failed"
    told, code = "error: it ended without a word", 1
    try:
        asked = JobFile(**json.loads(options))
        job = submit(**asked.options)
        while not job.done():
            if folder.cancelled:
                job.cancel()
            state = replace(state, told=redacted(describe(job.progress())), updated=time.time())
            folder.say(state)
            time.sleep(EVERY)
        report = job.result()
        stage, told = "done", redacted(report)
        code = int(report.counts["failed"] > asked.max_failed)
    except CancelledError:
        stage, told, code = "cancelled", f"cancelled; before: {state.told}", 130
    except ApproxiferError as error:
        told, code = f"error: {one_line(error)}", 2 if error.usage else 1
    except Exception as error:
        told = f"error: {one_line(repr(error))}"
        say(traceback.format_exc(), err=True)
    finally:
        state = replace(state, stage=stage, told=told, updated=time.time(), code=code)
        folder.say(state)
    return state


if __name__ == "__main__":
    sys.exit(run(JobFolder(Path(sys.argv[1])), sys.stdin.buffer.read()).code)
