"""Factories of tiny models, good ones and bad ones, for ``--model fuzzed_models:NAME``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

Function = Callable[[np.ndarray], Any]


def _flat(rows: np.ndarray) -> np.ndarray:
    return rows.reshape(len(rows), -1)


def _ends(how: Callable[[], Any]) -> Function:
    def model(rows: np.ndarray) -> np.ndarray:
        how()
        return _flat(rows)

    return model


def _of(function: Function) -> Callable[[], Function]:
    return lambda: function


def _raise(error: BaseException) -> None:
    raise error


linear = _of(lambda rows: _flat(rows).astype(np.float32).sum(1, keepdims=True) * np.ones(3))
same = _of(lambda rows: rows)
flat = _of(_flat)
scalar = _of(lambda rows: _flat(rows).sum(1))
integers = _of(lambda rows: (_flat(rows).real > 0).astype(np.int64))
booleans = _of(lambda rows: _flat(rows) == 0)
halves = _of(lambda rows: _flat(rows).astype(np.float16))
doubles = _of(lambda rows: _flat(rows).astype(np.float64))
long_doubles = _of(lambda rows: _flat(rows).astype(np.longdouble))
rotated = _of(lambda rows: _flat(rows) * 1j)
nothing = _of(lambda rows: None)
two = _of(lambda rows: (rows, rows))
named = _of(lambda rows: {"a": rows})
texts = _of(lambda rows: np.full((len(rows), 1), "a"))
objects = _of(lambda rows: np.full((len(rows), 1), None))
times = _of(lambda rows: np.zeros((len(rows), 1), "M8[ns]"))
blank = _of(lambda rows: np.full((len(rows), 2), np.nan, np.float32))
endless = _of(lambda rows: np.full((len(rows), 2), np.inf, np.float32))
empty = _of(lambda rows: np.zeros((len(rows), 0), np.float32))
first = _of(lambda rows: rows[:1])
turned = _of(lambda rows: rows.T)
centred = _of(lambda rows: _flat(rows) - _flat(rows).mean(0))
noisy = _of(lambda rows: np.random.default_rng().normal(size=(len(rows), 2)))
in_place = _of(lambda rows: np.add(rows, rows, out=rows))
fails = _of(_ends(lambda: _raise(ValueError("line\nand \x1b[2J line"))))
leaves = _of(_ends(lambda: sys.exit(0)))
interrupts = _of(_ends(lambda: _raise(KeyboardInterrupt())))
parses = _of(_ends(lambda: argparse.ArgumentParser().parse_args(["--nonsense"])))


def parsing() -> Function:
    """Takes the command's arguments for its own."""
    argparse.ArgumentParser().parse_args(["--nonsense"])
    return _flat


def leaving() -> Function:
    """Ends the process while it is loaded."""
    sys.exit(3)


def asked(question: str) -> Function:
    """Cannot be called without arguments."""
    return _flat


def number() -> int:
    """No model."""
    return 3


def _torch(make: Callable[[Any], Any]) -> Callable[[], Any]:
    def factory() -> Any:
        import torch

        torch.manual_seed(0)
        return make(torch)

    return factory


def _module(forward: Callable[[Any, Any], Any]) -> Callable[[], Any]:
    """A module of a function of torch and rows."""

    def factory() -> Any:
        import torch

        class Module(torch.nn.Module):
            def forward(self, x: Any) -> Any:
                return forward(torch, x)

        return Module()

    return factory


network = _torch(lambda t: t.nn.Sequential(t.nn.Flatten(), t.nn.Linear(6, 2)))
normed = _torch(lambda t: t.nn.Sequential(t.nn.Flatten(), t.nn.BatchNorm1d(6)))
embedding = _torch(lambda t: t.nn.Embedding(10, 2))
lazy = _torch(lambda t: t.nn.Sequential(t.nn.Flatten(), t.nn.LazyLinear(2)))
stacked = _module(lambda t, x: (x, x))
brain = _module(lambda t, x: x.flatten(1).bfloat16())
sparse = _module(lambda t, x: x.flatten(1).to_sparse())
slope = _module(lambda t, x: t.autograd.grad((x.requires_grad_() ** 2).sum(), x)[0].flatten(1))

NAMES = sorted(
    name
    for name, one in vars().items()
    if callable(one) and not name.startswith("_") and name not in ("Callable", "Function", "Any")
)
