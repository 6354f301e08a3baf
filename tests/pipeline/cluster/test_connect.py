import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from inspect import signature
from pathlib import Path

import psutil
import pytest
from distributed import Client, LocalCluster, Nanny, Worker

from approxifer.errors import ClusterError, ConfigError, TooFewWorkersError
from approxifer.pipeline.cluster import spec as clusterspec
from approxifer.pipeline.cluster.connect import load_cluster, open_cluster, workers_of

ROOT = Path(__file__).parents[3]


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text(text)
    return path


class TestLoad:
    def test_the_file_in_the_repository(self):
        spec = load_cluster(ROOT / "cluster.yaml")
        assert (spec.kind, spec.workers, spec.threads, spec.memory) == ("local", None, 1, None)

    def test_common_keys_and_options(self, tmp_path):
        text = "kind: local\nworkers: 4\nthreads: 2\nmemory: 2GB\nlocal-directory: /tmp\n"
        spec = load_cluster(write(tmp_path, text))
        assert (spec.workers, spec.threads, spec.memory) == (4, 2, 2_000_000_000)
        assert spec.options == {"local_directory": "/tmp"}
        assert load_cluster(spec) is spec

    def test_mapping_and_address(self):
        spec = load_cluster({"kind": "address", "address": "tcp://somewhere:8786"})
        assert spec.options == {"address": "tcp://somewhere:8786"}
        assert load_cluster({}).kind == "local"

    def test_frozen(self):
        with pytest.raises(ValueError, match="frozen"):
            load_cluster({}).workers = 3

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"memmory": "2GB"}, "unknown key 'memmory' for kind 'local', did you mean 'memory'"),
            ({"n-workers": 3}, "unknown key 'n_workers' .* did you mean 'workers'"),
            ({"local_dirctory": "/"}, "did you mean 'local_directory'"),
            ({"xyz": 1}, r"unknown key 'xyz' for kind 'local'; allowed: kind, workers"),
            ({"address": "tcp://a:1"}, "unknown key 'address' for kind 'local'"),
            ({"kind": "adress"}, "unknown kind 'adress', did you mean 'address'"),
            ({"kind": ["local"]}, "unknown kind"),
            ({"kind": "address"}, "address is missing; give a scheduler's"),
            ({"kind": "address", "address": "host:8786"}, "address is 'host:8786'"),
            ({"kind": "address", "scheduler_file": 1}, "scheduler_file is 1; give a path"),
            (
                {"kind": "address", "scheduler-file": "s.json", "address": "tcp://a:1"},
                "address and scheduler_file are both given",
            ),
            ({"workers": 0}, "workers: 0 does not do: it must be greater than 0"),
            ({"workers": "three"}, "workers: 'three' does not do: it must be a valid integer"),
            ({"workers": True}, "workers: True"),
            ({"threads": -1}, "threads: -1"),
            ({"memory": "lots"}, "memory: 'lots' does not do: give a size such as 2GB"),
            ({"memory": 2}, r"memory: 2 does not do: that is 2 bytes"),
            ({"memory": [1]}, "memory: .* give a size"),
        ],
    )
    def test_bad_content(self, content, message):
        with pytest.raises(ConfigError, match=message) as caught:
            load_cluster(content)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "holds nothing; it must hold one mapping"),
            ("- a\n- b\n", "holds list; it must hold one mapping"),
            ("kind: [local", "not valid YAML"),
            ("kind: !!python/object/apply:os.getpid []", "not valid YAML"),
            ("workers: none\n", "workers: 'none'"),
        ],
    )
    def test_bad_files(self, tmp_path, text, message):
        path = write(tmp_path, text)
        with pytest.raises(ConfigError, match=message) as caught:
            load_cluster(path)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)

    def test_unreadable_files(self, tmp_path):
        with pytest.raises(ConfigError, match="no such cluster file"):
            load_cluster(tmp_path / "none.yaml")
        with pytest.raises(ConfigError, match="cannot be read"):
            load_cluster(tmp_path)
        (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ConfigError, match="cannot be read"):
            load_cluster(tmp_path / "binary")

    def test_local_keys_are_distributeds(self):
        known = {
            name for cls in (LocalCluster, Nanny, Worker) for name in signature(cls).parameters
        }
        assert set(clusterspec.LOCAL_KEYS) <= known


