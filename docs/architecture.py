"""Draw the picture of docs/architecture.md: ``python docs/architecture.py``."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

INK, BLUE, GREY, ORANGE = "#222222", "#0072B2", "#eef2f5", "#D55E00"

#: Left, bottom, width, height of each process, and its name.
PROCESSES = {
    "client (pipeline/client)": (0.15, 0.22, 0.38, 0.74),
    "scheduler (pipeline/scheduler)": (0.60, 0.66, 0.39, 0.30),
    "workers (pipeline/worker.py)": (0.60, 0.06, 0.39, 0.40),
}
#: Centre of each step, what it does, and its module.
STEPS = {
    "input": (0.065, 0.80, "Zarr input", ""),
    "output": (0.065, 0.52, "Zarr output,\njournal", ""),
    "read": (0.24, 0.80, "read a window,\norder its rows", "datasets, coding/order"),
    "encode": (0.44, 0.80, "encode K blocks\ninto N shares", "coding, dispatch"),
    "decode": (0.44, 0.52, "decode the first\nenough outputs", "collect"),
    "write": (0.24, 0.52, "commit the window:\ndata, then status", "datasets/store"),
    "check": (0.44, 0.33, "have rows checked,\njudge what differs", "checking, integrity"),
    "place": (0.69, 0.80, "place shares,\nhedge, drop", "placement, policy"),
    "record": (0.89, 0.80, "record times,\nexclude workers", "run_state, plugin"),
    "run": (0.69, 0.30, "run the model\non one share", "models"),
    "again": (0.89, 0.18, "run rows of\nanother's share", "models"),
}
#: From, to, what goes there, where that is written (as a part of the way), colour.
ARROWS = [
    ("input", "read", "", 0, BLUE), ("read", "encode", "", 0, BLUE),
    ("encode", "run", "shares", 0.4, BLUE), ("encode", "place", "keys", 0.5, INK),
    ("place", "run", "which worker", 0.35, INK), ("run", "decode", "outputs", 0.55, BLUE),
    ("decode", "write", "", 0, BLUE), ("write", "output", "", 0, BLUE),
    ("decode", "check", "", 0, ORANGE), ("check", "again", "rows", 0.35, ORANGE),
    ("check", "record", "convictions", 0.72, ORANGE),
]  # fmt: skip


def draw(path: Path) -> None:
    """Draw the data's way through the three processes."""
    figure = Figure(figsize=(11, 6.2), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    for name, (left, bottom, width, height) in PROCESSES.items():
        axes.add_patch(
            FancyBboxPatch(
                (left, bottom), width, height, boxstyle="round,pad=0.005", fc=GREY, ec=INK
            )
        )
        axes.text(left + 0.01, bottom + height - 0.005, name, va="top", weight="bold", color=INK)
    boxes = {}
    for name, (x, y, text, module) in STEPS.items():
        boxes[name] = axes.text(
            x, y, f"{text}\n({module})" if module else text, ha="center", va="center", size=9.5,
            color=INK, zorder=3, bbox={"fc": "white", "ec": INK, "boxstyle": "round,pad=0.4"},
        )  # fmt: skip
    figure.canvas.draw()
    for start, stop, label, place, colour in ARROWS:
        (x, y), (to_x, to_y) = STEPS[start][:2], STEPS[stop][:2]
        ends = {"patchA": boxes[start].get_bbox_patch(), "patchB": boxes[stop].get_bbox_patch()}
        look = {"arrowstyle": "-|>", "mutation_scale": 14, "color": colour, "lw": 1.6, "zorder": 2}
        axes.add_patch(FancyArrowPatch((x, y), (to_x, to_y), shrinkA=2, shrinkB=2, **ends, **look))
        if label:
            axes.text(
                x + place * (to_x - x), y + place * (to_y - y), label, ha="center", va="center",
                size=9, color=colour, zorder=3, bbox={"fc": "white", "ec": "none", "pad": 1},
            )  # fmt: skip
    figure.savefig(path)


if __name__ == "__main__":
    draw(Path(__file__).with_suffix(".png"))
