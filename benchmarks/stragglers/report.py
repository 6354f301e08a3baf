"""The benchmark ``stragglers`` as tables: for the terminal, and as a page in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from approxifer.benchmarks.common import machine, markdown
from approxifer.benchmarks.stragglers.picture import draw
from approxifer.benchmarks.stragglers.schedules import SCHEDULES
from approxifer.benchmarks.stragglers.setup import HUNG_GROUPS, HUNG_SLEEP, HUNG_WORKERS, SCHEMES
from approxifer.pipeline.reporting.report import as_text, table
from approxifer.text import duration

Figures = Mapping[str, Any]
#: A heading, the columns, the rows.
Sheet = tuple[str, Sequence[str], Sequence[Sequence[str]]]
QUANTILES = ("p50", "p99", "p99.9")
#: The schedule for which there are goals.
GOAL = "few"


def describe(results: Figures) -> str:
    """All tables, for the terminal."""
    parts = []
    for title, heads, rows in sheets(results):
        made = table(title, *heads)
        for row in rows:
            made.add_row(*row)
        parts.append(made)
    return f"{as_text(parts)}\nmeasured in {_spent(results)}"


def sheets(results: Figures) -> Iterator[Sheet]:
    """The tables."""
    for fault, found in results.get("groups", {}).items():
        count = max(one["groups"] for one in found.values())
        yield _latencies(f"{SCHEDULES[fault].label}: {count:,} groups, real workers", found)
    for fault, found in results.get("simulated", {}).items():
        count = max(one["groups"] for one in found.values())
        yield _latencies(f"{SCHEDULES[fault].label}: {count:,} groups, simulated", found)
    if "groups" in results and "simulated" in results:
        yield _validation(results)
    if "hung" in results:
        yield _hung(results["hung"])
    if goals := list(_goals(results)):
        yield "The goals", ("", "measured on", "goal", "is", ""), goals


def _spent(results: Figures) -> str:
    return duration(sum(results["seconds"].values()))


def _latencies(title: str, found: Figures) -> Sheet:
    live = any("agreement" in one for one in found.values())
    quantiles = [
        q for q in QUANTILES if any(one["decodable"][q] is not None for one in found.values())
    ]
    heads = [
        "",
        *(f"{what} {q}, s" for what in ("decodable", "final") for q in quantiles),
        "makespan, s",
        "evaluations/query",
        *(["agreement"] if live else []),
    ]
    rows = []
    for name, one in found.items():
        cells = [SCHEMES[name].label]
        for what in ("decodable", "final"):
            for q in quantiles:
                cells.append("not final" if one[what] is None else _seconds(one[what][q]))
        whole = one.get("whole", True)
        cells.append(f"{one['seconds']:.0f}" if whole else "did not end")
        cells.append(f"{one['evaluations_per_query']:.3f}")
        if live:
            cells.append("stand-in" if name == "parm" else f"{one['agreement']:.4f}")
        rows.append(cells)
    return title, heads, rows


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.3f}"


def _validation(results: Figures) -> Sheet:
    """Simulated figures, as multiples of the measured ones."""
    rows = []
    for fault, found in results["groups"].items():
        if SCHEDULES[fault].span is not None:  # most of a short run, and little of a long one
            continue
        for name, one in found.items():
            other = results["simulated"].get(fault, {}).get(name)
            if other is None:
                continue
            what = "final" if SCHEMES[name].finals else "decodable"
            cells = [SCHEDULES[fault].label, SCHEMES[name].label]
            for q in ("p50", "p99"):
                real, played = one[what][q], other[what][q]
                if q == "p99" and real is None:
                    cells.append("" if one["groups"] < 2000 else "never")
                else:
                    cells.append(f"{played / real:.2f}" if real and played else "")
            cells.append(f"{other['evaluations_per_query'] / one['evaluations_per_query']:.2f}")
            rows.append(cells)
    heads = ("", "", "p50", "p99", "evaluations/query")
    return "Simulated, as a multiple of measured (final; decodable where none)", heads, rows


def _hung(found: Figures) -> Sheet:
    rows = []
    for label, one in found.items():
        base = found["plain Dask, fault-free" if "Dask" in label else "fault-free"]["seconds"]
        ended = f"{one['seconds']:.1f}", f"{one['seconds'] / base:.2f}"
        never = f"did not end within {duration(one['seconds'])}", ""
        rows.append(
            [label, *(ended if one["whole"] else never), f"{one['evaluations_per_query']:.3f}"]
        )
    heads = ("", "makespan, s", "of fault-free", "evaluations/query")
    title = f"One of {HUNG_WORKERS} workers hung from the start"
    what = f"K=8, S=1, {HUNG_GROUPS:,} groups, shares of {1000 * HUNG_SLEEP:.0f} ms of sleep"
    return f"{title}: {what}", heads, rows


def _goals(results: Figures) -> Iterator[Sequence[str]]:
    """Goals, and the figures that were measured."""
    for where in ("groups", "simulated"):
        found = results.get(where, {}).get(GOAL, {})
        on = "real workers" if where == "groups" else "simulation"
        if any(name not in found or found[name]["decodable"]["p99"] is None for name in WANTED):
            continue
        p99 = {name: found[name]["decodable"]["p99"] for name in WANTED}
        exact, goals = found["exact"], []
        for name in ("none", "prompt"):
            cost = found[name]["evaluations_per_query"]
            goals += [
                (name, "decodable p99, of replication x2's", 1.2, p99[name] / p99["replication"]),
                (name, "decodable p99, of plain Dask's", 0.25, p99[name] / p99["dask"]),
                (name, "evaluations/query", 1.25, cost),
            ]
        goals += [
            ("exact", "final p99, in medians", 2.5, exact["final"]["p99"] / exact["final"]["p50"]),
            ("exact", "evaluations/query", 1.3, exact["evaluations_per_query"]),
        ]
        for name, label, goal, value in goals:
            goal_name = f"{SCHEMES[name].label}: {label}"
            yield goal_name, on, f"<= {goal:g}", f"{value:.3f}", _kept(value <= goal)
    if found := results.get("hung"):
        base = found["fault-free"]["seconds"]
        for way, goal in (('heal="restart"', 1.2), ('heal="avoid"', 1.3)):
            value = found[way]["seconds"] / base
            label = f"makespan, one worker hung, {way}"
            yield label, "real workers", f"<= {goal:g}", f"{value:.3f}", _kept(value <= goal)


WANTED = ("dask", "replication", "none", "prompt", "exact")


def _kept(kept: bool) -> str:
    return "reached" if kept else "MISSED"


# ---- Markdown -----------------------------------------------------------------------------------


def write_report(results: Figures, path: Path) -> None:
    """Write the page, and its picture beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = path.with_suffix(".png")
    draw(results, picture)
    path.write_text(page(results, name=path.stem), encoding="utf-8")
    print(f"written: {path}, {picture.name}")


