"""What becomes of the rows of a group that is back: exact, decoded, to be repaired, or failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from approxifer.coding import Decoded, block_rows
from approxifer.pipeline.courier import GroupRun
from approxifer.pipeline.records import Block, Fate, Status
from approxifer.pipeline.stream import BlockStream
from approxifer.pipeline.window import Window


@dataclass(frozen=True)
class Returned:
    """A complete group: the outputs to use, and what they decode to."""

    group: GroupRun
    outputs: dict[int, np.ndarray]  #: by share, (B, *out)
    decoded: Decoded | None  #: None: not decodable, whatever was tried
    residual: np.ndarray | None  #: (B,)

    @property
    def names(self) -> dict[int, str]:
        """The worker whose output was used for each share."""
        used = self.group.used
        return {
            a["share"]: a["worker"]
            for a in self.group.history
            if (a["share"], a["attempt"]) in used
        }

    @property
    def failed(self) -> frozenset[str]:
        """The workers that did not bring their share back."""
        bad = (Fate.DROPPED, Fate.LOST, Fate.FAILED)
        return frozenset(a["worker"] for a in self.group.history if a["fate"] in bad)


class Intake:
    """Takes groups into their windows, counts rows, and passes them on to who iterates the job.

    Attributes
    ----------
    counts : dict
        Rows of each final status.
    provisional : int
        Rows decoded that wait for their repair.
    workers : list of str
        Names; the store's ``worker`` holds indices into it.
    """

    def __init__(
        self,
        stream: BlockStream,
        *,
        keep_decoded: bool,
        blank: Callable[[int], np.ndarray],
        workers: Sequence[str],
        on_new_worker: Callable[[int, str], None],
    ) -> None:
        self.counts = dict.fromkeys(("exact", "decoded", "repaired", "failed"), 0)
        self.provisional = 0
        self.workers = list(workers)
        self._stream = stream
        self._keep_decoded = keep_decoded
        self._blank = blank
        self._on_new_worker = on_new_worker

    def take(self, returned: Returned) -> None:
        """Take a group in, block by block."""
        group, window = returned.group, returned.group.window
        for block, rows in enumerate(block_rows(group.members, group.code.k)):
            if len(rows):
                self._take_block(returned, block, rows)
        if group.coded:
            window.group[group.members] = group.number
            if returned.residual is not None:
                each = np.repeat(returned.residual, group.code.k)
                window.residual[group.members] = each[: len(group.members)]

    def _take_block(self, returned: Returned, block: int, rows: np.ndarray) -> None:
        group, window = returned.group, returned.group.window
        carries, outputs, decoded = group.code.carries, returned.outputs, returned.decoded
        carrier = next((share for share in sorted(outputs) if carries[share] == block), None)
        if carrier is not None:
            worker = self._index(returned.names[carrier])
            self._settle(window, rows, outputs[carrier], group.status, worker)
        elif not group.coded:
            self._settle(window, rows, self._blank(len(rows)), Status.FAILED)
        elif decoded is None:
            window.ask_repair(rows, Status.REPAIRED, returned.failed)
        elif self._keep_decoded:
            self._settle(window, rows, decoded.blocks[block], Status.DECODED)
        else:
            self.provisional += len(rows)
            self._pass_on(window, rows, decoded.blocks[block], Status.DECODED, provisional=True)
            window.ask_repair(rows, Status.REPAIRED, returned.failed)

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
        if status is Status.REPAIRED:
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
                predictions=outputs[: len(rows)],
                status=np.full(len(rows), status, np.uint8),
                provisional=provisional,
            ),
        )

    def _index(self, name: str) -> int:
        if name not in self.workers:
            self._on_new_worker(len(self.workers), name)
            self.workers.append(name)
        return self.workers.index(name)
