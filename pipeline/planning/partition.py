"""Partition of a run: K, micro-batch, block, window, groups in flight. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import ceil, floor, lcm, prod
from typing import Any

import numpy as np

from approxifer.coding import CodeSpec
from approxifer.errors import ConfigError, TooFewWorkersError
from approxifer.models.batches import ANY, BatchSizes
from approxifer.pipeline.planning.windows import aligned_block, window_rows

#: Seconds that a share should take: long enough that Dask's few ms per share do not matter.
SHARE_SECONDS = 0.15
#: Rows of one forward pass, where neither the model nor a smaller block says otherwise.
MICRO_BATCH = 64
#: A micro-batch is a multiple of this: below, torch rounds a row by its place in the batch.
LANES = 8
#: Largest K chosen by itself; more queries per codeword cost accuracy and need more workers.
MOST_K = 8
#: Seconds of the whole cluster's work after which a window should be whole: what a crash may lose.
WINDOW_SECONDS = {"none": 60, "natural": 60, "random": 300, "similar": 300}
#: Groups in flight at most where none of their rows is on the client.
MOST_DESCRIBED = 10_000
#: Bytes of one chunk of the output.
CHUNK_BYTES = 2**24


@dataclass(frozen=True)
class Layout:
    """The partition of the rows; kept in the store, so that a resumed run cuts them alike."""

    window: int
    block: int
    micro_batch: int
    chunk: int  #: rows per chunk of the output
    order: str
    seed: int

    def attrs(self) -> dict[str, Any]:
        """As kept in the store."""
        return asdict(self)

    @classmethod
    def of(cls, attrs: Mapping[str, Any]) -> Layout:
        """From the store."""
        return cls(**attrs)


def conflicting(spec: CodeSpec) -> int:
    """Workers that a code needs: the size of its largest conflict set, at least one."""
    return max((len(c) for c in spec.build().conflicts), default=1)


def workers_needed(spec: CodeSpec, byzantine: int) -> int:
    """Workers that a run needs: with E Byzantine ones, these to be convicted and one more to check
    the others."""
    return conflicting(spec) + (byzantine + 1 if byzantine else 0)


def fewest_workers(spec: CodeSpec, byzantine: int) -> int:
    """Workers without which there is no output: with Byzantine ones one more to check the others.
    Where nothing but the shares that are needed is sent, S saves none."""
    spared = 0 if spec.adaptive else spec.stragglers
    return max(1, conflicting(spec) - spared) + bool(byzantine)


def choose_k(
    make: Callable[[int], CodeSpec], k: int | None, workers: int, *, byzantine: int
) -> CodeSpec:
    """The code: K as given, else the largest K <= 8 that the workers allow.

    Parameters
    ----------
    make
        The code with some K.
    k
        As given.
    workers, byzantine : int
        Workers there are, and E.

    Raises
    ------
    TooFewWorkersError
        Not even K = 1 fits.
    """
    if k is not None:
        return make(k)
    for tried in range(MOST_K, 0, -1):
        try:
            spec = make(tried)
        except ConfigError:  # more shares than a code may have
            if tried == 1:
                raise
            continue
        if workers_needed(spec, byzantine) <= workers:
            return spec
    raise TooFewWorkersError(
        f"scheme {spec.scheme!r} with stragglers={spec.stragglers} and byzantine={byzantine} needs "
        f"at least {workers_needed(spec, byzantine)} workers, there are {workers}: start more, or "
        "lower stragglers= or byzantine="
    )


def check_workers(spec: CodeSpec, workers: int, *, byzantine: int) -> None:
    """Refuse a code whose conflicting shares do not fit.

    Raises
    ------
    TooFewWorkersError
    """
    needed = workers_needed(spec, byzantine)
    if workers < needed:
        spares = f", and {needed - conflicting(spec)} to spare for E={byzantine}"
        raise TooFewWorkersError(
            f"scheme {spec.scheme!r} with K={spec.k} and S={spec.stragglers} gives each of "
            f"{conflicting(spec)} shares of a codeword to another worker"
            f"{spares if byzantine else ''}, and there are {workers} workers: start at least "
            f"{needed}, or lower k=, stragglers= or byzantine="
        )


#: Shares sent out for each worker, unless a run says otherwise.
IN_FLIGHT = 3.0


def groups_in_flight(code_n: int, workers: int, shares: float = IN_FLIGHT) -> int:
    """Groups computed at one time: about so many shares for each worker."""
    return max(floor(shares), ceil(shares * workers / code_n))


def micro_batch(block: int) -> int:
    """Rows of one forward pass for shares of ``block`` rows."""
    return min(MICRO_BATCH, ceil(block / LANES) * LANES)


@dataclass(frozen=True)
class Measures:
    """Facts that the partition follows from: sizes of input and output, the model's speed."""

    rows: int
    row_bytes: int  #: of one query as the model takes it
    stored_bytes: int  #: of one row as it lies in the input
    output_bytes: int  #: of one row of output
    input_chunk: int
    rows_per_second: float  #: of one worker
    workers: int
    whole_chunks: bool = False  #: a window is whole chunks of the input
    described: bool = False  #: workers read the rows themselves: the client holds none


