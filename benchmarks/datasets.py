"""Data sets of the benchmarks, and reference networks for them: found, or trained and kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from approxifer.benchmarks.recording import Forward
from approxifer.errors import ConfigError
from approxifer.models import run_rows
from approxifer.models.samples import Split, digits_split, era5_split, npz_split
from approxifer.pipeline.worker import Run

MICRO_BATCH = 64
#: Data sets by name, and the file of each in the folder of data; digits come with scikit-learn.
FILES = {
    "digits": None,
    "MNIST": "mnist.npz",
    "Fashion-MNIST": "fashion.npz",
    "CIFAR-10": "cifar10.npz",
    "ERA5": "era5_uk_t2m.zarr",
}


def forward(run: Run) -> Forward:
    """Run a model at the benchmarks' micro-batch."""
    return partial(run_rows, run, micro_batch=MICRO_BATCH)


def split_of(data: str) -> Split:
    """Read a data set."""
    if data == "digits":
        return digits_split()
    return era5_split(data) if data.endswith(".zarr") else npz_split(data)


@contextmanager
def kept_beside(out: str | None) -> Iterator[Path]:
    """The folder where models are kept: beside the results, or nowhere."""
    if out is not None:
        yield Path(out).parent / "models"
        return
    with TemporaryDirectory(prefix="approxifer-bench-") as name:
        yield Path(name)


def trained(network: str, data: str, kept: Path, *, epochs: int | None, seed: int) -> Path:
    """A reference network: the one that is kept, trained first if it is not there."""
    named = "" if epochs is None else f"-{epochs}-epochs"
    path = kept / f"{network}-{Path(data).stem}{named}-{seed}.pt2"
    if not path.exists():
        from approxifer.models.train import main as train

        kept.mkdir(parents=True, exist_ok=True)
        print(f"training {network} on {data}; it is kept in {path}", flush=True)
        options = [] if epochs is None else ["--epochs", str(epochs)]
        if train([network, data, "--out", str(path), "--seed", str(seed), *options]):
            raise ConfigError(f"no {network} could be trained on {data}; give a model")
    return path
