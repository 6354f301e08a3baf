"""The benchmark ``byzantine`` in tables, from what it writes as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from approxifer.pipeline.reporting.report import as_text, percent, table

#: The columns of one kind of faulty worker.
OURS = ("convicted", "shares", "wrong rows", "evaluations/query")

#: Those that compare it with the probability to escape.
AGREEMENT = ("escapes", "expected", "95 % interval", "holds")


def describe(results: Mapping[str, Any]) -> str:
    """All tables, and the time that each section took."""
    parts: list[RenderableType] = []
    for found in results.get("faults", ()):
        parts += [_faults(found, results["workers_per_run"]), _sparse(found), _rivals(found)]
    parts += [_workers(found) for found in results.get("workers", ())]
    if "clean" in results:
        parts.append(_clean(results["clean"]))
    if "escapes" in results:
        parts.append(_escapes(results["escapes"]))
    if "published" in results:
        parts.append(_published(results["published"]))
    spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in results["seconds"].items())
    return f"{as_text(parts, width=240)}\nmeasured in: {spent}"


def _ours(found: Mapping[str, Any], runs: int) -> list[str]:
    """Of so many runs with corrupted shares."""
    shares, evaluations = found["shares"], found["evaluations_per_query"]
    honest = found["honest_convicted"]
    return [
        f"{found['convicted']}/{runs}" + (f" and {honest} honest" if honest else ""),
        "-" if shares is None else f"{shares['median']:g} ({shares['max']})",
        str(found["wrong_rows"]),
        f"{evaluations['mean']:.4f} ({evaluations['max']:.4f})",
    ]


def _faults(found: Mapping[str, Any], workers: int) -> RenderableType:
    made = table(
        f"{found['dataset']}: one of {workers} workers is faulty in every share; {found['rows']:,} "
        f"rows, K=N={found['k']}, {found['groups']} groups in blocks of {found['block']}, "
        f"{found['check']} rows of each share checked, {found['seeds']} runs: shares that it "
        "returned before its conviction, median (most); wrong rows of the worst run; evaluations, "
        f"mean (most), {found['clean_evaluations_per_query']:.4f} without faults",
        "fault", "rows wrong in a share",
        "faulty in checks too: convicted", *OURS[1:], "rows above",
        "honest where it checks: convicted", *OURS[1:], "rows above",
    )  # fmt: skip
    for one in found["faults"]:
        wrong = one["wrong_of_a_share"]
        made.add_row(
            one["fault"],
            "-" if wrong is None else f"{100 * wrong['min']:.0f} % ({100 * wrong['mean']:.0f} %)",
            *_ours(one["broken"], one["broken"]["corrupted_runs"]),
            _above(one, one["broken"]),
            *_ours(one["cautious"], one["cautious"]["corrupted_runs"]),
            _above(one, one["cautious"]),
        )
    return made


def _above(fault: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Evaluations beyond what the shares returned account for, of faults that no check misses."""
    return f"{found['rows_above']:+d}" if fault["throughout"] else ""


def _sparse(found: Mapping[str, Any]) -> RenderableType:
    made = table(
        f"{found['dataset']}: faults that a check may miss, of workers that are honest where "
        "they check others",
        "fault", *AGREEMENT, "wrong rows: mean", "expected",
    )  # fmt: skip
    for one in found["faults"]:
        if not one["throughout"]:
            made.add_row(
                one["fault"],
                *_agreement(one["formula"], found["seeds"]),
                *_left(one["formula"]),
            )
    return made


def _agreement(found: Mapping[str, Any], runs: int) -> list[str]:
    low, high = found["interval"]
    return [
        f"{found['escaped'] / runs:.3f}",
        f"{found['expected']:.3f}",
        f"{low:.3f}-{high:.3f}",
        "yes" if found["holds"] and found["wrong_rows_exact"] else "NO",
    ]


def _left(found: Mapping[str, Any]) -> list[str]:
    return [f"{found[name]:.2f}" for name in ("wrong_rows", "wrong_rows_expected")]


def _rivals(found: Mapping[str, Any]) -> RenderableType:
    """Of the published scheme, which is not exact, also how wrong its rows are."""
    published, *exact = found["faults"][0]["rivals"]
    classes = found["uncoded_accuracy"] is not None
    accuracy = f", uncoded accuracy {found['uncoded_accuracy']:.4f}" if classes else ""
    made = table(
        f"{found['dataset']}: rows left wrong by others, of {found['rows']:,}{accuracy}; mean of "
        f"{found['rival_seeds']} runs",
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
        f"Real workers: {found['rows']:,} {found['dataset']} rows, blocks of {found['block']}",
        "fault", *OURS, "s a run",
    )  # fmt: skip
    for one in found["faults"]:
        made.add_row(one["fault"], *_ours(one, one["runs"]), f"{one['seconds']:.1f}")
    return made


def _clean(found: Sequence[Mapping[str, Any]]) -> RenderableType:
    made = table(
        "No faulty worker, each run on other rows",
        "data", "rows", "block", "runs", "convictions", "wrong rows", "checks",
        "evaluations/query", "workers' time for checks",
    )  # fmt: skip
    for one in found:
        made.add_row(
            one["dataset"],
            f"{one['rows']:,}",
            f"{one['block']:,}",
            str(one["runs"]),
            str(one["convictions"]),
            str(one["wrong_rows"]),
            f"{one['checks']:,.0f}",
            f"{one['evaluations_per_query']:.4f}",
            f"{100 * one['checking_time']:.1f} %",
        )
    return made


def _escapes(found: Mapping[str, Any]) -> RenderableType:
    made = table(
        f"{found['dataset']}, {found['rows']:,} rows in blocks of {found['block']}, "
        f"{found['check']} of each checked: a worker is faulty now and then; {found['runs']} runs "
        "of each line, those without a fault left out",
        "shares", "fault", "where it checks", "without a fault", "wrong shares",
        *AGREEMENT, "wrong rows: mean", "expected", "most", "beyond its bound",
        "honest convicted", "evaluations/query",
    )  # fmt: skip
    for one in found["cells"]:
        faulty = found["runs"] - one["without_fault"]
        if not faulty:
            continue
        agreement = _agreement(one, faulty)
        made.add_row(
            f"{100 * one['fraction']:g} %",
            one["corruption"],
            "honest" if one["cautious"] else "faulty too",
            str(one["without_fault"]),
            f"{one['corrupted']:.2f}",
            *(agreement if one["cautious"] else [*agreement[:3], ""]),
            *_left(one),
            str(one["wrong_rows_max"]),
            f"{percent(round(one['beyond_bound'] * found['runs']), found['runs'])} %",
            str(one["honest_convicted"]),
            f"{one['evaluations_per_query']:.4f}",
        )
    return made


def _published(found: Mapping[str, Any]) -> RenderableType:
    settings = found["settings"]
    honest, wrong = settings[0]["honest"], settings[0]["wrong"][0]
    columns = [name for name in wrong if name != "sigma"]
    made = table(
        f"The published code: {found['rows']:,} MNIST rows in random order, K={found['k']}: "
        f"accuracy; uncoded {found['uncoded_accuracy']:.4f}",
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
    return made
