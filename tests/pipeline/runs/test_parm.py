"""Parity models on real workers: a linear torch model, which is its own parity model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distributed import Client
from policies import change_policy
from typer.testing import CliRunner

from approxifer import score
from approxifer.errors import ConfigError, FingerprintError, ModelNotFoundError
from approxifer.models import open_model, run_rows
from approxifer.models.export import export_program
from approxifer.models.parity_training import train_parity
from approxifer.pipeline import faults
from approxifer.pipeline.cli.main import app
from approxifer.pipeline.records import Status

COMMON: dict[str, Any] = {
    "scheme": "parm", "k": 4, "block": 5, "window": 100, "progress": False, "order": "random",
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "linear.pt2"
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    export_program(module, np.zeros((2, 4, 4), np.float32), path)
    return path


@pytest.fixture(scope="module")
def parity(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = np.random.default_rng(1).normal(size=(400, 4, 4)).astype(np.float32)
    out = tmp_path_factory.mktemp("parity") / "four"
    return train_parity(open_model(model), rows, k=4, out=out, epochs=1)


@pytest.fixture
def truth(model: Path, rows: np.ndarray) -> np.ndarray:
    return run_rows(open_model(model).load(), rows, 8)


@pytest.mark.slow
def test_what_is_lost_is_repaired_and_the_rest_is_the_models_own(
    client: Client,
    store: Path,
    truth: np.ndarray,
    model: Path,
    parity: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change_policy(monkeypatch, patience=0.0, lazy=False)
    faults.install(client, {"2": faults.Slow(seconds=0.3)})
    report = score(
        store, model=model, out=tmp_path / "o.zarr", client=client, parity=parity, **COMMON
    )  # fmt: skip
    np.testing.assert_array_equal(report.predictions.prediction, truth)
    assert report.counts["repaired"] > 0
    assert report.counts["exact"] + report.counts["repaired"] == len(truth)


@pytest.mark.slow
def test_without_repair_lost_rows_are_the_parity_models(
    client: Client, store: Path, truth: np.ndarray, model: Path, parity: Path, tmp_path: Path
) -> None:
    faults.install(client, {"2": faults.Slow(seconds=0.3)})
    report = score(
        store, model=model, out=tmp_path / "o.zarr", client=client, parity=parity,
        repair="none", **COMMON,
    )  # fmt: skip
    found = report.predictions.load()
    exact = (found.status == Status.EXACT).values
    assert (found.status.values[~exact] == Status.DECODED).all()
    assert (~exact).sum() == report.counts["decoded"] > 0
    np.testing.assert_array_equal(found.prediction.values[exact], truth[exact])
    # Hardly moved by its training, which began at the right weights: the model is linear.
    error = np.abs(found.prediction.values[~exact] - truth[~exact]).max()
    assert 0 < error < 0.1


@pytest.mark.slow
def test_k_and_encoder_are_the_folders(
    client: Client, store: Path, model: Path, parity: Path, tmp_path: Path
) -> None:
    report = score(
        store, model=model, out=tmp_path / "o.zarr", client=client, parity=parity,
        **COMMON | {"k": None},
    )  # fmt: skip
    assert "K=4" in report.scheme
    assert report.predictions.attrs["code"]["encoder"] == "addition"


@pytest.mark.slow
def test_another_parity_does_not_go_on_with_a_store(
    client: Client, store: Path, model: Path, parity: Path, tmp_path: Path
) -> None:
    out = tmp_path / "o.zarr"
    score(store, model=model, out=out, client=client, parity=parity, **COMMON)
    rows = np.random.default_rng(2).normal(size=(400, 4, 4)).astype(np.float32)
    other = train_parity(open_model(model), rows, k=4, out=tmp_path / "other", epochs=1)
    with pytest.raises(FingerprintError, match="parity"):
        score(store, model=model, out=out, client=client, parity=other, **COMMON)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k": 3}, ConfigError, "belongs to k=4"),
        ({"stragglers": 2}, ConfigError, "has 1 parity models"),
        ({"model": "approxifer.models.zoo:mlp"}, ConfigError, "another model"),
        ({"parity": "nowhere"}, ModelNotFoundError, "train-parity"),
    ],
)
def test_parity_that_does_not_belong_is_refused_before_anything_starts(
    store: Path, model: Path, parity: Path, tmp_path: Path,
    change: dict[str, Any], error: type[Exception], message: str,
) -> None:  # fmt: skip
    if change.get("model"):
        change = {"model": export_other(tmp_path)}
    out = tmp_path / "o.zarr"
    with pytest.raises(error, match=message):
        score(store, out=out, **{"model": model, "parity": parity} | COMMON | change)
    assert not out.exists()


def export_other(folder: Path) -> Path:
    torch.manual_seed(1)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    export_program(module, np.zeros((2, 4, 4), np.float32), folder / "other.pt2")
    return folder / "other.pt2"


@pytest.mark.slow
def test_the_command_trains_and_says_so(model: Path, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "parity"
    asked = ["train-parity", str(model), str(store), "-k", "2", "--out", str(out), "--rows", "200"]
    first = CliRunner().invoke(app, [*asked, "--epochs", "2"])
    assert first.exit_code == 0, first.output
    assert "training on 192 rows" in first.output, "12 from each of 16 places"
    assert "epoch 2/2" in first.output
    assert "0 s left" in first.output
    assert sorted(path.name for path in out.iterdir()) == ["parity-0.pt2", "parity.json"]
    again = CliRunner().invoke(app, [*asked, "--epochs", "2"])
    assert "trained already" in again.output
    assert "epoch" not in again.output
    other = CliRunner().invoke(app, [*asked, "--epochs", "3"])
    assert other.exit_code == 2
    assert "Give another folder" in other.output
