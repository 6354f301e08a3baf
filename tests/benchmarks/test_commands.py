"""``python -m approxifer.benchmarks``, and what ``--quick`` leaves out."""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from approxifer.benchmarks import BENCHMARKS, memory, overhead
from approxifer.benchmarks.__main__ import main
from approxifer.benchmarks.accuracy import __main__ as accuracy
from approxifer.benchmarks.common import command, parse, parser_of
from approxifer.benchmarks.stragglers import __main__ as stragglers

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize("given", [[], ["--help"]])
def test_alone_it_lists_the_benchmarks(given: list[str], capsys: Capture) -> None:
    assert main(given) == 0
    listed = [line.split(maxsplit=4) for line in capsys.readouterr().out.splitlines()]
    assert {words[3]: words[4] for words in listed} == BENCHMARKS


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_has_its_own_help(name: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    printed = capsys.readouterr().out
    assert f"usage: python -m approxifer.benchmarks {name}" in printed
    assert "--out" in printed


def test_arguments_are_passed_on_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(memory, "main", lambda arguments: seen.append(arguments) or 7)
    given = ["--gigabytes", "2", "-x", "--", "a b", "--help"]
    assert main(["memory", *given]) == main(["memory"]) == 7
    assert seen == [given, []]


def test_an_unknown_name_is_refused_with_those_there_are(capsys: Capture) -> None:
    assert main(["acuracy", "--quick"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "'acuracy' is none of accuracy, " in printed.err


def test_mistakes_end_with_code_2(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["overhead", "--data", str(tmp_path), "--rows", "none"])
    assert main(["accuracy", "--data", str(tmp_path)]) == 2


def test_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def interrupted(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(memory, "main", interrupted)
    assert main(["memory"]) == 130
    assert capsys.readouterr().err == "memory was interrupted\n"


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int)
    parser.add_argument("--repeats", type=int, default=3)
    return parser


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ([], (None, 3, False)),
        (["--quick"], (20, 1, True)),
        (["--quick", "--repeats", "3"], (20, 3, True)),
        (["--rows", "5", "--quick"], (5, 1, True)),
    ],
)
def test_quick_is_for_what_is_left_out(given: list[str], found: tuple[Any, ...]) -> None:
    parsed = parse(options(), given, quick={"rows": 20, "repeats": 1})
    assert tuple(parsed.values()) == found


@pytest.mark.parametrize("module", [accuracy, overhead])
def test_quick_asks_for_less(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(module, "run", lambda **given: asked.append(given) or {})
    for given in ([], ["--quick"]):
        assert module.main(["--data", "d", *given]) == 0
    full, quick = asked
    assert {name for name in full if full[name] != quick[name]} == module.QUICK.keys()


def test_a_quick_run_is_marked(tmp_path: Path, capsys: Capture) -> None:
    target = tmp_path / "r.json"

    def run(rows: int = 3) -> dict[str, int]:
        return {"rows": rows}

    given = ["--out", str(target), "--quick"]
    assert command(parser_of("memory"), given, run, quick={"rows": 2}) == 0
    assert "its figures are rough" in capsys.readouterr().out
    written = json.loads(target.read_text())
    assert (written["rows"], written["quick"]) == (2, True)
    assert command(parser_of("memory"), given[:2], run, quick={}) == 0
    assert "rough" not in capsys.readouterr().out
    assert "quick" not in json.loads(target.read_text())


def test_accuracy_on_few_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three kinds of pictures that are soon told apart; the network is kept and used again."""
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


def test_processes_can_import_what_they_run() -> None:
    """A helper process does not import a ``__main__``, by whichever name it was started."""
    for function in (accuracy.measure, accuracy.by_features, stragglers.simulate):
        assert not function.__module__.endswith("__main__")
