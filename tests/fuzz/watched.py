"""Nothing but an error of ours, or success: in time, with no process and no file left behind."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from approxifer.errors import ApproxiferError

LONGEST = 10.0  #: seconds


def watch(number: int, folder: Path, work: Callable[[random.Random, Path], object]) -> str:
    """Run one case in a folder of its own; the name of the error that it ended in, or ``""``.

    Parameters
    ----------
    number
        Seed of the case.
    folder
        Gets the case's folder; nothing else may appear in it.
    work
        Makes the mutated files in the folder, and opens them.
    """
    case = folder / f"case-{number}"
    case.mkdir()
    before = {path.name for path in folder.iterdir()}
    children = {child.pid for child in psutil.Process().children(recursive=True)}
    began = time.monotonic()
    try:
        work(random.Random(number), case)
        ended = ""
    except ApproxiferError as error:
        ended = type(error).__name__
        shown = str(error).replace("\n", "").replace("\t", "")
        assert shown.isprintable(), (number, shown)
    assert time.monotonic() - began < LONGEST, number
    assert {path.name for path in folder.iterdir()} == before, number
    now = {child.pid for child in psutil.Process().children(recursive=True)}
    assert now <= children, number
    return ended
