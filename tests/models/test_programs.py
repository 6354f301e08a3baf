"""Exported programs: the batches that they take, their arguments, where they come from."""

import io
import itertools
import pickle
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch

from approxifer.errors import ModelError, ModelNotFoundError
from approxifer.models import open_model, probe, run_rows
from approxifer.models.batches import ANY, BatchSizes
from approxifer.models.pt2 import trial

Array = np.ndarray[Any, Any]
Dim, AUTO = torch.export.Dim, torch.export.Dim.AUTO
ROWS = np.linspace(-1, 1, 64, dtype=np.float32).reshape(16, 4)


@pytest.fixture(autouse=True)
def no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each program here was just exported."""
    monkeypatch.setattr(trial, "_child", lambda programs: ["" for _ in programs])


class Net(torch.nn.Module):
    """``times * (linear(rows) + shift)``, its rows given in one of several ways."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, rows: Any, shift: float | None = None, *, times: float = 1.0) -> Any:
        if isinstance(rows, dict):
            rows = rows["rows"]
        return times * (self.linear(rows.float()) + (shift or 0.0))


def exported(
    module: torch.nn.Module, *args: Any, dynamic: Any = None, **kwargs: Any
) -> torch.export.ExportedProgram:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        return torch.export.export(module.eval(), args, kwargs, dynamic_shapes=dynamic)


def saved(path: Path, program: torch.export.ExportedProgram) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, path)
    return path


def expected(rows: Array, **options: Any) -> Array:
    out: Array = Net()(torch.from_numpy(rows), **options).detach().numpy()
    return out


B = Dim("b", min=1, max=64)


@pytest.mark.parametrize(
    ("size", "batches", "batch"),
    [
        (Dim("b", min=2, max=32), BatchSizes(2, 32), 32),
        (Dim("b", min=1, max=4), BatchSizes(1, 4), 4),
        (Dim("b", min=2, max=7), BatchSizes(2, 7), 4),
        (Dim("b", min=100, max=200), BatchSizes(100, 200), 104),
        (8 * B, BatchSizes(16, 512, 8), 64),
        (2 * B + 1, BatchSizes(5, 129, 2), 63),
        (AUTO, BatchSizes(2), 64),
        (None, BatchSizes(112, 112), 112),
    ],
)
def test_batch_sizes_are_read_from_the_file_and_kept_to(
    tmp_path: Path, size: Any, batches: BatchSizes, batch: int
) -> None:
    rows = torch.zeros(batches.fit(112), 4)
    program = exported(Net(), rows, dynamic=({0: size},) if size is not None else None)
    handle = open_model(saved(tmp_path / "net.pt2", program))
    assert (handle.batches, handle.batches.fit(64)) == (batches, batch)
    assert probe(handle, ROWS, batch).output_shape == (3,)
    np.testing.assert_allclose(run_rows(handle.load(), ROWS, batch), expected(ROWS), atol=1e-6)


@pytest.mark.parametrize("sizes", [ANY, BatchSizes(3, 100, 7), BatchSizes(5, 5), BatchSizes(2, 3)])
def test_a_batch_that_fits_is_one_of_the_sizes(sizes: BatchSizes) -> None:
    every = list(itertools.takewhile(lambda n: n <= 300, range(sizes.least, 301, sizes.step)))
    every = [n for n in every if n <= sizes.most]
    assert all(n in sizes for n in every)
    assert (sizes.least - 1 in sizes, sizes.most + 1 in sizes) == (False, False)
    for wanted in range(1, 130):
        found = sizes.fit(wanted)
        assert found in sizes
        assert found <= wanted or wanted < sizes.least
        if wanted >= 8 and sizes is ANY:
            assert found == wanted // 8 * 8


