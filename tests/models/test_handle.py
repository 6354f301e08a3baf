"""Handles: what is taken, what is refused, what travels, and who is the same model."""

import functools
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from approxifer.errors import (
    ConfigError,
    ModelError,
    ModelNotFoundError,
    UntrustedModelError,
)
from approxifer.models import ModelHandle, Runner, open_model
from approxifer.models.export import save_state
from approxifer.models.fingerprint import fingerprint, object_entries
from approxifer.models.zoo import Pixels, lenet5, mlp

Array = np.ndarray[Any, Any]
Write = Callable[[str, str], str]

FACTORIES = """
    import numpy as np, torch
    from torch import nn

    def fixed():
        torch.manual_seed(3)
        return nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Dropout(0.5))

    def random():
        return nn.Linear(4, 3)

    def needs(argument):
        return nn.Linear(4, 3)

    def broken():
        raise OSError("no weights here")

    def number():
        return 3

    def doubled(rows):
        return rows * 2

    def numpy_factory():
        return doubled

    class Scale:
        def __init__(self, factor):
            self.factor = np.float32(factor)
            self.table = {"a": [np.arange(3.0)]}

        def __call__(self, rows):
            return rows * self.factor

    constant = 3
    alias = lambda rows: rows
"""


@pytest.fixture
def stock(importable: Write) -> Any:
    return __import__(importable("stock", FACTORIES))


@pytest.fixture
def path(tmp_path: Path, program: bytes) -> Path:
    where = tmp_path / "linear.pt2"
    where.write_bytes(program)
    return where


def travelled(handle: ModelHandle) -> Runner:
    """Load as a worker does, out of the pickle."""
    copy: ModelHandle = pickle.loads(pickle.dumps(handle))
    assert copy == handle
    return copy.load()


def test_a_program_travels_without_its_file(
    path: Path, rows: Array, linear: torch.nn.Linear
) -> None:
    handle = open_model(path)
    path.unlink()
    runner = travelled(handle)
    np.testing.assert_array_equal(runner(rows), linear(torch.from_numpy(rows)).detach().numpy())
    assert (handle.name, handle.kind, handle.batches.most) == ("linear.pt2", "pt2", 512)
    assert (handle.dtype, handle.device) == ("float32", "auto")
    assert runner.fingerprint == handle.fingerprint
    assert len(handle.fingerprint) == 64
    assert "program" not in repr(handle).lower()
    assert len(repr(handle)) < 400


def test_a_static_program_fixes_the_batch(
    tmp_path: Path, static_program: bytes, rows: Array
) -> None:
    path = tmp_path / "static.pt2"
    path.write_bytes(static_program)
    handle = open_model(path)
    assert handle.batches.fixed == 6
    runner = handle.load()
    assert runner(rows).shape == (6, 3)
    with pytest.raises(ModelError, match="exactly 6 rows, got 4"):
        runner(rows[:4])


def test_a_program_in_another_precision_says_which(path: Path) -> None:
    with pytest.raises(ModelError, match="dtype='float32'"):
        open_model(path, dtype="float64")


