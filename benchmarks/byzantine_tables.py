"""The benchmark ``byzantine`` in tables, from what it writes as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from approxifer.pipeline.report import as_text, percent, table

#: The columns of one way to find liars.
OURS = ("convicted", "groups", "honest convicted", "wrong rows", "evaluations/query")


def describe(results: Mapping[str, Any]) -> str:
    """All tables, and the time that each section took."""
    parts: list[RenderableType] = []
    for found in results.get("faults", ()):
        parts += [_faults(found, results["workers_per_run"]), _rivals(found)]
    if "workers" in results:
        parts.append(_workers(results["workers"]))
    if "clean" in results:
        parts.append(_clean(results["clean"]))
    if "escapes" in results:
        parts += _escapes(results["escapes"])
    if "published" in results:
        parts += _published(results["published"])
    spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in results["seconds"].items())
    return f"{as_text(parts, width=240)}\nmeasured in: {spent}"


def _ours(found: Mapping[str, Any], seeds: int) -> list[str]:
    groups, evaluations = found["groups"], found["evaluations_per_query"]
    return [
        f"{found['convicted']}/{seeds}",
        "-" if groups is None else f"{groups['median']:g} ({groups['max']})",
        str(found["honest_convicted"]),
        str(found["wrong_rows"]),
        f"{evaluations['mean']:.3f} ({evaluations['max']:.3f})",
    ]


def _faults(found: Mapping[str, Any], workers: int) -> RenderableType:
    made = table(
        f"{found['dataset']}: one of {workers} workers lies in every share; {found['rows']:,} "
        f"rows, K={found['k']}, N={found['n']}, {found['order']} order, {found['groups']} groups "
        f"in blocks of {found['block']}, {100 * found['audit']:g} % audited, {found['seeds']} "
        "runs: groups median (most), wrong rows of the worst run, evaluations mean (most)",
        "fault", *OURS, "by suspicion alone: convicted", "groups", "wrong rows",
    )  # fmt: skip
    for one in found["faults"]:
        alone = _ours(one["suspicion"], found["seeds"])
        made.add_row(one["fault"], *_ours(one["ours"], found["seeds"]), *alone[:2], alone[3])
    return made


def _rivals(found: Mapping[str, Any]) -> RenderableType:
    """Of the published scheme, which is not exact, also how wrong its rows are."""
    published, *exact = found["faults"][0]["rivals"]
    classes = found["uncoded_accuracy"] is not None
    accuracy = f", uncoded accuracy {found['uncoded_accuracy']:.4f}" if classes else ""
    made = table(
        f"{found['dataset']}: rows left wrong by others, of {found['rows']:,}{accuracy}; mean of "
        f"{found['rival_seeds']} runs (the stuck weight matters to {100 * found['stuck_rows']:.0f} "
        "% of rows)",
        "fault", f"{published}: wrong",
        *(("class changed", "accuracy") if classes else ("relative error",)),
        *(f"{scheme}: wrong" for scheme in exact), "evaluations/query",
    )  # fmt: skip
    for one in found["faults"]:
        rivals = one["rivals"]
        first = rivals[published]
        made.add_row(
            one["fault"],
            f"{first['wrong_rows']:,.0f}",
            *(
                (f"{first['changed_rows']:.0f}", f"{first['accuracy']:.4f}")
                if classes
                else (f"{first['error']:.2g}",)
            ),
            *(f"{rivals[scheme]['wrong_rows']:.1f}" for scheme in exact),
            " / ".join(f"{rival['evaluations_per_query']:.2f}" for rival in rivals.values()),
        )
    return made


def _workers(found: Mapping[str, Any]) -> RenderableType:
    made = table(
        f"Real workers: {found['rows']:,} MNIST rows, {found['seeds']} runs of each fault",
        "fault", *OURS, "s a run",
    )  # fmt: skip
    for one in found["faults"]:
        made.add_row(one["fault"], *_ours(one, found["seeds"]), f"{one['seconds']:.1f}")
    return made


def _clean(found: Sequence[Mapping[str, Any]]) -> RenderableType:
    made = table(
        "Nobody lies, each run on other rows: found (one-sided 99 % limit of the stated rate)",
        "data", "runs", "convictions", "groups", "with a suspect", "watches begun", "wrong rows",
        "evaluations/query",
    )  # fmt: skip
    for one in found:
        made.add_row(
            one["dataset"],
            str(one["runs"]),
            str(one["convictions"]),
            f"{one['groups']:,}",
            f"{one['suspect_groups']} ({one['suspect_limit']})",
            f"{one['watches']} ({one['watch_limit']})",
            str(one["wrong_rows"]),
            f"{one['evaluations_per_query']:.3f}",
        )
    return made


def _escapes(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    runs = found["runs"]
    title = (
        f"{found['dataset']}, {found['rows']:,} rows: a worker lies now and then; {runs} runs of "
        "each line"
    )
    alone = table(
        f"{title}; random audits alone, m shares being corrupted if nobody looks",
        "lies in", "audited", "mean m", "(1-a)^m", "escaped", "95 % interval", "holds",
        "wrong rows: mean", "most", "if convicted",
    )  # fmt: skip
    everything = table(
        f"{title}; everything on that finds liars",
        "lies in", "audited", "lie", "escaped", "wrong rows: mean", "most", "if convicted",
        "lies beyond its bound", "honest convicted", "evaluations/query",
    )  # fmt: skip
    for one in found["cells"]:
        cell, by_lie = one["alone"], one["everything"]
        where = f"{100 * one['fraction']:g} %", f"{100 * one['audit']:g} %"
        low, high = one["interval"]
        alone.add_row(
            *where,
            f"{one['corrupted']:.2f}",
            f"{one['expected']:.3f}",
            f"{cell['escaped'] / runs:.3f}",
            f"{low:.3f}-{high:.3f}",
            "yes" if one["holds"] else "NO",
            *_left(cell),
        )
        for lie, cell in by_lie.items():
            everything.add_row(
                *where,
                lie,
                f"{cell['escaped'] / runs:.3f}",
                *_left(cell),
                f"{percent(round(cell['beyond_bound'] * runs), runs)} %",
                str(cell["honest_convicted"]),
                f"{cell['evaluations_per_query']:.3f}",
            )
    yield alone
    yield everything


def _left(cell: Mapping[str, Any]) -> list[str]:
    """Wrong rows."""
    return [
        f"{cell['wrong_rows_mean']:.2f}",
        str(cell["wrong_rows_max"]),
        str(cell["wrong_rows_if_convicted"]),
    ]


def _published(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """One table for each code."""
    title = f"{found['rows']:,} MNIST rows in random order, K={found['k']}: accuracy; uncoded "
    for scheme in ("berrut", "systematic"):
        settings = [one for one in found["settings"] if one["scheme"] == scheme]
        honest, wrong = settings[0]["honest"], settings[0]["wrong"][0]
        columns = [name for name in wrong if name != "sigma"]
        made = table(
            f"{scheme}: {title}{found['uncoded_accuracy']:.4f}",
            "E", "N", "sigma", "authors", *honest, *columns,
        )  # fmt: skip
        for one in settings:
            for fault in one["wrong"]:
                made.add_row(
                    str(one["byzantine"]),
                    str(one["n"]),
                    f"{fault['sigma']:g}",
                    "" if one["authors"] is None else f"{one['authors']:.2f}",
                    *(f"{value:.4f}" for value in one["honest"].values()),
                    *(f"{fault[name]:.4f}" for name in columns),
                )
        yield made
