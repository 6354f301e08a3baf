"""Training, its command, and files that are whole or absent."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from approxifer.errors import ConfigError, InputError, InputNotFoundError
from approxifer.models import open_model, run_rows
from approxifer.models.batches import BatchSizes
from approxifer.models.export import export_program, write_whole
from approxifer.models.samples import digits_split, npz_split
from approxifer.models.train import Epoch, accuracy, main, train
from approxifer.models.zoo import lenet5, mlp


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["lenet5", "mlp"])
def test_the_command_trains_and_exports(
    arch: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, state = tmp_path / "new" / "digits.pt2", tmp_path / "digits.pth"
    arguments = [arch, "digits", "--out", str(out), "--state", str(state), "--epochs", "15"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert printed.count("epoch ") == 15
    assert "s left" in printed
    split = digits_split(0)
    logits = run_rows(open_model(out).load(), split.rows[split.test], 64)
    found = float((logits.argmax(1) == split.labels[split.test]).mean())
    assert found >= 0.95
    assert f"test accuracy {found:.4f} on 539 rows" in printed
    again = open_model(f"approxifer.models.zoo:{arch}", state=state).load()
    np.testing.assert_allclose(run_rows(again, split.rows[split.test], 64), logits, atol=1e-4)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == [
        "digits.pt2",
        "digits.pth",
    ]


def test_training_repeats_itself() -> None:
    split = digits_split(0)
    rows, labels = split.rows[split.train][:256], split.labels[split.train][:256]

    def once(seed: int) -> tuple[list[Epoch], np.ndarray[Any, Any]]:
        torch.manual_seed(1)
        module = mlp(hidden=(16,))
        seen: list[Epoch] = []
        history = train(module, rows, labels, epochs=4, lr=0.02, seed=seed, on_epoch=seen.append)
        assert (history, module.training) == (seen, False)
        assert accuracy(module, rows, labels) > 0.5
        return history, module(torch.from_numpy(rows)).detach().numpy()

    (first, a), (second, b), (_, c) = once(0), once(0), once(5)
    assert [e.loss for e in first] == [e.loss for e in second]
    assert [e.number for e in first] == [1, 2, 3, 4]
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_training_needs_labels() -> None:
    with pytest.raises(ConfigError, match="as many labels"):
        train(mlp(), np.zeros((3, 8, 8), np.float32), np.zeros(2, np.int64), epochs=1)


def test_digits_are_split_once() -> None:
    one, two, other = digits_split(0), digits_split(0), digits_split(1)
    assert one.rows.shape == (1797, 8, 8)
    assert (one.rows.dtype, one.rows.max()) == (np.float32, 16)
    np.testing.assert_array_equal(one.test, two.test)
    assert (one.test != other.test).any()
    assert sorted([*one.train, *one.test]) == list(range(1797))


@pytest.mark.parametrize(
    "names",
    [
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("x_train", "y_train", "x_test", "y_test"),
    ],
)
def test_npz_files(names: tuple[str, ...], tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (40, 8, 8), dtype=np.uint8)
    labels = generator.integers(0, 3, (40, 1), dtype=np.uint8)
    parts = (images[:30], labels[:30], images[30:], labels[30:])
    path = tmp_path / "pictures.npz"
    np.savez(path, **dict(zip(names, parts, strict=True)))  # type: ignore[arg-type]
    split = npz_split(path)
    np.testing.assert_array_equal(split.rows, images)
    np.testing.assert_array_equal(split.labels, labels[:, 0])
    assert (split.train.tolist(), split.test.tolist()) == ([*range(30)], [*range(30, 40)])
    out = tmp_path / "m.pt2"
    assert main(["resnet", str(path), "--out", str(out), "--epochs", "1", "--batch", "16"]) in (
        0,
        2,
    )


def test_wrong_data_ends_with_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputNotFoundError, match="no such file"):
        npz_split(tmp_path / "nothing.npz")
    path = tmp_path / "other.npz"
    np.savez(path, a=np.zeros(3))
    with pytest.raises(InputError, match="has the arrays a; needed are train_images"):
        npz_split(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"not an \.npz file"):
        npz_split(path)
    assert main(["mlp", str(path), "--out", str(tmp_path / "x.pt2")]) == 2
    assert "error: " in capsys.readouterr().err
    assert not (tmp_path / "x.pt2").exists()
    odd = np.zeros((4, 7, 9), np.uint8)
    labels = np.zeros(4, np.uint8)
    np.savez(path, x_train=odd, y_train=labels, x_test=odd, y_test=labels)
    assert main(["lenet5", str(path), "--out", str(tmp_path / "x.pt2")]) == 2
    assert "square pictures" in capsys.readouterr().err


@pytest.mark.slow
def test_export_with_an_open_or_a_fixed_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, rows = lenet5(), np.zeros((4, 8, 8), np.float32)
    export_program(module, rows, tmp_path / "open.pt2")
    export_program(module, rows, tmp_path / "fixed.pt2", static_batch=True)
    assert open_model(tmp_path / "open.pt2").batches == BatchSizes()
    assert open_model(tmp_path / "fixed.pt2").batches.fixed == 4
    runner = open_model(tmp_path / "open.pt2").load()
    assert runner(rows[:1]).shape == (1, 10)


def test_a_crash_while_writing_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.pt2"
    write_whole(path, b"old")

    def crash(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", crash)
    with pytest.raises(OSError, match="disk full"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt2"]
