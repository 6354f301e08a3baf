"""Outputs that differ, as the journal keeps them until it is decided who is wrong."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def undecided(events: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The mismatches of a journal that no verdict followed."""
    found: dict[tuple[str, int], Mapping[str, Any]] = {}
    for event in events:
        if event.get("event") == "mismatch":
            found[event["session"], event["number"]] = event
        elif event.get("event") == "verdict":
            found.pop(tuple(event["of"]), None)
    return list(found.values())


def kept(output: np.ndarray | None) -> dict[str, Any] | None:
    """An output, for JSON, bit by bit; None: what was returned is none."""
    if output is None:
        return None
    data = base64.b64encode(np.ascontiguousarray(output).tobytes()).decode()
    return {"dtype": output.dtype.str, "shape": list(output.shape), "base64": data}


def output_of(kept: Mapping[str, Any] | None) -> np.ndarray | None:
    """The same, back from the journal."""
    if kept is None:
        return None
    raw = np.frombuffer(base64.b64decode(kept["base64"]), np.dtype(kept["dtype"]))
    return raw.reshape(kept["shape"]).copy()
