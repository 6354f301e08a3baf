import subprocess
import sys
import types
from inspect import signature
from pathlib import Path

import pytest
from typer.testing import CliRunner

from approxifer.datasets import Journal
from approxifer.errors import ConfigError, TooFewWorkersError, TrustError
from approxifer.pipeline import api
from approxifer.pipeline.cli.main import app
from approxifer.pipeline.reporting.report import Report
from approxifer.version import __version__


def report(**changes) -> Report:
    plain = {
        "out": Path("out.zarr"), "rows": 10, "counts": {"exact": 10}, "workers": {},
        "evaluations": 12, "wall_seconds": 1.0,
    }  # fmt: skip
    return Report(**(plain | changes))


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


@pytest.fixture
def calls(monkeypatch):
    """What score() and plan_run() were called with; they do nothing."""
    seen: list[tuple[str, dict]] = []

    def score(data, **options):
        seen.append((data, options))
        return report(out=Path(options["out"]))

    monkeypatch.setattr(api, "score", score)
    monkeypatch.setattr(api, "plan_run", lambda data, **options: f"would score {data} {options}")
    return seen


MINIMUM = ("score", "in.zarr", "--model", "m.pt2", "--out", "out.zarr")


def test_defaults_are_left_to_score(calls):
    result = run(*MINIMUM)
    assert result.exit_code == 0
    assert calls == [("in.zarr", {"model": "m.pt2", "out": "out.zarr"})]
    assert "10 rows in out.zarr" in result.stdout


ALL = {
    "--variable image": {"variable": "image"},
    '--storage-options {"anon":true}': {"storage_options": '{"anon":true}'},
    "--variables u,v": {"variables": "u,v"},
    "--sample-dim time": {"sample_dim": "time"},
    "--sample-dim time,latitude": {"sample_dim": "time,latitude"},
    "--tile y=256,x=256": {"tile": "y=256,x=256"},
    "--halo 32": {"halo": "32"},
    "--append": {"append": True},
    "--cluster c.yaml": {"cluster": "c.yaml"},
    "--scheme berrut": {"scheme": "berrut"},
    "-k 4": {"k": 4},
    "-s 0": {"stragglers": 0},
    "-e 1": {"byzantine": 1},
    "--order similar": {"order": "similar"},
    "--repair none": {"repair": "none"},
    "--repair 0.99": {"repair": "0.99"},
    "--hang-after 7": {"hang_after": 7.0},
    "--hedge 2,0.5": {"hedge": "2,0.5"},
    "--retry-failed": {"retry_failed": True},
    "--stragglers 2": {"stragglers": 2},
    "--late 2.5": {"late": 2.5},
    "--check 5": {"check": 5},
    "--assurance 0.01": {"assurance": 0.01},
    "--referee quorum": {"referee": "quorum"},
    "--quarantine node": {"quarantine": "node"},
    "--forgive n7 --forgive n8": {"forgive": ["n7", "n8"]},
    "--block 64": {"block": 64},
    "--window 1024": {"window": 1024},
    "--memory 2GB": {"memory": "2GB"},
    "--state w.pt": {"state": "w.pt"},
    "--preprocess a.b:c": {"preprocess": "a.b:c"},
    "--dtype float16": {"dtype": "float16"},
    "--device cpu": {"device": "cpu"},
    "--trust-model": {"trust_model": True},
    "--heal avoid": {"heal": "avoid"},
    "--seed 0": {"seed": 0},
    "--no-progress": {"progress": False},
}


@pytest.mark.parametrize("option", ALL)
def test_every_option(calls, option):
    result = run(*MINIMUM, *option.split())
    assert result.exit_code == 0, result.output
    assert calls[0][1] == {"model": "m.pt2", "out": "out.zarr"} | ALL[option]


def test_options_are_keywords_of_score():
    keywords = set(signature(api.score).parameters)
    assert {name for given in ALL.values() for name in given} <= keywords


def test_dry_run(calls):
    result = run(*MINIMUM, "--dry-run", "-k", "4")
    assert result.exit_code == 0
    assert result.stdout.startswith("would score in.zarr {'out': 'out.zarr'")
    assert "'k': 4" in result.stdout
    assert calls == []


