"""``job.yaml``: what `score` is to be asked for, and the folder in which a detached job is kept.

The keys are the arguments of `score` under their own names, and ``max_failed`` of the command line.
Paths count from the file's own folder, so that it means the same wherever it is read.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from approxifer.errors import ConfigError
from approxifer.pipeline.yamlfile import check_keys, read_mapping

#: Arguments of `score` that make sense in Python only, or on a terminal.
ELSEWHERE = ("client", "progress")
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
        from approxifer.pipeline.api import score

        content = read_mapping(Path(path), what="job file", example="data: images.zarr")
        arguments = inspect.signature(score).parameters
        allowed = [*(name for name in arguments if name not in ELSEWHERE), "max_failed"]
        check_keys(content, allowed, where=str(path), aliases={"input": "data", "in": "data"})
        for key in ("data", "model", "out"):
            if not isinstance(content.get(key), str):
                raise ConfigError(f"{path}: {key} is missing, or no text: every job needs it")
        most = content.pop("max_failed", 0)
        if isinstance(most, bool) or not isinstance(most, int) or most < 0:
            raise ConfigError(f"{path}: max_failed={most!r}: give a whole number, at least 0")
        folder = Path(path).resolve().parent
        return cls({key: _from(folder, key, content[key]) for key in content}, most)

    @property
    def folder(self) -> JobFolder:
        """Where it is kept: beside its output."""
        return JobFolder.of(self.options["out"])


def _from(folder: Path, key: str, value: Any) -> Any:
    """A path as seen from anywhere; URLs, ``module:factory`` and all else as it is."""
    if key not in PATHS or not isinstance(value, str) or ":" in value:
        return value
    return str(folder / os.path.expanduser(value))


@dataclass(frozen=True)
class JobState:
    """What a detached job last said of itself.

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
    """

    stage: str
    told: str
    host: str
    pid: int
    began: float
    updated: float
    code: int | None = None


@dataclass(frozen=True)
class JobFolder:
    """``OUT.zarr.job/``: the job's options, its log, what it last said, and the wish to cancel it.

    All by files, so that any login node that sees the file system can ask.
    """

    path: Path
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "log", self.path / "log.txt")

    @classmethod
    def of(cls, out: str | os.PathLike[str]) -> JobFolder:
        """The folder of the job that writes this output."""
        return cls(Path(f"{os.fspath(out).rstrip('/')}.job"))

    def begin(self, job: JobFile) -> None:
        """Keep the job's options; forget an earlier wish to cancel, and what was said then."""
        self.path.mkdir(parents=True, exist_ok=True)
        for name in ("cancel", "state.json"):
            (self.path / name).unlink(missing_ok=True)
        self._write("job.json", asdict(job))

    def job(self) -> JobFile:
        """The options kept."""
        return JobFile(**json.loads((self.path / "job.json").read_text(encoding="utf-8")))

    def say(self, state: JobState) -> None:
        """Keep what the job says of itself."""
        self._write("state.json", asdict(state))

    def state(self) -> JobState | None:
        """What it last said; None if it has not said anything."""
        try:
            return JobState(**json.loads((self.path / "state.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def ask_to_cancel(self) -> None:
        """Ask the job, wherever it runs, to stop."""
        (self.path / "cancel").touch()

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked."""
        return (self.path / "cancel").exists()

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        """Replace a file as a whole: nobody reads half of one."""
        part = self.path / f"{name}.part"
        part.write_text(json.dumps(content), encoding="utf-8")
        part.replace(self.path / name)
