"""Models of a few NumPy lines: workers that never import torch start in a fraction of the time."""

import gc
import os
import sys
import time
from collections.abc import Callable

import numpy as np


def linear(rows: np.ndarray) -> np.ndarray:
    """(M, *feature) -> (M, 3): smooth, and different for every row."""
    flat = rows.reshape(len(rows), -1).astype(np.float32)
    weights = np.cos(np.arange(flat.shape[1] * 3, dtype=np.float32)).reshape(-1, 3)
    return flat @ weights


def slow_linear(rows: np.ndarray) -> np.ndarray:
    """The same, 20 ms a micro-batch."""
    time.sleep(0.02)
    return linear(rows)


def bent(rows: np.ndarray) -> np.ndarray:
    """Not linear, so that no interpolation hits it by luck; unevenly slow, so that shares return
    in another order each time."""
    out = np.tanh(linear(rows)) + linear(rows) ** 2
    time.sleep(0.001 + 0.02 * float(np.abs(np.sin(out.sum() * 1e3))))
    return out


def count_large(rows: np.ndarray) -> np.ndarray:
    """Integers in, integers out: (M, n) -> (M, 1)."""
    return (rows > 4).sum(axis=1, keepdims=True)


def double(rows: np.ndarray) -> np.ndarray:
    """A preprocess function."""
    return rows * 2


def make_double() -> Callable[[np.ndarray], np.ndarray]:
    """A factory of the same, as a model: rows keep their shape."""
    return double


def raises_on_large(rows: np.ndarray) -> np.ndarray:
    """Cannot take a batch that holds a value above 1000."""
    if (rows > 1000).any():
        raise ValueError("a value above 1000")
    return linear(rows)


def raises_on_mark(rows: np.ndarray) -> np.ndarray:
    """Cannot take a value of 5000, as only a row itself has, and no mixture of rows."""
    if (rows == 5000).any():
        raise ValueError("a value of 5000")
    return slow_linear(rows)


def rotated(rows: np.ndarray) -> np.ndarray:
    """(M, *feature) -> (M, 3) complex, with more in its imaginary part than in its real one."""
    return linear(rows) * np.complex64(0.1 + 2j)


def type_names(rows: np.ndarray) -> np.ndarray:
    """(M, *feature) -> (M, 1): NumPy's number of the rows' dtype."""
    return np.full((len(rows), 1), rows.dtype.num)


def same(rows: np.ndarray) -> np.ndarray:
    """The rows."""
    return rows


def exits_on_large(rows: np.ndarray) -> np.ndarray:
    """Ends its process, in two ways, at a value above 1000."""
    if (rows > 2000).any():
        sys.exit(0)
    if (rows > 1000).any():
        raise KeyboardInterrupt
    return linear(rows)


def large_raises() -> Callable[[np.ndarray], np.ndarray]:
    """The same, as a factory."""
    return raises_on_large


def very_slow_linear(rows: np.ndarray) -> np.ndarray:
    """`linear`, 150 ms a micro-batch."""
    time.sleep(0.15)
    return linear(rows)


def counted(rows: np.ndarray) -> np.ndarray:
    """`slow_linear`, and a line for every micro-batch in the file that COUNTED names."""
    if path := os.environ.get("COUNTED"):
        with open(path, "a") as file:
            file.write(f"{float(rows.ravel()[0])!r}\n")
    return slow_linear(rows)


def make_very_slow() -> Callable[[np.ndarray], np.ndarray]:
    """A factory, for the command line."""
    return very_slow_linear


def rooted(rows: np.ndarray) -> np.ndarray:
    """`linear`, but NaN in the first output of a row whose first value is far below zero."""
    out = linear(rows)
    first = rows.reshape(len(rows), -1)[:, 0]
    out[first < -50, 0] = np.nan
    return out


#: (10, 16): where the classes of `classify` lie.
CENTRES = 3 * np.random.default_rng(1).normal(size=(10, 16)).astype(np.float32)


def classify(rows: np.ndarray) -> np.ndarray:
    """(M, *feature of 16) -> (M, 10): logits, the higher the nearer to a class's centre; unevenly
    slow."""
    flat = rows.reshape(len(rows), 1, 16)
    out = -np.sqrt(np.square(flat - CENTRES).sum(axis=2))
    time.sleep(0.001 + 0.02 * float(np.abs(np.sin(out.sum() * 1e3))))
    return out


def squared(rows: np.ndarray) -> np.ndarray:
    """(M, n) -> (M, n, 1): no classes."""
    return rows[..., None] ** 2


def one_second_linear(rows: np.ndarray) -> np.ndarray:
    """`linear`, 1 s a micro-batch."""
    time.sleep(1)
    return linear(rows)


def make_one_second() -> Callable[[np.ndarray], np.ndarray]:
    """A factory, for the command line."""
    return one_second_linear


class Cyclic:
    """`linear` as an object that only Python's garbage collector can free. Its first output is
    whether what was there before the run is kept out of collections."""

    def __init__(self) -> None:
        self.me = self

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """(M, *feature) -> (M, 3)"""
        out = linear(rows)
        out[:, 0] = gc.get_freeze_count() > 0
        return out


def cyclic() -> Cyclic:
    """A factory."""
    return Cyclic()


def tripled(rows: np.ndarray) -> np.ndarray:
    """Three times each number: exact, whatever the batch."""
    return 3 * rows


def embedding():  # type: ignore[no-untyped-def]
    """A network of token ids."""
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Embedding(300, 4), torch.nn.Flatten())


def float_network():  # type: ignore[no-untyped-def]
    """A network of four measurements."""
    import torch

    torch.manual_seed(0)
    return torch.nn.Linear(4, 3)


def swallows_nan(rows: np.ndarray) -> np.ndarray:
    """Zero where others would give NaN."""
    return linear(np.nan_to_num(rows))


def first_of_two() -> Callable[..., np.ndarray]:
    """A factory of a model of two inputs."""

    def first(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return u + 0 * v

    return first
