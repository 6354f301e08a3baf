"""The probe: does a row's output depend on nothing but that row?

Coding, repairs and checks all run a row again among other rows. A model that normalises over its
batch, or draws random numbers, gives another answer each time, and every check would be void.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from approxifer.checks import array, instance, whole_number
from approxifer.errors import ConfigError, ModelError
from approxifer.models.cache import ensure
from approxifer.models.handle import ModelHandle
from approxifer.models.names import first_line
from approxifer.models.rows import MOST_ROWS, run_rows
from approxifer.models.runner import Runner
from approxifer.packing import Packing

#: Largest difference allowed between two arrangements, as a fraction of the outputs' scale.
TOLERANCE = 1e-4
#: Between two runs of one arrangement: a kernel's own noise, far below any dropout.
REPEAT_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Probe:
    """Findings on sample rows.

    Attributes
    ----------
    packing : Packing
        Of the outputs: their names, the shape of one row, dtypes.
    outputs : ndarray
        Of the sample rows, packed.
    rows_per_second : float
        On a warm model in this process, at `micro_batch`.
    micro_batch : int
    bitwise : bool
        Both arrangements gave every row the same bits. Small micro-batches that are no multiple of
        8 often miss that: some kernels treat the odd rows of a batch in another way.
    """

    packing: Packing
    outputs: np.ndarray[Any, Any] = field(repr=False)
    rows_per_second: float
    micro_batch: int
    bitwise: bool

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape in which one row's outputs travel."""
        return self.packing.shape

    @property
    def output_dtype(self) -> np.dtype[Any]:
        """The dtype in which they travel."""
        return self.packing.dtype


def probe(
    model: ModelHandle | Runner,
    rows: np.ndarray[Any, Any],
    micro_batch: int,
    *,
    threads: int = 1,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> Probe:
    """Run 2M sample rows in two arrangements at batch M, the first of them twice.

    Parameters
    ----------
    model : ModelHandle or Runner
        A handle is loaded through the process's cache.
    rows : ndarray, (n, *feature)
        Sample rows as the model takes them; at most 2M are used. Fewer are tiled, floating copies
        scaled down a little so that they differ.
    micro_batch : int
        M.
    threads : int
        torch threads, if a handle is given.
    seed : int
        Of the second arrangement.
    clock : callable
        Seconds.

    Raises
    ------
    ModelError
        A row's output depends on its batch-mates or on chance, the first dimension of the output
        is not the batch, or the model raised on the sample rows.
    ConfigError
        No rows, or another argument that is not what it should be.
    """
    instance("model", model, (ModelHandle, Runner), "what open_model returns, or a Runner")
    rows = array("rows", rows)
    micro_batch = whole_number("micro_batch", micro_batch, least=1, most=MOST_ROWS)
    seed = whole_number("seed", seed, least=0)
    if not len(rows):
        raise ConfigError(f"rows of shape {rows.shape}: the probe needs at least one row.")
    runner = ensure(model, threads) if isinstance(model, ModelHandle) else model
    sample = _tile(rows, 2 * micro_batch)
    order = np.random.default_rng(seed).permutation(len(sample))
    packing, first = _run(runner, sample, micro_batch)
    started = clock()
    _, again = _run(runner, sample, micro_batch, packing)
    seconds = clock() - started
    shuffled = np.empty_like(first)
    _, shuffled[order] = _run(runner, sample[order], micro_batch, packing)

    outputs, others, moved = (packing.unpack(one) for one in (first, again, shuffled))
    noise = max(map(_difference, outputs, others))
    if noise > REPEAT_TOLERANCE:
        raise ModelError(
            f"model {runner.name!r} gives other outputs for the same rows (differences of"
            f" {noise:.1e} of their scale): it draws random numbers. Likely dropout that does not"
            " heed eval(), or a program exported in training mode. Call module.eval() before"
            " torch.export, and F.dropout(x, training=self.training) in the code."
        )
    for output, other in zip(outputs, moved, strict=True):
        change = _difference(output, other)
        if change <= _allowed(TOLERANCE, output.dtype, runner.dtype):
            continue
        raise ModelError(
            f"model {runner.name!r} gives a row another output among other rows (differences of"
            f" {change:.1e} of their scale; allowed are {TOLERANCE:.0e}). Likely BatchNorm in"
            " training mode or without running statistics, or an operation over the batch"
            " dimension. Call module.eval() before torch.export, or score with a model whose rows"
            " are independent."
        )
    return Probe(
        packing=packing,
        outputs=first,
        rows_per_second=len(sample) / max(seconds, 1e-9),
        micro_batch=micro_batch,
        bitwise=first.tobytes() == shuffled.tobytes(),
    )


def _run(
    runner: Runner, rows: np.ndarray[Any, Any], micro_batch: int, packing: Packing | None = None
) -> tuple[Packing, np.ndarray[Any, Any]]:
    """The outputs of rows, and how they are packed: as given, if it is."""
    seen = [] if packing is None else [packing]

    def forward(batch: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        found, outputs = runner.run(batch)
        seen.append(found)
        if found.names != seen[0].names:
            raise ModelError(
                f"model {runner.name!r} returned the outputs {', '.join(found.names)} after"
                f" {', '.join(seen[0].names)}. Every batch must have the same."
            )
        return outputs

    try:
        outputs = run_rows(forward, rows, micro_batch)
    except ModelError:
        raise
    except Exception as error:
        slope = "does not require grad" in str(error)
        raise ModelError(
            f"model {runner.name!r} raised on {rows.dtype} rows of shape {rows.shape[1:]} in"
            f" batches of {micro_batch}: {first_line(error)}. Check the rows' shape and type"
            " against what it was trained on; preprocess= can adapt them."
            f"{' One that takes gradients has to do so within torch.enable_grad().' * slope}"
        ) from error
    return seen[0], outputs


def _tile(rows: np.ndarray[Any, Any], count: int) -> np.ndarray[Any, Any]:
    """Return `count` rows; copies of floating rows shrink towards zero, by half at most."""
    copy = np.arange(count) // len(rows)
    tiled = rows[np.arange(count) % len(rows)]
    if np.issubdtype(rows.dtype, np.floating):
        factor = 1 - copy / (2 * max(1, copy[-1]))
        tiled = (tiled * factor.reshape(-1, *[1] * (rows.ndim - 1))).astype(rows.dtype)
    return tiled


def _difference(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """Return the largest difference over the largest finite value; infinite if NaNs moved."""
    a, b = a.astype(np.complex128), b.astype(np.complex128)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if bool(same.all()):
        return 0.0
    if not bool(np.isfinite(a[~same]).all() and np.isfinite(b[~same]).all()):
        return float("inf")
    scale = np.abs(a[np.isfinite(a)]).max()
    return float(np.abs(a[~same] - b[~same]).max() / max(float(scale), 1e-300))


def _allowed(tolerance: float, output: np.dtype[Any], dtype: str) -> float:
    """Widen the tolerance where 16-bit arithmetic rounds more coarsely than it."""
    half = {"bfloat16": 2.0**-8, "float16": 2.0**-11}
    coarse = max(half.get(dtype, 0.0), half.get(output.name, 0.0))
    return max(tolerance, 4 * coarse)
