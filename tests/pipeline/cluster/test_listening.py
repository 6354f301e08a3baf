"""Ports that a run opens, and who else can use them."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
from collections import Counter
from urllib.parse import urlsplit

import psutil
import pytest
from distributed import Security

from approxifer.errors import ClusterError, ConfigError
from approxifer.pipeline.cluster.connect import load_cluster, open_cluster


@pytest.fixture(scope="module")
def opened():
    with open_cluster(load_cluster({"kind": "local", "workers": 2}), needed=2) as cluster:
        yield cluster


def ports() -> list[tuple[str, int]]:
    """Addresses on which this process and its children listen."""
    me = psutil.Process()
    return sorted(
        {
            (one.laddr.ip, one.laddr.port)
            for process in [me, *me.children(recursive=True)]
            for one in process.net_connections(kind="inet")
            if one.status == psutil.CONN_LISTEN
        }
    )


def test_a_cluster_of_ours_listens_on_loopback_and_speaks_tls_there(opened) -> None:
    scheduler = opened.client.scheduler.address
    workers = list(opened.client.scheduler_info()["workers"])
    assert len(workers) == 2
    found = ports()
    assert {ip for ip, _ in found} == {"127.0.0.1"}
    for address in [scheduler, *workers]:
        assert address.startswith("tls://127.0.0.1:")
        assert (address.removeprefix("tls://").split(":")[0], int(address.split(":")[-1])) in found


def speaks(ip: str, port: int, key: ssl.SSLContext) -> str:
    """Classify a port: HTTP, TLS that accepts this certificate, or a refusal."""
    with socket.create_connection((ip, port), timeout=5) as plain:
        plain.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        try:
            if plain.recv(64).startswith(b"HTTP/"):
                return "http"
        except ConnectionError:
            pass
    with socket.create_connection((ip, port), timeout=5) as plain:
        try:
            with key.wrap_socket(plain) as secured:
                return "dask" if secured.recv(1) else "refused"
        except (ssl.SSLError, ConnectionError):
            return "refused"


def test_dask_answers_only_who_has_the_key(opened) -> None:
    """On every port: without TLS, without a certificate, and with one that somebody else made."""
    nobody = ssl.create_default_context()
    nobody.check_hostname, nobody.verify_mode = False, ssl.CERT_NONE
    stranger = Security.temporary().get_connection_args("client")["ssl_context"]
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    mine = opened.client.security.get_connection_args("client")["ssl_context"]

    scheduler = urlsplit(opened.client.scheduler.address)
    assert speaks(scheduler.hostname, scheduler.port, mine) == "dask"
    for key in (nobody, stranger):
        found = Counter(speaks(ip, port, key) for ip, port in ports())
        assert set(found) <= {"http", "refused"}
        assert found["refused"] >= 3


def test_the_key_is_in_no_environment_and_no_argument(opened) -> None:
    key = opened.client.security.tls_client_key
    line = key.splitlines()[1]
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        assert line not in " ".join(process.cmdline())
        assert not any(line in value for value in process.environ().values())


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_of_the_machine_cannot_run_code_on_the_scheduler(opened) -> None:
    address = opened.client.scheduler.address.replace("tls://", "tcp://")
    code = (
        "import os, sys; from distributed import Client\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"client = Client({address!r}, timeout=3, set_as_default=False)\n"
        "print('ran as', client.run_on_scheduler(os.getuid))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert found.returncode != 0
    assert "ran as" not in found.stdout


def test_tls_may_be_turned_off() -> None:
    spec = load_cluster({"kind": "local", "workers": 1, "security": False})
    with open_cluster(spec, needed=1) as cluster:
        assert cluster.client.scheduler.address.startswith("tcp://127.0.0.1:")
        assert cluster.client.submit(len, [1, 2]).result() == 2


def test_a_running_cluster_is_joined_with_its_certificates(opened, tmp_path) -> None:
    address, security = opened.client.scheduler.address, opened.client.security
    spec = load_cluster({"kind": "address", "address": address})
    with pytest.raises(ClusterError, match="wants TLS: give security: with tls-ca-file"):
        open_cluster(spec, needed=1)
    files = {}
    for name in ("ca_file", "client_cert", "client_key"):
        files[f"tls-{name}".replace("_", "-")] = str(tmp_path / name)
        (tmp_path / name).write_text(getattr(security, f"tls_{name}"))
    spec = load_cluster({"kind": "address", "address": address, "security": files})
    with open_cluster(spec, needed=2) as cluster:
        assert cluster.client.submit(sum, [1, 2]).result() == 3
    for wrong in (True, {"tls-cafile": "x"}):
        with pytest.raises(ConfigError, match="security"):
            load_cluster({"kind": "address", "address": address, "security": wrong})


@pytest.mark.parametrize("given", ["yes", 1, {"tls-ca-file": "ca.pem"}])
def test_security_of_a_local_cluster_is_true_or_false(given) -> None:
    with pytest.raises(ConfigError, match=r"security is .*give true .* or false"):
        load_cluster({"kind": "local", "security": given})
