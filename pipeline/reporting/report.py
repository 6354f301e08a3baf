"""The result of a run, for a person and for a program."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import StringIO
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from approxifer.pipeline.byzantine.membership import Conviction, Member
from approxifer.pipeline.byzantine.spot_checks import Proof
from approxifer.pipeline.client.calibration import DisagreementEstimate
from approxifer.pipeline.records import WorkerRecord
from approxifer.text import duration, natural, printable, redacted
from approxifer.version import __version__

if TYPE_CHECKING:
    import xarray as xr

#: Failed rows that are told of one by one.
SHOWN = 5
#: Statuses in the order in which a person wants to read them.
STATUSES = ("exact", "decoded", "repaired", "failed", "pending")


@dataclass(kw_only=True)
class Report:
    """The result of `approxifer.score`; ``print`` it for a summary.

    Attributes
    ----------
    out : Path
        The output store.
    rows : int
    counts : dict
        Rows of each status in the whole store.
    workers : dict
        Name to ``WorkerRecord``.
    evaluations : int
        Rows whose forward pass started on any worker in this session, whatever became of them.
    wall_seconds : float
        From the first read of the input to the store's close.
    setup_seconds : float
        Before that: cluster and models.
    scheme : str
        The code in words, as in ``systematic K=8 S=2, 10 shares``.
    session : str
    resumed : int
        Rows that earlier sessions had committed.
    convicted : list of Conviction
        Workers, or nodes, shown to be Byzantine, with the evidence; those of earlier sessions
        first.
    proofs : list of (Member, Proof)
        The checks of each member that wrote rows, in whatever session, and what they prove.
    doubt : DisagreementEstimate or None
        Under ``repair="doubtful"``: how many rows are expected to differ in class from the model's,
        and what was measured, of this session's windows with decoded rows.
    failures : list of (int, str)
        Rows that failed in this session, as the input counts them, and what the model raised.
    notes : list of str
        What else a person should know.
    """

    out: Path
    rows: int
    counts: dict[str, int]
    workers: dict[str, WorkerRecord]
    evaluations: int
    wall_seconds: float
    setup_seconds: float = 0.0
    scheme: str = ""
    session: str = ""
    resumed: int = 0
    convicted: list[Conviction] = field(default_factory=list)
    proofs: list[tuple[Member, Proof]] = field(default_factory=list)
    doubt: DisagreementEstimate | None = None
    failures: list[tuple[int, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def predictions(self) -> xr.Dataset:
        """The output store, opened lazily: the predictions, ``status`` and the others."""
        from approxifer.datasets import OutputStore

        return OutputStore.open(self.out, write=False).dataset()

    @property
    def scored(self) -> int:
        """Rows that this session obtained."""
        return self.rows - self.resumed

    @property
    def evaluations_per_query(self) -> float:
        """Evaluations for each row that this session obtained; NaN if there was none."""
        return self.evaluations / self.scored if self.scored else float("nan")

    def __str__(self) -> str:
        parts: list[RenderableType] = [
            Text(f"approxifer {__version__}: {self.rows:,} rows in {self.out}")
        ]
        if self.scheme:
            parts.append(Text(self.scheme))
        parts.append(status_table(self.counts, self.rows))
        if self.workers:
            parts.append(_worker_table(self.workers.values()))
        parts += [Text(line) for line in self._summary()]
        parts += [Text(f"note: {note}") for note in self.notes]
        return as_text(parts)

    def _summary(self) -> Iterable[str]:
        if self.scored:
            yield (
                f"evaluations per query: {self.evaluations_per_query:.3f} "
                f"({self.evaluations:,} forward passes for {self.scored:,} rows)"
            )
        rate = f", {self.scored / self.wall_seconds:,.0f} rows/s" if self.wall_seconds > 0 else ""
        yield (
            f"scored in {duration(self.wall_seconds)}{rate}; "
            f"cluster and models took {duration(self.setup_seconds)}"
        )
        if self.doubt is not None:
            yield str(self.doubt)
        if self.resumed:
            yield f"resumed: {self.resumed:,} rows were there from earlier sessions"
        if any(record.bound is not None for record in self.workers.values()):
            yield (
                "wrong <: the part of a worker's rows that may be wrong; more its checks rule out "
                "with 95 % probability"
            )
        for member, proof in self.proofs:
            if member.name not in self.workers or member.session != self.session:
                yield (
                    f"checked: {member.name} of session {member.session}: {proof.checked:,} of "
                    f"{proof.rows:,} rows, fewer than {percent_below(proof.bound)} wrong"
                )
        for row, error in self.failures[:SHOWN]:
            yield f"failed: row {row:,}: {last_line(error) or 'no answer'}"
        if len(self.failures) > SHOWN:
            yield f"failed: {len(self.failures) - SHOWN:,} rows more; the journal has them all"
        for conviction in self.convicted:
            yield conviction.sentence


def last_line(error: str) -> str:
    """The last line of what was raised: of a traceback, the exception."""
    return error.strip().split("\n")[-1]


def as_text(parts: Iterable[RenderableType], *, width: int = 200) -> str:
    """Render for any terminal or file: no colours, no trailing blanks."""
    console = Console(file=StringIO(), width=width, color_system=None, highlight=False)
    for part in parts:
        if isinstance(part, Text):
            console.print(line(part.plain), soft_wrap=True)
        else:
            console.print(part)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.split("\n")).rstrip("\n")


def line(text: object) -> Text:
    """One line, whatever is in it: no markup, no further lines, nothing that cannot be seen."""
    return Text(printable(redacted(text)))


class _Cells(Table):
    """A table whose cells are text from anywhere."""

    def add_row(self, *cells: Any, **options: Any) -> None:
        super().add_row(*(line(cell) for cell in cells), **options)


def table(title: str, *columns: str) -> Table:
    """An aligned table: the first column to the left, the others to the right."""
    made = _Cells(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for number, name in enumerate(columns):
        made.add_column(name, justify="right" if number else "left", no_wrap=True)
    return made


def status_table(counts: Mapping[str, int], rows: int) -> RenderableType:
    """Rows by status, with percentages. Statuses without rows are left out."""
    made = table("Rows", "status", "rows", "%")
    for name in (*STATUSES, *sorted(set(counts) - set(STATUSES))):
        if count := counts.get(name, 0):
            made.add_row(name, f"{count:,}", percent(count, rows))
    made.add_row("all", f"{rows:,}", "")
    return Padding(made, (1, 0, 0, 0))


def percent(part: int, whole: int) -> str:
    """Two digits, but 100 only for all and 0 only for none."""
    if not whole or part in (0, whole):
        return "100" if whole and part else "0"
    return f"{min(99.99, max(0.01, 100 * part / whole)):.2f}"


def percent_below(bound: float) -> str:
    """A bound in percent, rounded up."""
    digits = 1 if bound >= 0.01 or not bound else 3
    return f"{ceil(100 * bound * 10**digits - 1e-9) / 10**digits:g} %"


def _worker_table(workers: Iterable[WorkerRecord]) -> RenderableType:
    records = sorted(workers, key=lambda record: natural(record.name))
    checked = any(record.bound is not None for record in records)
    made = table(
        "Workers", "worker", "run", "dropped", "unstarted", "erased", "evaluations", "median ms",
        "restarts", *(("suspected", "checked", "wrong <") if checked else ()), "state",
    )  # fmt: skip
    for record in records:
        latency = "" if record.latency is None else f"{1000 * record.latency:,.1f}"
        bound = "" if record.bound is None else percent_below(record.bound)
        trust = (f"{record.suspected:,}", f"{record.checked:,}", bound) if checked else ()
        made.add_row(
            record.name, f"{record.run:,}", f"{record.dropped:,}", f"{record.unstarted:,}",
            f"{record.erased:,}", f"{record.evaluations:,}", latency, f"{record.restarts:,}",
            *trust, record.state,
        )  # fmt: skip
    return made
