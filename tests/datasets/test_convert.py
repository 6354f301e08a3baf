"""Published datasets as Zarr, and pickles that would like to run something."""

import gzip
import os
import pickle
import struct

import numpy as np
import pytest
import xarray as xr

from approxifer.datasets import open_source
from approxifer.datasets.convert import convert, main
from approxifer.datasets.published import pickles
from approxifer.datasets.published.images import Images, chunk_rows
from approxifer.datasets.samples import digits
from approxifer.errors import ConfigError, InputError, InputNotFoundError, StoreError

SIZES = {"train": 7, "test": 5}


@pytest.fixture
def images(rng):
    """Train and test images like MNIST's, and their labels."""
    return {
        split: (
            rng.integers(0, 256, (n, 28, 28), np.uint8),
            rng.integers(0, 10, n).astype(np.uint8),
        )
        for split, n in SIZES.items()
    }


@pytest.fixture
def npz(tmp_path, images):
    arrays = {}
    for split, (image, label) in images.items():
        arrays |= {f"{split}_images": image, f"{split}_labels": label}
    np.savez(tmp_path / "set.npz", classes=np.array(["cat", "dog"]), **arrays)
    return tmp_path / "set.npz"


@pytest.fixture
def idx(tmp_path, images):
    folder = tmp_path / "idx"
    folder.mkdir()
    for split, name in (("train", "train"), ("test", "t10k")):
        image, label = images[split]
        head = struct.pack(">4I", 0x803, *image.shape)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(head + image.tobytes())
        labels = struct.pack(">2I", 0x801, len(label)) + label.tobytes()
        (folder / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return folder


@pytest.fixture
def cifar(tmp_path, rng):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    content = {}
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        data = rng.integers(0, 256, (4, 3072), np.uint8)
        labels = rng.integers(0, 10, 4).tolist()
        content[name] = data, labels
        batch = {b"data": data, b"labels": labels, b"filenames": [b"a.png"] * 4}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["cat", "dog"]}))
    return folder, content


def test_npz(npz, images, tmp_path):
    path = convert(npz, tmp_path / "out.zarr")
    found = xr.open_zarr(str(path), chunks=None)
    assert found["image"].dims == ("sample", "y", "x")
    assert found["image"].dtype == found["label"].dtype == np.uint8
    np.testing.assert_array_equal(found["image"], images["test"][0])
    np.testing.assert_array_equal(found["label"], images["test"][1])
    assert found["label"].attrs["classes"] == ["cat", "dog"]
    assert open_source(path, "image").chunk == 4


@pytest.mark.parametrize("split", ["train", "test", "all"])
def test_idx_holds_the_same_as_npz(npz, idx, tmp_path, split):
    one = xr.open_zarr(str(convert(npz, tmp_path / "a.zarr", split=split)), chunks=None)
    two = xr.open_zarr(str(convert(idx, tmp_path / "b.zarr", split=split)), chunks=None)
    assert one.sizes["sample"] == (12 if split == "all" else SIZES[split])
    xr.testing.assert_equal(one, two)


def test_cifar_is_channels_last(cifar, tmp_path):
    folder, content = cifar
    found = xr.open_zarr(str(convert(folder, tmp_path / "out.zarr", split="all")), chunks=None)
    assert found["image"].dims == ("sample", "y", "x", "channel")
    assert found["image"].shape == (24, 32, 32, 3)
    data, labels = content["test_batch"]
    np.testing.assert_array_equal(
        found["image"].values[20, 3, 5], data[0].reshape(3, 32, 32)[:, 3, 5]
    )
    assert found["label"].values[20:].tolist() == labels
    assert found["label"].attrs["classes"] == ["cat", "dog"]


def test_a_pickle_of_python_2_is_read():
    # {'data': uint8 array [[1, 2, 3]], 'labels': [7]} as cPickle of Python 2 wrote it, protocol 2
    content = (
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b"
        b"\x87R(K\x01K\x01K\x03\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff"
        b"\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x03\x01\x02\x03tbU\x06labels]K\x07au."
    )
    found = pickles.load(content, name="batch")
    assert found[b"data"].tolist() == [[1, 2, 3]]
    assert found[b"data"].dtype == np.uint8
    assert found[b"labels"] == [7]


