"""A trial of a ``.pt2`` in a process of its own, before the client loads it.

A checked archive holds nothing that torch would run, but torch's own parser can still be led into
a crash, or into work without end, by numbers in it. So the first to load it is a child with limits,
which then runs one batch of zeros. It costs an import of torch and one load (some 3 s), once for
each file: what passed is remembered by its hash (`approxifer.models.pt2.passed`).

The child gets the bytes through a pipe, no credentials in its environment, and may not write files.
"""

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Sequence

from approxifer.errors import ModelError
from approxifer.models.pt2 import passed

#: Limits of the child: seconds of processor time for one file's load and for its batch (those of a
#: load grow with the file), memory over what torch itself takes, and the time on the clock.
LOAD_SECONDS, BATCH_SECONDS = 5.0, 5.0
SECONDS_PER_BYTE = 2e-7
MEMORY = 4 << 30
WALL_SECONDS = 120.0
#: Of the environment, what an interpreter needs to start; what else is there may be secret.
ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")


def ensure_tried(data: bytes, name: str) -> None:
    """Try a program in a child, unless the same bytes have passed before.

    Parameters
    ----------
    data : bytes
        A checked archive (`approxifer.models.archive.read_program`).
    name : str
        For messages.

    Raises
    ------
    ModelError
        The child crashed, needed too much time or memory, or could not load it.
    """
    if passed.known(data):
        return
    (fault,) = try_out([data])
    if fault:
        raise ModelError(
            f"model {name!r} {fault}, in a process that tried it before this one. Export it again"
            " with this torch version, or pass trust_model=True (--trust-model) to leave out the"
            " trial, if you trust whoever made the file."
        )


def try_out(programs: Sequence[bytes]) -> list[str]:
    """Try programs in one child, or one more after each crash; remember those that pass.

    Returns
    -------
    list of str
        For each program what went wrong; empty for those that passed.
    """
    faults: list[str] = []
    while len(faults) < len(programs):
        faults += _child(programs[len(faults) :])
    for data, fault in zip(programs, faults, strict=True):
        if not fault:
            passed.remember(data)
    return faults


def _child(programs: Sequence[bytes]) -> list[str]:
    """Run a child until it ends; return what it said of each program, the last of them perhaps
    by its death.
    """
    environment = {k: os.environ[k] for k in ENVIRONMENT if k in os.environ}
    environment |= {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "CUDA_VISIBLE_DEVICES": "",
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    }
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "approxifer.models.pt2.trial_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd=os.sep,
        start_new_session=True,
    )
    limits = [LOAD_SECONDS, BATCH_SECONDS, SECONDS_PER_BYTE, MEMORY]
    sent = [json.dumps(limits).encode(), *programs]
    said = b""
    late = False
    try:
        stream = b"".join(part for data in sent for part in (struct.pack("<Q", len(data)), data))
        said, _ = child.communicate(stream, WALL_SECONDS * len(programs))
    except subprocess.TimeoutExpired:
        late = True
    finally:
        _end(child)
    lines = [json.loads(line) for line in said.splitlines() if line.startswith(b'"')]
    faults = [line.removeprefix("done") for line in lines if line != "loaded"]
    if len(faults) < len(programs):
        faults.append(_death(child.returncode, late, loaded=lines[-1:] == ["loaded"]))
    return faults


def _end(child: "subprocess.Popen[bytes]") -> None:
    """End the child and whatever it may have started."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # it is gone, or about to be
        child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()


def _death(code: int, late: bool, *, loaded: bool) -> str:
    """Say how a child ended before its last word."""
    if late or -code == signal.SIGXCPU:
        # A batch that takes long is no fault of the file: it may be a large model.
        return "" if loaded else "took too long to load"
    where = "running a batch" if loaded else "loading it"
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"ended the process ({name} while {where})"
