"""Definitions at the top level of a module's source, and what each of them reaches.

Read from the source, never from the running module: a global that a program changes while it runs
is the same code before and after. Comments, layout and docstrings do not count.
"""

import ast
import contextlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from approxifer.models.names import MAIN

#: Where Python and its packages lie; what is elsewhere is the user's own.
_PLACES = tuple(
    Path(sysconfig.get_path(name)).resolve()
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
_PACKAGES = {"site-packages", "dist-packages"}
#: What is not true in a module that is imported and run.
_NEVER = (
    "__name__ == '__main__'",
    "'__main__' == __name__",
    "TYPE_CHECKING",
    "typing.TYPE_CHECKING",
)


@dataclass(frozen=True)
class Import:
    """One name that an import statement binds: of `module`, or the module itself (`name` None).

    `name` is ``"*"`` for all names.
    """

    module: str
    name: str | None
    bound: str
    text: str


@dataclass
class Definitions:
    """The top level of a module of the user's own.

    Attributes
    ----------
    module, package : str
        Its name, and that of the package from which its relative imports count.
    by_name : dict
        For each name the statements that bind it.
    effects : list
        Statements that do more than bind names, such as calls.
    body : list
        All statements, but those under ``if __name__ == "__main__"`` and ``if TYPE_CHECKING``.
    """

    module: str
    package: str
    by_name: dict[str, list[ast.stmt]] = field(default_factory=dict)
    effects: list[ast.stmt] = field(default_factory=list)
    body: list[ast.stmt] = field(default_factory=list)

    @classmethod
    def of(cls, module: str, package: str, source: str | bytes) -> "Definitions":
        """Read a module's source.

        Raises
        ------
        SyntaxError, ValueError
            It is no Python.
        """
        found = cls(module, package)
        for statement in bare(ast.parse(source)).body:
            if isinstance(statement, ast.If) and ast.unparse(statement.test) in _NEVER:
                continue
            found.body.append(statement)
            for name in dict.fromkeys(_bound(statement)):
                found.by_name.setdefault(name, []).append(statement)
            if _does_more(statement):
                found.effects.append(statement)
        return found

    def imports(self, node: ast.AST) -> Iterator[Import]:
        """The imports within a statement, wherever they stand."""
        for one in ast.walk(node):
            if isinstance(one, ast.Import):
                for alias in one.names:
                    bound = alias.asname or alias.name.partition(".")[0]
                    yield Import(alias.name, None, bound, f"import {ast.unparse(alias)}")
            elif isinstance(one, ast.ImportFrom):
                source = self._absolute(one)
                for alias in one.names:
                    text = f"from {source} import {ast.unparse(alias)}"
                    yield Import(source, alias.name, alias.asname or alias.name, text)

    def _absolute(self, node: ast.ImportFrom) -> str:
        name = "." * node.level + (node.module or "")
        try:
            return importlib.util.resolve_name(name, self.package)
        except ImportError:
            return name

    def references(self, node: ast.AST) -> list[str]:
        """The names of this module's that a statement mentions."""
        mentioned = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
        return sorted(mentioned & self.by_name.keys())


def bare(tree: Any) -> Any:
    """Take the docstrings out of a syntax tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            constant = first.value if isinstance(first, ast.Expr) else None
            if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                node.body = node.body[1:] or [ast.Pass()]
    return tree


def find(module: str) -> ModuleSpec | None:
    """The import system's record of a module; None where there is none."""
    loaded = sys.modules.get(module)
    if loaded is not None:
        return getattr(loaded, "__spec__", None)
    try:
        return importlib.util.find_spec(module)
    except Exception:  # a package's own __init__ or __getattr__ may raise anything
        return None


def is_own(module: str) -> bool:
    """True for a module of the user's: neither Python's, nor an installed package's, nor ours."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top in (*MAIN, "approxifer"):
        return False
    spec = find(module)
    if spec is None or not spec.has_location or spec.origin is None:
        return False
    path = Path(spec.origin).resolve()
    return not (_PACKAGES & set(path.parts) or any(path.is_relative_to(one) for one in _PLACES))


def read(module: str) -> Definitions | bytes | None:
    """Read a module of the user's; its file where it has no source, None where it is not theirs."""
    spec = find(module)
    if not is_own(module) or spec is None or spec.origin is None:
        return None
    package = module if spec.submodule_search_locations is not None else spec.parent or ""
    get_source = getattr(spec.loader, "get_source", None)
    source: str | bytes | None = None
    with contextlib.suppress(ImportError, OSError, SyntaxError):
        source = get_source(spec.name) if get_source is not None else None
    try:
        source = source or Path(spec.origin).read_bytes()
        return Definitions.of(module, package, source)
    except OSError:
        return None
    except (SyntaxError, ValueError):  # compiled
        return source if isinstance(source, bytes) else None


def _bound(node: ast.AST) -> Iterator[str]:
    """The names that a statement binds in its own scope."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
        return
    if isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        return
    if isinstance(node, ast.Import | ast.ImportFrom):
        for alias in node.names:
            yield alias.asname or alias.name.partition(".")[0]
    elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        yield node.id
    elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
        yield node.name
    for child in ast.iter_child_nodes(node):
        yield from _bound(child)


def _does_more(node: ast.stmt) -> bool:
    """True for a statement that does more than bind names of its own."""
    if isinstance(node, ast.ImportFrom):
        return node.names[0].name == "*"
    if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Delete):
        targets = node.targets if isinstance(node, ast.Assign | ast.Delete) else [node.target]
        return any(isinstance(one, ast.Attribute | ast.Subscript) for one in targets)
    if isinstance(node, ast.If | ast.Try | ast.For | ast.While):
        handled = [one for handler in getattr(node, "handlers", ()) for one in handler.body]
        inner = [one for one in ast.iter_child_nodes(node) if isinstance(one, ast.stmt)]
        return any(map(_does_more, inner + handled))
    return isinstance(node, ast.Expr | ast.With | ast.Match | ast.Raise | ast.Assert)
