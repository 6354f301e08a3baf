"""A picture of a session: what every worker did, and what became of it."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from approxifer.errors import ConfigError
from approxifer.pipeline.records import AttemptOutcome
from approxifer.quiet import quiet
from approxifer.text import natural, redacted, shortened

#: What is drawn, in the order of the legend: label, face, edge, hatch. Okabe and Ito's colours;
#: the darkness and the hatches tell them apart in grey too.
_STYLES: dict[str, tuple[str, str, str, str]] = {
    "used": ("used", "#0072B2", "#0072B2", ""),
    "repair": ("used, repair", "#009E73", "#004D38", "...."),
    "check": ("check", "#F0E442", "#8A7F00", ""),
    "spare": ("not needed", "#A9D6F5", "#56B4E9", ""),
    "dropped": ("dropped: straggler", "#FBE3B0", "#E69F00", "/////"),
    "lost": ("lost with its worker", "#F6C6AE", "#D55E00", "xxxxx"),
    "failed": ("model raised", "#CC79A7", "#5E2447", "|||||"),
    "unstarted": ("dropped unstarted", "#FFFFFF", "#999999", ""),
}

#: Worker events that are marked: label, marker, colour.
_MARKS: dict[str, tuple[str, str, str]] = {
    "hung": ("worker hung", "X", "#D55E00"),
    "restarting": ("worker restarting", "v", "#000000"),
    "restarted": ("worker restarted", "^", "#000000"),
    "gone": ("worker gone", "s", "#000000"),
    "convicted": ("worker convicted", "P", "#CC0000"),
}

_MANY = 1500  #: bars, beyond which gaps between them would hide them
_LONGEST = 100  #: characters of a name, or of a headline
_BAR = 0.76  #: height of a bar, where lanes are 1 apart


@dataclass
class Session:
    """The part of a journal that belongs to one session, sorted for drawing."""

    bars: dict[str, list[tuple[str, float, float]]] = field(
        default_factory=lambda: defaultdict(list)
    )  #: worker, start, stop by style
    counts: Counter[str] = field(default_factory=Counter)  #: attempts by style, drawn or not
    marks: dict[str, list[tuple[str, float]]] = field(default_factory=lambda: defaultdict(list))
    commits: list[float] = field(default_factory=list)
    workers: list[str] = field(default_factory=list)  #: in the order of the lanes
    end: float = 0.0
    headline: str = ""


def read_session(events: Iterable[Mapping[str, Any]], session: str | None = None) -> Session:
    """Pick one session, by default the last, out of a journal's events.

    Raises
    ------
    ConfigError
        No such session.
    """
    events = list(events)
    names = [event["session"] for event in events if event.get("event") == "session"]
    if not names or (session is not None and session not in names):
        raise ConfigError(
            f"the journal has no session {session or ''}; it has: {', '.join(names) or 'none'}"
        )
    chosen = session or names[-1]
    mine = [event for event in events if event.get("session") == chosen]
    found = Session()
    open_bars: list[tuple[str, str, float]] = []
    seen: set[str] = set()
    for event in mine:
        match event.get("event"):
            case "group":
                for attempt in event.get("attempts", ()):
                    _take(attempt, event.get("kind"), found, open_bars, seen)
            case "worker" if event.get("time") is not None:
                seen.add(event["worker"])
                found.end = max(found.end, event["time"])
                if event["what"] in _MARKS:
                    found.marks[event["what"]].append((event["worker"], event["time"]))
            case "window" if event.get("time") is not None:
                found.commits.append(event["time"])
                found.end = max(found.end, event["time"])
            case "close":
                found.end = max(found.end, event.get("wall_seconds") or 0.0)
    for style, worker, start in open_bars:
        found.bars[style].append((worker, start, max(found.end, start)))
    found.workers = sorted(seen, key=natural)
    found.headline = _headline(mine)
    return found


def _take(
    attempt: Mapping[str, Any],
    kind: str | None,
    found: Session,
    open_bars: list[tuple[str, str, float]],
    seen: set[str],
) -> None:
    fate, worker = attempt["fate"], attempt["worker"]
    kind = "check" if kind == "audit" else kind  # as journals had it before
    style = kind if kind in ("repair", "check") and fate == AttemptOutcome.USED else fate
    if style not in _STYLES:
        return
    seen.add(worker)
    found.counts[style] += 1
    start, stop = attempt.get("start"), attempt.get("stop")
    if start is None:
        return
    if stop is None:
        open_bars.append((style, worker, start))
    else:
        found.bars[style].append((worker, start, stop))
    found.end = max(found.end, start, stop or 0.0)


def _headline(events: Iterable[Mapping[str, Any]]) -> str:
    parts = []
    for event in events:
        if event.get("event") == "session" and event.get("rows"):
            parts.append(f"{event['rows']:,} rows")
        if event.get("event") == "close":
            counts = event.get("counts") or {}
            parts += [f"{n:,} {name}" for name, n in counts.items() if n]
            if event.get("wall_seconds"):
                parts.append(f"{event['wall_seconds']:.1f} s")
    return ", ".join(parts)


def check_suffix(path: Path) -> type[FigureCanvasAgg | FigureCanvasSVG]:
    """The canvas for a picture of that name.

    Raises
    ------
    ConfigError
        It ends neither in .png nor in .svg.
    """
    match path.suffix.lower():
        case ".png":
            return FigureCanvasAgg
        case ".svg":
            return FigureCanvasSVG
    raise ConfigError(f"timeline: {path.name!r} given; give a name that ends in .png or .svg")


def draw_timeline(
    events: Iterable[Mapping[str, Any]],
    path: str | os.PathLike[str],
    *,
    session: str | None = None,
    title: str | None = None,
) -> Path:
    """Draw one session of a journal as a picture: a lane per worker, a bar per attempt.

    Parameters
    ----------
    events : iterable of mappings
        As from ``Journal.read``; unknown events and fields are passed over.
    path : path of a .png or .svg file
    session : str, optional
        The last one by default.
    title : str, optional

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    ConfigError
        Another suffix, or no such session.
    """
    target = Path(path)
    canvas = check_suffix(target)
    found = read_session(events, session)
    lanes = {worker: row for row, worker in enumerate(found.workers)}
    height = min(20.0, 1.9 + 0.32 * max(3, len(lanes)))
    figure = Figure(figsize=(12, height), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08))
    canvas(figure)
    axes = figure.add_subplot()
    _draw_bars(axes, found, lanes)
    _draw_moments(axes, found, lanes)
    axes.set(xlim=(0, found.end * 1.01 or 1.0), ylim=(max(len(lanes), 1) - 0.4, -0.6))
    axes.set_xlabel("seconds since the session began")
    axes.set_yticks(
        range(len(lanes)),
        [_drawn(name) for name in found.workers],
        fontsize=9 if len(lanes) <= 60 else 5,
    )
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_title(_drawn(title or "What every worker did"), loc="left", fontweight="bold", pad=18)
    axes.text(
        0,
        1.0,
        _drawn(found.headline),
        transform=axes.transAxes,
        va="bottom",
        color="#555555",
        fontsize=9,
    )
    figure.legend(
        handles=_legend(found), loc="outside lower center", ncols=5, frameon=False, fontsize=9
    )
    try:
        with quiet():  # a name in letters that the font lacks
            figure.savefig(target, dpi=120)
    except OSError as error:
        raise ConfigError(f"timeline: {target} cannot be written ({error})") from error
    return target


def _drawn(text: str) -> str:
    """Text as the picture takes it: short, and no mathematics between dollar signs."""
    return shortened(redacted(text), _LONGEST).replace("$", r"\$")


def _draw_bars(axes: Axes, found: Session, lanes: Mapping[str, int]) -> None:
    many = sum(map(len, found.bars.values())) > _MANY
    for row in lanes.values():
        axes.axhspan(row - _BAR / 2, row + _BAR / 2, color="#F4F4F4", zorder=0, linewidth=0)
    for style, (_, face, edge, hatch) in _STYLES.items():
        if bars := found.bars.get(style):
            hatch = "" if many and style == "repair" else hatch
            axes.add_collection(
                PolyCollection(
                    [_corners(start, stop, lanes[worker]) for worker, start, stop in bars],
                    facecolors=face,
                    edgecolors=edge if hatch else "white",
                    linewidths=0.0 if many else 0.6,
                    hatch=hatch or None,
                    zorder=3 if hatch else 2,
                )
            )


def _corners(start: float, stop: float, row: int) -> Sequence[tuple[float, float]]:
    low, high = row - _BAR / 2, row + _BAR / 2
    return (start, low), (stop, low), (stop, high), (start, high)


def _draw_moments(axes: Axes, found: Session, lanes: Mapping[str, int]) -> None:
    for time in found.commits:
        axes.axvline(time, color="#777777", linewidth=0.7, linestyle=(0, (4, 3)), zorder=1)
    for what, marks in found.marks.items():
        _, marker, colour = _MARKS[what]
        axes.plot(
            [time for _, time in marks],
            [lanes[worker] for worker, _ in marks],
            linestyle="none",
            marker=marker,
            color=colour,
            markeredgecolor="white",
            markersize=9,
            zorder=5,
            clip_on=False,
        )


def _legend(found: Session) -> list[Patch | Line2D]:
    handles: list[Patch | Line2D] = []
    for style, (label, face, edge, hatch) in _STYLES.items():
        if count := found.counts[style]:
            text = f"{label} ({count:,})"
            if hidden := count - len(found.bars.get(style, ())):
                text += (
                    "" if style == AttemptOutcome.UNSTARTED else f", {hidden:,} of them not drawn"
                )
            handles.append(Patch(facecolor=face, edgecolor=edge, hatch=hatch or None, label=text))
    for what, (label, marker, colour) in _MARKS.items():
        if marks := found.marks.get(what):
            handles.append(
                Line2D([], [], linestyle="none", marker=marker, color=colour,
                       markeredgecolor="white", markersize=9, label=f"{label} ({len(marks)})")
            )  # fmt: skip
    if found.commits:
        handles.append(
            Line2D([], [], color="#777777", linewidth=0.7, linestyle=(0, (4, 3)),
                   label=f"window committed ({len(found.commits)})")
        )  # fmt: skip
    return handles
