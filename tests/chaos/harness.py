"""Plays one schedule on the pool, and judges what came of it.

What is judged: every row is there with the status it should have, and its bytes are the model's
own; a run that ended otherwise ended in an error that the schedule's faults are documented to end
in, and the same command then went on to a whole output without computing a committed window again;
nothing of it is left on the scheduler, on the workers, or among our threads.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from distributed import Client
from leftovers import assert_clean

from approxifer import submit
from approxifer.datasets import Journal, OutputStore
from approxifer.datasets.journal import journal_path
from approxifer.pipeline import faults
from approxifer.pipeline.records import Status
from chaos import onworker
from chaos import schedule as s
from chaos.pool import EXTRA, ClientProcess, ExtraWorker, Pool, name_of, threads_left
from chaos.strike import Striker

#: Seconds after which a run hangs.
LIMIT = 120.0


@dataclass
class Outcome:
    """What came of one run."""

    chaos: s.Chaos
    ends: list[str] = field(default_factory=list)  #: "whole", or how it ended, for each command
    missed: list[s.Fault] = field(default_factory=list)  #: the run was over before
    problems: list[str] = field(default_factory=list)
    wrong: int = 0  #: rows with other bytes or another status than they should have
    lost: int = 0  #: rows that are pending
    hang: bool = False
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether nothing is to be complained of."""
        return not (self.problems or self.wrong or self.lost or self.hang)

    @property
    def set_back(self) -> bool:
        """Whether the pool's clock was set back."""
        jumps = [fault for fault in self.chaos.of(s.ClockJump) if fault not in self.missed]
        return any(jump.seconds < 0 for jump in jumps)  # type: ignore[union-attr]

    def __str__(self) -> str:
        job = self.chaos.job
        what = f"{job.scheme} K={job.k} S={job.stragglers} E={job.byzantine}, {job.rows} rows"
        struck = [repr(f) for f in self.chaos.faults if f not in self.missed]
        said = f"seed {self.chaos.seed}: {what}; {', '.join(struck) or 'nothing struck'}; "
        said += f"{', then '.join(self.ends)}; {self.seconds:.1f} s"
        if self.missed:
            said += f" (over before {', '.join(type(f).__name__ for f in self.missed)})"
        return said


def play(chaos: s.Chaos, pool: Pool, folder: Path) -> Outcome:
    """Play one run in an empty folder, and mend the pool.

    Raises
    ------
    TimeoutError
        The pool cannot be mended: take another.
    """
    begin = time.monotonic()
    outcome = Outcome(chaos)
    game = _Game(chaos, pool, folder, outcome)
    try:
        if game.run() != "whole":
            before = game.committed()
            if outcome.set_back:  # as it says: a new cluster
                with Pool() as fresh:
                    game.pool = fresh
                    game.run(again=True)
            else:
                game.run(again=True)
            game.judge_resume(before)
        game.judge_rows()
    except TimeoutError as error:
        outcome.hang = True
        outcome.problems.append(f"hang: {error}")
    if not outcome.set_back:
        with Client(pool.cluster, set_as_default=False) as client:
            try:
                assert_clean(client)
            except AssertionError as error:
                outcome.problems.append(f"left behind: {error}")
    if threads := threads_left():
        outcome.problems.append(f"threads left: {threads}")
    outcome.seconds = time.monotonic() - begin
    return outcome


