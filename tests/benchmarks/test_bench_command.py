"""``approxifer bench``, and what ``--quick`` leaves out."""

import argparse
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from approxifer.benchmarks import BENCHMARKS, accuracy, memory, overhead
from approxifer.benchmarks.common import command, parse
from approxifer.pipeline.cli import app


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["bench", *arguments], catch_exceptions=False)


def test_alone_it_lists_the_benchmarks() -> None:
    result = bench()
    assert result.exit_code == 0
    listed = [line.split(maxsplit=3) for line in result.stdout.splitlines()]
    assert {words[2]: words[3] for words in listed} == BENCHMARKS


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_has_its_own_help(name: str) -> None:
    result = bench(name, "--help")
    assert result.exit_code == 0
    assert f"usage: python -m approxifer.benchmarks.{name}" in result.stdout
    assert "--out" in result.stdout
    assert callable(import_module(f"approxifer.benchmarks.{name}").main)


def test_its_own_help_comes_before_the_name() -> None:
    result = bench("--help")
    assert result.exit_code == 0
    assert "bench [OPTIONS] [NAME]" in result.stdout
    assert "usage: python" not in result.stdout


def test_arguments_are_passed_on_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def main(arguments: list[str]) -> int:
        seen.append(arguments)
        return 7

    monkeypatch.setattr(memory, "main", main)
    given = ["--gigabytes", "2", "-x", "--", "a b", "--help"]
    assert bench("memory", *given).exit_code == 7
    assert bench("memory").exit_code == 7
    assert seen == [given, []]


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    result = bench("acuracy", "--quick")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Did you mean 'accuracy'?" in result.stderr
    assert ", ".join(BENCHMARKS) in result.stderr


def test_mistakes_end_with_code_2(tmp_path: Path) -> None:
    assert bench("overhead", "--data", str(tmp_path), "--rows", "none").exit_code == 2
    assert bench("accuracy", "--data", str(tmp_path)).exit_code == 2


def test_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    def main(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(memory, "main", main)
    result = bench("memory")
    assert (result.exit_code, result.stderr) == (130, "approxifer: memory was interrupted\n")


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


def test_a_quick_run_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "r.json"
    assert command(lambda: {"rows": 3}, str(target), quick=True) == 0
    assert "its figures are rough" in capsys.readouterr().out
    assert json.loads(target.read_text())["quick"] is True
    assert command(lambda: {"rows": 3}, str(target)) == 0
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
    target = tmp_path / "out" / "accuracy.json"
    arguments = ["--data", str(tmp_path), "--quick", "--out", str(target), "--k", "4"]
    assert accuracy.main([*arguments, "--epochs", "8"]) == 0
    printed = capsys.readouterr().out
    assert "48 MNIST test rows, K=4" in printed
    assert printed.count("epoch ") == 8
    results = json.loads(target.read_text())
    assert results["rows"] == 48
    assert [(s["scheme"], s["order"], s["stragglers"]) for s in results["settings"]] == [
        ("berrut", "random", 1), ("berrut", "similar", 1),
        ("systematic", "random", 1), ("systematic", "similar", 1),
    ]  # fmt: skip
    assert results["uncoded_accuracy"] == 1
    last = results["settings"][-1]
    assert last["accuracy"]["available"] == 1
    # One share of five is lost, a data share in four codewords of five: one row of four there.
    assert last["decoded_rows"] == pytest.approx(48 / 5, abs=2)

    assert accuracy.main([*arguments, "--epochs", "8", "--rows", "16"]) == 0
    assert "epoch " not in capsys.readouterr().out
    assert json.loads(target.read_text())["rows"] == 16
