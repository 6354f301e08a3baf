"""The formats in which MNIST and CIFAR-10 are handed around."""

from __future__ import annotations

import gzip
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np

from approxifer.datasets.published import pickles
from approxifer.datasets.published.images import Images
from approxifer.errors import InputError, InputNotFoundError

Split = Literal["test", "train", "all"]

_IDX = {"train": "train", "test": "t10k"}
_CIFAR = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}


def read(source: Path, split: Split) -> Images:
    """Read one split; ``all`` is the training images followed by the test images.

    Parameters
    ----------
    source
        A ``.npz`` file with ``test_images``, ``test_labels`` and so on; a directory of MNIST's IDX
        files; or the directory of CIFAR-10's Python version.

    Raises
    ------
    InputNotFoundError
        Nothing there, or a file of the split is missing.
    InputError
        None of these formats, or a damaged file.
    """
    if not source.exists():
        raise InputNotFoundError(f"There is nothing at {source}. Check the spelling.")
    if source.suffix == ".npz" and source.is_file():
        reader = read_npz
    elif source.is_dir() and any(source.glob("*-idx3-ubyte*")):
        reader = read_idx
    elif source.is_dir() and any(
        (source / name).exists() for name in _CIFAR["train"] + _CIFAR["test"]
    ):
        reader = read_cifar
    else:
        raise InputError(
            f"{source} is none of the known formats: a .npz file with test_images and test_labels, "
            "a directory with MNIST's IDX files (t10k-images-idx3-ubyte[.gz]), or the directory of "
            "CIFAR-10's Python version (test_batch)."
        )
    names = ["train", "test"] if split == "all" else [split]
    parts = [reader(source, name) for name in names]
    labels = [part.label for part in parts if part.label is not None]
    return Images(
        image=np.concatenate([part.image for part in parts]),
        label=np.concatenate(labels) if labels else None,
        classes=parts[0].classes,
    )


def read_npz(source: Path, split: str) -> Images:
    """Read ``{split}_images``, ``{split}_labels`` and ``classes`` (the last two may be missing)."""
    try:
        with source.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array, not an archive")
            held = list(archive)
            wanted = (f"{split}_images", f"{split}_labels", "classes")
            found = {name: archive[name] for name in wanted if name in held}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{source} is not a readable .npz file of plain arrays: {error}."
        ) from error
    if wanted[0] not in found:
        raise InputError(f"{source} holds {held}; {wanted[0]} is needed for split={split!r}.")
    classes = found["classes"].tolist() if "classes" in found else []
    return Images(
        image=found[wanted[0]],
        label=found.get(wanted[1]),
        classes=tuple(str(name) for name in classes),
    )


def read_idx(source: Path, split: str) -> Images:
    """Read MNIST's own format, compressed or not (http://yann.lecun.com/exdb/mnist)."""
    images, labels = (
        _idx(_first(source, f"{_IDX[split]}-{what}-idx{axes}-ubyte"), axes)
        for what, axes in (("images", 3), ("labels", 1))
    )
    return Images(image=images, label=labels, classes=tuple("0123456789"))


def _idx(path: Path, axes: int) -> np.ndarray:
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path} is a damaged gzip file: {error}.") from error
    begin = 4 + 4 * axes
    magic = 0x0800 + axes  # 08: unsigned bytes
    if len(content) < begin or int.from_bytes(content[:4], "big") != magic:
        raise InputError(
            f"{path} begins with {content[:4].hex()}; an IDX file of {axes} dimensions of bytes "
            f"begins with {magic:08x}."
        )
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", axes, 4))
    if len(content) - begin != math.prod(shape):
        raise InputError(
            f"{path} holds {len(content) - begin} bytes of data; its header says "
            f"{shape}, {math.prod(shape)} bytes. It was cut short, or is another file."
        )
    return np.frombuffer(content, np.uint8, offset=begin).reshape(shape)


def read_cifar(source: Path, split: str) -> Images:
    """Read CIFAR-10's Python version, channels last (https://www.cs.toronto.edu/~kriz/cifar.html)."""
    batches = [_batch(_first(source, name)) for name in _CIFAR[split]]
    meta = source / "batches.meta"
    names = (
        _entry(pickles.load(meta.read_bytes(), name=str(meta)), "label_names")
        if meta.exists()
        else None
    )
    return Images(
        image=np.concatenate([image for image, _ in batches]),
        label=np.concatenate([label for _, label in batches]),
        classes=tuple(n.decode() if isinstance(n, bytes) else str(n) for n in names or ()),
    )


def _batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    batch = pickles.load(path.read_bytes(), name=str(path))
    data, labels = _entry(batch, "data"), _entry(batch, "labels")
    if not (
        isinstance(data, np.ndarray)
        and data.dtype == np.uint8
        and data.ndim == 2
        and data.shape[1] == 3 * 32 * 32
        and isinstance(labels, list)
        and all(isinstance(label, int) and 0 <= label < 256 for label in labels)
    ):
        raise InputError(
            f"{path} is not a CIFAR-10 batch: a dict with data, a uint8 array (n, 3072), and "
            "labels, a list of n integers, is expected."
        )
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.array(labels, np.uint8)


def _entry(mapping: Any, key: str) -> Any:
    if not isinstance(mapping, dict):
        return None
    return mapping.get(key.encode(), mapping.get(key))


def _first(source: Path, name: str) -> Path:
    for path in (source / name, source / f"{name}.gz"):
        if path.exists():
            return path
    raise InputNotFoundError(
        f"{source} holds no {name}. Download the whole dataset, or choose another split."
    )
