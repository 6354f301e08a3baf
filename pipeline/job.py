"""A run as its user holds it: progress, cancel, result, and rows as they return."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError

from approxifer.pipeline.client.engine import Engine
from approxifer.pipeline.records import Block, Progress
from approxifer.pipeline.reporting.report import Report
from approxifer.pipeline.stream import BlockStream


class Job:
    """Returned by `submit` at once; the run goes on in a thread of its own.

    ``async for block in job`` yields every row of the run as it returns (`records.Block`), decoded
    rows that will be repaired as provisional first.
    """

    def __init__(self, work: Callable[[Job], Report]) -> None:
        self.stream = BlockStream()
        self.engine: Engine | None = None
        self._stage = "starting"
        self._cancelled = threading.Event()
        self._running: Future[None] | None = None
        self._lock = threading.Lock()
        self._result: Future[Report] = Future()
        self._thread = threading.Thread(target=self._work, args=(work,), name="approxifer-job")
        self._thread.start()

    def _work(self, work: Callable[[Job], Report]) -> None:
        try:
            report = work(self)
        except (CancelledError, asyncio.CancelledError):
            self._stage = "cancelled"
            self.stream.close(CancelledError())
            self._result.set_exception(CancelledError())
        except BaseException as error:
            self._stage = "failed"
            self.stream.close(error)
            self._result.set_exception(error)
        else:
            self._stage = "done"
            self.stream.close()
            self._result.set_result(report)

    # ---- for the run itself ---------------------------------------------------------------------

    def check_cancelled(self) -> None:
        """Raise CancelledError once `cancel` was called."""
        if self._cancelled.is_set():
            raise CancelledError

    def stage(self, text: str) -> None:
        """Say what is being done before rows are scored."""
        self._stage = text

    def run(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        """Run the engine on the client's loop until it ends or is cancelled."""
        with self._lock:
            self.check_cancelled()
            self.engine = engine
            self._stage = "running"
            self._running = asyncio.run_coroutine_threadsafe(engine.run(), loop)
        try:
            self._running.result()
        except CancelledError:
            # The future is cancelled at once, the coroutine ends a little later.
            while engine.finished is None:
                time.sleep(0.01)
            raise
        finally:
            engine.close()
            self._stage = "closing"

    # ---- for the user ---------------------------------------------------------------------------

    def progress(self) -> Progress:
        """A snapshot of the run."""
        engine = self.engine
        if engine is None:
            return Progress(stage=self._stage)
        unchecked = engine.windows.unchecked()
        counts = {
            name: max(0, rows - unchecked.get(name, 0))
            for name, rows in engine.collector.counts.items()
        }
        done = sum(counts.values())
        rows = engine.setup.store.rows
        end = engine.finished or time.monotonic()
        elapsed = 0.0 if engine.started is None else end - engine.started
        rate = done / elapsed if done and elapsed > 0 else None
        doubts = engine.collector.doubts
        loading = self._stage == "running" and engine.started is None
        workers = engine.connection.ledger["workers"]
        return Progress(
            rows=rows,
            counts=counts,
            provisional=engine.collector.provisional,
            unchecked=sum(unchecked.get(name, 0) for name in counts),
            windows=len(engine.windows.spans),
            windows_done=engine.windows.whole,
            resumed=engine.windows.resumed,
            shares_run=sum(w["run"] for w in workers),
            shares_dropped=sum(w["dropped"] for w in workers),
            elapsed=elapsed,
            rate=rate,
            eta=(rows - engine.windows.resumed - done) / rate if rate else None,
            stage="loading the model on the workers" if loading else self._stage,
            workers=engine.connection.ready,
            disagreement=None if doubts is None or not doubts.found.rows else doubts.found.stated,
            convicted=len(engine.members.convicted_now),
            trouble=engine.trouble,
        )

    def cancel(self) -> None:
        """Drop everything in flight; the store stays, and the same call goes on from there.

        `result` then raises ``concurrent.futures.CancelledError``.
        """
        self._cancelled.set()
        with self._lock:
            if self._running is not None:
                self._running.cancel()

    def done(self) -> bool:
        """True if the run has ended, in whatever way."""
        return self._result.done()

    def result(self, timeout: float | None = None) -> Report:
        """Wait for the run's end.

        Parameters
        ----------
        timeout
            Seconds; None: for ever.

        Raises
        ------
        TimeoutError
            It is still running (and goes on).
        concurrent.futures.CancelledError
            It was cancelled.
        ApproxiferError
            It failed.
        """
        try:
            report = self._result.result(timeout)
        except FutureTimeoutError:
            if self._result.done():
                raise
            raise TimeoutError(f"the run has not ended after {timeout} s; it goes on") from None
        self._thread.join()
        return report

    def wait(self) -> None:
        """Wait until nothing of the run is left, however it ended."""
        self._thread.join()

    def __aiter__(self) -> AsyncIterator[Block]:
        return self.stream.blocks()
