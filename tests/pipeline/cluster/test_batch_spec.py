"""What a batch system's entry comes to, without one."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from approxifer.errors import ClusterError, ConfigError, TooFewWorkersError
from approxifer.pipeline import api
from approxifer.pipeline.cluster.batch_spec import (
    BATCH,
    check_installed,
    job_script,
    legal_keys,
    walltime_seconds,
)
from approxifer.pipeline.cluster.connect import load_cluster
from approxifer.pipeline.cluster.job_script import word

ROOT = Path(__file__).parents[3]


def script(**content: Any) -> str:
    given = {"kind": "slurm", "memory": "1GiB", **content}
    batch = load_cluster({key.replace("_", "-"): value for key, value in given.items()}).batch
    assert batch is not None
    return job_script(batch)


class TestKeys:
    @pytest.mark.parametrize("kind", BATCH)
    def test_what_people_know_is_allowed_for_every_kind(self, kind):
        allowed = legal_keys(kind)
        for key in ("name", "interface", "death-timeout", "local-directory", "log-directory",
                    "worker-extra-args", "job-script-prologue", "job-extra-directives",
                    "job-directives-skip", "scheduler-options"):  # fmt: skip
            assert key.replace("-", "_") in allowed

    def test_some_keys_are_one_kinds_own(self):
        assert {"job_cpu", "walltime", "account"} <= set(legal_keys("slurm"))
        assert "job_cpu" not in legal_keys("pbs")
        assert "disk" in legal_keys("htcondor")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"quue": "x"}, "unknown key 'quue' for kind 'slurm', did you mean 'queue'"),
            ({"job-extra-directive": []}, "did you mean 'job_extra_directives'"),
            ({"n_workers": 3}, "did you mean 'workers'"),
            ({"host": "x"}, "unknown key 'host'"),
            ({"processes": 2}, "processes: 2 .* noticed as a lost worker"),
            ({"cores": 8}, "cores: 8 .* give their number as threads"),
            ({"memory": None}, "memory is missing"),
            ({"walltime": 3600}, "walltime: 3600 is a number: put it in quotes"),
            ({"wait": "soon"}, "wait: 'soon' does not do: give a time"),
            ({"lifetime": True}, "lifetime: True does not do"),
            ({"resubmissions": -1}, "resubmissions: -1"),
            ({"config-name": "nowhere"}, "there is no jobqueue.nowhere"),
            ({"security": {"tls-cafile": "x"}}, "security: .*tls_cafile"),
            ({"walltime": "00:02:00", "lifetime": "2min"}, "is not below the walltime"),
        ],
    )
    def test_bad_content(self, content, message):
        with pytest.raises(ConfigError, match=message):
            load_cluster({"kind": "slurm", "memory": "1GB", **content})

    def test_memory_must_be_said(self):
        with pytest.raises(ConfigError, match="memory is missing: kind 'slurm' reserves it"):
            load_cluster({"kind": "slurm"})

    def test_what_the_job_itself_refuses_is_told_in_our_words(self):
        batch = load_cluster({"kind": "htcondor", "memory": "1GB"}).batch
        with pytest.raises(ConfigError, match="kind 'htcondor': You must specify how much disk"):
            job_script(batch)

    def test_the_examples_in_the_file(self):
        text = (ROOT / "cluster.yaml").read_text()
        lines = [line.removeprefix("#").removeprefix(" ") for line in text.splitlines()]
        starts = [i for i, line in enumerate(lines) if line.startswith("kind: slurm")]
        assert len(starts) == 3
        for start in starts:
            rest = lines[start:]
            example = rest[: rest.index("")] if "" in rest else rest
            assert load_cluster(yaml.safe_load("\n".join(example))).batch is not None


class TestScript:
    def test_threads_and_memory_are_reserved_and_one_share_runs(self):
        made = script(threads=4)
        assert "#SBATCH --cpus-per-task=4" in made
        assert "#SBATCH --mem=1G" in made
        assert "--nthreads 1 --memory-limit 1.00GiB" in made
        assert "--nworkers" not in made
        assert "ncpus=4" in script(kind="pbs", threads=4)

    def test_keys_pass_through(self):
        made = script(queue="gpu", job_extra_directives=["--gres=gpu:1"], job_cpu=7, name="mine")
        for line in ("-p gpu", "--gres=gpu:1", "--cpus-per-task=7", "-J mine"):
            assert f"#SBATCH {line}\n" in made
        assert "--name mine-0" in made

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            ({"walltime": "00:02:00"}, "--lifetime 90s --lifetime-stagger 20s"),
            ({"walltime": "1-00:00:00"}, "--lifetime 64800s --lifetime-stagger 14400s"),
            (
                {"walltime": "01:00:00", "lifetime": "10min"},
                "--lifetime 600s --lifetime-stagger 1",
            ),
            ({"lifetime": 30, "lifetime_stagger": 0}, "--lifetime 30s --lifetime-stagger 0s"),
            ({"worker_extra_args": ["--lifetime", "5m"]}, "--lifetime 5m"),
        ],
    )
    def test_workers_end_before_their_walltime(self, content, expected):
        made = script(**content)
        assert expected in made
        assert made.count("--lifetime ") == 1

    def test_no_walltime_no_lifetime(self):
        assert "--lifetime" not in script(kind="htcondor", disk="1GB")


@pytest.mark.parametrize(
    ("text", "kind", "seconds"),
    [
        ("10", "slurm", 600), ("10:30", "slurm", 630), ("1:00:00", "slurm", 3600),
        ("2-3", "slurm", 183600), ("2-3:30:10", "slurm", 185410), ("1:30", "lsf", 5400),
        ("90", "lsf", 5400), ("90", "sge", 90), ("02:00:00", "oar", 7200),
        ("UNLIMITED", "slurm", None), ("", "slurm", None), ("x-1", "slurm", None),
        ("0", "slurm", None),
    ],
)  # fmt: skip
def test_walltime(text, kind, seconds):
    assert walltime_seconds(text, kind) == seconds


class TestNothingInstalled:
    def test_no_batch_system(self, monkeypatch, tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path))
        for kind, command in {"slurm": "sbatch", "pbs": "qsub", "lsf": "bsub"}.items():
            with pytest.raises(ClusterError, match=f"with {command}, which is not in PATH"):
                check_installed(kind)

    def test_a_run_ends_before_it_looks_at_anything_else(self, monkeypatch, tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(ClusterError, match="sbatch, which is not in PATH"):
            api.score(
                tmp_path / "none.zarr", model="no.such:model", out=tmp_path / "out.zarr",
                cluster={"kind": "slurm", "memory": "1GB"}, progress=False,
            )  # fmt: skip

    def test_no_jobqueue(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
        with pytest.raises(ConfigError, match=r"needs dask-jobqueue.*approxifer\[hpc\]"):
            load_cluster({"kind": "slurm", "memory": "1GB"})

    def test_importing_it_leaves_ctrl_c_alone_also_in_a_thread(self):
        code = (
            "import signal, threading\n"
            "real = signal.signal\n"
            "from approxifer.pipeline.cluster.batch_spec import legal_keys\n"
            "thread = threading.Thread(target=legal_keys, args=('slurm',))\n"
            "thread.start(); thread.join()\n"
            "import dask_jobqueue.runner\n"
            "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
            "assert signal.signal is real\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


class TestDryRun:
    def test_plan_and_script_are_shown_and_nothing_is_submitted(self, store, tmp_path, monkeypatch):
        monkeypatch.setenv("PATH", str(tmp_path))
        told = api.plan_run(
            store, model=np.tanh, out=tmp_path / "out.zarr", stragglers=2,
            cluster={"kind": "slurm", "memory": "1GiB", "threads": 2},
        )  # fmt: skip
        assert "systematic K=8 S=2, 10 shares" in told
        assert "11 workers (10 needed)" in told
        assert "1.000 to 1.250 evaluations per query" in told
        assert "11 jobs of slurm, one worker each, 2 CPUs and 1.00 GiB each" in told
        assert "#SBATCH --cpus-per-task=2" in told
        assert not (tmp_path / "out.zarr").exists()

    def test_a_number_of_workers_that_is_too_small(self, store, tmp_path):
        with pytest.raises(TooFewWorkersError):
            api.plan_run(
                store, model=np.tanh, out=tmp_path / "out.zarr", k=8,
                cluster={"kind": "slurm", "memory": "1GiB", "workers": 5},
            )  # fmt: skip


HOSTILE = "/tmp/a b'c\"$(touch OWNED)`id`;#x"


def test_every_path_and_name_in_a_job_script_is_quoted() -> None:
    spec = load_cluster(
        {"kind": "slurm", "memory": "1GB", "local-directory": HOSTILE, "job-name": "n $(id)",
         "worker-extra-args": ["--preload", HOSTILE, "--resources GPU=1"], "interface": "$(id)"}
    ).batch  # fmt: skip
    assert spec is not None
    script = job_script(spec).splitlines()
    words = shlex.split(script[-1])
    for option, value in (
        ("--local-directory", HOSTILE), ("--name", "n $(id)-0"), ("--preload", HOSTILE),
        ("--resources", "GPU=1"), ("--interface", "$(id)"),
    ):  # fmt: skip
        assert words[words.index(option) + 1] == value
    ran = subprocess.run(
        ["sh", "-c", f"for w in {script[-1]}; do printf '%s\\n' \"$w\"; done"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ran.stdout.splitlines() == words
    assert '#SBATCH -J "n $(id)"' in script


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("slurm", "job-name", "a\nrm -rf x"),
        ("slurm", "local-directory", "/a\nid"),
        ("pbs", "job-name", "$(id)"),
        ("lsf", "queue", "a;b"),
        ("slurm", "worker-extra-args", 3),
        ("slurm", "log-directory", ["a"]),
    ],
)
def test_what_cannot_be_quoted_is_refused(kind: str, key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=key.replace("-", "_")):
        load_cluster({"kind": kind, "memory": "1GB", key: value})


def test_a_variable_of_the_node_stands_at_the_beginning_only() -> None:
    assert word("$TMPDIR/a $(id)") == "\"$TMPDIR\"'/a $(id)'"
    assert word("/a/$HOME") == "'/a/$HOME'"
    assert word("${SCRATCH}") == '"${SCRATCH}"'