def test_sizes_that_depend_on_two_numbers_are_explained(tmp_path: Path) -> None:
    class Flat(torch.nn.Module):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return rows.reshape(-1, 4)

    rows = torch.zeros(9, 4)
    program = exported(Flat(), rows, dynamic=({0: AUTO},))
    place = next(n for n in program.graph.nodes if n.op == "placeholder")
    size = place.meta["val"].shape[0]
    place.meta["val"] = place.meta["val"].new_empty((size * size, 4))
    with pytest.raises(ModelError, match="a plain dynamic batch dimension"):
        open_model(program)


WAYS: dict[str, tuple[tuple[Any, ...], dict[str, Any], Any, dict[str, Any]]] = {
    "none": ((torch.zeros(4, 4), None), {}, ({0: AUTO}, None), {}),
    "constant": ((torch.zeros(4, 4), 2.0), {}, ({0: AUTO}, None), {"shift": 2.0}),
    "named constant": (
        (torch.zeros(4, 4),),
        {"times": 3.0},
        {"rows": {0: AUTO}, "times": None},
        {"times": 3.0},
    ),
    "named": ((), {"rows": torch.zeros(4, 4)}, {"rows": {0: AUTO}}, {}),
    "in a dict": (({"rows": torch.zeros(4, 4)},), {}, {"rows": {"rows": {0: AUTO}}}, {}),
}


@pytest.mark.parametrize("way", WAYS)
def test_rows_beside_constants_by_name_or_in_a_dict(tmp_path: Path, way: str) -> None:
    args, kwargs, dynamic, options = WAYS[way]
    program = exported(Net(), *args, dynamic=dynamic, **kwargs)
    handle = open_model(saved(tmp_path / "net.pt2", program))
    np.testing.assert_allclose(handle.load()(ROWS), expected(ROWS, **options), atol=1e-6)
    assert handle.load().forward.alone is False


