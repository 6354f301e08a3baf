"""Records of a run, shared by the engine, the report and the pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

import numpy as np

#: One output, or several by their names.
Outputs = np.ndarray | dict[str, np.ndarray]


class Status(IntEnum):
    """The way a row was obtained; the values of ``status`` in the store (CF flags)."""

    PENDING = 0
    EXACT = 1
    DECODED = 2
    REPAIRED = 3
    FAILED = 4


class AttemptOutcome(StrEnum):
    """The end of one attempt at one share."""

    USED = "used"  #: went into the output
    SPARE = "spare"  #: came back, but was not needed
    DROPPED = "dropped"  #: had started when it was dropped: a straggler
    UNSTARTED = "unstarted"  #: dropped before it had started
    LOST = "lost"  #: its worker died or hung
    FAILED = "failed"  #: the model raised


@dataclass(frozen=True, eq=False)
class ShareOutput:
    """A worker's output of a share: (B, *out)."""

    worker: str
    output: np.ndarray
    malformed: str | None = None  #: what is wrong with it where it is no array as expected;
    #: ``output`` is a stand-in then
    member: int = 0  #: the worker's incarnation


@dataclass
class WorkerRecord:
    """One worker's ledger, kept by name (names survive a nanny's restart, addresses do not)."""

    name: str
    host: str = ""
    state: str = "ready"  #: ready | joining | hung | restarting | gone | convicted
    run: int = 0  #: shares that came back
    dropped: int = 0  #: shares dropped after they had started
    unstarted: int = 0  #: shares dropped before they had started
    erased: int = 0  #: shares lost with the worker, or failed
    restarts: int = 0
    evaluations: int = 0  #: rows whose forward pass started here
    latency: float | None = None  #: median seconds of a share, from its start
    suspected: int = 0  #: shares found suspicious
    checked: int = 0  #: rows of it that were run again elsewhere, and agreed
    #: The fraction of its rows that may be wrong; more its checks rule out with 95 % probability.
    bound: float | None = None


@dataclass(frozen=True)
class Progress:
    """A snapshot of a run. ``rate`` is rows per second, ``eta`` seconds; None while unknown."""

    rows: int = 0
    #: rows of this session with each final status: exact, decoded, repaired, failed
    counts: dict[str, int] = field(default_factory=dict)
    provisional: int = 0  #: rows decoded that wait for their repair
    windows: int = 0
    windows_done: int = 0
    resumed: int = 0  #: rows that earlier sessions had committed
    shares_run: int = 0
    shares_dropped: int = 0
    elapsed: float = 0.0
    rate: float | None = None
    eta: float | None = None
    stage: str = "starting"  #: what it is doing, or: running, closing, done, cancelled, failed
    workers: int = 0  #: workers ready for shares
    #: Under ``repair="doubtful"``, the part of the rows decided on that is expected to differ.
    disagreement: float | None = None
    unchecked: int = 0  #: rows with an output that wait for checks
    convicted: int = 0  #: workers, or nodes, that this session has shown to be Byzantine
    trouble: str = ""  #: who holds what, where no share has come back for long

    @property
    def done(self) -> int:
        """Rows with a final status, those of earlier sessions included."""
        return self.resumed + sum(self.counts.values())


@dataclass(frozen=True)
class Block:
    """Rows as they return, from ``async for block in job``.

    Attributes
    ----------
    rows : int64 (n,)
        Their indices along the sample dimension.
    predictions : (n, *out)
        As they are stored; several outputs by their names.
    status : uint8 (n,), see ``Status``
    provisional : bool
        True where a later block will bring the same rows again, repaired.
    """

    rows: np.ndarray
    predictions: Outputs
    status: np.ndarray
    provisional: bool = False
