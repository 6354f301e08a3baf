"""Servers that are slow, busy, closed, silent, or want credentials."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from approxifer.datasets import open_source
from approxifer.datasets.input import remote
from approxifer.errors import InputError

pytest.importorskip("aiohttp")


ROWS = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder, without a list of its files, and fails as it is set to."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root = root
        self.mode = "plain"
        self.seen: Counter[str] = Counter()
        self.over = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/in.zarr"

    def handle_error(self, request, client_address) -> None:
        """Connections that are dropped are meant to be."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.split("?")[0].lstrip("/")
        self.server.seen[path] += 1
        first = self.server.seen[path] == 1
        code, where = self.server.mode.split(" in ") if " in " in self.server.mode else ("", "")
        if code and where in path:
            if code == "silence" or (code == "silence once" and first):
                self.server.over.wait(60)
                self.close_connection = True
                return
            if code == "dropped once" and first:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if code.isdigit() or (code.endswith(" once") and code.split()[0].isdigit() and first):
                self.answer(int(code.split()[0]), b"no")
                return
            if code == "token" and self.headers.get("Authorization") != "Bearer secret":
                self.answer(401, b"no")
                return
        file = self.server.root / path
        if file.is_file():
            self.answer(200, file.read_bytes())
        else:
            self.answer(404, b"nothing")

    def answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "PAUSE", 0.01)
    data = xr.Dataset({"t": (("n", "f"), ROWS)}, coords={"n": np.arange(12)}).chunk(n=4)
    data.to_zarr(str(tmp_path / "in.zarr"), zarr_format=2, consolidated=True)
    made = Server(tmp_path)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield made
    made.over.set()
    made.shutdown()
    thread.join()
    made.server_close()


def read(url, **options):
    source = open_source(url, storage_options=options)
    return source.read(0, source.rows)


def test_a_server_that_lists_nothing(server):
    source = open_source(server.url)
    np.testing.assert_array_equal(source.read(0, 12), ROWS)
    assert source.coords["n"].values.tolist() == list(range(12))
    assert source.notes == []  # above all not that all chunks were missing
    (server.root / "in.zarr" / ".zmetadata").unlink()
    np.testing.assert_array_equal(open_source(server.url, "t").read(0, 12), ROWS)
    np.testing.assert_array_equal(read(f"{server.url}/t"), ROWS)
    with pytest.raises(InputError, match="name the array with variable="):
        open_source(server.url)


@pytest.mark.parametrize(
    "mode", ["503 once in t/1.0", "429 once in .z", "dropped once in t/", "silence once in t/0.0"]
)
def test_what_passes_is_tried_again(server, mode):
    server.mode = mode
    np.testing.assert_array_equal(read(server.url, read_timeout=1), ROWS)


@pytest.mark.parametrize("where", ["t/1.0", ".zmetadata", ""])
def test_a_server_that_never_answers(server, where):
    server.mode = f"silence in {where}" if where else "silence in in.zarr"
    began = time.monotonic()
    with pytest.raises(InputError, match=r"no answer within 0\.3 s.*'read_timeout': seconds"):
        read(server.url, read_timeout=0.3)
    assert time.monotonic() - began < 20


def test_a_listener_that_only_accepts():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/in.zarr"
        with pytest.raises(InputError, match="no answer within"):
            read(url, read_timeout=0.3)


def test_a_busy_server_is_given_up(server):
    server.mode = "503 in t/1.0"
    with pytest.raises(InputError, match="503"):
        read(server.url)
    assert server.seen["in.zarr/t/1.0"] == remote.TRIES


@pytest.mark.parametrize("code", [401, 403])
@pytest.mark.parametrize("where", ["t/1.0", ".zmetadata"])
def test_refused_access_names_the_setting(server, code, where):
    server.mode = f"{code} in {where}"
    with pytest.raises(
        InputError, match=r"access was refused.*storage_options=.*'headers'"
    ) as error:
        read(server.url)
    assert "\n" not in str(error.value)
    assert server.seen[f"in.zarr/{where}"] == 1


def test_credentials_are_passed_on(server):
    server.mode = "token in in.zarr"
    with pytest.raises(InputError, match="access was refused"):
        read(server.url)
    headers = {"Authorization": "Bearer secret"}
    np.testing.assert_array_equal(read(server.url, headers=headers), ROWS)


def test_a_closed_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(InputError, match="Cannot"):
        read(f"http://127.0.0.1:{port}/in.zarr")


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ConnectionResetError("reset"), True),
        (TimeoutError("late"), True),
        (PermissionError("no"), False),
        (FileNotFoundError("gone"), False),
        (ValueError("bad"), False),
        (ImportError("s3fs"), False),
        (OSError(5, "input/output error"), True),
    ],
)
def test_only_what_may_pass_is_tried_again(error, again, monkeypatch):
    monkeypatch.setattr(remote, "PAUSE", 0)
    asked = []

    class Failing(zarr.storage.MemoryStore):
        async def get(self, *args, **kwargs):
            asked.append(args)
            raise error

    store = remote.PatientStore(Failing(), 5.0)
    with pytest.raises(type(error)):
        zarr.open_group(store, mode="r")
    assert (len(asked) > 4) is again


def test_missing_credentials_name_the_setting():
    class NoCredentialsError(Exception):
        """As botocore's."""

    error = OSError("failed")
    error.__cause__ = NoCredentialsError("Unable to locate credentials")
    said = remote.reason(error, "s3://bucket/in.zarr")
    assert "Unable to locate credentials" in said
    assert "storage_options=, for s3: {'key'" in said
    assert "for gs: {'token'" in remote.reason(PermissionError("no"), "zip::gs://bucket/in.zip")