@pytest.mark.parametrize("trusted", [False, True])
def test_a_second_tensor_is_explained(tmp_path: Path, trusted: bool) -> None:
    class Two(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return a + b

    path = saved(tmp_path / "two.pt2", exported(Two(), torch.zeros(4, 4), torch.zeros(4, 4)))
    with pytest.raises(ModelError, match=r"^model 'two.pt2' takes 2 inputs \(a, b\)\. Only"):
        open_model(path, trust_model=trusted)


@pytest.mark.parametrize("stored", ["uint8", "int32", "bool"])
def test_whole_numbers_are_taken_as_stored(tmp_path: Path, stored: str) -> None:
    class Table(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.table = torch.nn.Embedding(256, 3)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.table(ids).sum(1)

    ids = torch.zeros(4, 5, dtype=torch.int64)
    path = saved(tmp_path / "ids.pt2", exported(Table(), ids, dynamic=({0: AUTO},)))
    rows = (np.arange(40).reshape(8, 5) % 2).astype(stored)
    right = Table()(torch.from_numpy(rows.astype(np.int64))).detach().numpy()
    runner = open_model(path).load()
    np.testing.assert_array_equal(runner(rows), right)
    with pytest.raises(
        ModelError, match=r"exported for int64 rows, and gets float32 ones.*uncoded"
    ):
        probe(runner, rows.astype(np.float32), 8)


def test_pictures_of_bytes(tmp_path: Path) -> None:
    example = torch.zeros(4, 4, dtype=torch.uint8)
    path = saved(tmp_path / "bytes.pt2", exported(Net(), example, dynamic=({0: AUTO},)))
    rows = np.arange(64, dtype=np.uint8).reshape(16, 4)
    np.testing.assert_allclose(open_model(path).load()(rows), expected(rows), rtol=1e-5)
    with pytest.raises(ModelError, match="exported for uint8 rows, and gets int16 ones"):
        open_model(path).load()(rows.astype(np.int16))


def test_whole_numbers_for_a_program_of_floats(tmp_path: Path) -> None:
    program = exported(Net(), torch.zeros(4, 4), dynamic=({0: AUTO},))
    rows = np.arange(64, dtype=np.uint8).reshape(16, 4)
    runner = open_model(saved(tmp_path / "net.pt2", program)).load()
    np.testing.assert_allclose(runner(rows), expected(rows), rtol=1e-5)


def test_a_program_given_in_python(tmp_path: Path) -> None:
    program = exported(Net(), torch.zeros(4, 4), dynamic=({0: AUTO},))
    handle = open_model(program)
    assert (handle.kind, handle.name) == ("pt2", "ExportedProgram")
    runner = pickle.loads(pickle.dumps(handle)).load()
    np.testing.assert_allclose(runner(ROWS), expected(ROWS), atol=1e-6)
    from_file = open_model(saved(tmp_path / "net.pt2", program))
    assert runner.fingerprint == handle.fingerprint == from_file.fingerprint


class Slope(torch.nn.Module):
    """The gradient of a function of each row."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            rows = rows.detach().requires_grad_(True)
            (slope,) = torch.autograd.grad(self.net(rows).square().sum(), rows)
            return slope


class Attached(Net):
    """Returns a tensor that knows how it was made."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            return super().forward(rows)


@pytest.mark.parametrize("kind", [Slope, Attached])
def test_a_module_may_take_gradients(kind: type[torch.nn.Module]) -> None:
    right = kind().eval()(torch.from_numpy(ROWS)).detach().numpy()
    np.testing.assert_allclose(open_model(kind()).load()(ROWS), right, atol=1e-6)


class Ungraded(Net):
    """Takes gradients where none are recorded."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        rows = rows.requires_grad_(True)
        return torch.autograd.grad(super().forward(rows).sum(), rows)[0]


def test_a_module_that_does_not_record_its_gradients_is_told_how() -> None:
    with pytest.raises(ModelError, match=r"within torch\.enable_grad\(\)"):
        probe(open_model(Ungraded()), ROWS, 4)


def test_a_gradient_operator_in_a_file_is_explained(tmp_path: Path) -> None:
    class Backward(torch.nn.Module):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return torch.ops.aten.embedding_dense_backward(
                rows, torch.zeros(len(rows), dtype=torch.int64), 2, -1, False
            ).expand(len(rows), -1, -1)

    path = tmp_path / "slope.pt2"
    saved(path, exported(Backward(), torch.zeros(4, 4)))
    with pytest.raises(ModelError, match="a gradient that the model takes") as caught:
        open_model(path)
    assert "trust_model" in str(caught.value)


@pytest.fixture
def bucket() -> Callable[[str, bytes], str]:
    """Put a file into a storage that has URLs."""

    def put(name: str, data: bytes) -> str:
        url = f"memory://bucket/{name}"
        with fsspec.open(url, "wb") as file:
            file.write(data)
        return url

    return put


def test_models_and_weights_at_urls(
    bucket: Callable[[str, bytes], str], program: bytes, path_of_state: bytes
) -> None:
    handle = open_model(bucket("net.pt2", program))
    assert (handle.name, handle.kind) == ("net.pt2", "pt2")
    url = bucket("weights.pth", path_of_state)
    weighted = open_model("approxifer.models.zoo:mlp", state=url)
    assert weighted.kind == "factory"


@pytest.fixture
def path_of_state() -> bytes:
    from approxifer.models.zoo import mlp

    buffer = io.BytesIO()
    torch.save(mlp().state_dict(), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("url", "kind", "message"),
    [
        ("memory://bucket/none.pt2", ModelNotFoundError, "no such file. Check the spelling"),
        ("nosuch://bucket/a.pt2", ModelError, "Protocol not known: nosuch"),
        ("s3://me:secret@bucket/a.pt2", ModelError, r"s3://\*\*\*@bucket.*[Ii]nstall"),
    ],
)
def test_urls_that_cannot_be_read(
    url: str, kind: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(kind, match=message) as caught:
        open_model(url)
    assert "\n" not in str(caught.value)
