"""``job.yaml``: what `score` is to be asked for, and the folder in which a detached job is kept.

The keys are the arguments of `score` under their own names, and ``max_failed`` of the command line.
Paths count from the file's own folder, so that it means the same wherever it is read.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from approxifer.datasets.localdisk import beside, local_path
from approxifer.datasets.ourfiles import (
    check_folder,
    open_ours,
    private_folder,
    read_small,
    write_private,
)
from approxifer.errors import ConfigError, StoreError
from approxifer.pipeline.planning.options import check_names
from approxifer.pipeline.yamlfile import read_mapping
from approxifer.text import one_line

#: Arguments of `score` that make sense in Python only, or on a terminal.
ELSEWHERE = {"client", "progress"}
#: Arguments that every job has.
NEEDED = ("data", "model", "out")
#: Arguments that are, or may be, paths.
PATHS = ("data", "model", "out", "state", "cluster", "parity")


@dataclass(frozen=True)
class JobFile:
    """A detached job.

    Attributes
    ----------
    options : dict
        The arguments of `score`.
    max_failed : int
        Rows that may fail before the job counts as failed.
    """

    options: dict[str, Any]
    max_failed: int = 0

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> JobFile:
        """Read and check ``job.yaml``; what the options mean is checked where they are used.

        Raises
        ------
        ConfigError
        """
        content = read_mapping(Path(path), what="job file", example="data: images.zarr")
        for name in ELSEWHERE & content.keys():
            raise ConfigError(f"{path}: {name}= is for Python or a terminal; leave it out")
        check_names(content, further=("max_failed",), where=f"{path}: ")
        for key in NEEDED:
            if not isinstance(content.get(key), str):
                raise ConfigError(f"{path}: {key} is missing, or no text: every job needs it")
        most = content.pop("max_failed", 0)
        if isinstance(most, bool) or not isinstance(most, int) or most < 0:
            raise ConfigError(f"{path}: max_failed={most!r}: give a whole number, at least 0")
        folder = Path(path).resolve().parent
        return cls({key: _from(folder, key, content[key]) for key in content}, most)

    @property
    def folder(self) -> JobFolder:
        """The folder beside its output."""
        return JobFolder.of(self.options["out"])


def _from(folder: Path, key: str, value: Any) -> Any:
    """A path as seen from anywhere; URLs, ``module:factory`` and all else as it is."""
    if key not in PATHS or not isinstance(value, str) or ":" in value:
        return value
    return str(folder / os.path.expanduser(value))


#: How a job stands; ``lost`` is found out by others.
Stage = Literal["running", "done", "failed", "cancelled", "lost"]


@dataclass(frozen=True)
class JobState:
    """The last report of a detached job.

    Attributes
    ----------
    stage : str
        ``running``, or how it ended: ``done``, ``failed``, ``cancelled``.
    told : str
        How far it is, its report, or its error.
    code : int or None
        The exit code of the command line, once it has ended.
    host, pid
        Where it runs.
    began, updated : float
        Seconds since the epoch.
    created : float or None
        When its process was created, as the system says: numbers of processes come again. None:
        not kept.
    """

    stage: Stage
    told: str
    host: str
    pid: int
    began: float
    updated: float
    code: int | None = None
    created: float | None = None


_STATE = TypeAdapter(with_config(ConfigDict(strict=True))(JobState))
_WHAT = "the folder of a detached job"


@dataclass(frozen=True)
class JobFolder:
    """``OUT.zarr.job/``: a job's log, what it last said, and the wish to cancel it.

    All by files, so that its user can ask from any login node that sees the file system; nobody
    else can enter the folder. The job's options are in none of them: they may hold credentials.
    """

    path: Path
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "log", self.path / "log.txt")

    @classmethod
    def of(cls, out: str | os.PathLike[str]) -> JobFolder:
        """The folder of the job that writes this output."""
        return cls(beside(local_path(out), ".job"))

    def begin(self, job: JobFile) -> None:
        """Forget an earlier wish to cancel, and what was said then; note in the log what is asked.

        Raises
        ------
        StoreError
            The folder cannot be made, or is a link or another user's.
        """
        private_folder(self.path, what=_WHAT)
        for name in ("cancel", "state.json", "job.json"):  # the last one of earlier versions
            (self.path / name).unlink(missing_ok=True)
        when = time.strftime("%Y-%m-%d %H:%M:%S")
        asked = ", ".join(f"{key} {job.options[key]}" for key in NEEDED if key in job.options)
        with self.open_log() as log:
            log.write(f"{when} submitted: {one_line(asked)}\n".encode())

    def open_log(self) -> BinaryIO:
        """The log, open for appending."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        return open(open_ours(self.log, flags, what="a job's log"), "ab")

    def say(self, state: JobState) -> None:
        """Keep what the job says of itself."""
        write_private(self.path / "state.json", json.dumps(asdict(state)).encode())

    def state(self) -> JobState | None:
        """The last report; None if there is none.

        Raises
        ------
        StoreError
            The folder or a file in it is not as it was made here.
        """
        try:
            check_folder(self.path, what=_WHAT)
        except FileNotFoundError:
            return None
        file = self.path / "state.json"
        content = read_small(file, what="a job's state")
        if content is None:
            return None
        try:
            return _STATE.validate_json(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            said = ".".join(map(str, first["loc"])) + f": {first['msg']}"
            raise StoreError(
                f"{file} is not a job's state as approxifer writes it ({said.removeprefix(': ')}). "
                f"See that no such job runs, then delete {self.path} and submit it again."
            ) from None

    def ask_to_cancel(self) -> None:
        """Ask the job, wherever it runs, to stop."""
        write_private(self.path / "cancel", b"")

    @property
    def cancelled(self) -> bool:
        """True if somebody asked."""
        return (self.path / "cancel").exists()
