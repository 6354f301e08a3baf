"""Inputs that somebody has made to do harm: an error, before anything of theirs is run."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from approxifer.datasets import OutputStore, open_source
from approxifer.datasets.published import pickles
from approxifer.errors import InputError, StoreError

PICKLE = {"id": "pickle", "protocol": 5}
DELTA = {"id": "delta", "dtype": "<f4"}


class Crafted:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def v2_array(path: Path, chunk: bytes = b"", **changes: object) -> Path:
    path.mkdir(parents=True)
    about = {
        "zarr_format": 2, "shape": [4], "chunks": [4], "dtype": "<f4", "compressor": None,
        "fill_value": 0, "order": "C", "filters": None,
    }  # fmt: skip
    (path / ".zarray").write_text(json.dumps(about | changes))
    (path / ".zattrs").write_text('{"_ARRAY_DIMENSIONS": ["n"]}')
    (path / "0").write_bytes(chunk)
    return path


def v2_group(path: Path, **array: object) -> Path:
    v2_array(path / "x", **array)
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    return path


def read(path: Path | str) -> None:
    source = open_source(path)
    source.read(0, source.rows)


@pytest.mark.parametrize("group", [True, False])
@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "|O", "filters": [PICKLE]},
        {"dtype": "|O", "filters": [{"id": "vlen-utf8"}, PICKLE]},  # which zarr itself would run
        {"dtype": "|O", "filters": [{"id": "vlen-utf8"}], "compressor": PICKLE},
        {"filters": [DELTA, PICKLE]},
        {"compressor": PICKLE},
        {"dtype": "|O"},
        {"dtype": [["a", "<f4"], ["b", "|O"]]},
        {"dtype": "|O", "filters": [{"id": "json2"}]},
        {"filters": [{"id": "base64"}]},
        {"compressor": {"id": "os"}},
    ],
)
def test_a_codec_that_runs_code_is_not_read(tmp_path, monkeypatch, changes, group):
    # As older numcodecs, and as somebody may have set it.
    monkeypatch.setattr("numcodecs.pickles.ALLOW_UNSAFE_PICKLE_DECODE", True)
    mark = tmp_path / "mark"
    made = v2_group if group else v2_array
    path = made(tmp_path / "in.zarr", chunk=pickle.dumps(Crafted(mark)), **changes)
    with pytest.raises(InputError):
        read(path)
    assert not mark.exists()


def test_an_output_store_is_no_way_round(make_store, tmp_path, monkeypatch):
    monkeypatch.setattr("numcodecs.pickles.ALLOW_UNSAFE_PICKLE_DECODE", True)
    mark, path = tmp_path / "mark", tmp_path / "crafted.zarr"
    for name in ("prediction", "status", "group", "worker", "residual"):
        text = {"dtype": "|O", "filters": [{"id": "vlen-utf8"}, PICKLE]}
        v2_array(path / name, chunk=pickle.dumps(Crafted(mark)), **text)
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    (path / ".zattrs").write_text('{"approxifer_store": 1}')
    with pytest.raises(StoreError, match="not as approxifer writes it"):
        OutputStore.open(path).status()
    assert not mark.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [10**15], "chunks": [10**15]},
        {"shape": [4, 10**14], "chunks": [4, 10**14]},
        {"shape": [-4]},
        {"shape": "abc"},
        {"chunks": [0]},
        {"chunks": [8]},  # the chunk holds less
        {"dtype": "<f8"},
    ],
)
def test_sizes_that_lie(tmp_path, changes):
    path = v2_group(tmp_path / "in.zarr", chunk=bytes(16), **changes)
    with pytest.raises(InputError):
        read(path)


def test_rows_larger_than_the_memory_are_not_begun_with(tmp_path):
    path = v2_array(tmp_path / "in.zarr", shape=[10**15], chunks=[1000])
    (path / ".zattrs").write_text("{}")
    source = open_source(path)
    with pytest.raises(InputError, match="this machine has"):
        source.read(0, source.rows)


@pytest.mark.parametrize("odd", ["../../escape", "/escape", "x/../../escape", "\x1b[2J"])
def test_a_zip_with_odd_names_writes_nothing(tmp_path, monkeypatch, odd):
    monkeypatch.chdir(tmp_path)
    folder = v2_group(tmp_path / "in.zarr", chunk=bytes(16))
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.writestr(odd, "x")
        for path in folder.rglob("*"):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    before = sorted(tmp_path.rglob("*"))
    with contextlib.suppress(InputError):  # or it is read: nothing is unpacked
        read(f"zip::{tmp_path / 'in.zip'}")
    assert sorted(tmp_path.rglob("*")) == before
    assert not list(tmp_path.parent.glob("escape"))


def test_what_is_no_zip(tmp_path):
    (tmp_path / "in.zip").write_bytes(b"PK\3\4 nonsense")
    with pytest.raises(InputError):
        read(f"zip::{tmp_path / 'in.zip'}")


@pytest.mark.parametrize(
    "content",
    [
        b"cnumpy\nndarray\n((I1000000000000\ntS'O'\ntR.",  # more None than memory holds
        b"\x80\x02" + b")" + b"\x85" * 100_000 + b".",  # deeper than a hash may go
        b"\x80\x02Nr\xff\xff\xff\x7f.",  # a memo of 2 billion places
        b"Np4000000000\n.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(I0\ntS'b'\ntR.",
        b"cnumpy\ndtype\n(S'O'\ntR.",
        b"\x80\x02cos\nsystem\n.",
    ],
)
def test_a_crafted_pickle_takes_neither_code_nor_memory(content):
    with pytest.raises(InputError):
        pickles.load(content, name="batch")


def test_arrays_of_either_order_come_back():
    values = np.arange(6, dtype=">i2").reshape(2, 3)
    for given in (values, np.asfortranarray(values)):
        found = pickles.load(pickle.dumps({"data": given}, protocol=2), name="batch")["data"]
        np.testing.assert_array_equal(found, values)
