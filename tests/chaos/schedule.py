"""What is done to a run, drawn from a seed. Pure.

``schedule(seed)`` draws a small job and a few faults; the same seed draws the same. When a fault
strikes is said as the fraction of the groups that are complete by then, so that it strikes a slow
machine's run at the same place as a fast one's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

#: Workers of the pool, by number, all with a nanny; beside them one without, where faults ask.
WORKERS = 7
#: Rows that the client probes the model with: none of them is poisoned.
PROBED = 16


@dataclass(frozen=True)
class Job:
    """What is scored and how."""

    rows: int = 240
    scheme: str = "systematic"
    k: int = 4
    stragglers: int = 1
    byzantine: int = 0
    block: int = 4
    window: int = 60
    seconds: float = 0.02  #: of a micro-batch
    heal: str = "avoid"
    hang_after: float = 5.0  #: a loaded machine's healthy workers are silent for a second or two
    stall_after: float = 20.0
    seed: int = 0


# ---- workers -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slow:
    """A worker takes ``factor`` times as long."""

    worker: int
    factor: float


@dataclass(frozen=True)
class Hang:
    """A worker's function does not return, from its ``after``-th micro-batch on."""

    worker: int
    after: int = 2


@dataclass(frozen=True)
class Flaky:
    """A worker's model raises in this part of its micro-batches."""

    worker: int
    share: float = 0.3


@dataclass(frozen=True)
class Corruption:
    """A worker's outputs have the wrong sign."""

    worker: int


@dataclass(frozen=True)
class Stop:
    """SIGSTOP; SIGCONT after some ``seconds``, or not before the run is over."""

    at: float
    worker: int
    seconds: float | None = None


@dataclass(frozen=True)
class Kill:
    """SIGKILL; the nanny starts another."""

    at: float
    worker: int


@dataclass(frozen=True)
class Restart:
    """The scheduler has the nanny restart a worker."""

    at: float
    worker: int


@dataclass(frozen=True)
class Join:
    """A worker joins."""

    at: float


@dataclass(frozen=True)
class Leave:
    """A worker that was there from the start is retired."""

    at: float


@dataclass(frozen=True)
class Vanish:
    """A worker without a nanny that was there from the start gets SIGKILL."""

    at: float


@dataclass(frozen=True)
class Partition:
    """Nothing passes between a worker and all others, though every connection stays open; for some
    ``seconds``, or until the run is over."""

    at: float
    seconds: float | None = None


# ---- data, client, clock -------------------------------------------------------------------------


@dataclass(frozen=True)
class Poison:
    """The model raises on these rows, wherever it is run."""

    rows: tuple[int, ...]


@dataclass(frozen=True)
class OutOfMemory:
    """The model raises MemoryError on what holds this row, the first two times."""

    row: int


@dataclass(frozen=True)
class ClockJump:
    """`time.time` of the client and the scheduler jumps."""

    at: float
    seconds: float


@dataclass(frozen=True)
class KillClient:
    """SIGKILL to the client."""

    at: float


@dataclass(frozen=True)
class Interrupt:
    """Ctrl-C at the client."""

    at: float


@dataclass(frozen=True)
class DiskFull:
    """Every write of ``what``, "data" or "journal", fails with ENOSPC from then on."""

    at: float
    what: str


@dataclass(frozen=True)
class CorruptInput:
    """The last chunk of the input is overwritten with noise."""

    at: float


Fault: TypeAlias = (
    Slow | Hang | Flaky | Corruption | Stop | Kill | Restart | Join | Leave | Vanish | Partition
    | Poison | OutOfMemory | ClockJump | KillClient | Interrupt | DiskFull | CorruptInput
)  # fmt: skip

#: Besides a whole output, how a run with this fault may end: what the error is, and what it says.
#: A fault that is not here must leave the output whole.
MAY_END: dict[type[Fault], tuple[str, str]] = {
    KillClient: ("killed", ""),
    Interrupt: ("KeyboardInterrupt", ""),
    DiskFull: ("OutputError", "the same command goes on"),
    CorruptInput: ("InputError", "A chunk of the input may be damaged"),
    # Set back by an hour, Dask's own streams between client, scheduler and workers stand still for
    # one: `distributed.batched` waits until a time of day.
    ClockJump: ("ClusterError", "no share has come back"),
}

#: Faults that end a run: one at a time.
ENDINGS = (KillClient, Interrupt, DiskFull, CorruptInput, ClockJump)
#: Faults that need the worker beside the pool: one at a time.
EXTRA = (Join, Leave, Vanish, Partition)


