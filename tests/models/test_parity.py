"""Parity models: trained on digits in seconds, kept, resumed, refused where they do not belong."""

import json

import numpy as np
import pytest
import torch

from approxifer.coding import CodeSpec
from approxifer.errors import ConfigError, ModelError, ModelNotFoundError
from approxifer.models import open_model, run_rows
from approxifer.models.export import export_program
from approxifer.models.parity import load_parity, read_meta
from approxifer.models.parity_training import train_parity
from approxifer.models.samples import digits_split
from approxifer.models.train import train
from approxifer.models.zoo import lenet5


class Stop(Exception):  # noqa: N818
    """The user's Ctrl-C."""


@pytest.fixture(scope="module")
def digits():
    return digits_split()


@pytest.fixture(scope="module")
def model(digits, tmp_path_factory):
    torch.manual_seed(0)
    module = lenet5()
    train(module, digits.rows[digits.train], digits.labels[digits.train], epochs=15)
    path = tmp_path_factory.mktemp("model") / "digits.pt2"
    export_program(module, digits.rows[:2], path)
    return open_model(path)


@pytest.fixture(scope="module")
def folder(model, digits, tmp_path_factory):
    out = tmp_path_factory.mktemp("parity") / "two"
    return train_parity(model, digits.rows[digits.train], k=2, stragglers=2, out=out, epochs=8)


def lost_rows_right(handle, parity, rows, labels, *, k, encoder="addition"):
    """Accuracy of the rows that are lost, each block in turn."""
    code = CodeSpec("parm", k, 1, encoder=encoder).build()
    blocks = rows[: len(rows) // k * k].reshape(-1, k, *rows.shape[1:]).swapaxes(0, 1)
    shares = code.encode(np.ascontiguousarray(blocks))
    runners = [handle.load(), parity.handles[0].load()]
    outputs = {i: run_rows(runners[code.models[i]], share, 64) for i, share in enumerate(shares)}
    right = []
    for j in range(k):
        decoded = code.decode({i: out for i, out in outputs.items() if i != j})
        right.append(decoded.blocks[j].argmax(axis=1) == labels[j : len(rows) // k * k : k])
    return float(np.mean(right))


@pytest.mark.slow
def test_a_lost_digit_is_recovered(model, folder, digits):
    parity = load_parity(folder, model, k=2, stragglers=1)
    rows, labels = digits.rows[digits.test], digits.labels[digits.test]
    assert lost_rows_right(model, parity, rows, labels, k=2) > 0.8
    for one in read_meta(folder)["parities"]:
        assert len(one["history"]) == 8
        assert one["history"][-1]["held_out"] < min(0.5, one["history"][0]["held_out"])


@pytest.mark.slow
def test_images_tiled_into_one_are_learned_too(model, digits, tmp_path):
    rows = digits.rows[digits.train]
    out = train_parity(model, rows, k=2, out=tmp_path / "p", encoder="concatenation", epochs=20)
    parity = load_parity(out, model, k=2, stragglers=1)
    assert parity.encoder == "concatenation"
    rows, labels = digits.rows[digits.test], digits.labels[digits.test]
    found = lost_rows_right(model, parity, rows, labels, k=2, encoder="concatenation")
    assert found > 0.3, "chance is 0.1"


@pytest.mark.slow
def test_the_same_is_not_trained_twice_and_another_not_over_it(model, folder, digits):
    rows, told = digits.rows[digits.train], []
    asked = {"k": 2, "stragglers": 2, "epochs": 8, "out": folder, "on_epoch": told.append}
    assert train_parity(model, rows, **asked) == folder
    assert told == []
    for change in ({"k": 3}, {"seed": 1}, {"epochs": 9}, {"encoder": "addition", "stragglers": 1}):
        with pytest.raises(ConfigError, match="of another model, code, data or training"):
            train_parity(model, rows, **asked | change)


@pytest.mark.slow
def test_an_interrupted_training_goes_on_and_ends_alike(model, digits, tmp_path):
    rows = digits.rows[digits.train][:300]

    def until(number):
        def told(epoch):
            seen.append((epoch.number, epoch.loss))
            if epoch.number == number:
                raise Stop

        return told

    asked = {"k": 3, "epochs": 4, "threads": 1}
    seen: list[tuple[int, float]] = []
    with pytest.raises(Stop):
        train_parity(model, rows, out=tmp_path / "p", on_epoch=until(2), **asked)
    assert read_meta(tmp_path / "p") is None
    with pytest.raises(ModelNotFoundError, match="no parity models"):
        load_parity(tmp_path / "p", model, k=3, stragglers=1)
    with pytest.raises(ConfigError, match=r"checkpoint.*delete this file"):
        train_parity(model, rows, out=tmp_path / "p", **asked | {"seed": 5})
    train_parity(model, rows, out=tmp_path / "p", on_epoch=until(0), **asked)
    assert [number for number, _ in seen] == [1, 2, 3, 4]
    train_parity(model, rows, out=tmp_path / "whole", **asked)
    metas = [read_meta(tmp_path / name) for name in ("p", "whole")]
    assert metas[0] == metas[1], "the same weights"
    assert not list((tmp_path / "p").glob("*.checkpoint"))


@pytest.mark.slow
def test_a_network_of_the_users(model, digits, tmp_path):
    rows = digits.rows[digits.train][:300]
    out = train_parity(
        model, rows, k=2, out=tmp_path / "p", arch="approxifer.models.zoo:mlp", epochs=1
    )
    assert load_parity(out, model, k=2, stragglers=1).handles[0].load()(rows[:2]).shape == (2, 10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"k": 3}, r"belongs to k=2; this run has .* k=3"),
        ({"stragglers": 3}, r"has 2 parity models.*stragglers=3"),
        ({"model": "other"}, r"belongs to another model"),
    ],
)
def test_parity_of_something_else_is_refused(model, folder, asked, message):
    if asked.get("model"):
        asked = {"model": open_model("approxifer.models.zoo:lenet5")}
    with pytest.raises(ConfigError, match=message):
        load_parity(folder, **{"model": model, "k": 2, "stragglers": 2} | asked)


