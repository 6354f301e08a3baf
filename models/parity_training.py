"""Training parity models on a CPU.

A parity network learns F_r(P_r) = sum_j c[r, j] f(X_j) from the parity queries P_r of random
codewords, by mean squared error (Kosaian et al., SOSP 2019, section 3.3). No labels are needed:
the model f is the teacher.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from approxifer.coding import Code, CodeSpec
from approxifer.coding.parm import coefficients
from approxifer.errors import ConfigError, ModelError
from approxifer.models import cache
from approxifer.models.export import export_program, write_whole
from approxifer.models.handle import ModelHandle, open_model
from approxifer.models.names import first_line, import_name
from approxifer.models.network import ModuleForward
from approxifer.models.parity import FORMAT, META, program, read_meta
from approxifer.models.rows import run_rows
from approxifer.models.user_code.exits import NoExit
from approxifer.quiet import quiet

EPOCHS = 10
#: Rows of a batch where nothing is learnt from it.
PART = 256
BATCH = 64
LEARNING_RATE = 1e-3
#: The part of the rows that is not trained on, but measured.
HELD_OUT = 0.1


@dataclass(frozen=True)
class ParityEpoch:
    """One epoch of one parity model: as many random codewords as there are training rows.

    Attributes
    ----------
    parity, number, of : int
        Which parity model; the epoch, from 1, and how many there will be.
    loss, held_out : float
        Mean squared error on training and held-out codewords, as a fraction of what always
        answering with the mean would have.
    seconds : float
        That the epoch took.
    """

    parity: int
    number: int
    of: int
    loss: float
    held_out: float
    seconds: float


class ParityNetwork(nn.Module):
    """A network for mixtures: the mean query in, K times its answer out.

    With the user's own network inside it is, before any training, a fair guess: right if the model
    were linear.
    """

    def __init__(self, inner: nn.Module, into: float, out: float) -> None:
        super().__init__()
        self.inner = inner
        self.into = into
        self.out = out

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(M, *feature) -> (M, *out)."""
        found: torch.Tensor = self.inner(rows * self.into) * self.out
        return found


def train_parity(
    model: ModelHandle,
    rows: np.ndarray[Any, Any],
    *,
    k: int,
    out: str | os.PathLike[str],
    stragglers: int = 1,
    encoder: str = "addition",
    arch: str | None = None,
    epochs: int | None = None,
    seed: int = 0,
    threads: int = 0,
    on_epoch: Callable[[ParityEpoch], None] | None = None,
) -> Path:
    """Train the parity models of a model, or find that they are trained already.

    Each epoch leaves a checkpoint in `out`: an interrupted training goes on there when it is asked
    for again.

    Parameters
    ----------
    model : ModelHandle
        The user's.
    rows : floating-point ndarray, (n, *feature)
        Unlabelled rows, as the model takes them.
    k, stragglers : int
    out : path
        Folder to write.
    encoder : "addition" or "concatenation"
    arch : str, optional
        ``"package.module:factory"`` of a network from rows to outputs like the model's. **Its code
        is run.** None: the model's own, beginning with its weights.
    epochs : int, optional
        Each as many random codewords as there are training rows. None: `EPOCHS`.
    seed : int
    threads : int
        For torch; 0: as many as there are cores.
    on_epoch : callable, optional
        Called after each epoch.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ConfigError
        Too few rows; or parity models of something else are in the folder.
    ModelError
        The network cannot be trained, or gives no real numbers.
    """
    spec = CodeSpec("parm", k, stragglers, encoder=encoder)  # type: ignore[arg-type]
    if stragglers < 1 or k < 2:
        raise ConfigError(f"k={k}, stragglers={stragglers}: parity needs k >= 2, stragglers >= 1")
    if len(rows) < 20 * k or rows.dtype.kind != "f":
        raise ConfigError(
            f"{len(rows)} {rows.dtype} rows: parity models for k={k} need at least {20 * k} "
            "floating-point ones to learn from"
        )
    asked = {
        "format": FORMAT,
        "model": model.stored_fingerprint,
        "k": k,
        "stragglers": stragglers,
        "encoder": encoder,
        "arch": arch,
        "epochs": epochs or EPOCHS,
        "seed": seed,
        "rows": hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest(),
    }
    folder = Path(out)
    if (meta := read_meta(folder)) is not None:
        if {name: meta.get(name) for name in asked} == asked:
            return folder
        raise ConfigError(
            f"{str(folder)!r} holds parity models of another model, code, data or training. Give "
            "another folder, or delete this one"
        )
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(threads or os.cpu_count() or 1)
    outputs = run_rows(partial(_one_output, model), rows, model.batches.fit(PART))
    if outputs.dtype.kind != "f":
        raise ModelError(f"model {model.name!r} returns {outputs.dtype}: parity needs real numbers")
    lessons = Lessons(rows, outputs, spec.build(), seed)
    parities = []
    for number in range(stragglers):
        with NoExit(f"training from {arch or model.name!r}"):
            history = _train(lessons, number, model, asked, folder, on_epoch)
        handle = open_model(program(folder, number), dtype=model.dtype, device=model.device)
        parities.append({"fingerprint": handle.fingerprint, "history": history})
    write_whole(folder / META, json.dumps(asked | {"parities": parities}, indent=1).encode())
    for number in range(stragglers):
        _checkpoint(folder, number).unlink(missing_ok=True)
    return folder


