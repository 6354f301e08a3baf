"""A run as the scheduler and the workers know it: registered, asked for news, and closed."""

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
from approxifer.pipeline.records import WorkerRecord
from approxifer.pipeline.scheduler.plugin import StragglerPlugin
from approxifer.pipeline.scheduler.policy import Policy
from approxifer.pipeline.worker import ModelOnWorker
from approxifer.version import __version__

logger = logging.getLogger(__name__)

#: Seconds to wait for the rest of the workers once as many are ready as the code wants.
SHORT_WAIT = 2.0
#: The same once there are enough for an output, though fewer than the code wants.
LONG_WAIT = 10.0
#: Seconds to wait for workers to load the model at all.
SLOWEST_START = 300.0


class Connection:
    """Everything that is said to the scheduler's plugin.

    Attributes
    ----------
    opened : float
        When the scheduler took the run in (monotonic): zero of the journal's times.
    ready : int
        Workers that have loaded the model and do not hang.
    present : int
        Workers that are there.
    ledger : dict
        The plugin's last summary: ``workers``, ``typical`` share time, ``unready`` workers.
    """

    def __init__(self, client: Client, run: str) -> None:
        self.client = client
        self.run = run
        self.opened = 0.0
        self.ready = 0
        self.present = 0
        self.ledger: dict[str, Any] = {"workers": [], "typical": None, "unready": {}}

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

    async def poll_forever(self, handle: Callable[[dict[str, Any]], None]) -> None:
        """Pass on the plugin's news, for ever."""
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
                handle(event)

    async def wait_until_ready(self, needed: int, enough: int) -> None:
        """Wait until the workers have the model: all of them, or after a while enough of them.

        Parameters
        ----------
        needed
            Workers that the code wants.
        enough
            Workers without which there is no output.

        Raises
        ------
        ClusterError
            Too few can load it.
        """
        begin, since = time.monotonic(), None
        while True:
            now = time.monotonic()
            unready = self.ledger["unready"]
            if self.ready >= max(needed, self.present):
                return
            if self.ready >= enough:
                since = since or now
                if now - since > (SHORT_WAIT if self.ready >= needed else LONG_WAIT):
                    return
            hopeless = len(unready) > 0 and self.present - len(unready) < enough
            if hopeless or now - begin > SLOWEST_START:
                reasons = "; ".join(f"{name}: {why}" for name, why in unready.items())
                raise ClusterError(
                    f"only {self.ready} of {self.present} workers got the model ready, {enough} "
                    f"are needed ({reasons or 'the others did not answer'}): approxifer "
                    f"{__version__} and what the model imports must be installed on all workers"
                )
            await asyncio.sleep(0.02)

    def worker_records(self) -> dict[str, WorkerRecord]:
        """The ledger, by worker name."""
        return {fields["name"]: WorkerRecord(**fields) for fields in self.ledger["workers"]}


def _log_failure(task: asyncio.Future[Any]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.debug("registering the model: %r", task.exception())
