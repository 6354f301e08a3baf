"""What a run has left on a cluster."""

from __future__ import annotations

import time

from distributed import Client


def left_behind(client: Client) -> dict[str, list[str]]:
    """What approxifer has left on the scheduler and in the client."""

    def on_scheduler(dask_scheduler):  # type: ignore[no-untyped-def]
        return {
            "keys": [str(key) for key in dask_scheduler.tasks],
            "plugins": [name for name in dask_scheduler.plugins if "approxifer" in name],
            "worker plugins": [n for n in dask_scheduler.worker_plugins if "approxifer" in n],
            "handlers": [name for name in dask_scheduler.handlers if "approxifer" in name],
        }

    found = client.run_on_scheduler(on_scheduler)
    return found | {"futures": [str(key) for key in client.futures]}


def assert_clean(client: Client, patience: float = 5.0) -> None:
    """Wait a little for messages in flight, then insist."""
    end = time.monotonic() + patience
    while any(left_behind(client).values()) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(left_behind(client).values()), left_behind(client)

    def on_worker(dask_worker):  # type: ignore[no-untyped-def]
        return [str(key) for key in [*dask_worker.data, *dask_worker.state.tasks]]

    while any(client.run(on_worker, on_error="ignore").values()) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(client.run(on_worker, on_error="ignore").values())
