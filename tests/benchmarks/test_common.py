"""Figures and progress, without a cluster."""

import io
import json
from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from approxifer.benchmarks.common import Steps, command, machine, parser_of, positive, spread
from approxifer.errors import ConfigError


def test_machine_is_json_and_names_nothing_of_this_place() -> None:
    facts = machine()
    text = json.dumps(facts)
    assert facts["cpus"] >= 1
    assert {"dask", "torch", "approxifer", "python"} <= facts.keys()
    assert str(Path.cwd()) not in text


def test_spread_keeps_the_order() -> None:
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0, "values": [3, 1, 2]}


def test_steps_tell_what_is_left() -> None:
    now = iter([0.0, 10.0, 30.0])
    stream = io.StringIO()
    steps = Steps(3, stream=stream, clock=lambda: next(now))
    for label in ("a", "b", "c"):
        steps.begin(label)
    assert stream.getvalue().splitlines() == [
        "[1/3] a",
        "[2/3] b, about 20 s left",
        "[3/3] c, about 15 s left",
    ]


def test_steps_of_known_lengths() -> None:
    now = iter([0.0, 10.0])
    stream = io.StringIO()
    steps = Steps([1, 3, 0.5], stream=stream, clock=lambda: next(now))
    steps.begin("a")
    steps.begin("b")
    assert stream.getvalue().splitlines()[-1] == "[2/3] b, about 35 s left"


def test_command_writes_results_with_the_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "new" / "results.json"
    assert command(parser_of("memory"), ["--out", str(target)], lambda: {"rows": 3}) == 0
    written = json.loads(target.read_text())
    assert written["rows"] == 3
    assert written["machine"]["cpus"] >= 1
    assert str(target) in capsys.readouterr().out


def test_command_tells_mistakes_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def mistaken() -> dict[str, int]:
        raise ConfigError("window=0: give a number of rows, at least 1")

    assert command(parser_of("memory"), [], mistaken) == 2
    assert capsys.readouterr().err == "error: window=0: give a number of rows, at least 1\n"


def test_numbers_on_the_command_line() -> None:
    assert positive("12") == 12
    for text in ("0", "-1", "1.5", "many"):
        with pytest.raises(ArgumentTypeError, match="at least 1"):
            positive(text)
