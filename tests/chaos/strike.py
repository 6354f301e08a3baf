"""Carrying faults out, and taking them back."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from approxifer.datasets import arrays, journal
from chaos import schedule as s
from chaos.pool import ClientProcess, ExtraWorker, Pool


@contextlib.contextmanager
def clock_jumped(seconds: float) -> Iterator[None]:
    """`time.time` of this process is so much later, for whoever has imported it already too."""
    real = time.time
    jumped = lambda: real() + seconds  # noqa: E731

    def swap(old: Callable[[], float], new: Callable[[], float]) -> None:
        for module in list(sys.modules.values()):
            if getattr(module, "__dict__", {}).get("time") is old:
                module.time = new  # type: ignore[attr-defined]

    swap(real, jumped)
    try:
        yield
    finally:
        swap(jumped, real)


@contextlib.contextmanager
def disk_full(what: str) -> Iterator[None]:
    """Writing "data" (the arrays of an output store) or the "journal" fails with ENOSPC."""

    def fail(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if what == "data":
        patched: Any = mock.patch.object(arrays, "sync", fail)
    else:
        full = SimpleNamespace(**vars(os) | {"write": fail})
        patched = mock.patch.object(journal, "os", full)
    with patched:
        yield


@contextlib.contextmanager
def chunk_corrupt(store: Path) -> Iterator[None]:
    """The last chunk of the input's variable is noise."""
    last = max((store / "x" / "c").iterdir(), key=lambda chunk: int(chunk.name))
    chunk = next(path for path in [last, *sorted(last.rglob("*"))] if path.is_file())
    held = chunk.read_bytes()
    chunk.write_bytes(b"noise" * 20)
    try:
        yield
    finally:
        chunk.write_bytes(held)


class Striker:
    """Carries out the timed faults of a run in a thread, each when so much of the run is done; a
    context manager, which takes back on leaving what they did to this process and to the data.

    Parameters
    ----------
    progress
        The fraction of the run that is done.
    store
        The input.
    client
        The process that scores, where it is not this one.

    Attributes
    ----------
    struck : list
        Faults that came to be carried out: a run may end before.
    """

    def __init__(
        self,
        faults: list[s.Fault],
        *,
        pool: Pool,
        progress: Callable[[], float],
        store: Path,
        extra: ExtraWorker | None,
        joining: Callable[[], None],
        client: ClientProcess | None,
    ) -> None:
        self.struck: list[s.Fault] = []
        self.errors: list[str] = []
        self._faults = sorted((f for f in faults if hasattr(f, "at")), key=lambda f: f.at)
        self._pool, self._progress, self._store = pool, progress, store
        self._extra, self._joining, self._client = extra, joining, client
        self._over = threading.Event()
        self._undo = contextlib.ExitStack()
        self._thread = threading.Thread(target=self._work, name="striker")
        self._later: list[threading.Timer] = []

    def __enter__(self) -> Striker:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join()
        for timer in self._later:
            timer.cancel()
            timer.join()
        self._undo.close()

    def _work(self) -> None:
        for fault in self._faults:
            while self._progress() < fault.at:  # type: ignore[union-attr]
                if self._over.wait(0.01):
                    return
            if self._over.is_set():
                return
            try:
                self._strike(fault)
            except Exception as error:
                self.errors.append(f"{fault} could not be carried out: {error!r}")
            self.struck.append(fault)

    def _strike(self, fault: s.Fault) -> None:
        match fault:
            case s.Stop():
                self._pool.signal(fault.worker, signal.SIGSTOP)
                if fault.seconds is not None:
                    self._in(fault.seconds, self._pool.signal, fault.worker, signal.SIGCONT)
            case s.Kill():
                self._pool.signal(fault.worker, signal.SIGKILL)
            case s.Restart():
                self._pool.restart(fault.worker)
            case s.Join():
                self._joining()
            case s.Leave():
                self._pool.retire(self._the_extra.address)
            case s.Vanish():
                self._the_extra.kill()
            case s.Partition():
                self._the_extra.network.cut()
                if fault.seconds is not None:
                    self._in(fault.seconds, self._the_extra.network.mend)
            case s.ClockJump():
                self._undo.enter_context(clock_jumped(fault.seconds))
            case s.KillClient() if self._client is not None:
                self._client.signal(signal.SIGKILL)
            case s.Interrupt() if self._client is not None:
                self._client.signal(signal.SIGINT)
            case s.DiskFull():
                self._undo.enter_context(disk_full(fault.what))
            case s.CorruptInput():
                self._undo.enter_context(chunk_corrupt(self._store))
            case _:
                raise AssertionError(fault)

    @property
    def _the_extra(self) -> ExtraWorker:
        assert self._extra is not None
        return self._extra

    def _in(self, seconds: float, act: Callable[..., None], *args: Any) -> None:
        timer = threading.Timer(seconds, act, args)
        self._later.append(timer)
        timer.start()
