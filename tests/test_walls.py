"""The walls between the rooms of the house: imports that must never be.

docs/architecture.md has the map. An import counts wherever it stands, within functions too; what
is for type checkers alone (``if TYPE_CHECKING:``) does not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP = ("approxifer", "benchmarks", "coding", "datasets", "models", "pipeline")
P = "approxifer.pipeline"
HEAVY = ("torch", "zarr", "xarray", "rich", "matplotlib")
SHOWN = (f"{P}.reporting", f"{P}.cli", "rich", "matplotlib")

#: From, to what never, and why.
WALLS: list[tuple[str, tuple[str, ...], str]] = [
    (P, ("approxifer.benchmarks",), "the product knows no benchmark"),
    (f"{P}.scheduler", (f"{P}.client", f"{P}.reporting", f"{P}.cluster", "approxifer.models",
                        "approxifer.datasets", *HEAVY), "the scheduler stays light"),
    (f"{P}.worker", (f"{P}.faults", f"{P}.client", f"{P}.planning"), "production code runs there"),
    (f"{P}.client", (f"{P}.faults", *SHOWN), "the loop shows nothing"),
    (f"{P}.byzantine", (f"{P}.client", f"{P}.scheduler", f"{P}.cluster", "distributed", "dask"),
     "verdicts are simulated without a cluster"),
    (f"{P}.cluster", (f"{P}.client", *SHOWN), "a cluster shows nothing and runs nothing"),
    (f"{P}.reporting.report", (f"{P}.reporting.timeline", "matplotlib"), "score() draws nothing"),
    ("approxifer.coding", ("approxifer.models", "approxifer.datasets", P, "torch", "zarr"), "pure"),
    ("approxifer.models", (P, "distributed"), "a model is run anywhere"),
    ("approxifer.datasets", (P, "distributed", "torch"), "a store is read anywhere"),
]  # fmt: skip


def modules() -> Iterator[tuple[str, Path]]:
    """All modules of the product, by name."""
    for top in TOP:
        for path in (ROOT / top).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            yield ".".join(parts if top == "approxifer" else ("approxifer", *parts)), path


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, and what it takes out of them."""

    def walk(node: ast.AST) -> Iterator[ast.AST]:
        for child in ast.iter_child_nodes(node):
            if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
                yield child
                yield from walk(child)

    for node in walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


@pytest.mark.parametrize(("room", "never", "why"), WALLS, ids=lambda value: str(value)[:40])
def test_walls_stand(room: str, never: tuple[str, ...], why: str) -> None:
    here = [(name, path) for name, path in modules() if within(name, room)]
    assert here, "the room is not there"
    found = {
        f"{name} imports {one}"
        for name, path in here
        for one in imports(path)
        if any(within(one, wall) for wall in never)
    }
    assert not found, why


def test_no_import_goes_round() -> None:
    """No module is imported, by whatever way, by what it imports."""
    known = dict(modules())
    graph = {
        name: {one if one in known else one.rpartition(".")[0] for one in imports(path)}
        & set(known)
        for name, path in known.items()
    }
    circles = [name for name in known if name in _reached(graph, name)]
    assert circles == []


def _reached(graph: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    left = list(graph[start] - {start})
    while left:
        if (name := left.pop()) not in found:
            found.add(name)
            left += graph[name]
    return found


def test_no_folder_is_crowded() -> None:
    for room in {path.parent for _, path in modules()}:
        most = 20 if room.name in ("models", "datasets") else 16
        count = len([path for path in room.glob("*.py") if path.name != "__init__.py"])
        assert count <= most, f"{room} has {count} modules"
