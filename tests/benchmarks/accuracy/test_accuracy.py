"""The command ``accuracy`` on few pictures."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from approxifer.benchmarks.accuracy import __main__ as accuracy


@pytest.mark.slow
def test_accuracy_on_few_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three kinds of pictures that are easily distinguished; the network is kept and used again."""
    generator = np.random.default_rng(0)
    labels = np.arange(240, dtype=np.uint8) % 3
    images = generator.integers(0, 60, (240, 28, 28), dtype=np.uint8)
    for kind in range(3):
        images[labels == kind, 9 * kind : 9 * kind + 9] += 180
    np.savez(
        tmp_path / "mnist.npz",
        x_train=images[:192], y_train=labels[:192], x_test=images[192:], y_test=labels[192:],
    )  # fmt: skip
    target, page = tmp_path / "out" / "accuracy.json", tmp_path / "page" / "results.md"
    arguments = [
        "--data", str(tmp_path), "--out", str(target), "--k", "2", "4", "--stragglers", "1", "2",
        "--only", "MNIST", "--parity", "2", "--parity-queries", "800", "--epochs", "8",
        "--processes", "1",
    ]  # fmt: skip
    assert accuracy.main([*arguments, "--report", str(page)]) == 0
    printed = capsys.readouterr().out
    assert "MNIST, LeNet-5, 48 rows, uncoded accuracy 1.0000" in printed
    assert printed.count("epoch ") == 16, "LeNet-5 and MLP"
    results = json.loads(target.read_text())
    lenet, mlp = results["cases"]
    assert (lenet["network"], mlp["network"]) == ("LeNet-5", "MLP")
    assert lenet["uncoded"] == {"accuracy": 1.0}
    settings = lenet["settings"]
    schemes = Counter((s["scheme"], s["k"]) for s in settings if "decoder" not in s)
    fitted = Counter((s["scheme"], s["k"]) for s in settings if "decoder" in s)
    # Two numbers of stragglers in four orders; plain schemes in one order, parity with S=1.
    assert schemes["berrut", 2] == schemes["systematic", 4] == fitted["berrut", 4] == 8
    assert (schemes["replication", 2], schemes["uncoded", 2]) == (2, 1)
    assert (schemes["parm", 2], schemes["parm", 4]) == (2 * 4, 0), "two encoders, four orders"
    wanted = {"scheme": "systematic", "k": 4, "stragglers": 1, "order": "random"}
    one, other = [s for s in settings if all(s[name] == value for name, value in wanted.items())]
    assert other["decoder"] == "fitted"
    assert one["accuracy"]["available"] == 1
    assert one["evaluations"] == 5 / 4
    # One share of five is lost, a data share in four codewords of five: one row of four there.
    assert one["decoded"] == pytest.approx(1 / 5, abs=0.05)
    assert one["chance"]["0.01"]["evaluations"] == pytest.approx(1.25, abs=0.05)
    for one in settings:
        if one["scheme"] in ("uncoded", "replication"):
            assert one["agreement"] == {"available": 1.0, "degraded": None, "overall": 1.0}
    text = page.read_text()
    assert "*published* ApproxIFER" in text
    assert f"{100 * 0.01:g} %: agreement" in text

    assert accuracy.main([*arguments, "--rows", "16"]) == 0
    again = capsys.readouterr()
    assert "epoch " not in again.out + again.err, "what was trained is kept"
    assert json.loads(target.read_text())["cases"][0]["rows"] == 16