class _Game:
    def __init__(self, chaos: s.Chaos, pool: Pool, folder: Path, outcome: Outcome) -> None:
        self.chaos, self.job, self.pool, self.outcome = chaos, chaos.job, pool, outcome
        self.folder, self.store, self.out = folder, folder / "in.zarr", folder / "out.zarr"
        self.rows = onworker.make_rows(self.job.rows, chaos.poisoned)
        data = xr.Dataset({"x": (("sample", "f"), self.rows)})
        chunks = {"x": {"chunks": (self.job.window // 2, self.rows.shape[1])}}
        data.to_zarr(self.store, encoding=chunks, consolidated=False)
        self.lines_before = 0

    # ---- playing ----------------------------------------------------------------------------

    def run(self, *, again: bool = False) -> str:
        """Give the command once; without faults the second time. How it ended."""
        chaos = self.chaos if not again else replace(self.chaos, faults=(*self._in_data(),))
        with contextlib.ExitStack() as stack:
            kind, said = self._run(chaos, stack)
        self.pool.mend()
        self.outcome.ends.append(kind)
        allowed = kind == "whole" or (not again and chaos.may_end(kind, said))
        if not allowed:
            self.outcome.problems.append(f"ended with {kind}: {said}")
        return kind

    def _run(self, chaos: s.Chaos, stack: contextlib.ExitStack) -> tuple[str, str]:
        extra = None
        if chaos.of(*s.EXTRA) and not chaos.of(s.Join):
            extra = stack.enter_context(ExtraWorker(self.pool.address))
        hanging = self.folder / "hanging"
        hanging.touch()
        stack.callback(hanging.unlink)
        client = stack.enter_context(Client(self.pool.cluster, set_as_default=False))
        if extra is not None:
            client.wait_for_workers(s.WORKERS + 1, timeout=20)
        faults.install(client, self._on_workers(chaos, hanging))
        process, job = None, None
        if chaos.of(s.KillClient, s.Interrupt):
            process = ClientProcess(self.pool.address, self._arguments())
        else:
            job = submit(client=client, **self._arguments())
        striker = Striker(
            list(chaos.faults),
            pool=self.pool,
            progress=self._progress,
            store=self.store,
            extra=extra,
            joining=lambda: stack.enter_context(ExtraWorker(self.pool.address)),
            client=process,
        )
        with striker:
            if process is not None:
                found = process.result(LIMIT)
            else:
                assert job is not None
                try:
                    job.result(LIMIT)
                    found = "whole", ""
                except TimeoutError:
                    if job.done():
                        raise
                    job.cancel()
                    job.wait()
                    raise
                except Exception as error:
                    found = type(error).__name__, str(error)
        self.outcome.problems += striker.errors
        timed = [fault for fault in chaos.faults if hasattr(fault, "at")]
        self.outcome.missed += [fault for fault in timed if fault not in striker.struck]
        return found

    def _arguments(self) -> dict[str, Any]:
        job = self.job
        return {
            "data": str(self.store), "model": onworker.MODELS[job.seconds], "out": str(self.out),
            "scheme": job.scheme, "k": job.k, "stragglers": job.stragglers,
            "byzantine": job.byzantine, "block": job.block, "window": job.window,
            "repair": "exact", "heal": job.heal, "hang_after": job.hang_after,
            "stall_after": job.stall_after, "seed": job.seed,
        }  # fmt: skip

    def _on_workers(self, chaos: s.Chaos, hanging: Path) -> dict[str, list[faults.Fault]]:
        everywhere: list[faults.Fault] = [onworker.Log(str(self.folder / "calls"))]
        for memory in chaos.of(s.OutOfMemory):
            everywhere.append(onworker.NoMemory(str(self.folder), memory.row))
        table = {name: list(everywhere) for name in (*map(name_of, range(s.WORKERS)), EXTRA)}
        for fault in chaos.faults:
            match fault:
                case s.Slow():
                    table[name_of(fault.worker)].append(faults.Slow(fault.factor))
                case s.Hang():
                    wait = onworker.HangWhile(str(hanging), fault.after)
                    table[name_of(fault.worker)].append(wait)
                case s.Flaky():
                    table[name_of(fault.worker)].append(faults.Raise(fault.share))
                case s.Corruption():
                    table[name_of(fault.worker)].append(faults.SignFlip())
        return table

    def _in_data(self) -> Iterator[s.Fault]:
        """The faults that the same command meets again."""
        yield from self.chaos.of(s.Poison)

    def _progress(self) -> float:
        path = journal_path(self.out)
        groups = path.read_bytes().count(b'"event":"group"') if path.exists() else 0
        return groups / ceil(self.job.rows / (self.job.block * self.job.k))

    # ---- judging ----------------------------------------------------------------------------

    def committed(self) -> dict[int, tuple[int, int]]:
        """Windows whose rows all have their status: index to rows."""
        self.moment = time.monotonic()
        if not self.out.exists():
            self.lines_before = 0
            return {}
        self.lines_before = len(Journal.read(self.out))
        with OutputStore.open(self.out, write=False) as store:
            status, window = store.status(), store.attrs["layout"]["window"]
        starts = range(0, len(status), window)
        spans = {i: (a, min(a + window, len(status))) for i, a in enumerate(starts)}
        return {i: (a, b) for i, (a, b) in spans.items() if (status[a:b] != Status.PENDING).all()}

    def judge_resume(self, before: dict[int, tuple[int, int]]) -> None:
        """A committed window is not computed again, unless a Byzantine worker had touched it."""
        if self.chaos.of(s.Corruption):
            return
        after = Journal.read(self.out)[self.lines_before :]
        again = {event["window"] for event in after if event["event"] in ("group", "window")}
        if again & before.keys():
            self.outcome.problems.append(f"committed windows again: {again & before.keys()}")
        # A worker that was stopped, or cut off, may end what it had begun.
        if self.chaos.of(s.Stop, s.Partition, s.Hang, s.Slow):
            return
        rows = {row for a, b in before.values() for row in range(a, b)}
        for line in (self.folder / "calls").read_text().splitlines():
            at, *found = line.split()
            seen = set(map(int, found)) - {0}  # each worker warms up with row 0
            if float(at) > self.moment and seen & rows:
                self.outcome.problems.append(f"committed rows run again: {seen & rows}")

    def judge_rows(self) -> None:
        """Every row has its status and its bytes."""
        with OutputStore.open(self.out, write=False) as store:
            status = store.status()
            found = store.read_prediction(0, store.rows)
        expected = onworker.outputs(self.rows)
        expected[self.chaos.poisoned] = np.nan
        failed = np.isin(np.arange(len(status)), self.chaos.poisoned)
        same = (found.view(np.uint32) == expected.view(np.uint32)).all(axis=1)
        same |= failed & np.isnan(found).all(axis=1)
        right = np.where(
            failed, status == Status.FAILED, np.isin(status, (Status.EXACT, Status.REPAIRED))
        )
        pending = status == Status.PENDING
        self.outcome.lost = int(pending.sum())
        self.outcome.wrong = int((~pending & ~(same & right)).sum())
        if self.outcome.lost or self.outcome.wrong:
            rows = np.flatnonzero(pending | ~same | ~right)
            statuses = status[rows][:10].tolist()
            self.outcome.problems.append(f"rows {rows[:10].tolist()} with statuses {statuses}")
