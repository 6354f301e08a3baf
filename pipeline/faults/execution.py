"""Faults in how a worker runs its model, micro-batch by micro-batch."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from approxifer.errors import ConfigError, ModelError
from approxifer.models import Runner
from approxifer.models.network import ModuleForward
from approxifer.pipeline.faults.corruption import check_shares
from approxifer.pipeline.worker import Run
from approxifer.quiet import quiet

if TYPE_CHECKING:
    import torch

#: The model in; the model as a worker with a fault runs it, for one share, out.
Wrap = Callable[[Run], Run]


class RunFault(Protocol):
    """A fault in how a worker runs its model."""

    def bind(self, rng: np.random.Generator) -> Wrap:
        """The fault, with its own state, as one worker process suffers it."""


@dataclass(frozen=True)
class Slow:
    """Each micro-batch takes ``factor`` times as long, and at least ``seconds`` longer; with a
    ``share`` below 1 only that part of them, drawn at random."""

    factor: float = 10.0
    seconds: float = 0.0
    share: float = 1.0

    def bind(self, rng: np.random.Generator) -> Wrap:
        """Sleep after the forward pass, as a throttled machine would."""

        def slowed(run: Run) -> Run:
            def slow(rows: np.ndarray) -> np.ndarray:
                begin = time.perf_counter()
                out = run(rows)
                if rng.random() < self.share:
                    spent = time.perf_counter() - begin
                    time.sleep(max((self.factor - 1) * spent, self.seconds))
                return out

            return slow

        return slowed


@dataclass(frozen=True)
class Hang:
    """The function never returns, from the worker's ``after``-th micro-batch on; the worker itself
    stays responsive."""

    after: int = 0

    def bind(self, rng: np.random.Generator) -> Wrap:
        """Wait for an event that never comes."""
        healthy = iter(range(self.after))

        def hung(run: Run) -> Run:
            def hang(rows: np.ndarray) -> np.ndarray:
                if next(healthy, None) is None:
                    threading.Event().wait()
                return run(rows)

            return hang

        return hung


@dataclass(frozen=True)
class Raise:
    """The model raises, for a random ``share`` of the micro-batches."""

    share: float = 1.0
    message: str = "injected fault"

    def bind(self, rng: np.random.Generator) -> Wrap:
        """Raise before the forward pass."""

        def failing(run: Run) -> Run:
            def fail(rows: np.ndarray) -> np.ndarray:
                if rng.random() < self.share:
                    raise RuntimeError(self.message)
                return run(rows)

            return fail

        return failing


@dataclass(frozen=True)
class StuckWeight:
    """One weight of the worker's copy of a torch model is stuck at ``value``, whatever was loaded.

    It wraps every row of a share to which it matters; many weights matter to few rows, or to none.
    A simulation runs the rows again: ``run_rows(fault.bind(rng)(runner), rows, M)``.

    Attributes
    ----------
    value : float
    parameter : str, optional
        Name of the module's parameter that the weight is in, ``"8.weight"`` for instance.
    index : int, optional
        Place in that parameter, flattened. What is left out is drawn, every weight alike.
    shares : float
        The fraction of shares that run through the stuck weight, each drawn on its own.
    """

    value: float = 10.0
    parameter: str | None = None
    index: int | None = None
    shares: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse what no model can have."""
        check_shares(self.shares)
        if self.index is not None and (self.parameter is None or self.index < 0):
            raise ConfigError(
                f"index={self.index!r}, parameter={self.parameter!r}: an index is a place, from 0"
                " up, in a named parameter."
            )

    def bind(self, rng: np.random.Generator) -> Wrap:
        """Run shares through a copy of the model: other workers of the process share the model."""
        seed = int(rng.integers(2**63))
        spoiled: dict[str, Runner] = {}

        def stuck(run: Run) -> Run:
            if not isinstance(run, Runner) or not isinstance(run.forward, ModuleForward):
                raise ModelError(
                    f"{self} needs a torch model (.pt2, module or factory of one); a function of"
                    " arrays has no weights. Use one of approxifer.pipeline.faults.corruption."
                )
            if run.fingerprint not in spoiled:
                module = self._copy(run.forward.module, np.random.default_rng(seed))
                spoiled[run.fingerprint] = replace(run, forward=replace(run.forward, module=module))
            return spoiled[run.fingerprint] if rng.random() < self.shares else run

        return stuck

    def _copy(self, module: torch.nn.Module, rng: np.random.Generator) -> torch.nn.Module:
        import torch

        with quiet():
            module = copy.deepcopy(module)
        weights = {name: p for name, p in module.named_parameters() if p.is_floating_point()}
        sizes = np.array([p.numel() for p in weights.values()])
        name = self.parameter
        if name is None and sizes.sum():
            name = str(rng.choice(list(weights), p=sizes / sizes.sum()))
        if name not in weights or (self.index or 0) >= weights[name].numel():
            known = ", ".join(f"{name} ({p.numel()})" for name, p in weights.items()) or "none"
            raise ModelError(
                f"{self}: there is no such weight. The model's floating ones: {known}."
            )
        weight = weights[name]
        index = int(rng.integers(weight.numel())) if self.index is None else self.index
        with torch.no_grad():
            weight[np.unravel_index(index, weight.shape)] = self.value
        return module
