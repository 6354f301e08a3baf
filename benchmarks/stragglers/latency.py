"""Latencies of groups, from the journal of a run, real or simulated. Pure.

Both latencies count from the start of the group's first share:

- *decodable*: enough shares are back for an output of every row;
- *final*: every row is exact or repaired.

Times are the scheduler's: a share starts when its worker reports it, and is back when the scheduler
knows it. What the client does then (fetching, decoding: a few ms) is not in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np

from approxifer.coding import Code, CodeSpec
from approxifer.pipeline.records import AttemptOutcome

#: Groups below which a quantile is not given: its tail would hang on a handful of them.
ENOUGH = {0.5: 20, 0.99: 2000, 0.999: 10_000}
BACK = (AttemptOutcome.USED, AttemptOutcome.SPARE)


@dataclass(frozen=True)
class Latency:
    """One group's, in seconds; infinite: never."""

    decodable: float
    final: float


def read(events: Iterable[Mapping[str, Any]]) -> list[Latency]:
    """The latencies of the coded groups of a journal of one session, in the groups' order."""
    code: Code | None = None
    coded: dict[int, tuple[float, float, float]] = {}
    repaired: dict[int, float] = {}
    for event in events:
        if event["event"] == "session":
            code = CodeSpec(**event["code"]).build()
        elif event["event"] == "group" and event["kind"] == "coded":
            assert code is not None, "a journal begins with its session"
            coded[event["group"]] = moments(code, event["attempts"])
        elif event["event"] == "group" and event["kind"] == "repair":
            back = max((a["stop"] for a in event["attempts"] if a["fate"] in BACK), default=inf)
            for number in event["of"]:
                repaired[number] = max(back, repaired.get(number, 0.0))
    found = []
    for number, (start, decodable, exact) in sorted(coded.items()):
        final = exact if exact < inf else repaired.get(number, inf)
        found.append(Latency(decodable - start, max(final, decodable) - start))
    return found


def latencies(starts: list[float], stops: list[float], k: int) -> list[Latency]:
    """Of groups of K shares in turn, given when each started and was back (infinite: never)."""
    found = []
    for first in range(0, len(starts), k):
        last = max(stops[first : first + k])
        seconds = last - min(starts[first : first + k]) if last < inf else inf
        found.append(Latency(seconds, seconds))
    return found


def moments(code: Code, attempts: Sequence[Mapping[str, Any]]) -> tuple[float, float, float]:
    """The times when a group's first share started, when the group was decodable, and when every
    block was exact by its own shares (infinite: never)."""
    start = min((a["start"] for a in attempts if a["start"] is not None), default=inf)
    present: set[int] = set()
    decodable = inf
    for attempt in sorted((a for a in attempts if a["fate"] in BACK), key=lambda a: a["stop"]):
        present.add(attempt["share"])
        if decodable == inf and code.decodable(present):
            decodable = attempt["stop"]
        if code.exact(present).all():
            return start, decodable, attempt["stop"]
    return start, decodable, inf


def summary(found: Sequence[Latency], *, finals: bool) -> dict[str, Any]:
    """Quantiles in seconds of both latencies, those that so many groups can give.

    Parameters
    ----------
    finals
        Whether rows are repaired: without, a decoded row is never exact, and there is no final
        latency.
    """
    return {
        "groups": len(found),
        "decodable": quantiles([one.decodable for one in found]),
        "final": quantiles([one.final for one in found]) if finals else None,
    }


def quantiles(values: Sequence[float]) -> dict[str, float | None]:
    """By name; None where there are too few values, or where it is infinite."""
    found: dict[str, float | None] = {}
    for quantile, least in ENOUGH.items():
        # "higher": an infinite value is not averaged away.
        value = (
            float(np.quantile(values, quantile, method="higher")) if len(values) >= least else inf
        )
        found[f"p{100 * quantile:g}"] = None if value == inf else value
    return found


def tail(values: Sequence[float], *, points: int = 60) -> list[tuple[float, float]]:
    """The distribution's tail, for a picture: (seconds, part of the groups that take longer), at
    parts that are evenly spread in logarithms down to one group; infinite values left out."""
    ranked = np.sort(values)[::-1]
    ranks = np.unique(np.geomspace(1, len(ranked), points).astype(int)) - 1
    return [(float(ranked[r]), (r + 1) / len(ranked)) for r in ranks if ranked[r] < inf]