@pytest.fixture(scope="module")
def local():
    spec = load_cluster({"memory": "1GB", "threads": 3, "security": False})
    with open_cluster(spec, needed=2) as cluster:
        yield cluster


class TestLocal:
    def test_the_workers_are_all_there_whatever_the_client_renews_meanwhile(self, local):
        client, done = local.client, threading.Event()

        async def renew():
            while not done.is_set():
                await client._update_scheduler_info()

        renewing = asyncio.run_coroutine_threadsafe(renew(), client.loop.asyncio_loop)
        counts = [len(workers_of(client)) for _ in range(100)]
        done.set()
        renewing.result(10)
        assert counts == [3] * 100

    def test_started(self, local):
        workers = workers_of(local.client).values()
        assert sorted(worker["name"] for worker in workers) == ["worker-0", "worker-1", "worker-2"]
        assert {worker["nthreads"] for worker in workers} == {1}
        assert {worker["memory_limit"] for worker in workers} == {10**9}
        assert all("127.0.0.1" in worker["host"] for worker in workers)
        assert (local.owned, local.threads) == (True, 3)
        assert local.client.submit(sum, [1, 2]).result() == 3

    def test_dashboard_on_loopback(self, local):
        assert local.client.scheduler_info()["address"].startswith("tcp://127.0.0.1:")
        assert "127.0.0.1" in local.client.dashboard_link

    def test_workers_do_not_listen_to_ctrl_c(self, local):
        masks = local.client.run(signal.pthread_sigmask, signal.SIG_BLOCK, [])
        assert all(signal.SIGINT in mask for mask in masks.values())
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])

    def test_a_dead_worker_comes_back_under_its_name(self, local):
        address, pid = next(iter(local.client.run(os.getpid).items()))
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            workers = workers_of(local.client)
            if address not in workers and len(workers) == 3:
                break
            time.sleep(0.05)
        names = {worker["name"] for worker in workers.values()}
        assert names == {"worker-0", "worker-1", "worker-2"}

    def test_somebody_elses_client(self, local):
        with open_cluster(None, client=local.client, needed=3) as cluster:
            assert cluster.client is local.client
            assert (cluster.owned, cluster.threads) == (False, 1)
        assert local.client.status == "running"
        with pytest.raises(TooFewWorkersError, match=r"needs 4 workers .* cluster has 3; ask for"):
            open_cluster(None, client=local.client, needed=4)

    def test_address(self, local):
        address = local.client.scheduler_info()["address"]
        spec = load_cluster({"kind": "address", "address": address})
        with open_cluster(spec, needed=3) as cluster:
            assert not cluster.owned
            assert cluster.client is not local.client
        assert cluster.client.status == "closed"
        cluster.close()  # again: nothing happens
        with pytest.raises(TooFewWorkersError, match="needs 9 workers"):
            open_cluster(spec, needed=9, timeout=0.2)
        assert local.client.submit(sum, [1, 2]).result() == 3

    def test_a_scheduler_file(self, local, tmp_path):
        file = tmp_path / "scheduler.json"
        spec = load_cluster({"kind": "address", "scheduler-file": str(file)})
        with pytest.raises(ClusterError, match=r"no scheduler's address in .*scheduler\.json"):
            open_cluster(spec, needed=2, timeout=0.3)
        file.write_text(json.dumps({"address": local.client.scheduler.address}))
        with open_cluster(spec, needed=2) as found:
            assert not found.owned

    def test_no_local_cluster_within_a_task(self, local):
        done = local.client.submit(open_cluster, None, needed=1)
        with pytest.raises(ClusterError, match="outside of any task"):
            done.result(timeout=60)

    def test_asynchronous_and_closed_clients(self, local):
        async def try_it():
            address = local.client.scheduler_info()["address"]
            async with Client(address, asynchronous=True, set_as_default=False) as client:
                with pytest.raises(ConfigError, match="it is asynchronous"):
                    open_cluster(None, client=client, needed=1)

        async def try_elsewhere():
            address = local.client.scheduler_info()["address"]
            async with Client(address, asynchronous=True, set_as_default=False) as client:
                call = partial(open_cluster, None, client=client, needed=1)
                with pytest.raises(ConfigError, match="it is asynchronous"):
                    await asyncio.get_running_loop().run_in_executor(None, call)

        local.client.sync(try_it)
        local.client.sync(try_elsewhere)
        client = Client(local.client.scheduler_info()["address"], set_as_default=False)
        client.close()
        with pytest.raises(ConfigError, match="its status is 'closed'"):
            open_cluster(None, client=client, needed=1)
        with pytest.raises(ConfigError, match="client: str given"):
            open_cluster(None, client="tcp://127.0.0.1:8786", needed=1)


