"""The way of the rows to the workers: read there, as shares describe them, or sent by the client.

Pure arithmetic on rows, blocks and chunks.
"""

from __future__ import annotations

import numpy as np

from approxifer.coding import CodeSpec, groups
from approxifer.pipeline.planning.partition import Layout
from approxifer.pipeline.queries import Recipe

#: Bytes read for each byte of the input up to which workers read: more costs them more than the
#: client's sending does.
MOST_READ = 2.0


def describable(recipe: Recipe | str, spec: CodeSpec, order: str, decoder: str) -> str:
    """The reason for which a run's shares cannot be described, whatever its blocks; "": they can.

    Parameters
    ----------
    recipe
        By which another process reads the rows, or why none can.
    spec, order, decoder
        The run's.
    """
    if isinstance(recipe, str):
        return recipe
    if order != "none":
        return f"order {order!r} takes the rows of a share from all over a window"
    if not spec.build().describable:
        return f"scheme {spec.scheme!r} mixes each share of all K blocks"
    if decoder == "fitted":
        return "the fitted decoder learns from rows on the client"
    return ""


def bytes_read(layout: Layout, k: int, rows: int, chunk: int) -> float:
    """Bytes that the data shares read for each byte of the input, in its first window."""
    window = min(layout.window, rows)
    read = 0
    for group in groups(window, k, layout.block):
        members = group.stop - group.start
        lengths = np.array([len(range(j, members, k)) for j in range(k)])
        stops = group.start + np.cumsum(lengths)
        starts = stops - lengths
        ends = np.minimum(np.ceil(stops / chunk) * chunk, rows)
        read += int((ends - starts // chunk * chunk)[lengths > 0].sum())
    return read / window
