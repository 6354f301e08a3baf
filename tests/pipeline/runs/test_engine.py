"""Whole runs on real worker processes, without faults."""

from __future__ import annotations

import gc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import toy_models
import xarray as xr
from distributed import Client
from policies import change_policy
from waiting import until

from approxifer import score
from approxifer.datasets import Journal
from approxifer.pipeline.records import Status
from approxifer.pipeline.scheduler.plugin import StragglerPlugin
from approxifer.pipeline.worker import ModelOnWorker

COMMON = {"k": 4, "block": 5, "window": 100, "progress": False}


@pytest.mark.parametrize("scheme", ["uncoded", "replication", "systematic", "berrut"])
def test_exact_repair_gives_the_models_own_outputs(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path, scheme: str
) -> None:
    report = score(
        store,
        model=toy_models.linear,
        out=tmp_path / "out.zarr",
        client=client,
        scheme=scheme,
        **COMMON,
    )
    found = report.predictions
    np.testing.assert_array_equal(found.prediction, toy_models.linear(rows))
    assert set(np.unique(found.status)) <= {Status.EXACT, Status.REPAIRED}
    assert report.counts["exact"] + report.counts["repaired"] == len(rows)
    assert (found.status == Status.REPAIRED).all() == (scheme == "berrut")
    assert report.evaluations >= len(rows)