class Crafted:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_a_crafted_pickle_runs_nothing(cifar, tmp_path):
    folder, _ = cifar
    witness = tmp_path / "it ran"
    for function, *arguments in (
        (os.mkdir, str(witness)),
        (eval, f"__import__('os').mkdir({str(witness)!r})"),
        (getattr, np.ndarray, "tofile"),
    ):
        for protocol in (0, 2, 5):
            content = pickle.dumps({"data": Crafted(function, *arguments)}, protocol=protocol)
            (folder / "test_batch").write_bytes(content)
            with pytest.raises(InputError, match=r"asks to run .*nothing of it was run"):
                convert(folder, tmp_path / "out.zarr")
    assert not witness.exists()
    assert not (tmp_path / "out.zarr").exists()


def test_arrays_of_objects_and_other_codecs_are_refused():
    for content in (
        pickle.dumps(np.array([{}], dtype=object)),
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.",
        pickle.dumps([1, 2, 3])[:-3],
    ):
        with pytest.raises(InputError, match="from its publisher again"):
            pickles.load(content, name="batch")


def test_damaged_files_are_refused(idx, npz, cifar, tmp_path):
    out = tmp_path / "out.zarr"
    images = idx / "t10k-images-idx3-ubyte"
    whole = images.read_bytes()
    images.write_bytes(whole[:-1])
    with pytest.raises(InputError, match="cut short"):
        convert(idx, out)
    images.write_bytes(b"\0\0\x08\x01" + whole[4:])
    with pytest.raises(InputError, match="begins with 00000801"):
        convert(idx, out)
    labels = idx / "t10k-labels-idx1-ubyte.gz"
    images.write_bytes(whole)
    labels.write_bytes(labels.read_bytes()[:-10])
    with pytest.raises(InputError, match="damaged gzip"):
        convert(idx, out)
    npz.write_bytes(npz.read_bytes()[:200])
    with pytest.raises(InputError, match=r"not a readable \.npz"):
        convert(npz, out)
    np.savez(npz, test_images=np.array([{}, 1], dtype=object))
    with pytest.raises(InputError, match=r"not a readable \.npz"):
        convert(npz, out)
    with npz.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InputError, match="a single array"):
        convert(npz, out)
    np.savez(npz, other=np.zeros(3))
    with pytest.raises(InputError, match="test_images is needed"):
        convert(npz, out)
    folder, _ = cifar
    (folder / "test_batch").write_bytes(pickle.dumps({"data": [1]}))
    with pytest.raises(InputError, match="not a CIFAR-10 batch"):
        convert(folder, out)
    (folder / "test_batch").unlink()
    with pytest.raises(InputNotFoundError, match="holds no test_batch"):
        convert(folder, out)
    with pytest.raises(InputError, match="none of the known formats"):
        convert(tmp_path, out)
    with pytest.raises(InputNotFoundError, match="nothing at"):
        convert(tmp_path / "none.npz", out)
    assert not out.exists()


def test_an_existing_destination_and_wrong_options_are_refused(npz, tmp_path):
    (tmp_path / "out.zarr").mkdir()
    with pytest.raises(StoreError, match="something at"):
        convert(npz, tmp_path / "out.zarr")
    with pytest.raises(ConfigError, match="give one of test, train, all"):
        convert(npz, tmp_path / "a.zarr", split="valid")
    with pytest.raises(ConfigError, match="only a local path"):
        convert(npz, "s3://bucket/a.zarr")


def test_the_command(npz, tmp_path, capsys):
    assert main([str(npz), str(tmp_path / "out.zarr"), "--split", "train"]) == 0
    assert capsys.readouterr().out.strip().endswith("out.zarr")
    assert open_source(tmp_path / "out.zarr", "image").rows == 7
    assert main([str(npz), str(tmp_path / "out.zarr")]) == 2
    assert "something at" in capsys.readouterr().err


def test_chunks_are_about_a_megabyte():
    assert chunk_rows(np.zeros((60_000, 28, 28), np.uint8)) == 1024
    assert chunk_rows(np.zeros((500, 32, 32, 3), np.uint8)) == 256
    assert chunk_rows(np.zeros((3, 2, 2), np.uint8)) == 2
    with pytest.raises(InputError, match="one label for each"):
        Images(np.zeros((3, 2, 2)), np.zeros(4))


def test_digits(tmp_path):
    path = digits(tmp_path / "digits.zarr")
    found = xr.open_zarr(str(path), chunks=None)
    assert found["image"].shape == (1797, 8, 8)
    assert found["image"].dtype == np.float32
    assert (found["image"].values.min(), found["image"].values.max()) == (0, 16)
    assert set(found["label"].values) == set(range(10))
    source = open_source(path, "image")
    assert (source.chunk, source.sample_dim) == (64, "sample")
    with pytest.raises(StoreError, match="something at"):
        digits(path)
