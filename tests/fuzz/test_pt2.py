"""No mutated ``.pt2`` ends the client, stalls it, writes elsewhere or leaves a process."""

import math
import time
from collections import Counter
from pathlib import Path

import networks
import numpy as np
import psutil
import pt2
import pytest

from approxifer.errors import ApproxiferError
from approxifer.models import open_model, probe
from approxifer.models.archive import read_program
from approxifer.models.pt2 import trial

SECONDS = 10.0


@pytest.fixture(scope="module")
def programs() -> list[bytes]:
    return pt2.corpus()


def fuzz(programs: list[bytes], count: int, seed: int, folder: Path) -> Counter[str]:
    """Open each mutant, and run those that open; return how they ended."""
    ended: Counter[str] = Counter()
    passing: list[tuple[bytes, bytes]] = []
    for data in pt2.mutants(programs, count, seed):
        started = time.process_time()
        try:
            passing.append((data, read_program(data, name="mutant").data))
        except ApproxiferError:
            ended["refused"] += 1
        assert time.process_time() - started < SECONDS
    faults = trial.try_out([checked for _, checked in passing])  # one child for all, not for each
    for (data, _), fault in zip(passing, faults, strict=True):
        if fault:
            ended["failed its trial"] += 1
            continue
        path = folder / "mutant.pt2"
        path.write_bytes(data)
        started = time.process_time()
        try:
            run(path)
            ended["ran"] += 1
        except ApproxiferError:
            ended["opened with an error"] += 1
        assert time.process_time() - started < SECONDS
    return ended


def run(path: Path) -> None:
    """Open a file and probe it, with rows of each network's shape until one fits."""
    handle = open_model(path)
    runner = handle.load()
    for shape in {networks.NETWORKS[name][1] for name in pt2.CORPUS}:
        rows = np.linspace(-1, 1, 4 * math.prod(shape), dtype=np.float32).reshape(4, *shape)
        try:
            probe(runner, rows, handle.batches.fit(8))
            return
        except ApproxiferError as error:
            last = error
    raise last


def check(programs: list[bytes], count: int, seed: int, folder: Path) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    ended = fuzz(programs, count, seed, folder)
    assert ended.total() == count
    assert ended["refused"] > count / 3
    assert ended["ran"] > 0  # or the mutations are too crude to reach anything
    assert not {c.pid for c in psutil.Process().children(recursive=True)} - before
    assert [path.name for path in folder.iterdir()] == ["mutant.pt2"]


def test_mutated_programs(programs: list[bytes], tmp_path: Path) -> None:
    check(programs, 100, 1, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_mutated_programs(programs: list[bytes], tmp_path: Path) -> None:
    check(programs, 2000, 2, tmp_path)