def test_too_few_before_anything_starts():
    with pytest.raises(TooFewWorkersError, match=r"needs 9 workers .* workers: 3, so it has 3"):
        open_cluster(load_cluster({"workers": 3}), needed=9)


def test_no_scheduler_there():
    spec = load_cluster({"kind": "address", "address": "tcp://127.0.0.1:1"})
    with pytest.raises(ClusterError, match=r"no Dask scheduler answered at tcp://127.0.0.1:1"):
        open_cluster(spec, needed=1, timeout=0.5)


def test_an_option_that_does_not_work(tmp_path):
    (tmp_path / "file").touch()
    spec = load_cluster({"workers": 2, "local-directory": str(tmp_path / "file")})
    with pytest.raises(ClusterError, match=r"the local cluster did not start: .*file"):
        open_cluster(spec, needed=1)


SCRIPT = """
import sys, time
from approxifer.pipeline.cluster.connect import load_cluster, open_cluster
def hang():
    time.sleep(300)
{guard}
    with open_cluster(load_cluster({{"workers": 3}}), needed=2) as cluster:
        futures = [cluster.client.submit(hang, key=str(i)) for i in range(3)]
        print("ready", flush=True)
        {then}
"""


def start(tmp_path: Path, then: str, guard: str = 'if __name__ == "__main__":') -> subprocess.Popen:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(then=then, guard=guard))
    return subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def assert_nothing_left(group: int) -> None:
    deadline = time.monotonic() + 20
    while left := [p for p in psutil.process_iter() if _in_group(p, group)]:
        if time.monotonic() > deadline:
            pytest.fail(f"still there: {left}")
        time.sleep(0.1)


def _in_group(process: psutil.Process, group: int) -> bool:
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, ProcessLookupError):
        return False


@pytest.mark.slow
class TestProcesses:
    """What a Python process that opened a cluster leaves behind; its workers hang meanwhile."""

    @pytest.mark.parametrize(
        ("then", "code", "error"),
        [("pass", 0, ""), ("raise ValueError('so')", 1, "ValueError: so")],
    )
    def test_end(self, tmp_path, then, code, error):
        process = start(tmp_path, then)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == code, stderr
        assert stderr.strip().endswith(error)
        assert_nothing_left(process.pid)

    def test_ctrl_c(self, tmp_path):
        process = start(tmp_path, "time.sleep(300)")
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGINT
        assert stderr.strip().endswith("KeyboardInterrupt")
        assert stderr.count("Traceback") == 1, stderr
        assert_nothing_left(process.pid)

    @pytest.mark.parametrize("after", [0.6, 1.2])
    def test_ctrl_c_while_starting(self, tmp_path, after):
        process = start(tmp_path, "time.sleep(300)")
        time.sleep(after)
        os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGINT
        assert "KeyboardInterrupt" in stderr
        assert_nothing_left(process.pid)

    def test_killed(self, tmp_path):
        process = start(tmp_path, "time.sleep(300)")
        assert process.stdout.readline() == "ready\n"
        process.kill()
        process.communicate(timeout=60)
        assert_nothing_left(process.pid)

    def test_a_script_without_a_guard_is_not_run_again_by_workers(self, tmp_path):
        process = start(tmp_path, "pass", guard="if True:")
        stdout, stderr = process.communicate(timeout=60)
        assert (process.returncode, stdout) == (0, "ready\n"), stderr
        assert_nothing_left(process.pid)