@pytest.mark.slow
def test_what_is_damaged_is_refused(model, folder, tmp_path):
    for name in ("parity.json", "parity-0.pt2", "parity-1.pt2"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    assert load_parity(tmp_path, model, k=None, stragglers=1).k == 2
    (tmp_path / "parity-0.pt2").write_bytes((folder / "parity-1.pt2").read_bytes())
    with pytest.raises(ModelError, match="not the program that was trained"):
        load_parity(tmp_path, model, k=2, stragglers=1)
    meta = json.loads((folder / "parity.json").read_text())
    (tmp_path / "parity.json").write_text(json.dumps(meta | {"format": 99}))
    with pytest.raises(ModelError, match="Train the parity models again"):
        load_parity(tmp_path, model, k=None, stragglers=1)
    (tmp_path / "parity.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        load_parity(tmp_path, model, k=None, stragglers=1)


def numbers(rows):
    """A model without weights."""
    return rows.reshape(len(rows), -1)[:, :3].astype(np.float32)


def classes(rows):
    """A model that returns labels."""
    return numbers(rows).argmax(axis=1)


@pytest.mark.parametrize(
    ("given", "change", "message"),
    [
        (numbers, {}, "no torch module.*--arch"),
        (classes, {}, "returns int64"),
        (numbers, {"k": 1}, "k >= 2"),
        (numbers, {"stragglers": 0}, "stragglers >= 1"),
        (numbers, {"k": 60}, "at least 1200"),
        (numbers, {"arch": "approxifer.models.zoo:Nothing"}, "Nothing"),
    ],
)
def test_what_cannot_be_trained_is_refused(given, change, message, digits, tmp_path):
    with pytest.raises((ConfigError, ModelError), match=message):
        train_parity(
            open_model(given), digits.rows[:200], **{"k": 2, "out": tmp_path / "p"} | change
        )
