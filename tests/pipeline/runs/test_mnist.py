"""The main job on real data: 8,000 MNIST test images, a LeNet-5, one worker hung and one slow."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from distributed import Client

from approxifer import score
from approxifer.datasets.convert import convert
from approxifer.models.train import main as train
from approxifer.pipeline import faults
from approxifer.pipeline.cluster.connect import load_cluster, open_cluster
from approxifer.pipeline.records import Status
from approxifer.pipeline.reporting.report import Report

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FAULTS = {"worker-1": faults.Hang(), "worker-2": faults.Slow(factor=10, seconds=0.5)}


@pytest.fixture(scope="module")
def mnist(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """A folder with the images as Zarr, a trained LeNet-5, and its uncoded outputs."""
    folder = tmp_path_factory.mktemp("mnist")
    convert(data_dir / "mnist.npz", folder / "mnist.zarr", split="test")
    train(["lenet5", str(data_dir / "mnist.npz"), "--out", str(folder / "lenet5.pt2")])
    with workers(2) as client:
        report = run(folder, "uncoded", client, scheme="uncoded")
    assert report.counts["exact"] == report.rows == 8000
    assert report.evaluations_per_query == 1.0
    return folder


class workers:  # noqa: N801 (used as a function)
    """A local cluster of so many workers, with faults."""

    def __init__(self, count: int, broken: dict[str, faults.Fault] | None = None) -> None:
        self.cluster = open_cluster(load_cluster({"workers": count}), needed=count)
        faults.install(self.cluster.client, broken or {})

    def __enter__(self) -> Client:
        return self.cluster.client

    def __exit__(self, *error: object) -> None:
        self.cluster.close()


def run(folder: Path, name: str, client: Client, **options: object) -> Report:
    """Score the images, block 8."""
    fixed = {"variable": "image", "block": 8, "progress": False, "client": client}
    return score(
        folder / "mnist.zarr",
        model=folder / "lenet5.pt2",
        out=folder / f"{name}.zarr",
        **fixed | options,  # type: ignore[arg-type]
    )


def outputs(folder: Path, name: str) -> np.ndarray:
    """The predictions of an earlier run."""
    import xarray

    return xarray.open_zarr(folder / f"{name}.zarr").prediction.to_numpy()


@pytest.fixture(params=[(2, 10), (1, 9)], ids=["S=2,N=10", "S=1,N=9"])
def faulty(request: pytest.FixtureRequest) -> Iterator[tuple[int, Client]]:
    """S, and a cluster with just enough workers, one hung and one ten times slower."""
    stragglers, count = request.param
    with workers(count, FAULTS) as client:
        yield stragglers, client


def test_every_row_is_the_models_own(mnist: Path, faulty: tuple[int, Client]) -> None:
    stragglers, client = faulty
    report = run(mnist, f"exact-{stragglers}", client, k=8, stragglers=stragglers, hang_after=10)
    assert report.counts["exact"] + report.counts["repaired"] == 8000
    found = outputs(mnist, f"exact-{stragglers}")
    assert found.tobytes() == outputs(mnist, "uncoded").tobytes()


def test_without_repair_the_status_is_true(mnist: Path, faulty: tuple[int, Client]) -> None:
    stragglers, client = faulty
    name = f"none-{stragglers}"
    report = run(mnist, name, client, k=8, stragglers=stragglers, repair="none", hang_after=10)
    status = report.predictions.status.to_numpy()
    same = (outputs(mnist, name) == outputs(mnist, "uncoded")).all(axis=1)
    np.testing.assert_array_equal(same, status == Status.EXACT)
    assert report.counts["decoded"] > 0
    assert report.counts["exact"] + report.counts["decoded"] == 8000


def test_without_faults_at_most_one_row_in_a_hundred_is_repaired(mnist: Path) -> None:
    with workers(9) as client:
        report = run(mnist, "healthy", client, k=8, stragglers=1)
    assert report.counts["repaired"] <= 80
    assert outputs(mnist, "healthy").tobytes() == outputs(mnist, "uncoded").tobytes()


@pytest.mark.parametrize(
    "corruption",
    [faults.SwapTopTwo(), faults.Noise(sigma=1.0, rows=0.125), faults.Noise(sigma=1.0, shares=0.3)],
    ids=["swapped", "one row in eight", "three shares in ten"],
)
def test_no_number_of_a_byzantine_worker_is_left(
    mnist: Path, corruption: faults.Corruption
) -> None:
    """K = 8, E = 1 on twelve workers: convicted, nobody else is, and it costs less than 1.5."""
    with workers(12, {"worker-7": corruption}) as client:
        report = run(mnist, "byzantine", client, k=8, stragglers=0, byzantine=1)
    assert [conviction.member.name for conviction in report.convicted] == ["worker-7"]
    assert outputs(mnist, "byzantine").tobytes() == outputs(mnist, "uncoded").tobytes()
    assert report.evaluations_per_query <= 1.5
    shutil.rmtree(mnist / "byzantine.zarr")
    (mnist / "byzantine.zarr.journal.jsonl").unlink()
