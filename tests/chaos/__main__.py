"""``make chaos RUNS=200 SEED=1``: that many runs, seeds SEED, SEED + 1, ...

``make soak MINUTES=30 SEED=1``: as many as fit into that time, and what memory they leave behind:
of this process, in which the scheduler and most of the clients live.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import logging
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median

import dask
import distributed.scheduler
import psutil
from dask.utils import key_split
from distributed.core import _expects_comm

HERE = Path(__file__).parent
for folder in (HERE.parent, HERE.parent / "support"):  # processes that are forked inherit them
    sys.path.insert(0, str(folder))

from approxifer.text import duration  # noqa: E402
from chaos.harness import Outcome, play  # noqa: E402
from chaos.pool import Pool, processes_left  # noqa: E402
from chaos.schedule import schedule  # noqa: E402

#: Dask keeps samples of each server's load for an hour, and long logs. For a soak they are to be
#: full soon, and what it keeps for ever is to be off (`NoSpans`): what grows on is a leak.
SHORT_HISTORIES = {
    "distributed.admin.log-length": 50,
    "distributed.admin.low-level-log-length": 100,
    "distributed.admin.system-monitor.log-length": 60,
    "distributed.diagnostics.computations.max-history": 5,
    "distributed.diagnostics.erred-tasks.max-history": 5,
    "distributed.scheduler.events-cleanup-delay": "30s",
}


class NoSpans:
    """In place of what Dask's scheduler writes down of every burst of tasks: some 4 kB each."""

    def __init__(self, scheduler: object) -> None:
        pass

    def observe_tasks(self, *args: object, **kwargs: object) -> dict[str, object]:
        """Nothing to add to the tasks."""
        return {}

    def heartbeat(self, *args: object) -> None:
        """Nothing to write down."""


def main() -> int:
    """Play the runs; 1 if any was bad."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--minutes", type=float, help="go on for that long, whatever --runs says")
    parser.add_argument("--seed", type=int, help="of the first run; drawn if left out")
    asked = parser.parse_args()
    # What Dask says of tasks of its own that workers' deaths have ended.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    seed = random.SystemRandom().randrange(10**6) if asked.seed is None else asked.seed
    seeds: Iterable[int] = range(seed, seed + asked.runs)
    if asked.minutes is None:
        print(f"chaos: {asked.runs} runs; exactly these: make chaos RUNS={asked.runs} SEED={seed}")
    else:
        print(f"soak: {asked.minutes:g} minutes, from seed {seed} on")
        dask.config.set(SHORT_HISTORIES)
        distributed.scheduler.DEFAULT_EXTENSIONS["spans"] = NoSpans
        seeds = _while(time.monotonic() + 60 * asked.minutes, itertools.count(seed))
    before = processes_left(set())
    memory: list[int] = []
    blocks: list[int] = []
    outcomes = _play(seeds, memory, blocks)
    left = [process for process in processes_left(set()) if process not in before]
    for process in left:
        print(f"process left: {process}")
    bad = [outcome for outcome in outcomes if not outcome.good]
    runs = len(outcomes)
    print(
        f"chaos: {runs} runs, {sum(o.ends == ['whole'] for o in outcomes)} of them whole at once; "
        f"{len(bad)} bad runs, {sum(o.wrong for o in outcomes)} wrong rows, "
        f"{sum(o.lost for o in outcomes)} lost rows, {sum(o.hang for o in outcomes)} hangs, "
        f"{len(left)} processes left"
    )
    if not bad:
        bound = 1 - 0.05 ** (1 / runs)
        print(f"with 95 % confidence fewer than {bound:.1%} of such runs are bad")
    if asked.minutes is not None:
        megabytes, thousands = _trend(memory, 10**6), _trend(blocks, 10**3)
        print(f"memory of the scheduler and the clients after runs: {megabytes} MB")
        print(f"blocks that Python objects hold of it: {thousands} thousand (medians of fifths)")
    for outcome in bad:
        print(f"bad: make chaos SEED={outcome.chaos.seed} RUNS=1")
    return 1 if bad or left else 0


def _while(end: float, seeds: Iterable[int]) -> Iterator[int]:
    """Seeds until the time is up."""
    return itertools.takewhile(lambda _: time.monotonic() < end, seeds)


def _trend(values: list[int], unit: int) -> str:
    """How it went: the medians of the fifths of the runs."""
    size = max(1, len(values) // 5)
    parts = [median(values[i : i + size]) for i in range(0, size * (len(values) // size), size)]
    return ", ".join(f"{part / unit:.0f}" for part in parts)


def _play(seeds: Iterable[int], memory: list[int], blocks: list[int]) -> list[Outcome]:
    """Play runs; adds the bytes that this process holds after each, and the blocks of memory that
    its Python objects do: what grows alone is what the allocator keeps."""
    outcomes: list[Outcome] = []
    total = len(seeds) if isinstance(seeds, range) else None
    begin = time.monotonic()
    pool: Pool | None = None
    try:
        with tempfile.TemporaryDirectory(prefix="approxifer-chaos-") as scratch:
            for seed in seeds:
                pool = pool or Pool()
                folder = Path(scratch, str(seed))
                folder.mkdir()
                try:
                    outcome = play(schedule(seed), pool, folder)
                except TimeoutError as error:
                    outcome = Outcome(schedule(seed), problems=[str(error)])
                outcomes.append(outcome)
                if not outcome.good or outcome.set_back:  # its streams may stand still for an hour
                    pool.__exit__()
                    pool = None
                else:
                    pool.forget_the_gone()
                done = len(outcomes)
                # Else Dask remembers its last 100,000 keys, and each scheduler there has been.
                key_split.cache_clear()
                _expects_comm.cache_clear()
                gc.collect()
                memory.append(psutil.Process().memory_info().rss)
                blocks.append(sys.getallocatedblocks())
                spent = time.monotonic() - begin
                where = f"{done}, {duration(spent)}, {memory[-1] / 1e6:.0f} MB"
                if total is not None:
                    where = f"{done}/{total}, {duration(spent / done * (total - done))} to go"
                print(f"[{where}] {outcome}", flush=True)
                for problem in outcome.problems:
                    print(
                        f"    BAD: {problem}\n    repeat: make chaos SEED={seed} RUNS=1", flush=True
                    )
    finally:
        if pool is not None:
            pool.__exit__()
    return outcomes


if __name__ == "__main__":
    code = main()

    sys.exit(code)
