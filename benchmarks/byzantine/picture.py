"""The benchmark ``byzantine`` in one picture: shares until conviction, wrong rows, evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from approxifer.benchmarks.common import save_picture

#: Okabe and Ito's colours, markers.
OURS, CAUTIOUS = ("#0072B2", "o"), ("#56B4E9", "D")
RIVALS = (("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "v"))


def draw(results: Mapping[str, Any], target: Path) -> None:
    """Draw the section ``faults``, a line of three panels for each data set.

    Parameters
    ----------
    results
        As the benchmark writes them. Without that section nothing is drawn.
    target : Path
        A PNG file.
    """
    found = results.get("faults", [])
    if not found:
        return
    figure = Figure(figsize=(15, 0.6 + 4.9 * len(found)), layout="constrained")
    lines = figure.subplots(len(found), 3, squeeze=False, width_ratios=(3, 3, 2))
    for axes, one in zip(lines, found, strict=True):
        _speed(axes[0], one)
        _wrong(axes[1], one)
        _price(axes[2], one)
    save_picture(figure, target)


def _speed(axes: Axes, found: Mapping[str, Any]) -> None:
    """Shares until conviction: the median, and a line to the most."""
    ends = [
        fault[way]["shares"]["max"]
        for fault in found["faults"]
        for way in ("broken", "cautious")
        if fault[way]["shares"] is not None
    ]
    last = 1.5 * max(ends, default=1)
    for way, label, (colour, marker), shift in (
        ("broken", "faulty in checks too", OURS, -0.12),
        ("cautious", "honest where it checks others", CAUTIOUS, 0.12),
    ):
        places, medians, most, missed = [], [], [], []
        for place, fault in enumerate(found["faults"]):
            if fault[way]["convicted"] < fault[way]["corrupted_runs"]:
                missed.append(place + shift)
                continue
            places.append(place + shift)
            medians.append(fault[way]["shares"]["median"])
            most.append(fault[way]["shares"]["max"])
        if missed:
            label = f"{label} (hollow: not in all runs)"
            at = [last] * len(missed)
            axes.plot(at, missed, marker, markeredgecolor=colour, markerfacecolor="none")
        axes.hlines(places, medians, most, color=colour, linewidth=1.2)
        axes.plot(medians, places, marker, color=colour, label=label, markersize=5)
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(-0.1, 1.2 * last)
    ticks = [t for t in (0, 1, 2, 5, 10, 20, 50, 100) if t <= last]
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.set_xlabel("shares that it returned before its conviction (median, most)")
    axes.set_title(f"{found['dataset']}: one of 12 workers is faulty", loc="left", fontsize=10)
    _faults(axes, found, names=True)


def _wrong(axes: Axes, found: Mapping[str, Any]) -> None:
    """Rows left wrong, in per cent. Of the published scheme all are, more or less."""
    rows = found["rows"]
    classes = found["uncoded_accuracy"] is not None
    values: list[tuple[str, list[float], tuple[str, str]]] = [
        ("ours, worst run", [fault["cautious"]["wrong_rows"] for fault in found["faults"]], OURS)
    ]
    for scheme, style in zip(found["faults"][0]["rivals"], RIVALS, strict=True):
        of = [fault["rivals"][scheme] for fault in found["faults"]]
        if scheme == "published" and classes:
            label, left = f"{scheme}: class changed", [one["changed_rows"] for one in of]
        else:
            label, left = scheme, [one["wrong_rows"] for one in of]
        values.append((label, left, style))
    for number, (label, left, (colour, marker)) in enumerate(values):
        places = np.arange(len(left)) + 0.18 * (number - 1.5)
        shares = 100 * np.array(left) / rows
        axes.plot(shares, places, marker, color=colour, label=label, markersize=5)
    axes.set_xscale("symlog", linthresh=0.01)
    axes.set_xticks([0, 0.01, 0.1, 1, 10, 100], ["0", "0.01", "0.1", "1", "10", "100"])
    axes.set_xlim(-0.002, 150)
    axes.set_xlabel(f"% of {rows:,} rows left wrong")
    _faults(axes, found, names=False)


def _price(axes: Axes, found: Mapping[str, Any]) -> None:
    """Evaluations per query, over all faults."""
    schemes = list(found["faults"][0]["rivals"])
    costs = [np.mean([f["cautious"]["evaluations_per_query"]["mean"] for f in found["faults"]])]
    costs += [
        np.mean([f["rivals"][scheme]["evaluations_per_query"] for f in found["faults"]])
        for scheme in schemes
    ]
    colours = [colour for colour, _ in (OURS, *RIVALS)]
    bars = axes.barh(["ours", *schemes], [float(cost) for cost in costs], color=colours)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.invert_yaxis()
    axes.set_xlim(0, 3.6)
    axes.set_xlabel("evaluations per query")
    axes.spines[["top", "right"]].set_visible(False)


def _faults(axes: Axes, found: Mapping[str, Any], *, names: bool) -> None:
    faults: Sequence[str] = [fault["fault"] for fault in found["faults"]]
    axes.set_yticks(range(len(faults)), faults if names else [""] * len(faults))
    axes.set_ylim(len(faults) - 0.5, -0.5)
    axes.grid(axis="y", color="#EEEEEE")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, frameon=False, fontsize=8)
