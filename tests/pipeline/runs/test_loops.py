"""Calls from event loops: what would wait for itself is refused at once, the rest works."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_models
from distributed import Client, LocalCluster

from approxifer import score, submit
from approxifer.errors import ConfigError
from approxifer.pipeline.api import plan_run

COMMON: dict[str, Any] = {"k": 4, "block": 5, "window": 100, "model": toy_models.linear}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("call", [score, submit, plan_run])
def test_an_asynchronous_client_is_refused_in_its_own_loop(
    cluster: LocalCluster, store: Path, tmp_path: Path, call: Any
) -> None:
    async def main() -> None:
        address = cluster.scheduler_address
        async with Client(address, asynchronous=True, set_as_default=False) as client:
            with pytest.raises(ConfigError, match="it is asynchronous"):
                call(store, out=tmp_path / "out.zarr", client=client, **COMMON)

    asyncio.run(main())
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.timeout(60)
def test_a_call_on_the_clients_loop_is_refused(client: Client, store: Path, tmp_path: Path) -> None:
    async def call() -> None:
        score(store, out=tmp_path / "out.zarr", client=client, **COMMON)

    future = asyncio.run_coroutine_threadsafe(call(), client.loop.asyncio_loop)  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match=r"its own event loop.*another thread"):
        future.result(30)


def test_another_loop_is_no_obstacle(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    """As in a notebook, whose cells run in one."""

    async def main() -> Any:
        return score(store, out=tmp_path / "out.zarr", client=client, progress=False, **COMMON)

    found = asyncio.run(main()).predictions.prediction
    np.testing.assert_array_equal(found, toy_models.linear(rows))