def test_programs_with_several_inputs_are_refused(tmp_path: Path, rows: Array) -> None:
    class Two(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return a + b

    path = tmp_path / "two.pt2"
    tensor = torch.from_numpy(rows)
    torch.export.save(torch.export.export(Two(), (tensor, tensor)), path)
    with pytest.raises(ModelError, match="takes 2 inputs"):
        open_model(path)


def test_a_factory_that_repeats_itself_ships_no_weights(stock: Any, rows: Array) -> None:
    handle = open_model("stock:fixed")
    assert handle.kind == "factory"
    assert len(pickle.dumps(handle)) < 1000
    runner = travelled(handle)
    assert runner.fingerprint == handle.fingerprint
    np.testing.assert_array_equal(runner(rows), handle.load()(rows))  # eval: no dropout


def test_a_factory_with_random_weights_ships_them(stock: Any, rows: Array) -> None:
    handle = open_model("stock:random")
    assert travelled(handle).fingerprint == handle.fingerprint
    np.testing.assert_array_equal(travelled(handle)(rows), travelled(handle)(rows))
    assert open_model("stock:random").fingerprint != handle.fingerprint


@pytest.mark.parametrize("nested", [False, True])
def test_a_factory_with_a_file_of_weights(
    stock: Any, tmp_path: Path, rows: Array, linear: torch.nn.Linear, nested: bool
) -> None:
    path = tmp_path / "weights.pth"
    if nested:
        torch.save({"epoch": 3, "state_dict": linear.state_dict()}, path)
    else:
        save_state(linear, path)
    handle = open_model("stock:random", state=path)
    path.unlink()
    out = travelled(handle)(rows)
    np.testing.assert_array_equal(out, linear(torch.from_numpy(rows)).detach().numpy())


def test_weights_that_do_not_fit_or_cannot_be_read(stock: Any, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    with pytest.raises(ModelNotFoundError, match="no such file"):
        open_model("stock:random", state=path)
    torch.save(torch.nn.Linear(5, 3).state_dict(), path)
    with pytest.raises(ModelError, match="size mismatch"):
        open_model("stock:random", state=path)
    torch.save([1, 2], path)
    with pytest.raises(ModelError, match="holds a list"):
        open_model("stock:random", state=path)
    torch.save(stock.Scale(2), path)
    with pytest.raises(UntrustedModelError, match="plain file of weights"):
        open_model("stock:random", state=path, trust_model=True)
    path.write_bytes(b"PK")
    with pytest.raises(ModelError, match="not a"):
        open_model("stock:random", state=path)


def test_safetensors_is_named_when_it_is_missing(
    stock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ModelError, match="pip install safetensors"):
        open_model("stock:random", state=path)


def test_a_module_given_in_python(rows: Array) -> None:
    torch.manual_seed(1)
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(), torch.nn.Linear(8, 2))
    handle = open_model(module)
    assert (handle.kind, module.training) == ("module", True)  # the user's own is left alone
    runner = travelled(handle)
    assert runner.fingerprint == handle.fingerprint
    expected = module.eval()(torch.from_numpy(rows)).detach().numpy()
    np.testing.assert_array_equal(runner(rows), expected)


def test_numpy_callables(stock: Any, rows: Array) -> None:
    for model in (
        stock.doubled,
        "stock:numpy_factory",
        stock.Scale(2),
        functools.partial(np.multiply, 2),
    ):
        handle = open_model(model)
        runner = travelled(handle)
        np.testing.assert_array_equal(runner(rows), rows * 2)
        assert runner.fingerprint == handle.fingerprint
        assert runner.device == "cpu"
    with pytest.raises(ConfigError, match="bfloat16"):
        open_model(stock.doubled, dtype="bfloat16")


def test_fingerprints_tell_models_apart(stock: Any, path: Path) -> None:
    handles = [
        open_model(path),
        open_model("stock:fixed"),
        open_model("stock:fixed", dtype="float64"),
        open_model("stock:fixed", preprocess="stock:doubled"),
        open_model(stock.doubled),
        open_model(stock.Scale(2)),
        open_model(stock.Scale(3)),
        open_model(functools.partial(np.multiply, 2)),
        open_model(functools.partial(np.multiply, 3)),
        open_model(np.tanh),
        open_model(np.sinh),
    ]
    assert len({handle.fingerprint for handle in handles}) == len(handles)
    assert open_model("stock:fixed", device="cpu").fingerprint == handles[1].fingerprint
    assert open_model("stock:fixed", preprocess=stock.doubled) == handles[3]


def test_a_worker_with_other_code_announces_another_fingerprint(
    stock: Any, importable: Write
) -> None:
    handle = open_model("stock:fixed")
    importable("stock", FACTORIES.replace("manual_seed(3)", "manual_seed(4)"))
    assert handle.load().fingerprint != handle.fingerprint


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_fingerprints_are_the_same_in_other_processes(
    stock: Any, path: Path, tmp_path: Path, hash_seed: str
) -> None:
    code = (
        "import stock\nfrom approxifer.models import open_model\n"
        f"for m in ({str(path)!r}, 'stock:fixed', stock.Scale(2)):\n"
        "    print(open_model(m).fingerprint)"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    mine = [open_model(m).fingerprint for m in (path, "stock:fixed", stock.Scale(2))]
    assert done.stdout.split() == mine


def test_fingerprint_ignores_order_but_not_names() -> None:
    class Thing:
        pass

    one, two = Thing(), Thing()
    one.a, one.b = 1, 2  # type: ignore[attr-defined]
    two.b, two.a = 2, 1  # type: ignore[attr-defined]
    options: dict[str, Any] = {"dtype": "float32", "preprocess": None}
    first = fingerprint("x", object_entries(one), **options)
    assert first == fingerprint("x", object_entries(two), **options)
    two.a, two.b = 2, 1  # type: ignore[attr-defined]
    assert first != fingerprint("x", object_entries(two), **options)
    assert first != fingerprint("y", object_entries(one), **options)


class Holder:
    def method(self, rows: Array) -> Array:
        return rows


@pytest.mark.parametrize("model", [Holder, 3, None])
def test_objects_that_are_no_model(model: Any) -> None:
    with pytest.raises(ModelError, match="is not a model"):
        open_model(model)


def test_a_method_of_a_module_takes_no_rows() -> None:
    with pytest.raises(ModelError, match="Give the module itself"):
        open_model(torch.nn.Flatten().forward)


@pytest.mark.parametrize("what", ["lock", "module"])
def test_objects_that_cannot_be_sent(what: str) -> None:
    lock = threading.Lock()
    model: Any = lambda rows: rows if lock else None  # noqa: E731
    if what == "module":
        model = torch.nn.Identity()
        model.lock = lock
    with pytest.raises(ModelError, match="cannot be sent to workers"):
        open_model(model)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ("nowhere.pt2", ModelNotFoundError, "no such file.*package.module:factory"),
        ("no_such_package.models:net", ModelNotFoundError, "no module 'no_such_package'"),
        ("stock:fxed", ModelNotFoundError, "Did you mean 'fixed'"),
        ("stock:constant", ModelError, "is a int, not a factory"),
        ("stock:needs", ModelError, "raised TypeError"),
        ("stock:broken", ModelError, "OSError: no weights here"),
        ("stock:number", ModelError, "returned a int"),
        ("__main__:net", ModelError, "lies in __main__.*Give the object itself"),
    ],
)
def test_names_that_lead_nowhere(
    stock: Any, model: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        open_model(model)


@pytest.mark.parametrize("kind", ["lazy", "on meta"])
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_weights_without_values_are_refused(kind: str) -> None:
    lazy = kind == "lazy"
    module = torch.nn.LazyLinear(2) if lazy else torch.nn.Linear(3, 2, device="meta")
    with pytest.raises(ModelError, match="weight' has no values yet"):
        open_model(torch.nn.Sequential(torch.nn.Flatten(), module))


def test_a_module_that_fails_on_import(importable: Write) -> None:
    importable("explodes", "raise RuntimeError('bang\\nmore')")
    with pytest.raises(ModelError, match=r"raised RuntimeError: bang\.$"):
        open_model("explodes:net")
    importable("needs_other", "import no_such_thing")
    with pytest.raises(ModelNotFoundError, match="no module 'no_such_thing'"):
        open_model("needs_other:net")


def test_options_that_make_no_sense(path: Path, stock: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="float32"):
        open_model(path, dtype="int8")
    with pytest.raises(ConfigError, match="device='tpu'"):
        open_model(path, device="tpu")
    with pytest.raises(ConfigError, match="goes with"):
        open_model(path, state="weights.pth")
    with pytest.raises(ConfigError, match="takes no weights"):
        open_model("stock:numpy_factory", state="weights.pth")
    with pytest.raises(ConfigError, match="threads=0 is too small"):
        open_model(stock.doubled).load(threads=0)
    with pytest.raises(ModelError, match="cannot be read"):
        open_model(tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_device_that_is_not_here(path: Path) -> None:
    handle = open_model(path, device="cuda:7")  # the client need not have it
    with pytest.raises(ModelError, match="device='cuda:7'"):
        handle.load()


def test_runner_leaves_rows_alone_and_takes_any_layout(stock: Any, importable: Write) -> None:
    importable(
        "places",
        """
        def in_place(rows):
            rows += 1
            return rows
        """,
    )
    runner = open_model(__import__("places").in_place).load()
    rows = np.arange(12, dtype=">f8").reshape(4, 3)[::-1, ::2]
    rows.setflags(write=False)
    before = rows.copy()
    out = runner(rows)
    np.testing.assert_array_equal(rows, before)
    np.testing.assert_array_equal(out, (before + 1).astype(np.float32))
    assert out.dtype == np.float32
    torch_runner = open_model("approxifer.models.zoo:mlp").load()
    rows = np.zeros((2, 8, 8), ">f4")
    rows.setflags(write=False)
    assert torch_runner(rows).shape == (2, 10)


@pytest.mark.parametrize(
    ("dtype", "out"),
    [
        ("float32", "float32"),
        ("float64", "float64"),
        ("bfloat16", "float32"),
        ("float16", "float16"),
    ],
)
def test_precisions(dtype: str, out: str, rows: Array, linear: torch.nn.Linear) -> None:
    runner = open_model(linear, dtype=dtype).load()
    assert runner(rows).dtype == out
    np.testing.assert_allclose(
        runner(rows), linear(torch.from_numpy(rows)).detach(), rtol=0.02, atol=0.02
    )


def test_integers_are_passed_on_as_they_are() -> None:
    torch.manual_seed(0)
    runner = open_model(torch.nn.Embedding(5, 3)).load()
    assert runner(np.array([[1, 2], [3, 4]], np.int32)).shape == (2, 2, 3)


@pytest.mark.parametrize("kind", ["uint8", "int32", "int64", "float16", "float64"])
def test_rows_and_module_are_left_as_they_are(kind: str) -> None:
    class Kind(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones((), dtype=torch.float64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            same = str(x.dtype) == f"torch.{kind}" and self.weight.dtype is torch.float64
            return torch.full((len(x), 1), float(same))

    runner = open_model(Kind(), dtype="stored").load()
    assert runner(np.zeros((2, 3), kind)).all()


def test_a_program_takes_what_is_stored(tmp_path: Path, program: bytes, rows: Array) -> None:
    path = tmp_path / "linear.pt2"
    path.write_bytes(program)
    assert open_model(path, dtype="stored").load()(rows).dtype == np.float32


@pytest.mark.parametrize(
    "output", [["cat", "dog"], [b"cat", b"dog"], [object(), None], ["2026-11-29", "NaT"]]
)
def test_outputs_must_be_numbers(output: list[Any]) -> None:
    array = np.array(output, "M8[D]") if "NaT" in output else np.array(output)
    with pytest.raises(ModelError, match="only numbers can be scored"):
        open_model(lambda rows: array).load()(np.zeros((2, 3), np.float32))


def test_outputs_must_be_arrays(importable: Write, rows: Array) -> None:
    outputs = importable(
        "outputs",
        """
        import torch
        def pair(): return lambda rows: (rows, (rows, rows))
        def named(): return lambda rows: {"logits": rows, "loss": 0}
        def scalar(): return lambda rows: rows.sum()
        class Pair(torch.nn.Module):
            def forward(self, x): return x, (x, x)
        """,
    )
    for name, message in (
        ("pair", r"'output_1' is a tuple of 2 \(ndarray, ndarray\)"),
        ("named", "'loss' is a int"),
        ("scalar", "a float32"),
        ("Pair", r"'output_1' is a tuple of 2 \(Tensor, Tensor\)"),
    ):
        with pytest.raises(ModelError, match=message):
            open_model(f"{outputs}:{name}").load()(rows)


def test_threads_are_set_for_every_call(rows: Array, linear: torch.nn.Linear) -> None:
    before = torch.get_num_threads()
    try:
        runner = open_model(linear).load(threads=2)
        torch.set_num_threads(1)
        runner(rows)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("shape", [(2, 8, 8), (2, 28, 28), (2, 32, 32, 3)])
@pytest.mark.parametrize("kind", [np.float32, np.uint8])
def test_zoo_takes_rows_as_stored(shape: tuple[int, ...], kind: type) -> None:
    channels = shape[3] if len(shape) == 4 else 1
    rows = torch.from_numpy(np.full(shape, 16 if shape[1] == 8 else 255, kind))
    pixels = Pixels(16 if shape[1] == 8 else 255, channels=channels)(rows)
    assert pixels.shape == (2, channels, *shape[1:3])
    assert pixels.unique().tolist() == [1.0]
    net = lenet5(shape[1], 7, channels).eval()
    assert net(rows).shape == (2, 7)
    assert mlp(int(np.prod(shape[1:])), 5)(rows).shape == (2, 5)
