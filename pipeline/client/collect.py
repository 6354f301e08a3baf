"""Rows of a complete group: exact, decoded, to be repaired, or failed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from approxifer.coding import Code, Decoded, block_rows
from approxifer.coding.confidence import confidence
from approxifer.coding.fitted import FittedDecoder
from approxifer.errors import DecodeError, ModelError
from approxifer.pipeline.client.calibration import SelectiveRepair
from approxifer.pipeline.client.window import Window
from approxifer.pipeline.protocol import Attempt
from approxifer.pipeline.records import AttemptOutcome, Block, Outputs, ShareOutput, Status
from approxifer.pipeline.stream import BlockStream


@dataclass(frozen=True, eq=False)
class RowGroup:
    """Rows of a window that travel as one group."""

    number: int
    code: Code
    window: Window
    members: np.ndarray  #: rows of the window, codeword by codeword
    status: Status  #: of its exact rows: EXACT, or REPAIRED where it is a repair
    coded: bool  #: false for rows that are run plainly: repairs, rows with NaN


@dataclass(frozen=True, eq=False)
class DecodedGroup:
    """A complete group: the outputs to use, and what they decode to."""

    batch: RowGroup
    used: dict[int, ShareOutput]  #: by share: those that stand
    raised: frozenset[str]  #: workers on which the model raised
    refused: frozenset[int | None]  #: blocks on which it raised
    failed: frozenset[str]  #: workers that did not bring their share back
    evicted: frozenset[str]  #: workers whose outputs are not used
    decoded: Decoded | None  #: None: not decodable, whatever was tried
    residual: np.ndarray | None  #: (B,)
    error: str  #: of the last attempt at which the model raised
    confidence: np.ndarray | None = None  #: (k, B), where decodes may be in doubt
    #: By block, what is stored of its rows' outputs, where that is something else.
    stored: dict[int, np.ndarray] = field(default_factory=dict)
    #: Blocks of whose decoded rows nothing can be stored: what makes it of outputs raised.
    unfit: set[int] = field(default_factory=set)

    @property
    def outputs(self) -> dict[int, np.ndarray]:
        """By share: (B, *out)."""
        return {share: one.output for share, one in self.used.items()}

    def carrier(self, block: int) -> int | None:
        """The share whose output is that of a block: of several copies the one that was decoded."""
        carries = self.batch.code.carries
        shares = [share for share in sorted(self.used) if carries[share] == block]
        if len(shares) > 1 and self.decoded is not None:
            chosen = self.decoded.blocks[block].tobytes()
            shares = [share for share in shares if self.used[share].output.tobytes() == chosen]
        return shares[0] if shares else None

    def output(self, block: int) -> np.ndarray | None:
        """The output of a block: the one of its share, or what is decoded; None: there is none."""
        carrier = self.carrier(block)
        if carrier is not None:
            return self.used[carrier].output
        return None if self.decoded is None else np.asarray(self.decoded.blocks[block])


def decode_group(
    batch: RowGroup,
    used: dict[int, ShareOutput],
    *,
    history: Sequence[Attempt] = (),
    evicted: frozenset[str] = frozenset(),
    decoder: FittedDecoder | None = None,
    doubtful: bool = False,
    stored: Callable[[np.ndarray], np.ndarray] | None = None,
) -> DecodedGroup:
    """Decode what stands, if it is enough; if doubtful, state how sure that is.

    Parameters
    ----------
    batch : RowGroup
    used
        The outputs that stand, by share.
    history
        What became of each attempt.
    evicted
        Names of workers whose outputs do not stand.
    decoder
        Learnt weights, instead of Berrut's.
    doubtful
        Whether decodes may be in doubt.
    stored
        What is stored of outputs, where that is something else.
    """
    decoded, residual, sure = None, None, None
    outputs = {share: one.output for share, one in used.items()}
    with contextlib.suppress(DecodeError):
        decode = decoder.decode if decoder is not None and batch.coded else batch.code.decode
        decoded, residual = decode(outputs), batch.code.residual(outputs)
        if doubtful and batch.coded:
            sure = confidence(batch.code, outputs, decoded)
    errors = [str(a.error) for a in history if a.fate is AttemptOutcome.FAILED]
    group = DecodedGroup(
        batch,
        used,
        raised=_workers(history, AttemptOutcome.FAILED),
        refused=frozenset(
            batch.code.carries[a.share] for a in history if a.fate is AttemptOutcome.FAILED
        ),
        failed=_workers(
            history, AttemptOutcome.DROPPED, AttemptOutcome.LOST, AttemptOutcome.FAILED
        ),
        evicted=evicted,
        decoded=decoded,
        residual=residual,
        error=errors[-1] if errors else "",
        confidence=sure,
    )
    if stored is not None:
        for block, rows in enumerate(block_rows(batch.members, batch.code.k)):
            if (output := group.output(block)) is None:
                continue
            try:
                group.stored[block] = stored(output[: len(rows)])
            except ModelError:
                if group.carrier(block) is not None:
                    raise
                group.unfit.add(block)  # no model returns what is interpolated, perhaps
    return group


def _workers(history: Sequence[Attempt], *fates: AttemptOutcome) -> frozenset[str]:
    """The workers with an attempt that ended so."""
    return frozenset(a.worker for a in history if a.fate in fates)


class Collector:
    """Takes groups into their windows, counts rows, and passes them on to who iterates the job.

    Attributes
    ----------
    counts : dict
        Rows of each final status.
    provisional : int
        Rows decoded that wait for their repair, or for what is decided on them.
    doubts : SelectiveRepair or None
        Decides which decoded rows are kept.
    """

    def __init__(
        self,
        stream: BlockStream,
        *,
        keep_decoded: bool,
        blank: Callable[[int], np.ndarray],
        named: Callable[[np.ndarray], Outputs] = lambda outputs: outputs,
        index: Callable[[int], int],
        checked: bool = False,
        byzantine: int = 0,
        doubts: SelectiveRepair | None = None,
    ) -> None:
        self.counts = dict.fromkeys(("exact", "decoded", "repaired", "failed"), 0)
        self.provisional = 0
        self.doubts = doubts
        self.failures: list[tuple[int, str]] = []  #: rows that failed, of the input, and why
        self._stream = stream
        self._keep_decoded = keep_decoded
        self._blank = blank
        self._named = named  #: what is stored, as it is passed on
        self._index = index  #: of a worker, by its incarnation, in the store
        self._checked = checked  #: rows are provisional until their window is written
        self._byzantine = byzantine
        #: Rows on which the model raised, on too few workers to be sure that it is the rows.
        self.unsure: list[tuple[Window, int, Status, str]] = []

    def take(self, group: DecodedGroup) -> None:
        """Take a group in, block by block."""
        batch, window = group.batch, group.batch.window
        for one in group.used.values():
            self._index(one.member)  # also of those that only contributed to what is decoded
        for block, rows in enumerate(block_rows(batch.members, batch.code.k)):
            if len(rows):
                self._take_block(group, block, rows)
        if batch.coded:
            window.group[batch.members] = batch.number
            if group.residual is not None:
                each = np.repeat(group.residual, batch.code.k)
                window.residual[batch.members] = each[: len(batch.members)]

    def decide(self, window: Window) -> None:
        """Keep decoded rows of a window, or have them repaired, as far as that can be decided."""
        if self.doubts is None or window.coded_left:
            return
        keep, repair = self.doubts.look(window.index, window.status, window.classes)
        if len(keep):
            self._settle(window, keep, window.prediction[keep], Status.DECODED)
        window.ask_repair(repair, Status.REPAIRED, window.avoid)

    def committed(self, window: Window) -> None:
        """A window is written."""
        self._stream.committed(window.index, window.start, window.stop, again=self._checked)

    def take_back(self, statuses: np.ndarray) -> None:
        """Rows with these statuses are pending again: a convicted worker touched them."""
        for status in Status:
            if (name := status.name.lower()) in self.counts:
                self.counts[name] -= int((statuses == status).sum())

    def fail(self, window: Window, rows: np.ndarray) -> None:
        """Rows that were there have failed after all.

        Parameters
        ----------
        rows : bool (W,)
        """
        self.take_back(window.status[rows])
        self._settle(window, np.flatnonzero(rows), self._blank(int(rows.sum())), Status.FAILED)

    def _take_block(self, group: DecodedGroup, block: int, rows: np.ndarray) -> None:
        batch, window = group.batch, group.batch.window
        decoded, avoid = group.decoded, group.failed | group.evicted
        carrier = group.carrier(block)
        if carrier is not None:
            one = group.used[carrier]
            if self.doubts is not None:
                window.classes[rows] = one.output[: len(rows)].argmax(axis=1)
            kept = group.stored.get(block, one.output)
            self._settle(window, rows, kept, batch.status, self._index(one.member))
        elif not batch.coded and not group.evicted:
            self._failed(window, rows, group)
        elif not batch.coded:
            window.ask_repair(rows, batch.status, avoid)
        elif (
            decoded is None
            or block in group.unfit
            or (self._keep_decoded and block in group.refused)
        ):
            window.ask_repair(rows, Status.REPAIRED, avoid)
        elif self._keep_decoded:
            blocks = decoded.blocks[block][: len(rows)]
            whole = np.isfinite(blocks.reshape(len(rows), -1)).all(axis=1)
            kept = group.stored.get(block, blocks)
            self._settle(window, rows[whole], kept[whole], Status.DECODED)
            # One NaN among the outputs spoils what is interpolated from it, and nothing else.
            window.ask_repair(rows[~whole], Status.REPAIRED, avoid)
        else:
            self.provisional += len(rows)
            kept = group.stored.get(block, decoded.blocks[block])
            self._pass_on(window, rows, kept, Status.DECODED, provisional=True)
            if self.doubts is None or group.confidence is None:
                window.ask_repair(rows, Status.REPAIRED, avoid)
            else:
                blocks = decoded.blocks[block][: len(rows)]
                window.prediction[rows] = kept[: len(rows)]
                window.avoid |= avoid
                sure = group.confidence[block][: len(rows)]
                self.doubts.wait(window.index, rows, blocks.argmax(axis=1), sure)

    def _failed(self, window: Window, rows: np.ndarray, group: DecodedGroup) -> None:
        """The model raised on a block wherever it was tried: narrow down on which of its rows. A
        row fails if that is so on E + 1 workers; else it is to be tried on the client."""
        status, error = group.batch.status, group.error
        if len(rows) > 1:
            window.bisect(rows, status)
        elif self._byzantine and len(group.raised) <= self._byzantine:
            self.unsure.append((window, int(rows[0]), status, error))
        else:
            self.give_up(window, int(rows[0]), error)

    def give_up(self, window: Window, row: int, error: str) -> None:
        """The model raises on a row of a window by itself."""
        self.failures.append((window.start + row, error))
        self._settle(window, np.array([row]), self._blank(1), Status.FAILED)

    def put(
        self, window: Window, row: int, output: np.ndarray, kept: np.ndarray, status: Status
    ) -> None:
        """Take in a row that the client has run: (*out), and what is stored of it, (*kept)."""
        if self.doubts is not None:
            window.classes[row] = output.argmax()
        self._settle(window, np.array([row]), kept[None], status)

    def _settle(
        self,
        window: Window,
        rows: np.ndarray,
        outputs: np.ndarray,
        status: Status,
        worker: int = -1,
    ) -> None:
        window.put(rows, outputs, status=status, worker=worker)
        self.counts[status.name.lower()] += len(rows)
        if status in (Status.REPAIRED, Status.DECODED):
            self.provisional = max(0, self.provisional - len(rows))
        self._pass_on(window, rows, outputs, status)

    def _pass_on(
        self,
        window: Window,
        rows: np.ndarray,
        outputs: np.ndarray,
        status: Status,
        *,
        provisional: bool = False,
    ) -> None:
        self._stream.put(
            window.index,
            Block(
                rows=window.start + rows,
                predictions=self._named(outputs[: len(rows)]),
                status=np.full(len(rows), status, np.uint8),
                provisional=provisional or self._checked,
            ),
        )
