"""Spot checks alone, and with each statistic, on the same runs at the same cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from math import exp, inf, log
from typing import Any

import numpy as np

from approxifer.benchmarks.faulty import WORKERS
from approxifer.benchmarks.signals_chances import Outcome, asked_rows, play
from approxifer.benchmarks.signals_methods import METHODS, Method
from approxifer.benchmarks.signals_story import Look, Material, Story, cells, clean, tell
from approxifer.errors import ConfigError

#: Rows of every data share that spot checks alone run again.
CHECK = 3
#: Seeds of clean runs, and of runs that settings are chosen by: others than those reported.
CLEAN, HELD = range(5000, 5010), range(9000, 9006)
#: A sparse fault counts if the rival leaves at least so many wrong rows in a run, and a ratio is
#: not taken for less than that.
LEAST, FLOOR = 0.05, 0.01


@dataclass(frozen=True)
class Way:
    """What is compared.

    Attributes
    ----------
    says : str
        For people.
    on : str
        Name of the recording.
    method : str, optional
        Name in `METHODS`; None: spot checks alone.
    rivals : tuple of str
        Names of those in `WAYS` that it is held against.
    paid : bool
        Whether spot checks alone draw as many rows more as the parity would have cost.
    """

    says: str
    on: str
    method: str | None = None
    rivals: tuple[str, ...] = ()
    paid: bool = False


WAYS = {
    "spot": Way("spot checks alone", "natural"),
    "suspicion": Way("suspicion", "natural", "suspicion", ("spot",)),
    "near-null": Way("near-null", "natural", "near-null", ("spot",)),
    "furthest": Way("furthest outputs", "natural", "no input", ("spot",)),
    "both": Way(
        "furthest outputs and suspicion", "natural", "furthest and suspicion", ("furthest", "spot")
    ),
    "waves": Way("estimate", "natural", "waves", ("spot",)),
    "patches": Way("estimate from patches", "natural", "patches", ("spot",)),
    "similar spot": Way("similar order: spot checks alone", "similar"),
    "similar suspicion": Way("similar order: suspicion", "similar", "suspicion", ("similar spot",)),
    "parity price": Way("as many checks as the parity costs", "similar", paid=True),
    "parity suspicion": Way(
        "similar order, parity: suspicion", "parity", "suspicion", ("parity price", "similar spot")
    ),
}


@dataclass(frozen=True)
class Plan:
    """A way with its setting, at the cost of its rival.

    Attributes
    ----------
    setting
        Of the method; None without one.
    check : float
        Random rows of every data share, in the mean.
    usual : float
        Rows of a clean group that the statistic has checked, in the mean.
    clean : Outcome
        Mean of clean runs.
    """

    method: Method | None
    setting: Any
    check: float
    usual: float
    clean: Outcome

    def play(self, story: Story) -> Outcome:
        """One run; without a lie it is like a clean one."""
        if not story.lied:
            return self.clean
        return self.after(story, _look(self.method, story, self.setting))

    def after(self, story: Story, look: Look) -> Outcome:
        """One run in which that is looked at."""
        return play(story, look, self.check, usual=self.usual)


def _look(method: Method | None, story: Story, setting: Any) -> Look:
    if method is None:
        return Look.nothing(story)
    (look,) = method.looks(story, [setting])
    return look


def tune(method: Method | None, settings: Sequence[Any], of: Material, check: float) -> list[Plan]:
    """Draw as many rows fewer as each setting costs on clean runs."""
    stories = [clean(of, seed) for seed in CLEAN]
    looks = [
        [Look.nothing(story)] if method is None else method.looks(story, settings)
        for story in stories
    ]
    plans = []
    for setting, mine in zip(settings, zip(*looks, strict=True), strict=True):
        groups, drawn, usual = len(of.outputs), float(check), 0.0
        for _ in range(20):  # fewer drawn are more that are left to check
            usual = float(np.mean([asked_rows(look, of, drawn).sum() for look in mine]) / groups)
            drawn = max(0.0, check - usual / of.code.k)
        ended = [
            play(story, look, drawn, usual=usual) for story, look in zip(stories, mine, strict=True)
        ]
        plans.append(Plan(method, setting, drawn, usual, mean(ended)))
    return plans


def mean(outcomes: Sequence[Outcome]) -> Outcome:
    """Of each figure."""
    return Outcome(*np.mean([astuple(one) for one in outcomes], axis=0).tolist())


def choose(method: Method, of: Material) -> Any:
    """The setting with which the fewest wrong rows are left by sparse lies, beside what spot checks
    alone leave."""
    plans = tune(method, method.settings, of, CHECK)
    (alone,) = tune(None, [None], of, CHECK)
    left: dict[str, list[list[float]]] = defaultdict(list)
    for cell in filter(lambda one: one.sparse, cells(())):
        for seed in HELD:
            story = tell(of, cell.of(of), seed)
            if story.lied:
                looks = method.looks(story, method.settings)
                ended = [plan.after(story, look) for plan, look in zip(plans, looks, strict=True)]
                left[cell.says].append([one.wrong_rows for one in (alone.play(story), *ended)])
    found = np.array([np.sum(rows, axis=0) / len(HELD) for rows in left.values()])
    ratios = [
        geometric(found[:, 1 + number], found[:, 0]) if plan.check >= 1 else inf
        for number, plan in enumerate(plans)
    ]
    if min(ratios) == inf:
        raise ConfigError("no setting leaves a row of each share to be drawn; take larger shares")
    return method.settings[int(np.argmin(ratios))]


def geometric(ours: Sequence[float] | np.ndarray, rival: Sequence[float] | np.ndarray) -> float:
    """Geometric mean of ratios, over cells in which the rival leaves enough; 1 if there is none."""
    logs = [
        log(max(one / other, FLOOR))
        for one, other in zip(ours, rival, strict=True)
        if other >= LEAST
    ]
    return exp(sum(logs) / len(logs)) if logs else 1.0


def contest(
    held: Mapping[str, Material],
    judged: Mapping[str, Material],
    *,
    faults: Sequence[str],
    seeds: int,
    begin: Callable[[str], None],
) -> dict[str, Any]:
    """All faults under all ways.

    Parameters
    ----------
    held, judged : mappings
        Recordings by name: to choose settings on, and to report.
    faults : sequence of str
        Told in every share; the sparse ones come to that.
    seeds : int
        Runs of each fault, at least.
    begin : callable
        Told what begins: once for each way, and once more.
    """
    plans: dict[str, Plan] = {}
    for name, way in WAYS.items():
        begin(f"setting of {way.says}")
        of = judged[way.on]
        method = None if way.method is None else METHODS[way.method]
        setting = None if method is None else choose(method, held[way.on])
        check = min(of.block, CHECK + of.block / of.code.k) if way.paid else CHECK
        (plans[name],) = tune(method, [setting], of, check)
    begin(f"{len(cells(faults))} faults")
    told = []
    for cell in cells(faults):
        runs = cell.seeds(judged["natural"], seeds)
        ended: dict[str, list[Outcome]] = defaultdict(list)
        for on, of in judged.items():
            for seed in range(runs):
                story = tell(of, cell.of(of), seed)
                for name, plan in plans.items():
                    if WAYS[name].on == on:
                        ended[name].append(plan.play(story))
        figures = {name: list(astuple(mean(ended[name]))) for name in WAYS}
        told.append({"fault": cell.says, "sparse": cell.sparse, "runs": runs, "figures": figures})
    natural = judged["natural"]
    return {
        "block": natural.block,
        "rows": len(natural.recording.rows),
        "held_rows": len(held["natural"].recording.rows),
        "shares": natural.owners(0).size / WORKERS,
        "ways": {
            name: {
                "setting": None if plan.method is None else plan.method.says(plan.setting),
                "check": plan.check,
                "evaluations": plan.clean.evaluations,
                "suspected": plan.clean.suspected,
            }
            for name, plan in plans.items()
        },
        "cells": told,
    }
