"""Workers that return something else than a plain array of the right shape, dtype and size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_corruptions
import toy_models
from distributed import Client
from marks import slow_after

from approxifer import score
from approxifer.datasets import Journal
from approxifer.pipeline import faults
from approxifer.pipeline.client import transport
from approxifer.pipeline.client.dispatch import SLACK, unlike

COMMON: dict[str, Any] = {
    "model": toy_models.slow_linear, "k": 2, "stragglers": 0, "block": 5, "window": 100,
    "progress": False,
}  # fmt: skip


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the outputs that the client has received."""
    sizes: list[int] = []
    fetch = transport.fetch

    async def weighed(*given: Any) -> Any:
        output = await fetch(*given)
        sizes.append(getattr(output, "nbytes", 0))
        return output

    monkeypatch.setattr(transport, "fetch", weighed)
    return sizes


#: Dask itself makes a plain array of a subclass that it does not know, whose numbers then count.
ARRIVING = [kind for kind in toy_corruptions.DRESSES if kind not in ("unreadable", "subclass")]


@pytest.mark.parametrize("kind", slow_after(2, ARRIVING))
def test_what_is_no_plain_array_convicts_who_returned_it(
    kind: str,
    client: Client,
    store: Path,
    rows: np.ndarray,
    tmp_path: Path,
    fetched: list[int],
) -> None:
    faults.install(client, {"2": toy_corruptions.Dressed(kind=kind)})
    report = score(store, out=tmp_path / "out.zarr", client=client, byzantine=1, **COMMON)
    np.testing.assert_array_equal(report.predictions.prediction, toy_models.linear(rows))
    assert [conviction.member.name for conviction in report.convicted] == ["2"]
    suspects = [e for e in Journal.read(report.out) if e["event"] == "suspect"]
    assert any(event["worker"] == "2" and "output " in event["why"] for event in suspects)
    assert max(fetched, default=0) < SLACK, "it is not even received"


@pytest.mark.parametrize("kind", slow_after(1, ["huge", "masked", "unreadable"]))
def test_where_nobody_is_accused_what_is_no_plain_array_is_as_good_as_lost(
    kind: str,
    client: Client,
    store: Path,
    rows: np.ndarray,
    tmp_path: Path,
    fetched: list[int],
) -> None:
    faults.install(client, {"2": toy_corruptions.Dressed(kind=kind)})
    report = score(store, out=tmp_path / "out.zarr", client=client, **COMMON)
    np.testing.assert_array_equal(report.predictions.prediction, toy_models.linear(rows))
    assert report.counts["exact"] + report.counts["repaired"] == len(rows)
    assert (report.workers["2"].run, report.workers["2"].erased > 0) == (0, True)
    assert max(fetched, default=0) < SLACK


@pytest.mark.slow
def test_what_cannot_be_read_is_lost_where_workers_may_be_wrong(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    """It may be the client, or the way, that is at fault."""
    faults.install(client, {"2": toy_corruptions.Dressed(kind="unreadable")})
    report = score(store, out=tmp_path / "out.zarr", client=client, byzantine=1, **COMMON)
    np.testing.assert_array_equal(report.predictions.prediction, toy_models.linear(rows))
    assert (report.convicted, report.workers["2"].run) == ([], 0)


@pytest.mark.parametrize("kind", [k for k in toy_corruptions.DRESSES if k != "unreadable"])
def test_only_a_plain_array_of_the_right_kind_is_an_output(kind: str) -> None:
    right = np.zeros((5, 3), np.float32)
    assert unlike(right, (5, 3), right.dtype) is None
    assert unlike(right[:4], (5, 3), right.dtype) is not None
    assert unlike(right, (5, 3), np.dtype(np.float64)) is not None
    message = unlike(toy_corruptions.DRESSES[kind](right), (5, 3), right.dtype)
    assert message is not None
    assert "instead of" in message
