"""Number of queries in a window and in a block, with regard to the chunks of the input.

A window is the unit of commit, so it is whole chunks of the output; and it begins where a chunk of
the input begins when that is possible, so that no chunk of the input is read twice.
"""

from __future__ import annotations

import math

import numpy as np


def window_rows(rows: int, *, input_chunk: int, output_chunk: int, want: int) -> int:
    """Pick the length of a window.

    Parameters
    ----------
    rows
        Rows of the dataset.
    input_chunk, output_chunk
        Rows per chunk along the sample dimension.
    want
        Rows that a window should hold at most (what the memory allows).

    Returns
    -------
    int
        A multiple of ``output_chunk``, at least one: the whole dataset when ``want`` holds it; else
        the largest multiple of ``input_chunk`` too within ``want``; else, where no multiple of
        both is that small, the largest multiple of ``output_chunk`` alone. Only where one chunk of
        the output is larger than ``want`` does it hold more than ``want`` rows.

    Raises
    ------
    ValueError
        A length below 1.
    """
    for name, value in (
        ("rows", rows),
        ("input_chunk", input_chunk),
        ("output_chunk", output_chunk),
        ("want", want),
    ):
        if value < 1:
            raise ValueError(f"{name} is {value}; give a length of at least 1.")
    whole = math.ceil(rows / output_chunk) * output_chunk
    if rows <= want:
        return whole
    aligned = math.lcm(input_chunk, output_chunk)
    step = aligned if aligned <= want else output_chunk
    return min(whole, max(want // step, 1) * step)


def aligned_block(most: int, chunk: int, batch: int, *, longest: int | None = None) -> int:
    """The rows of a block that reads few chunks in part: whole chunks, or an equal part of one.

    Parameters
    ----------
    most
        Rows that it should have at most.
    chunk
        Rows of one chunk of the input.
    batch
        Rows of a micro-batch, which is filled up at the end of each block.
    longest
        Rows that it may have to hold one whole chunk.
    """
    if chunk <= most:
        counts = np.arange(max(1, most // chunk // 2), most // chunk + 1)[::-1]
        blocks = counts * chunk
        run = np.ceil(blocks / batch) * batch / blocks
        return int(blocks[np.argmin(run)])
    if chunk <= (longest or most):
        return chunk
    return math.ceil(chunk / math.ceil(chunk / most))
