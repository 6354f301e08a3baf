"""Training small networks on a CPU, and the command that does it.

::

    python -m approxifer.models.train lenet5 digits --out digits.pt2
    python -m approxifer.models.train lenet5 mnist.npz --out mnist.pt2 --epochs 3
    python -m approxifer.models.train resnet cifar10.npz --out cifar.pt2 --state cifar.pth
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from approxifer.errors import ApproxiferError, ConfigError
from approxifer.models import zoo
from approxifer.models.export import export_program, save_state
from approxifer.models.samples import Split, digits_split, npz_split

EPOCHS = {"digits": 30, "npz": 3}


@dataclass(frozen=True)
class Epoch:
    """One pass over the training rows.

    Attributes
    ----------
    number : int
        From 1.
    loss : float
        Mean cross-entropy over the rows, in nats.
    accuracy : float
        Share of rows whose label was guessed, while training.
    seconds : float
        Since the start of the training.
    """

    number: int
    loss: float
    accuracy: float
    seconds: float


def train(
    module: nn.Module,
    rows: np.ndarray[Any, Any],
    labels: np.ndarray[Any, Any],
    *,
    epochs: int,
    lr: float = 2e-3,
    batch: int = 64,
    seed: int = 0,
    weight_decay: float = 1e-4,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> list[Epoch]:
    """Train a classifier in place with AdamW and a one-cycle learning rate.

    The order of the rows follows from `seed`; with one machine, torch build and thread count the
    weights come out the same every time, if `module` was made under the same seed.

    Parameters
    ----------
    module : torch.nn.Module
        (M, *feature) -> (M, classes) logits. It is left in eval mode.
    rows : ndarray, (n, *feature)
    labels : ndarray of int, (n,)
    epochs, batch, seed : int
    lr : float
        Peak learning rate.
    weight_decay : float
    on_epoch : callable, optional
        Called after each epoch.

    Returns
    -------
    list of Epoch
    """
    if len(rows) != len(labels) or len(rows) == 0 or epochs < 1:
        raise ConfigError(
            f"{len(rows)} rows, {len(labels)} labels, {epochs} epochs: training needs as many"
            " labels as rows, and at least one of each."
        )
    torch.manual_seed(seed)  # dropout, where a module has it
    generator = np.random.default_rng(seed)
    inputs, targets = torch.from_numpy(np.array(rows)), torch.from_numpy(np.array(labels))
    steps = epochs * -(-len(rows) // batch)
    optimizer = torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=steps)
    started, history = time.perf_counter(), []
    module.train()
    for number in range(1, epochs + 1):
        loss_sum = hits = 0.0
        for chosen in torch.split(torch.from_numpy(generator.permutation(len(rows))), batch):
            logits = module(inputs[chosen])
            loss = nn.functional.cross_entropy(logits, targets[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            loss_sum += loss.item() * len(chosen)
            hits += float((logits.argmax(1) == targets[chosen]).sum())
        seconds = time.perf_counter() - started
        history.append(Epoch(number, loss_sum / len(rows), hits / len(rows), seconds))
        if on_epoch is not None:
            on_epoch(history[-1])
    module.eval()
    return history


def accuracy(module: nn.Module, rows: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> float:
    """Return the share of rows whose largest logit is at the label."""
    module.eval()
    with torch.inference_mode():
        parts = torch.split(torch.from_numpy(np.array(rows)), 256)
        guesses = [module(part).argmax(1) for part in parts]
    return float((torch.cat(guesses).numpy() == labels).mean())


def make(arch: str, split: Split) -> nn.Module:
    """Make the network `arch` for the rows of `split`, untrained."""
    shape, classes = split.rows.shape[1:], int(split.labels.max()) + 1
    maximum = 255.0 if split.rows.max() > 16 else 16.0
    if arch == "mlp":
        return zoo.mlp(int(np.prod(shape)), classes, maximum=maximum)
    if len(shape) not in (2, 3) or shape[0] != shape[1] or shape[0] % 4:
        raise ConfigError(
            f"rows of shape {shape}: {arch} takes square pictures (side, side[, channels]) with a"
            " side that is a multiple of 4. Use 'mlp'."
        )
    channels = shape[2] if len(shape) == 3 else 1
    if arch == "lenet5":
        return zoo.lenet5(shape[0], classes, channels, maximum=maximum)
    return zoo.small_resnet(classes, channels, maximum=maximum)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (0, or 2 for a mistake in what was given)."""
    parser = argparse.ArgumentParser(
        prog="python -m approxifer.models.train",
        description="Train a small network and export it as a torch.export program.",
    )
    parser.add_argument("arch", choices=("mlp", "lenet5", "resnet"))
    parser.add_argument("data", help="'digits', or an .npz with train/test images and labels")
    parser.add_argument("--out", required=True, help="the .pt2 to write")
    parser.add_argument("--state", help="write the weights alone here too")
    parser.add_argument("--epochs", type=int, help=f"default {EPOCHS['digits']} for digits, else 3")
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--batch", type=int, default=64, help="rows per step")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    try:
        _train_and_export(given)
    except ApproxiferError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _train_and_export(given: argparse.Namespace) -> None:
    digits = given.data == "digits"
    split = digits_split(given.seed) if digits else npz_split(given.data)
    epochs = given.epochs or EPOCHS["digits" if digits else "npz"]
    torch.manual_seed(given.seed)
    module = make(given.arch, split)

    def report(epoch: Epoch) -> None:
        left = epoch.seconds / epoch.number * (epochs - epoch.number)
        print(
            f"epoch {epoch.number}/{epochs}  loss {epoch.loss:.4f}  accuracy {epoch.accuracy:.4f}"
            f"  {epoch.seconds:.1f} s, {left:.0f} s left",
            flush=True,
        )

    rows = split.rows
    train(
        module,
        rows[split.train],
        split.labels[split.train],
        epochs=epochs,
        lr=given.lr,
        batch=given.batch,
        seed=given.seed,
        on_epoch=report,
    )
    found = accuracy(module, rows[split.test], split.labels[split.test])
    export_program(module, rows[:2].astype(np.float32), given.out)
    if given.state:
        save_state(module, given.state)
    print(f"test accuracy {found:.4f} on {len(split.test)} rows; written: {given.out}")


if __name__ == "__main__":
    sys.exit(main())
