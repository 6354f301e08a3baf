"""The first layers of an exported program, as features to order rows by."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from approxifer.models import Runner

ROWS = 64  #: in one call
TIMED = 20  #: calls whose time a whole pass is known by
SIDE = 2  #: planes are averaged to as many places along an edge


def places(runner: Runner) -> list[tuple[str, str]]:
    """Some ReLUs of a program, by a label for people and their name: the first, those a quarter,
    half and three quarters of the way, and the last."""
    nodes = [n.name for n in _module(runner).graph.nodes if "relu" in str(n.target)]
    chosen = sorted({round(part * (len(nodes) - 1)) for part in (0, 0.25, 0.5, 0.75, 1)})
    return [(f"ReLU {i + 1} of {len(nodes)}", nodes[i]) for i in chosen]


def first_layers(runner: Runner, place: str, rows: np.ndarray) -> tuple[np.ndarray, float]:
    """The outputs there, averaged over planes: (n, features); and the fraction of a whole pass's
    time that it takes."""
    module = _module(runner)
    batches: Any = torch.from_numpy(rows).split(ROWS)  # type: ignore[no-untyped-call]
    with torch.inference_mode():
        whole = [_timed(_Until(module, None), part)[1] for part in batches[:TIMED]]
        parts = [_timed(_Until(module, place), part) for part in batches]
    features = torch.cat([_pooled(found) for found, _ in parts]).numpy()
    return features, min(t for _, t in parts) / min(whole)


def _module(runner: Runner) -> Any:
    return runner.forward.module  # type: ignore[attr-defined]


def _pooled(planes: torch.Tensor) -> torch.Tensor:
    if planes.ndim == 4:
        planes = nn.functional.adaptive_avg_pool2d(planes, SIDE)
    return planes.flatten(1)


def _timed(call: _Until, rows: torch.Tensor) -> tuple[torch.Tensor, float]:
    begin = time.perf_counter()
    found = call(rows)
    return found, time.perf_counter() - begin


class _Reached(Exception):  # noqa: N818, no error
    """The place is reached."""


class _Until(fx.Interpreter):
    """Runs a program node by node, up to one of them; None: to its end."""

    def __init__(self, module: Any, place: str | None) -> None:
        super().__init__(module)
        self._place = place
        self._output: Any = None

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        with contextlib.suppress(_Reached):
            self._output = self.run(rows)
        found: torch.Tensor = self._output
        return found

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name == self._place:
            self._output = result
            raise _Reached
        return result
