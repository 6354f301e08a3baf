"""Shares that workers read for themselves: the same outputs, and no rows through the client."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_models
import xarray as xr
import zarr
from distributed import Client

from approxifer import score
from approxifer.pipeline import faults
from approxifer.pipeline.client import transport
from approxifer.pipeline.records import Status

ROWS, BLOCK, CHUNK = 640, 20, 20


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """(640, 6) float32 in chunks of 20 rows."""
    rows = np.random.default_rng(3).normal(size=(ROWS, 6)).astype(np.float32)
    found = xr.Dataset({"x": (("n", "feature"), rows)})
    found.to_zarr(tmp_path / "in.zarr", encoding={"x": {"chunks": (CHUNK, 6)}}, consolidated=False)
    return tmp_path / "in.zarr"


def opened(data: Path) -> xr.DataArray:
    return xr.open_zarr(data, consolidated=False).x


@pytest.fixture
def pushed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each share's rows that the client sends."""
    found: list[int] = []
    push = transport.push

    async def counted(client: Any, address: str, key: Any, rows: np.ndarray, *rest: Any) -> None:
        found.append(rows.nbytes)
        await push(client, address, key, rows, *rest)

    monkeypatch.setattr(transport, "push", counted)
    return found


def run(data: object, out: Path, client: Client, **more: Any) -> Any:
    plain = {"model": toy_models.linear, "k": 4, "block": BLOCK, "window": 320, "progress": False}
    return score(data, out=out, client=client, **plain | more)


@pytest.mark.parametrize(("scheme", "byzantine"), [("replication", 0), ("systematic", 1)])
def test_the_outputs_are_those_of_rows_that_are_sent(
    client: Client, data: Path, tmp_path: Path, pushed: list[int], scheme: str, byzantine: int
) -> None:
    common = {"scheme": scheme, "byzantine": byzantine, "k": 3}
    described = run(data, tmp_path / "described.zarr", client, **common)
    assert pushed == []
    assert described.counts["exact"] == ROWS
    loaded = opened(data).load()  # in memory: its rows are sent
    sent = run(loaded, tmp_path / "sent.zarr", client, **common)
    assert len(pushed) >= ROWS / BLOCK
    np.testing.assert_array_equal(
        described.predictions.prediction.values, sent.predictions.prediction.values
    )


def _elsewhere(path: str) -> None:
    """On a worker: what is to be opened at any path is opened here."""
    from approxifer.datasets import open_source
    from approxifer.pipeline import queries

    queries.open_source = lambda data, **more: open_source(path or data, **more)


@pytest.fixture
def astray(client: Client) -> Iterator[Callable[[Path], None]]:
    """Have worker 1 read from another path."""
    address = next(a for a, w in client.scheduler_info()["workers"].items() if w["name"] == 1)
    yield lambda path: client.run(_elsewhere, str(path), workers=[address])
    client.run(_elsewhere, "", workers=[address])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("other", "other data lies there than where the client reads"),
        ("gone", "InputNotFoundError"),
        ("missing", "chunks of the input are missing there"),
    ],
)
def test_a_worker_that_reads_something_else_is_named_and_sent_its_rows(
    client: Client,
    data: Path,
    tmp_path: Path,
    pushed: list[int],
    astray: Callable[[Path], None],
    change: str,
    why: str,
) -> None:
    other = tmp_path / "other.zarr"
    if change != "gone":
        shutil.copytree(data, other)
    if change == "other":
        zarr.open(other / "x")[:] += 1
    if change == "missing":  # but for those by which it shows that it reads the same
        kept = np.random.default_rng([0, 3]).integers(ROWS, size=2) // CHUNK
        for chunk in set(range(ROWS // CHUNK)) - set(kept.tolist()):
            shutil.rmtree(other / f"x/c/{chunk}")
    astray(other)
    report = run(data, tmp_path / "out.zarr", client, scheme="uncoded")
    found = report.predictions.prediction.values
    np.testing.assert_allclose(found, toy_models.linear(opened(data).values), rtol=1e-5)
    (note,) = [one for one in report.notes if "instead of reading" in one]
    assert note.startswith("worker 1 is sent the rows")
    assert why in note
    assert 0 < len(pushed) < ROWS / BLOCK


def test_a_codeword_that_holds_nan_is_not_decoded_from(
    client: Client, data: Path, tmp_path: Path, pushed: list[int]
) -> None:
    spoilt = [7, 123, 321]
    zarr.open(data / "x").oindex[spoilt, 2] = np.nan
    rows = opened(data).values
    faults.install(client, {"1": faults.Slow(0.3)})
    report = run(
        data, tmp_path / "out.zarr", client, scheme="systematic", repair="none", order="none",
        model=toy_models.swallows_nan,
    )  # fmt: skip
    found = report.predictions.load()
    status = found.status.values
    assert pushed == []
    assert (status == Status.DECODED).any()
    # Rows of the codewords that hold one, whatever block they are in, never are.
    group, place = np.divmod(np.arange(ROWS) % 320, 4 * BLOCK)
    codeword = (np.arange(ROWS) // 320 * 100 + group) * BLOCK + place % BLOCK
    beside = np.isin(codeword, codeword[spoilt])
    assert not (status[beside] == Status.DECODED).any()
    np.testing.assert_allclose(
        found.prediction.values[beside], toy_models.swallows_nan(rows[beside]), rtol=1e-5
    )


def _marked(block: np.ndarray, folder: str, block_info: Any = None) -> np.ndarray:
    """Leave a trace of the block's work in a folder."""
    place = block_info[0]["chunk-location"][0]
    (Path(folder) / f"{place}-{os.getpid()}-{time.monotonic_ns()}").touch()
    return block * 2


def test_each_block_of_a_lazy_array_is_computed_once_on_a_worker(
    client: Client, data: Path, tmp_path: Path, pushed: list[int]
) -> None:
    rows = opened(data)
    (tmp_path / "traces").mkdir()
    lazy = rows.copy(
        data=rows.data.map_blocks(
            _marked, folder=str(tmp_path / "traces"), dtype=rows.dtype, meta=np.empty((0, 0), "f4")
        )
    )
    report = run(lazy, tmp_path / "out.zarr", client, scheme="uncoded")
    expected = toy_models.linear(rows.values * 2)
    np.testing.assert_allclose(report.predictions.prediction.values, expected, rtol=1e-5)
    assert pushed == []
    traces = [one.name.split("-") for one in (tmp_path / "traces").iterdir()]
    on_workers = Counter(int(place) for place, pid, _ in traces if int(pid) != os.getpid())
    proofs = 2 * len(client.scheduler_info()["workers"])
    assert sum(on_workers.values()) <= ROWS / CHUNK + proofs
