"""What runs on the workers: the model, and what is wrong with how they run it.

A row is its number, a check on that, its poison, and some noise: so what a worker is given says
which rows it holds, and a mixture of rows (a parity share) shows as such.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from approxifer.pipeline.faults.execution import Wrap
from approxifer.pipeline.worker import Run

SCALE, PRIME, MODULUS = 256.0, 7919, 1009
#: A poisoned row's third number; the model raises on anything above a tenth of it.
POISON = 1e5
#: The same of a row for which `glutton` takes more memory than a worker may have.
GLUTTON = -1e5


def make_rows(count: int, poisoned: list[int]) -> np.ndarray:
    """(count, 6) float32."""
    rows = np.random.default_rng(count).normal(size=(count, 6)).astype(np.float32)
    number = np.arange(count)
    rows[:, 0] = number / SCALE
    rows[:, 1] = (number * PRIME) % MODULUS / SCALE
    rows[:, 2] = 0
    rows[poisoned, 2] = POISON
    return rows


def numbers(rows: np.ndarray) -> set[int]:
    """The rows that are given as they are, not mixed with others."""
    number, check = rows[:, 0] * SCALE, rows[:, 1] * SCALE
    whole = (number == np.round(number)) & (number >= 0)
    return {
        int(n) for n, c in zip(number[whole], check[whole], strict=True) if n * PRIME % MODULUS == c
    }


def outputs(rows: np.ndarray) -> np.ndarray:
    """(M, 6) -> (M, 3), each row by itself to the last bit; not linear, so that no interpolation
    hits it by luck."""
    total = np.zeros((len(rows), 3), np.float32)
    for column in (0, 1, 3, 4, 5):
        total = total + rows[:, column : column + 1] * np.float32([0.5, -1.0, 0.25]) * column
        total = total + rows[:, column : column + 1] ** 2
    return total


def _scored(rows: np.ndarray, seconds: float) -> np.ndarray:
    if (rows[:, 2] > POISON / 10).any():
        raise ValueError("a poisoned row")
    time.sleep(seconds)
    return outputs(rows)


def model_10(rows: np.ndarray) -> np.ndarray:
    """10 ms a micro-batch."""
    return _scored(rows, 0.01)


def model_20(rows: np.ndarray) -> np.ndarray:
    """20 ms."""
    return _scored(rows, 0.02)


def model_30(rows: np.ndarray) -> np.ndarray:
    """30 ms."""
    return _scored(rows, 0.03)


def glutton(rows: np.ndarray) -> np.ndarray:
    """20 ms; takes a gigabyte for a row whose third number is GLUTTON."""
    if (rows[:, 2] == GLUTTON).any():
        held = []
        for _ in range(20):
            held.append(np.ones(50_000_000 // 8))
            time.sleep(0.1)  # the nanny looks ten times a second
    return _scored(rows, 0.02)


MODELS = {0.01: model_10, 0.02: model_20, 0.03: model_30}


# ---- beside the model ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Log:
    """Each micro-batch adds a line to a file: when it began, and the rows in it."""

    path: str

    def bind(self, rng: np.random.Generator) -> Wrap:
        """Write before the forward pass."""

        def logged(run: Run) -> Run:
            def log(rows: np.ndarray) -> np.ndarray:
                line = f"{time.monotonic()} {' '.join(map(str, sorted(numbers(rows))))}\n"
                with open(self.path, "a") as file:
                    file.write(line)
                return run(rows)

            return log

        return logged


@dataclass(frozen=True)
class HangWhile:
    """From its ``after``-th micro-batch on the function does not return while a file is there."""

    path: str
    after: int

    def bind(self, rng: np.random.Generator) -> Wrap:
        """Wait for the file to go."""
        healthy = iter(range(self.after))

        def hung(run: Run) -> Run:
            def hang(rows: np.ndarray) -> np.ndarray:
                if next(healthy, None) is None:
                    while os.path.exists(self.path):
                        time.sleep(0.02)
                return run(rows)

            return hang

        return hung


@dataclass(frozen=True)
class NoMemory:
    """MemoryError on what holds a row, as often as there are ``times`` to be had in a folder."""

    folder: str
    row: int
    times: int = 2

    def bind(self, rng: np.random.Generator) -> Wrap:
        """Raise before the forward pass."""

        def failing(run: Run) -> Run:
            def fail(rows: np.ndarray) -> np.ndarray:
                if self.row in numbers(rows):
                    for turn in range(self.times):
                        with contextlib.suppress(FileExistsError):
                            Path(self.folder, f"no-memory-{turn}").touch(exist_ok=False)
                            raise MemoryError("no memory for this block")
                return run(rows)

            return fail

        return failing
