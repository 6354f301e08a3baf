"""``python -m approxifer.benchmarks``, and what ``--quick`` leaves out."""

import argparse
import json
from pathlib import Path
from typing import Any

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


def test_processes_can_import_what_they_run() -> None:
    """A helper process does not import a ``__main__``, by whichever name it was started."""
    for function in (accuracy.measure, accuracy.by_features, stragglers.simulate):
        assert not function.__module__.endswith("__main__")