def page(results: Figures, *, name: str = "stragglers") -> str:
    """The page, from the figures alone."""
    facts = results.get("machine") or machine()
    parts = [
        "# Slow and hung workers",
        "Generated by `python -m approxifer.benchmarks stragglers --report`; do not edit."
        + (" A quick run: rough figures." if results.get("quick") else ""),
        f"Measured in {_spent(results)} on {facts['cpus']} cores "
        f"({facts['processor']}), {results['workers']} workers, seed {results['seed']}. "
        f"K={results['k']}; a share is {results['block']} rows in micro-batches of "
        f"{results['micro_batch']}: {1000 * results['sleep']:.0f} ms of sleep, which carries the "
        f"slowness, and the forward passes of a LeNet-5 on {results['data']}. "
        f"`hang_after={results['hang_after']:g}`, all else as by default.",
        "*Decodable*: enough shares are back for an output of every row; *final*: every row is "
        "exact or repaired; both from the start of the group's first share, on a cluster that is "
        "kept full, so that shares wait for each other. A quantile is given from 2,000 groups on "
        "(p99), or from 10,000 (p99.9, simulated only). Whether a share is slow depends on its "
        "worker and on how many shares that worker had begun before, and on nothing that a scheme "
        "decides: every scheme meets the same history of the machines.",
        "Rivals: plain Dask is one `client.map` over the blocks of the Zarr array, on workers that "
        "Python's garbage collector stops now and then as it does anywhere. The others run "
        'in this engine: uncoded with `hedge="spark"`, replication x2, and ParM with one parity '
        "share, whose parity model is a stand-in that costs the same (agreement means nothing "
        "there). The simulation drives the engine's own ledger and policy on a virtual clock; its "
        "delays are those of the runs without faults, so that the lines with faults are its test.",
        f"![]({name}.png)",
    ]
    for title, heads, rows in sheets(results):
        parts += [f"## {title}", markdown(heads, rows)]
    if limit := _limit(results):
        parts.append(limit)
    return "\n\n".join(parts) + "\n"


def _limit(results: Figures) -> str:
    """A lower limit of the decodable p99, from simulated runs without faults."""
    found = results.get("simulated", {})
    if not {"none", GOAL} <= found.keys() or not {"dask", "none"} <= found[GOAL].keys():
        return ""
    free, dask = (found[f][n]["decodable"]["p99"] for f, n in (("none", "none"), (GOAL, "dask")))
    if free is None or dask is None:
        return ""
    return (
        'What limits the decodable p99 of `repair="none"`: the cluster is kept full, with about '
        "three shares in flight for each worker, so that a group's shares begin at different times "
        "and what waits behind a slow share is slow too. Without any fault that p99 is already "
        f"{free:.3f} s (simulated), {free / dask:.2f} of plain Dask's with slow shares."
    )