def test_timeline(calls, tmp_path):
    out = tmp_path / "out.zarr"
    with Journal(out) as journal:
        journal.append({"event": "session", "session": "a", "time": 0.0, "rows": 10})
    arguments = ("score", "in.zarr", "--model", "m.pt2", "--out", str(out), "--timeline")
    assert run(*arguments, str(tmp_path / "t.svg")).exit_code == 0
    assert "out.zarr" in (tmp_path / "t.svg").read_text()
    calls.clear()
    result = run(*arguments, str(tmp_path / "t.pdf"))
    assert (result.exit_code, calls) == (2, [])  # before the work
    assert "ends in .png or .svg" in result.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigError("k is 0"), 2), (TooFewWorkersError("few"), 2), (TrustError("too many"), 1)],
)
def test_errors(monkeypatch, error, code):
    def score(data, **options):
        raise error

    monkeypatch.setattr(api, "score", score)
    result = run(*MINIMUM)
    assert result.exit_code == code
    assert result.stderr == f"approxifer: error: {error}\n"
    assert result.stdout == ""


def test_interrupted(monkeypatch):
    def score(data, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "score", score)
    result = run(*MINIMUM)
    assert result.exit_code == 130
    assert result.stderr == "approxifer: interrupted; the same command goes on where it stopped\n"


def test_unexpected_errors_keep_their_traceback(monkeypatch):
    def score(data, **options):
        raise ZeroDivisionError

    monkeypatch.setattr(api, "score", score)
    with pytest.raises(ZeroDivisionError):
        run(*MINIMUM)


def test_failed_rows(monkeypatch):
    failed = report(counts={"exact": 8, "failed": 2})
    monkeypatch.setattr(api, "score", lambda data, **options: failed)
    result = run(*MINIMUM)
    assert result.exit_code == 1
    assert "2 rows failed (status 4 in out.zarr)" in result.stderr
    assert "exact" in result.stdout


def test_demo(monkeypatch, tmp_path):
    calls = []
    fake = types.ModuleType("approxifer.pipeline.cli.demo")
    fake.run_demo = lambda directory, *, seed: calls.append((directory, seed)) or report()
    monkeypatch.setitem(sys.modules, "approxifer.pipeline.cli.demo", fake)
    monkeypatch.setattr("approxifer.pipeline.cli.demo", fake, raising=False)
    assert run("demo", "--dir", str(tmp_path), "--seed", "3").exit_code == 0
    assert run("demo").exit_code == 0
    assert calls == [(tmp_path, 3), (Path("demo"), 0)]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("scor",),
        ("score", "in.zarr"),
        (*MINIMUM, "--unknown"),
        (*MINIMUM, "-k", "many"),
        ("inspect",),
    ],
)
def test_wrong_usage(calls, arguments):
    assert run(*arguments).exit_code == 2
    assert calls == []


def execute(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "approxifer.pipeline.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_inspect_of_nothing(tmp_path):
    done = execute("inspect", str(tmp_path / "none.zarr"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("approxifer: error: ")
    assert done.stderr.count("\n") == 1


def test_version_and_help():
    assert run("--version").stdout == f"approxifer {__version__}\n"
    for command in ("score", "demo", "inspect"):
        text = run(command, "--help").stdout
        assert text.startswith(f"Usage: root {command} ") or f" {command} " in text
    assert "[systematic]" in run("score", "--help").stdout


def test_help_is_light():
    code = (
        "import sys\nfrom approxifer.pipeline.cli.main import main\n"
        "sys.argv = ['a', 'score', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'distributed', 'dask', 'zarr', 'xarray', 'matplotlib', 'numpy'}\n"
        "print('heavy:', heavy & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.rstrip().endswith("heavy: set()"), done.stdout + done.stderr


def test_entry_point():
    script = Path(sys.executable).parent / "approxifer"
    if not script.exists():
        pytest.skip("approxifer is not installed beside this Python")
    done = subprocess.run([script, "scor"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "score" in done.stderr