class Lessons:
    """Random codewords, their parity queries and what is to be learned of them."""

    def __init__(
        self, rows: np.ndarray[Any, Any], outputs: np.ndarray[Any, Any], code: Code, seed: int
    ) -> None:
        order = np.random.default_rng(seed).permutation(len(rows))
        cut = max(2 * code.k, int(HELD_OUT * len(rows)))
        self.code, self.seed = code, seed
        self._rows, self._outputs = rows, outputs
        self._held_out, self.train = order[:cut], order[cut:]
        self._weights = coefficients(code.k, code.n - code.k).astype(outputs.dtype)

    def batches(self, parity: int, epoch: int) -> Any:
        """An epoch's parity queries and targets, batch by batch."""
        rng = np.random.default_rng([self.seed, parity, epoch])
        k = self.code.k
        rounds = [rng.permutation(self.train)[: len(self.train) // k * k] for _ in range(k)]
        codewords = np.concatenate(rounds).reshape(-1, k)
        for start in range(0, len(codewords), BATCH):
            yield self._lesson(parity, codewords[start : start + BATCH])

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        k = self.code.k
        return -(-(len(self.train) // k * k) // BATCH)

    def held_out(self, parity: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Codewords of rows that are not trained on."""
        k = self.code.k
        return self._lesson(parity, self._held_out[: len(self._held_out) // k * k].reshape(-1, k))

    def _lesson(
        self, parity: int, codewords: np.ndarray[Any, Any]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        queries = self.code.encode(np.moveaxis(self._rows[codewords], 1, 0))
        targets = np.tensordot(self._weights[parity], self._outputs[codewords], (0, 1))
        return torch.from_numpy(queries[self.code.k + parity]), torch.from_numpy(targets)


def _train(
    lessons: Lessons,
    parity: int,
    model: ModelHandle,
    asked: dict[str, Any],
    folder: Path,
    on_epoch: Callable[[ParityEpoch], None] | None,
) -> list[dict[str, float]]:
    """Train one parity model and write its program; returns the losses by epoch."""
    epochs: int = asked["epochs"]
    torch.manual_seed(asked["seed"])
    c = coefficients(lessons.code.k, lessons.code.n - lessons.code.k)[parity]
    size = float(np.abs(c).sum())
    into = 1.0 if asked["encoder"] == "concatenation" else 1.0 / size
    network = ParityNetwork(_inner(model, asked["arch"]), into, size)
    parameters = [p for p in network.parameters() if p.is_floating_point()]
    if not parameters:
        raise ModelError(
            f"model {model.name!r} has no weights to train. Name a network with --arch "
            "MODULE:FACTORY (arch=)"
        )
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=LEARNING_RATE, total_steps=epochs * lessons.steps
    )
    checkpoint = _checkpoint(folder, parity)
    kept = {"network": network, "optimizer": optimizer, "schedule": schedule}
    history = _resume(checkpoint, asked, kept)
    test_queries, test_targets = lessons.held_out(parity)
    variance = float((test_targets - test_targets.mean(0)).square().mean())
    for number in range(len(history) + 1, epochs + 1):
        begin = time.perf_counter()
        total = count = 0.0
        with _Learning(network):
            for queries, targets in lessons.batches(parity, number):
                loss = nn.functional.mse_loss(network(queries), targets)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                total, count = total + loss.item() * len(queries), count + len(queries)
        with torch.inference_mode():
            parts = [network(part) for part in torch.split(test_queries, PART)]
        found = float((torch.cat(parts) - test_targets).square().mean())
        history.append({"loss": total / count / variance, "held_out": found / variance})
        _keep(checkpoint, asked, kept, history)
        if on_epoch is not None:
            seconds = time.perf_counter() - begin
            on_epoch(ParityEpoch(parity, number, epochs, **history[-1], seconds=seconds))
    export_program(network, test_queries[:2].numpy(), program(folder, parity))
    return history


def _one_output(model: ModelHandle, rows: np.ndarray) -> np.ndarray:
    """The output of a model that has one."""
    packing, output = cache.ensure(model, torch.get_num_threads()).run(rows)
    if not packing.alone:
        raise ModelError(
            f"model {model.name!r} returns several outputs ({packing}), and a parity model is "
            "trained for one: let it return one, or take another scheme"
        )
    return output


def _inner(model: ModelHandle, arch: str | None) -> nn.Module:
    """The network to train."""
    if arch is not None:
        made = import_name(arch, "arch")()
        if not isinstance(made, nn.Module):
            raise ModelError(f"arch={arch!r} returned a {type(made).__name__}, no torch.nn.Module")
        return made
    runner = cache.ensure(model, torch.get_num_threads())
    forward = runner.forward
    wide = model.batches.least <= 2 and model.batches.most >= PART
    if not isinstance(forward, ModuleForward) or not (forward.alone and wide):
        what = (
            "is no torch module"
            if not isinstance(forward, ModuleForward)
            else ("takes more than rows" if wide else f"takes batches of {model.batches} rows")
        )
        raise ModelError(
            f"model {model.name!r} {what}, and cannot be trained as its own parity model. Name a "
            "network with --arch MODULE:FACTORY (arch=)"
        )
    with quiet():
        return copy.deepcopy(forward.module)


class _Learning:
    """Training mode, where a network has one: exported programs have not."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    def __enter__(self) -> None:
        self._set(True)

    def __exit__(self, *_: object) -> None:
        self._set(False)

    def _set(self, training: bool) -> None:
        if not isinstance(self._network.inner, torch.fx.GraphModule):
            self._network.train(training)


def _checkpoint(folder: Path, parity: int) -> Path:
    return folder / f"parity-{parity}.checkpoint"


def _keep(path: Path, asked: dict[str, Any], kept: dict[str, Any], history: list[Any]) -> None:
    buffer = io.BytesIO()
    states = {name: one.state_dict() for name, one in kept.items()}
    torch.save(states | {"asked": asked, "history": history}, buffer)
    write_whole(path, buffer.getvalue())


def _resume(path: Path, asked: dict[str, Any], kept: dict[str, Any]) -> list[dict[str, float]]:
    """Go on with a checkpoint of the same training, if there is one; returns its losses."""
    if not path.exists():
        return []
    try:
        found = torch.load(path, weights_only=True)
    except Exception as error:
        raise ModelError(
            f"{str(path)!r} cannot be read ({first_line(error)}). Delete it to begin again"
        ) from error
    if found["asked"] != asked:
        raise ConfigError(
            f"{str(path)!r} is of another model, code, data or training. Give another folder, or "
            "delete this file"
        )
    for name, one in kept.items():
        one.load_state_dict(found[name])
    history: list[dict[str, float]] = found["history"]
    return history