def test_without_faults_nothing_is_repaired_and_uncoded_costs_one_evaluation(
    client: Client, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_policy(monkeypatch, patience=50.0)
    for scheme in ("uncoded", "systematic"):
        report = score(
            store,
            model=toy_models.slow_linear,
            out=tmp_path / f"{scheme}.zarr",
            client=client,
            scheme=scheme,
            **COMMON | {"late": 50.0},  # whatever else the machine does
        )
        assert report.counts == {"exact": 400, "decoded": 0, "repaired": 0, "failed": 0}
        assert sum(worker.run for worker in report.workers.values()) >= 80
        if scheme == "uncoded":
            assert report.evaluations_per_query == 1.0


def test_rows_are_compared_by_the_users_features(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    """By their very last number: rows of a codeword are neighbours in that."""
    report = score(
        store,
        model=toy_models.linear,
        out=tmp_path / "out.zarr",
        client=client,
        order=lambda some: some[:, -1, -1:],
        **COMMON | {"window": 400},
    )
    np.testing.assert_array_equal(report.predictions.prediction, toy_models.linear(rows))
    ranks = np.argsort(np.argsort(rows[:, -1, -1]))
    for number in np.unique(report.predictions.group):
        members = ranks[(report.predictions.group == number).values]
        assert np.ptp(members) == len(members) - 1


@pytest.mark.parametrize("order", ["none", "natural", "similar", "random"])
def test_without_repair_the_status_separates_exact_from_decoded(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path, order: str
) -> None:
    report = score(
        store,
        model=toy_models.bent,
        out=tmp_path / "out.zarr",
        client=client,
        scheme="systematic",
        stragglers=2,
        repair="none",
        order=order,
        **COMMON,
    )
    found = report.predictions.load()
    truth = toy_models.bent(rows)
    same = (found.prediction.values == truth).all(axis=1)
    np.testing.assert_array_equal(same, found.status.values == Status.EXACT)
    assert report.counts["exact"] > 0
    # A decoded row comes from several workers, an exact one from one that is named.
    named = found.worker.values >= 0
    np.testing.assert_array_equal(named, found.status.values == Status.EXACT)
    assert set(found.attrs["workers"]) <= {str(i) for i in range(6)}


def test_the_journal_has_each_groups_workers(client: Client, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    report = score(store, model=toy_models.linear, out=out, client=client, **COMMON)
    events = Journal.read(out)
    # A share that is late on a busy machine has a repair follow it: a group that is not coded.
    groups = [e for e in events if e["event"] == "group" and e["kind"] == "coded"]
    assert [e["event"] for e in events if e["event"] in ("session", "close")] == [
        "session",
        "close",
    ]
    assert len({group["group"] for group in groups}) == len(groups) == 20
    for group in groups:
        assert len(set(group["shares"].values())) == len(group["shares"])  # distinct workers
    found = report.predictions.load()
    exact = found.status.values == Status.EXACT
    for group in groups:
        own = found.worker.values[exact & (found.group.values == group["group"])]
        assert {found.attrs["workers"][i] for i in own} <= set(group["shares"].values())


def test_shares_of_a_codeword_are_spread_over_all_workers(
    client: Client, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No worker always holds the same share of a group."""
    out = tmp_path / "out.zarr"
    change_policy(monkeypatch, lazy=False)
    score(
        store,
        model=toy_models.linear,
        out=out,
        client=client,
        scheme="systematic",
        k=5,
        block=4,
        window=100,
        progress=False,
    )
    held: dict[str, Counter[int]] = {}
    for event in Journal.read(out):
        for attempt in event.get("attempts", ()):
            held.setdefault(attempt["worker"], Counter())[attempt["share"]] += 1
    assert len(held) == 6
    assert all(len(shares) > 2 for shares in held.values())


def test_rows_with_nan_are_run_plainly_and_spoil_nothing(client: Client, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    rows[[0, 17, 59], 1] = [np.nan, np.inf, np.nan]
    data = xr.DataArray(rows, dims=("sample", "f"), name="x")
    report = score(
        data,
        model=toy_models.linear,
        out=tmp_path / "out.zarr",
        client=client,
        scheme="berrut",
        k=4,
        block=5,
        repair="none",
        progress=False,
    )
    found = report.predictions.load()
    bad = ~np.isfinite(rows).all(axis=1)
    np.testing.assert_array_equal(found.status.values[bad], Status.EXACT)
    with np.errstate(invalid="ignore"):  # some processors' kernels warn of it
        right = toy_models.linear(rows)
    np.testing.assert_array_equal(found.prediction.values[bad], right[bad])
    assert np.isfinite(found.prediction.values[~bad]).all()


def test_integers_small_and_large(client: Client, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    small = xr.DataArray(rng.integers(0, 255, (40, 3), dtype=np.uint8), dims=("n", "f"), name="x")
    report = score(small, model=toy_models.linear, out=tmp_path / "a.zarr", client=client, **COMMON)
    np.testing.assert_array_equal(report.predictions.prediction, toy_models.linear(small.values))
    assert any("uint8" in note for note in report.notes)

    tokens = xr.DataArray(rng.integers(0, 9, (40, 3), dtype=np.int64), dims=("n", "f"), name="x")
    report = score(
        tokens,
        model=toy_models.count_large,
        out=tmp_path / "b.zarr",
        client=client,
        scheme="replication",
        **COMMON,
    )
    np.testing.assert_array_equal(
        report.predictions.prediction, toy_models.count_large(tokens.values)
    )


def test_preprocess_another_sample_dimension_and_coordinates(
    client: Client, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    data = xr.Dataset(
        {"t2m": (("lat", "time"), rng.normal(size=(3, 50)).astype("f4"))},
        coords={"time": np.datetime64("2020-01-01", "ns") + np.arange(50) * np.timedelta64(1, "h")},
    )
    data.to_zarr(tmp_path / "in.zarr", consolidated=False)
    report = score(
        tmp_path / "in.zarr",
        model=toy_models.linear,
        preprocess=toy_models.double,
        out=tmp_path / "out.zarr",
        client=client,
        sample_dim="time",
        **COMMON,
    )
    found = report.predictions
    assert found.prediction.dims[0] == "time"
    np.testing.assert_array_equal(found.time, data.time)
    expected = toy_models.linear(toy_models.double(data.t2m.values.T))
    np.testing.assert_array_equal(found.prediction, expected)


@pytest.mark.slow
def test_a_run_is_spared_garbage_collections_and_its_model_is_gone_with_the_next(
    client: Client, store: Path, tmp_path: Path
) -> None:
    common = {"client": client, **COMMON}
    report = score(store, model="toy_models:cyclic", out=tmp_path / "a.zarr", **common)
    assert (report.predictions.prediction[:, 0] == 1).all()
    assert set(client.run(gc.get_freeze_count).values()) == {0}
    score(store, model=toy_models.linear, out=tmp_path / "b.zarr", **common)
    assert set(client.run(cyclic_models).values()) == {0}


def cyclic_models() -> int:
    """How many are still in memory."""
    return sum(type(one) is toy_models.Cyclic for one in gc.get_objects())


@pytest.mark.slow
def test_nothing_of_a_run_stays_on_the_cluster(client: Client, store: Path, tmp_path: Path) -> None:
    for number in range(2):
        score(
            store, model=toy_models.linear, out=tmp_path / f"{number}.zarr", client=client, **COMMON
        )
    until(lambda: set(client.run(left_of_runs).values()) == {0}, 10)
    until(lambda: client.run_on_scheduler(left_of_runs) == 0, 10)


def left_of_runs() -> int:
    """How many of our plugins are still in memory, now that no run lasts."""
    gc.collect()
    # By type(): isinstance() would ask each object, and torch has some that then warn.
    return sum(type(one) in (StragglerPlugin, ModelOnWorker) for one in gc.get_objects())