@dataclass(frozen=True)
class Chaos:
    """One run: the job, and what is done to it."""

    seed: int
    job: Job
    faults: tuple[Fault, ...] = field(default=())

    def of(self, *kinds: type) -> list[Fault]:
        """The faults of these kinds."""
        return [fault for fault in self.faults if isinstance(fault, kinds)]

    @property
    def poisoned(self) -> list[int]:
        """Rows that must fail."""
        return sorted(
            {row for fault in self.faults if isinstance(fault, Poison) for row in fault.rows}
        )

    def may_end(self, kind: str, said: str) -> bool:
        """Whether this error is one that a fault of this run is documented to end in."""
        allowed = [
            MAY_END[type(fault)]
            for fault in self.faults
            if type(fault) in MAY_END and not (isinstance(fault, ClockJump) and fault.seconds > 0)
        ]
        return any(kind == name and text in said for name, text in allowed)


def schedule(seed: int) -> Chaos:
    """Draw a job and one to five faults."""
    rng = np.random.default_rng(seed)
    job = _job(rng)
    count = int(rng.integers(1, 5))
    # A group with Byzantine workers needs N - S distinct ones; of the pool N + E + 1 are asked for.
    victims = [int(v) for v in rng.permutation(WORKERS)[: 2 if job.byzantine else 4]]
    faults: list[Fault] = [Corruption(victims.pop())] if job.byzantine else []
    taken: set[type] = set()
    for _ in range(count):
        kinds = [k for k in _DRAW if k not in taken]
        kind = kinds[int(rng.integers(len(kinds)))]
        taken.add(kind)
        for several in (ENDINGS, EXTRA):
            if kind in several:
                taken.update(several)
        if kind in _ON_WORKERS and not victims:
            continue
        faults.append(_DRAW[kind](rng, job, victims))
    return Chaos(seed, job, tuple(faults))


def _job(rng: np.random.Generator) -> Job:
    byzantine = int(rng.random() < 0.15)
    if byzantine:
        scheme, k, stragglers = "systematic", 2, int(rng.integers(0, 2))
    else:
        scheme = str(rng.choice(["systematic", "berrut", "replication", "uncoded"]))
        k = int(rng.integers(2, 5))
        stragglers = (
            0 if scheme == "uncoded" else 1 if scheme == "replication" else int(rng.integers(1, 3))
        )
    block = int(rng.integers(2, 7))
    return Job(
        rows=int(rng.integers(160, 320)),
        scheme=scheme,
        k=k,
        stragglers=stragglers,
        byzantine=byzantine,
        block=block,
        window=int(rng.integers(40, 90)),
        seconds=float(rng.choice([0.01, 0.02, 0.03])),
        heal=str(rng.choice(["avoid", "restart"])),
        seed=int(rng.integers(1000)),
    )


_Rng = np.random.Generator


def _at(rng: _Rng) -> float:
    return round(float(rng.uniform(0.05, 0.7)), 3)


def _while(rng: _Rng) -> float:
    return round(float(rng.uniform(0.1, 1.0)), 2)


def _poison(rng: _Rng, job: Job, victims: list[int]) -> Fault:
    rows = rng.choice(np.arange(PROBED, job.rows), int(rng.integers(1, 4)), replace=False)
    return Poison(tuple(sorted(rows.tolist())))


_DRAW: dict[type[Fault], Callable[[_Rng, Job, list[int]], Fault]] = {
    Slow: lambda rng, job, v: Slow(v.pop(), float(rng.choice([2.0, 10.0]))),
    Hang: lambda rng, job, v: Hang(v.pop(), int(rng.integers(0, 4))),
    Flaky: lambda rng, job, v: Flaky(v.pop()),
    Stop: lambda rng, job, v: Stop(_at(rng), v.pop(), _while(rng) if rng.random() < 0.5 else None),
    Kill: lambda rng, job, v: Kill(_at(rng), v.pop()),
    Restart: lambda rng, job, v: Restart(_at(rng), v.pop()),
    Join: lambda rng, job, v: Join(_at(rng)),
    Leave: lambda rng, job, v: Leave(_at(rng)),
    Vanish: lambda rng, job, v: Vanish(_at(rng)),
    Partition: lambda rng, job, v: Partition(_at(rng), _while(rng) if rng.random() < 0.5 else None),
    Poison: _poison,
    OutOfMemory: lambda rng, job, v: OutOfMemory(int(rng.integers(job.rows))),
    ClockJump: lambda rng, job, v: ClockJump(_at(rng), float(rng.choice([-3600.0, 3600.0]))),
    KillClient: lambda rng, job, v: KillClient(_at(rng)),
    Interrupt: lambda rng, job, v: Interrupt(_at(rng)),
    DiskFull: lambda rng, job, v: DiskFull(_at(rng), str(rng.choice(["data", "journal"]))),
    CorruptInput: lambda rng, job, v: CorruptInput(_at(rng)),
}  # fmt: skip

#: Those that take a worker of the pool.
_ON_WORKERS = (Slow, Hang, Flaky, Stop, Kill, Restart)
