"""Runs in processes of their own, and waiting for what they do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from slurm import Slurm

from approxifer.datasets import Journal

SUPPORT = Path(__file__).parents[1] / "support"


class Run:
    """``approxifer score`` in a process of its own, as from a login node."""

    def __init__(
        self, slurm: Slurm, folder: Path, data: Path, cluster: dict[str, Any], *options: str
    ) -> None:
        self.out = folder / "out.zarr"
        file = folder / "cluster.yaml"
        file.write_text(yaml.safe_dump(cluster))
        self._stderr = folder / "stderr"
        with self._stderr.open("w") as stderr:
            self.process = subprocess.Popen(
                [
                sys.executable, "-m", "approxifer.pipeline.cli.main", "score", str(data), "--out",
                str(self.out), "--cluster", str(file), *options,
            ],
            env=slurm.env | {"PYTHONPATH": str(SUPPORT)},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )  # fmt: skip

    @property
    def stderr(self) -> str:
        """What it has said so far."""
        return self._stderr.read_text()

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The journal's events of one kind so far."""
        try:
            return [e for e in Journal.read(self.out) if e["event"] == kind]
        except (OSError, json.JSONDecodeError):
            return []

    def until_groups(self, count: int, seconds: float = 120) -> None:
        """Wait until so many groups are complete."""
        until(
            lambda: len(self.events("group")) >= count or self.process.poll() is not None, seconds
        )
        assert self.process.poll() is None, self.stderr

    def wait(self, seconds: float) -> str:
        """Wait for its end, which must be a good one; what it printed."""
        printed, _ = self.process.communicate(timeout=seconds)
        assert self.process.returncode == 0, self.stderr
        return printed

    def interrupt(self) -> None:
        """Ctrl-C: everything in the terminal's foreground gets it."""
        os.killpg(self.process.pid, signal.SIGINT)

    def close(self) -> None:
        """Nothing of it is left."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate(timeout=30)


def until(there: Callable[[], object], seconds: float) -> None:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not there():
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds:g} s")
        time.sleep(0.1)


def assert_no_jobs(slurm: Slurm, seconds: float = 20) -> None:
    """Soon no job waits or runs."""
    until(lambda: not slurm.jobs(), seconds)
