"""The accuracy benchmark's figures as pictures, one for each data set with classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from approxifer.benchmarks.accuracy.published import APPROXIFER, PARM

#: Scheme, encoder, order; colour, marker.
CURVES = {
    ("systematic", None, "similar"): ("#0072b2", "o"),
    ("systematic", None, "random"): ("#56b4e9", "o"),
    ("berrut", None, "similar"): ("#d55e00", "s"),
    ("berrut", None, "random"): ("#e69f00", "s"),
    ("parm", "addition", "random"): ("#009e73", "^"),
    ("parm", "concatenation", "random"): ("#cc79a7", "v"),
}


def draw(results: Mapping[str, Any], stem: Path) -> list[Path]:
    """Draw accuracy against K with one share always lost: ``STEM-DATA-NETWORK.png`` each."""
    from matplotlib.figure import Figure

    made = []
    for case in results["cases"]:
        ks = sorted({s["k"] for s in case["settings"]})
        if "accuracy" not in case["uncoded"] or len(ks) < 3:
            continue
        figure = Figure(figsize=(10, 4.6), layout="constrained")
        whole, lost = figure.subplots(1, 2)
        for axes, which, title in (
            (whole, "overall", "all rows"),
            (lost, "degraded", "rows that had to be decoded"),
        ):
            for (scheme, encoder, order), (colour, marker) in CURVES.items():
                wanted = {
                    "scheme": scheme,
                    "encoder": encoder,
                    "order": order,
                    "decoder": None,
                    "stragglers": 1,
                }
                points = [
                    (s["k"], s["accuracy"][which])
                    for s in case["settings"]
                    if all(s.get(name) == value for name, value in wanted.items())
                ]
                if points:
                    name = f"{scheme}{f' ({encoder})' if encoder else ''}, {order} order"
                    axes.plot(*zip(*points, strict=True), color=colour, marker=marker, label=name)
            published = (APPROXIFER if which == "overall" else PARM).get(case["data"], {})
            points = [(k, value) for (k, s), value in published.items() if s == 1]
            if points:
                name = f"published {'ApproxIFER' if which == 'overall' else 'ParM'} (ResNet-18)"
                axes.plot(*zip(*points, strict=True), "k--x", label=name)
            axes.axhline(case["uncoded"]["accuracy"], color="0.6", lw=1, label="uncoded")
            axes.set(title=title, xlabel="K, queries per codeword", ylabel="accuracy", xticks=ks)
            axes.grid(axis="y", alpha=0.3)
        whole.set_ylim(top=1.01)
        lost.set_ylim(0, 1.01)
        figure.suptitle(
            f"{case['data']}, {case['network']}: one share of every codeword always lost, no repair"
        )
        named: dict[str, Any] = {}
        for axes in (whole, lost):
            named |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
        figure.legend(
            list(named.values()), list(named), loc="outside lower center", ncols=3, fontsize=8
        )
        name = "-".join((stem.name, case["data"], case["network"])).lower()
        made.append(stem.with_name(f"{name}.png"))
        figure.savefig(made[-1], dpi=110)
    return made
