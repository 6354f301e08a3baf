"""A run as the scheduler and the workers know it: registered, polled for events, and closed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from typing import Any

from distributed import Client

from approxifer.coding import CodeSpec
from approxifer.errors import ClusterError
from approxifer.pipeline.keys import PLUGIN
from approxifer.pipeline.protocol import RunEvent, read_event
from approxifer.pipeline.records import WorkerRecord
from approxifer.pipeline.scheduler.plugin import StragglerPlugin
from approxifer.pipeline.scheduler.policy import Policy
from approxifer.pipeline.worker import ModelOnWorker
from approxifer.text import duration
from approxifer.version import __version__

logger = logging.getLogger(__name__)

_INSTALL = (
    f"approxifer {__version__} and what the model imports must be installed on all workers, the "
    "same as here"
)

#: Seconds to wait for the rest of the workers once as many are ready as the code wants.
SHORT_WAIT = 2.0
#: The same once there are enough for an output, though fewer than the code wants.
LONG_WAIT = 10.0
#: Seconds after which workers that are not there, and without which there is no output, will not
#: come.
MISSING = 30.0
#: Seconds that what is said of one group waits for others.
BUNDLE = 0.01
#: Seconds of waiting after which a person is told of it.
SLOW = 10.0


class Connection:
    """All calls of the scheduler's plugin.

    Attributes
    ----------
    opened : float
        When the scheduler took the run in (monotonic): zero of the journal's times.
    ready : int
        Workers that have loaded the model and do not hang.
    present : int
        Workers that are there.
    ledger : dict
        The plugin's last summary: ``workers``, ``typical`` share time, ``unready`` workers, and how
        many are ``able`` to get ready.
    """

    def __init__(self, client: Client, run: str) -> None:
        self.client = client
        self.run = run
        self.opened = 0.0
        self.ready = 0
        self.present = 0
        self._settled: list[int] = []
        self.ledger: dict[str, Any] = {"workers": [], "typical": None, "unready": {}, "able": 1}

    @contextlib.asynccontextmanager
    async def registered(
        self,
        *,
        codes: dict[str, CodeSpec],
        policy: Policy,
        model: ModelOnWorker,
        seed: int,
        restart: bool,
        block: int,
    ) -> AsyncIterator[None]:
        """Register the run on the scheduler and its model on the workers; undo both.

        ``block``: rows of a full share.

        Raises
        ------
        ClusterError
            The scheduler has no approxifer, or another version of it.
        """
        fields = {
            "client": self.client.id,
            "codes": {name: asdict(spec) for name, spec in codes.items()},
            "policy": asdict(policy),
            "fingerprint": model.fingerprint,
            "seed": seed,
            "restart": restart,
            "block": block,
            "micro_batch": model.micro_batch,
        }
        await self._open(fields)
        # Not awaited: one hung worker would hold it up for ever. Workers announce themselves.
        loading = asyncio.ensure_future(self.client.register_plugin(model, name=model.name))
        loading.add_done_callback(_log_failure)
        try:
            yield
        finally:
            loading.cancel()
            with contextlib.suppress(ClusterError, TimeoutError):
                self.ledger |= await asyncio.wait_for(self.call("close"), 10) or {}

    async def _open(self, fields: dict[str, Any]) -> None:
        try:
            await self.client.register_plugin(StragglerPlugin(), name=PLUGIN)
        except ImportError as error:
            raise ClusterError(
                f"the scheduler cannot import approxifer ({error}): install approxifer "
                f"{__version__} where the scheduler and the workers run"
            ) from error
        try:
            found = await self.call("open", **fields)
        except (AttributeError, KeyError, ValueError):
            # Between the two calls the last other run has taken the plugin with it.
            await self.client.register_plugin(StragglerPlugin(), name=PLUGIN)
            found = await self.call("open", **fields)
        self.opened = time.monotonic()
        self.present = found["workers"]
        if found["version"] != __version__:
            await self.call("close")
            raise ClusterError(
                f"approxifer {found['version']} on the scheduler, {__version__} here: install the "
                "same version"
            )

    async def call(self, what: str, **fields: Any) -> Any:
        """Call a handler of the plugin.

        Raises
        ------
        ClusterError
            The scheduler is gone, or the client was closed.
        """
        if self.client.scheduler is None:
            raise ClusterError("the client was closed")
        call: Any = getattr(self.client.scheduler, f"approxifer_{what}")
        try:
            return await call(run=self.run, **fields)
        except OSError as error:
            raise ClusterError(
                "the scheduler is gone; what is written stays, and the same command goes on from "
                f"there ({error})"
            ) from error

    async def settle(self, group: int) -> None:
        """Tell the plugin that nothing more is needed of a group, with others that end just then.

        Raises
        ------
        ClusterError
            As `call`.
        """
        self._settled.append(group)
        if len(self._settled) == 1:  # the first takes along those that come meanwhile
            await asyncio.sleep(BUNDLE)
            done, self._settled = self._settled, []
            await self.call("report", done=done)

    async def poll_forever(self, handle: Callable[[RunEvent], None]) -> None:
        """Pass on the plugin's events, for ever."""
        while True:
            reply = await self.call("poll")
            if reply is None:  # the scheduler has lost this client, and ended its runs
                raise ClusterError(
                    "the connection to the scheduler was lost; what is written stays, and the same "
                    "command goes on from there"
                )
            events = reply.pop("events")
            self.ready, self.present = reply.pop("ready"), reply.pop("present")
            self.ledger |= reply
            for event in events:
                handle(read_event(event))

    async def wait_until_ready(
        self, needed: int, enough: int, *, patience: float, report: Callable[[str], None]
    ) -> None:
        """Wait until the workers have the model: all of them, or after a while enough of them.

        Parameters
        ----------
        needed
            Workers that the code wants.
        enough
            Workers without which there is no output.
        patience
            Seconds without another worker getting ready, after which it is given up.
        report
            Called with how a slow start gets on.

        Raises
        ------
        ClusterError
            Too few can load it.
        """
        moved, since, before = time.monotonic(), None, 0
        enough_there = moved
        while True:
            now = time.monotonic()
            moved, before = (now, self.ready) if self.ready > before else (moved, before)
            unready = self.ledger["unready"]
            if self.ready >= max(needed, self.present):
                return
            if self.ready >= enough:
                since = since or now
                if now - since > (SHORT_WAIT if self.ready >= needed else LONG_WAIT):
                    return
            if self.ledger["able"] >= enough:
                enough_there = now
            hopeless = now - enough_there > (0 if unready else MISSING)
            if hopeless or now - moved > patience:
                raise ClusterError(self._not_ready(enough, now - moved))
            if now - moved > SLOW:
                tens = (now - moved) // SLOW * SLOW
                report(
                    f"{self.ready} of {self.present} workers have the model ready, and no other got"
                    f" it ready for {duration(tens)}; given up after {duration(patience)}"
                    " (stall_after=)"
                )
            await asyncio.sleep(0.02)

    def _not_ready(self, enough: int, waited: float) -> str:
        """The reason for which too few workers have the model, and what to do."""
        unready = self.ledger["unready"]
        reasons = [f"{name}: {why}" for name, why in unready.items()]
        if len(reasons) < self.present - self.ready:
            reasons.append(f"no other got it ready for {duration(waited)}")
        elif not reasons:
            reasons.append(f"{self.present} are there, and no other came for {duration(waited)}")
        every = " ".join(unready.values())
        remedies = {
            "memory limit": "give each worker more memory (memory: in the cluster file, or "
            "--memory-limit of dask worker), or score with a smaller model",
            "ModuleNotFound": _INSTALL, "ImportError": _INSTALL, "approxifer ": _INSTALL,
            "NotFoundError": _INSTALL, "fingerprint": _INSTALL,
            "no other got": "where loading it, or its first call, takes that long, raise "
            "stall_after=",
        }  # fmt: skip
        text = f"{every} {reasons[-1]}" if reasons else ""
        remedy = next((do for sign, do in remedies.items() if sign in text), "look at their logs")
        return (
            f"only {self.ready} workers got the model ready, and {enough} are needed "
            f"({'; '.join(reasons)}): {remedy}"
        )

    def worker_records(self) -> dict[str, WorkerRecord]:
        """The ledger, by worker name."""
        return {fields["name"]: WorkerRecord(**fields) for fields in self.ledger["workers"]}


def _log_failure(task: asyncio.Future[Any]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.debug("registering the model: %r", task.exception())
