"""A job that outlives the shell it was submitted from.

``python -m approxifer.pipeline.detached FOLDER`` runs it, in a session of its own; `start` begins
that, and `look` tells what has become of it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from types import FrameType

from approxifer.errors import ApproxiferError, ConfigError
from approxifer.pipeline.jobfile import JobFile, JobFolder, JobState
from approxifer.pipeline.progress import describe, duration
from approxifer.text import one_line

#: Seconds between two reports of a running job.
EVERY = 1.0
#: Seconds without one, after which a job on another host is taken for dead: clocks differ, and a
#: shared file system may show files late.
SILENT = 120.0


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
    with folder.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "approxifer.pipeline.detached", str(folder.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
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
    """What a job last said; one that has died without a word is ``lost``."""
    state = folder.state()
    if state is None or state.stage != "running":
        return state
    quiet = time.time() - state.updated
    dead = quiet > SILENT if state.host != socket.gethostname() else not _alive(state.pid)
    if not dead:
        return state
    state = folder.state() or state  # it may have ended just now
    if state.stage != "running":
        return state
    told = (
        f"it died {duration(quiet)} ago ({state.told}); submit it again and it goes on from there. "
        f"Its log: {folder.log}"
    )
    return replace(state, stage="lost", told=told, code=1)


def _alive(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def run(folder: JobFolder) -> JobState:
    """Do the work, saying how it goes. SIGTERM and SIGINT stop it as a wish to cancel does."""
    from approxifer.pipeline.api import submit

    began = time.time()
    state = JobState("running", "starting", socket.gethostname(), os.getpid(), began, began)
    folder.say(state)

    def stop(number: int, frame: FrameType | None) -> None:
        folder.ask_to_cancel()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    stage, code = "failed", 1
    try:
        asked = folder.job()
        job = submit(**asked.options)
        while not job.done():
            if folder.cancelled:
                job.cancel()
            state = replace(state, told=describe(job.progress()), updated=time.time())
            folder.say(state)
            time.sleep(EVERY)
        report = job.result()
        stage, told = "done", str(report)
        code = int(report.counts["failed"] > asked.max_failed)
    except CancelledError:
        stage, told, code = "cancelled", f"cancelled; before: {state.told}", 130
    except ApproxiferError as error:
        told, code = f"error: {one_line(error)}", 2 if error.usage else 1
    except Exception as error:
        told = f"error: {error!r}"
        raise
    finally:
        state = replace(state, stage=stage, told=told, updated=time.time(), code=code)
        folder.say(state)
    return state


if __name__ == "__main__":
    sys.exit(run(JobFolder(Path(sys.argv[1]))).code)