def make_layout(
    spec: CodeSpec,
    measures: Measures,
    *,
    order: str,
    seed: int,
    memory: int,
    window: int | None = None,
    block: int | None = None,
    batches: BatchSizes = ANY,
) -> Layout:
    """Cut the rows.

    Parameters
    ----------
    memory
        Bytes that the rows on the front end may take: at most two windows with their outputs, and
        the shares in flight.
    window, block
        Rows, where the user sets them.
    batches
        Micro-batches that the model takes.

    Raises
    ------
    ConfigError
        Not even the smallest window fits into ``memory``, or lengths that make no sense.
    """
    n = spec.n
    flight = groups_in_flight(n, measures.workers)
    for name, value in (("window", window), ("block", block)):
        if value is not None and value < 1:
            raise ConfigError(f"{name}={value}: give a number of rows, at least 1")
    least = measures.input_chunk if measures.whole_chunks else 1
    if window is not None and window < least:
        raise ConfigError(
            f"window={window}: along several dimensions, and of tiles, whole chunks are committed "
            f"together, {least:,} rows each; give at least that"
        )

    batch = batches.fit(MICRO_BATCH)
    sized = block
    if sized is None:
        fastest = max(1, round(SHARE_SECONDS * measures.rows_per_second))
        sized = fastest if fastest < batch else fastest // batch * batch
        if measures.described:
            sized = aligned_block(sized, measures.input_chunk, batch, longest=2 * sized)

    def shares_bytes(rows: int) -> int:
        return (flight + 1) * group_bytes(spec, rows, measures)

    per_row = window_bytes(1, measures)
    most = (memory - shares_bytes(sized)) // per_row
    if block is None:
        while sized > 1 and most < spec.k * sized * max(4, flight):
            sized = max(1, sized // 2)
            most = (memory - shares_bytes(sized)) // per_row
    if most < least or (window is not None and most < min(window, measures.rows)):
        rows = window or max(least, spec.k * sized)
        need = shares_bytes(sized) + per_row * rows
        raise ConfigError(
            f"memory={memory / 1e6:.0f} MB does not hold two windows of {rows} "
            f"rows and {flight} groups in flight, which take {need / 1e6:.0f} MB: give more "
            "memory=, or a smaller window= or block="
        )
    if window is None:
        steady = int(WINDOW_SECONDS[order] * measures.rows_per_second * measures.workers)
        want = min(most, max(steady, least, spec.k * sized * max(4, flight)))
        step = measures.input_chunk
        if measures.described and (blocks := lcm(step, spec.k * sized)) <= want:
            step = blocks
        window = window_rows(measures.rows, input_chunk=step, output_chunk=1, want=want)
    window = min(window, measures.rows)
    if block is None:
        most = max(1, min(sized, window // (spec.k * max(4, flight))))
        if measures.described and most < sized:
            longest = most + most // 4  # whole chunks are worth a little less slack
            sized = aligned_block(most, measures.input_chunk, batch, longest=longest)
        elif not measures.described:
            sized = most if most <= batch else most // batch * batch
    return Layout(
        window=window,
        block=sized,
        micro_batch=batches.fit(micro_batch(sized)),
        chunk=least if measures.whole_chunks else _chunk(window, measures.output_bytes),
        order=order,
        seed=seed,
    )


def group_bytes(spec: CodeSpec, block: int, measures: Measures) -> int:
    """Bytes of one group on the client: its blocks and its shares, unless workers read them."""
    if measures.described:
        return 0
    return (spec.n + spec.k) * block * measures.row_bytes


def window_bytes(rows: int, measures: Measures) -> int:
    """Bytes of the windows on the client: two open ones, and the rows just being read, which the
    store holds twice for a moment: as chunks, and joined."""
    if measures.described:
        return rows * 2 * measures.output_bytes
    open_rows = 2 * (measures.row_bytes + measures.output_bytes)
    return rows * (open_rows + 2 * measures.stored_bytes)


def most_in_flight(spec: CodeSpec, layout: Layout, measures: Measures, memory: int) -> int:
    """Groups that fit into memory beside the windows (however many workers may join later)."""
    if measures.described:
        return MOST_DESCRIBED
    left = memory - window_bytes(layout.window, measures)
    return max(3, left // group_bytes(spec, layout.block, measures) - 1)


def _chunk(window: int, output_bytes: int) -> int:
    """A divisor of a window that keeps a chunk of the output below CHUNK_BYTES; where the next one
    below is tiny (the window is prime, say), one above."""
    fewest = ceil(window * max(output_bytes, 1) / CHUNK_BYTES)
    counts = [*range(fewest, min(16 * fewest, window) + 1), *range(fewest - 1, 0, -1)]
    count: int = next(count for count in counts if window % count == 0)
    return window // count


def row_bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Bytes of one row."""
    return prod(shape) * dtype.itemsize
