"""Training small networks on a CPU, and the command that does it.

::

    python -m approxifer.models.train lenet5 digits --out digits.pt2
    python -m approxifer.models.train lenet5 mnist.npz --out mnist.pt2 --epochs 3
    python -m approxifer.models.train resnet cifar10.npz --out cifar.pt2 --state cifar.pth
    python -m approxifer.models.train forecaster era5.zarr --out era5.pt2
"""

import argparse
import math
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
from approxifer.models.samples import Split, digits_split, era5_split, npz_split

#: Networks for pictures of any side.
NETWORKS = {"resnet": zoo.small_resnet, "vgg": zoo.vgg, "depthwise": zoo.depthwise}
EPOCHS = {"digits": 30, "npz": 3, "zarr": 30}


@dataclass(frozen=True)
class Epoch:
    """One pass over the training rows.

    Attributes
    ----------
    number : int
        From 1.
    loss : float
        Mean over the rows: cross-entropy in nats for classes, squared error for values.
    accuracy : float, optional
        Share of rows whose class was guessed, while training. None for values.
    seconds : float
        Since the start of the training.
    """

    number: int
    loss: float
    accuracy: float | None
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
    """Train a network in place with AdamW and a one-cycle learning rate.

    The order of the rows follows from `seed`; with one machine, torch build and thread count the
    weights come out the same every time, if `module` was made under the same seed.

    Parameters
    ----------
    module : torch.nn.Module
        (M, *feature) -> (M, classes) logits, or (M, *out) values. It is left in eval mode.
    rows : ndarray, (n, *feature)
    labels : ndarray of int, (n,), or of floats, (n, *out)
        Classes, learned by cross-entropy; or values, by mean squared error.
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
    classes = not targets.is_floating_point()
    loss_of = nn.functional.cross_entropy if classes else nn.functional.mse_loss
    started, history = time.perf_counter(), []
    module.train()
    for number in range(1, epochs + 1):
        loss_sum = hits = 0.0
        for chosen in torch.split(torch.from_numpy(generator.permutation(len(rows))), batch):
            found = module(inputs[chosen])
            loss = loss_of(found, targets[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            loss_sum += loss.item() * len(chosen)
            if classes:
                hits += float((found.argmax(1) == targets[chosen]).sum())
        seconds = time.perf_counter() - started
        right = hits / len(rows) if classes else None
        history.append(Epoch(number, loss_sum / len(rows), right, seconds))
        if on_epoch is not None:
            on_epoch(history[-1])
    module.eval()
    return history


def outputs(module: nn.Module, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return what the network gives for all rows. It is left in eval mode."""
    module.eval()
    with torch.inference_mode():
        parts = torch.split(torch.from_numpy(np.array(rows)), 256)
        return torch.cat([module(part) for part in parts]).numpy()


def accuracy(module: nn.Module, rows: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> float:
    """Return the share of rows whose largest logit is at the label."""
    return float((outputs(module, rows).argmax(1) == labels).mean())


def skill(module: nn.Module, rows: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> float:
    """Return the skill of forecast increments against persistence, a forecast of no change.

    It is 1 - (mean squared error) / (mean squared increment), Murphy 1988, equation 4: 1 is
    perfect, 0 no better than persistence, below 0 worse.
    """
    return 1 - _square(outputs(module, rows) - labels) / _square(labels)


def _square(values: np.ndarray[Any, Any]) -> float:
    return float(np.mean(np.square(values), dtype=np.float64))


def make(arch: str, split: Split) -> nn.Module:
    """Make the network `arch` for the rows of `split`, untrained."""
    if arch == "forecaster":
        fields = split.rows[split.train]
        increment = math.sqrt(_square(split.labels[split.train]))
        return zoo.forecaster(float(fields.mean()), float(fields.std()), increment)
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
    return NETWORKS[arch](classes, channels, maximum=maximum)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (0, or 2 for a mistake in what was given)."""
    parser = argparse.ArgumentParser(
        prog="python -m approxifer.models.train",
        description="Train a small network and export it as a torch.export program.",
    )
    parser.add_argument("arch", choices=("mlp", "lenet5", *NETWORKS, "forecaster"))
    parser.add_argument(
        "data",
        help="'digits', or an .npz with train/test images and labels; for the forecaster a Zarr "
        "store with hourly fields",
    )
    parser.add_argument("--variable", help="which of the Zarr store's arrays [the only one]")
    parser.add_argument("--out", required=True, help="the .pt2 to write")
    parser.add_argument("--state", help="write the weights alone here too")
    parser.add_argument("--epochs", type=int, help=f"default {_listed(EPOCHS)}")
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


def _listed(numbers: dict[str, int]) -> str:
    return ", ".join(f"{number} for {name}" for name, number in numbers.items())


def _read(given: argparse.Namespace) -> tuple[str, Split]:
    """Read the data: its kind, a key of `EPOCHS`, and the rows."""
    if given.arch == "forecaster":
        return "zarr", era5_split(given.data, given.variable)
    if given.variable is not None:
        raise ConfigError(
            f"--variable {given.variable} was given with {given.arch}, which learns from pictures."
            " Leave it out: only the forecaster reads a Zarr store."
        )
    if given.data == "digits":
        return "digits", digits_split(given.seed)
    return "npz", npz_split(given.data)


def _train_and_export(given: argparse.Namespace) -> None:
    kind, split = _read(given)
    epochs = given.epochs or EPOCHS[kind]
    torch.manual_seed(given.seed)
    module = make(given.arch, split)

    def report(epoch: Epoch) -> None:
        left = epoch.seconds / epoch.number * (epochs - epoch.number)
        right = "" if epoch.accuracy is None else f"  accuracy {epoch.accuracy:.4f}"
        print(
            f"epoch {epoch.number}/{epochs}  loss {epoch.loss:.4f}{right}"
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
    found = _judge(module, rows[split.test], split.labels[split.test])
    export_program(module, rows[:2].astype(np.float32), given.out)
    if given.state:
        save_state(module, given.state)
    print(f"test {found} on {len(split.test)} rows; written: {given.out}")


def _judge(module: nn.Module, rows: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> str:
    if labels.dtype.kind in "iu":
        return f"accuracy {accuracy(module, rows, labels):.4f}"
    found, still = skill(module, rows, labels), math.sqrt(_square(labels))
    return (
        f"skill {found:.4f} (rms error {still * math.sqrt(1 - found):.3f}, of persistence"
        f" {still:.3f})"
    )


if __name__ == "__main__":
    sys.exit(main())
