"""The benchmark ``stragglers`` in one picture: tails of the latencies, and makespans."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from approxifer.benchmarks.common import save_picture
from approxifer.benchmarks.stragglers.schedules import SCHEDULES
from approxifer.benchmarks.stragglers.setup import SCHEMES

#: Okabe and Ito's colours, and dashes that distinguish the lines in grey.
STYLES: Mapping[str, tuple[str, str]] = {
    "dask": ("#000000", "-"),
    "hedged": ("#E69F00", "--"),
    "replication": ("#009E73", "-."),
    "parm": ("#CC79A7", ":"),
    "none": ("#56B4E9", "-"),
    "prompt": ("#56B4E9", "--"),
    "exact": ("#0072B2", "-"),
    "none-1": ("#999999", "--"),
    "exact-1": ("#999999", "-"),
}
#: What is drawn: of repaired rows the final latency.
FINAL = ("exact", "exact-1")


def draw(results: Mapping[str, Any], target: Path) -> None:
    """Draw the tails, simulated where they are, and below them the makespans.

    Parameters
    ----------
    results
        As the benchmark writes them.
    target : Path
        A PNG file.
    """
    tails = results.get("simulated") or results.get("groups") or {}
    if not tails:
        return
    faults = list(tails)
    across = min(3, len(faults))
    lines = -(-len(faults) // across)
    figure = Figure(figsize=(5.2 * across, 4.1 * lines + 3.6), layout="constrained")
    grid = figure.add_gridspec(lines + 1, across, height_ratios=[*[1] * lines, 0.85])
    for number, fault in enumerate(faults):
        axes = figure.add_subplot(grid[number // across, number % across])
        _tail(axes, fault, tails[fault], first=number % across == 0)
    handles = [
        axes.plot([], [], color=colour, linestyle=dash, linewidth=1.8)[0]
        for name in next(iter(tails.values()))
        for colour, dash in [STYLES[name]]
    ]
    names = [_label(name) for name in next(iter(tails.values()))]
    figure.legend(handles, names, loc="outside upper center", ncols=3, frameon=False, fontsize=10)
    spans = results.get("groups") or results.get("simulated") or {}
    _makespans(figure.add_subplot(grid[lines, :]), spans, live="groups" in results)
    save_picture(figure, target)


def _label(name: str) -> str:
    return f"{SCHEMES[name].label}: {'final' if name in FINAL else 'decodable'}"


def _tail(axes: Axes, fault: str, found: Mapping[str, Any], *, first: bool) -> None:
    for name, one in found.items():
        points = one.get("final_tail") if name in FINAL else one["tail"]
        if points := points or one["tail"]:
            colour, dash = STYLES[name]
            seconds, part = zip(*points, strict=True)
            axes.plot(seconds, part, color=colour, linestyle=dash, linewidth=1.8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(top=1.0)
    axes.axhline(0.01, color="#BBBBBB", linewidth=0.8, zorder=0)
    axes.text(1.0, 0.01, "p99 ", transform=axes.get_yaxis_transform(), ha="right", va="bottom",
              fontsize=8, color="#777777")  # fmt: skip
    low, high = axes.get_xlim()
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if low <= t <= high]
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(SCHEDULES[fault].label, loc="left", fontsize=11)
    axes.set_xlabel("seconds from the start of a group's first share")
    if first:
        axes.set_ylabel("part of the groups that take longer")
    axes.grid(color="#EEEEEE")
    axes.spines[["top", "right"]].set_visible(False)


def _makespans(axes: Axes, spans: Mapping[str, Any], *, live: bool) -> None:
    """Of each scheme and schedule, per 1,000 groups, so that unequal runs can be compared."""
    names = list(next(iter(spans.values())))
    width = 0.8 / len(names)
    for number, name in enumerate(names):
        for place, found in enumerate(spans.values()):
            one = found[name]
            at = place + (number - (len(names) - 1) / 2) * width
            if not one.get("whole", True):
                axes.text(at, 2, "did not end", rotation=90, ha="center", va="bottom", fontsize=8)
                continue
            seconds = 1000 * one["seconds"] / one["groups"]
            bars = axes.bar(at, seconds, width * 0.92, color=STYLES[name][0])
            axes.bar_label(bars, fmt="%.0f", fontsize=7, padding=1)
    axes.set_xticks(range(len(spans)), [SCHEDULES[fault].label for fault in spans], fontsize=9)
    axes.tick_params(axis="x", length=0)
    where = "on real workers" if live else "simulated"
    axes.set_ylabel("seconds")
    axes.set_title(f"Makespan per 1,000 groups, {where} (colours as above)", loc="left",
                   fontsize=11)  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
