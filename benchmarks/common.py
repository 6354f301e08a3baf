"""The commands of benchmarks, progress, JSON with the facts of the machine, Markdown, pictures."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TextIO

import psutil

from approxifer.benchmarks import BENCHMARKS
from approxifer.errors import ApproxiferError
from approxifer.pipeline.byzantine.hardware import processor
from approxifer.text import duration
from approxifer.version import __version__

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PACKAGES = ("dask", "distributed", "numpy", "torch", "xarray", "zarr")


def machine() -> dict[str, Any]:
    """The facts of this machine that figures depend on. Nothing that names it."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return {
        "cpus": os.cpu_count(),
        "processor": processor(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "approxifer": __version__,
        **versions,
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, extremes, and the values themselves in the order in which they were taken."""
    return {
        "median": median(values),
        "min": min(values),
        "max": max(values),
        "values": list(values),
    }


def rounded(figures: Any) -> Any:
    """Figures to five digits after the point, however deeply nested: a file of thousands of them
    stays readable."""
    match figures:
        case float():
            return round(figures, 5)
        case dict():
            return {name: rounded(value) for name, value in figures.items()}
        case list() | tuple():
            return [rounded(value) for value in figures]
    return figures


def write_json(path: str | os.PathLike[str] | None, results: Mapping[str, Any]) -> None:
    """Write results with the machine's facts; nothing without a path."""
    if path is None:
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": machine(), **results}, indent=1)
    target.write_text(text + "\n", encoding="utf-8")
    print(f"written: {target}")


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    body = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in body)


def save_picture(figure: Figure, target: Path) -> None:
    """Write a figure as a PNG file, with its folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=110)
    print(f"written: {target}")


class Steps:
    """A line on stderr at the start of each of a known number of steps, with what is left.

    Parameters
    ----------
    steps : int or sequence of float
        How many, taken to be about equally long; or how long each is, in any unit.
    stream : file, optional
        None: stderr.
    clock : callable
        Seconds.
    """

    def __init__(
        self,
        steps: int | Sequence[float],
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sizes = [1.0] * steps if isinstance(steps, int) else list(steps)
        self._stream = stream or sys.stderr
        self._clock = clock
        self._began = clock()
        self._done = -1

    def begin(self, label: str) -> None:
        """Print the label of the step that begins."""
        self._done += 1
        left = ""
        if self._done:
            pace = (self._clock() - self._began) / sum(self._sizes[: self._done])
            left = f", about {duration(pace * sum(self._sizes[self._done :]))} left"
        line = f"[{self._done + 1}/{len(self._sizes)}] {label}{left}"
        print(line, file=self._stream, flush=True)


# ---- the command line ----------------------------------------------------------------------------


def parser_of(benchmark: str) -> argparse.ArgumentParser:
    """Make the parser of one of `BENCHMARKS`, with ``--out``."""
    parser = argparse.ArgumentParser(
        prog=f"python -m approxifer.benchmarks {benchmark}",
        description=BENCHMARKS[benchmark],
    )
    parser.add_argument("--out", help="JSON file to write")
    return parser


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def parse(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    *,
    quick: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Parse the arguments with ``--quick``, which puts the values in `quick` for those left out.

    Without such values there is no ``--quick``.
    """
    if quick is None:
        return {**vars(parser.parse_args(arguments)), "quick": False}
    values = ", ".join(f"{name} {_plain(value)}" for name, value in quick.items())
    parser.add_argument("--quick", action="store_true", help=f"a first, rough look: {values}")
    given = parser.parse_args(arguments)
    if given.quick:
        parser.set_defaults(**quick)
        given = parser.parse_args(arguments)
    return vars(given)


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def command(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    run: Callable[..., Mapping[str, Any]],
    *,
    quick: Mapping[str, Any] | None = None,
    passed: Collection[str] = (),
) -> int:
    """Parse the arguments, run a benchmark, write its results.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        See `parser_of`.
    arguments : sequence of str, optional
        None: those of the process.
    run : callable
        Takes the parsed options as keywords; returns the results.
    quick : mapping, optional
        See `parse`. A quick run is marked in the output and in the file.
    passed : collection of str
        Whether `run` takes ``"out"`` and ``"quick"`` too.

    Returns
    -------
    int
        The exit code: 2 for a mistake in what was given.
    """
    given = parse(parser, arguments, quick=quick)
    kept = {"out", "quick"}.difference(passed)
    options = {name: value for name, value in given.items() if name not in kept}
    try:
        results = run(**options)
    except ApproxiferError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if given["quick"]:
        print("a quick run, for a first look: its figures are rough")
        results = {**results, "quick": True}
    write_json(given["out"], results)
    return 0
