"""Identity of the user's code: what is run, as one sha256 for each of its parts.

Begun from a function, a class or an object, the walk goes on to whatever it reaches, through names
and imports, as long as that is the user's own: not Python's, nor an installed package's.

======================== ======================================================================
``"mods.pre"``           a definition at the top of a module: its syntax tree
``"module helpers"``     a module that is imported whole, as in ``import helpers``
``"mods (statements)"``  statements at the top of a module that do more than bind names
``"__main__.<lambda>"``  what has no name in a module: its source, defaults, closure and globals
======================== ======================================================================

The same in every process: nothing depends on addresses, on the order of sets or on ``hash()``.
"""

import ast
import copyreg
import functools
import hashlib
import inspect
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from approxifer.models.fingerprint import tensor_entries
from approxifer.models.names import MAIN, is_importable
from approxifer.models.user_code.definitions import Definitions, Import, bare, find, is_own, read

#: Members of a class that Python itself puts there.
_PYTHONS = {
    "__module__", "__doc__", "__dict__", "__weakref__", "__qualname__", "__firstlineno__",
    "__static_attributes__", "__annotations__", "__abstractmethods__", "_abc_impl",
    "__parameters__", "__slotnames__",
}  # fmt: skip
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...), np.generic)


def code_parts(*roots: object) -> dict[str, str]:
    """Return the parts of the user's code that objects reach: names, and a sha256 in hex of each.

    Parameters
    ----------
    roots : functions, classes, modules or objects
        Data of an object, weights for instance, is no code; what a function closes over is. A text
        ``"package.module:name"`` stands for what is defined there, and None for nothing.
    """
    walk = _Walk()
    for root in roots:
        if isinstance(root, str):
            module, _, path = root.partition(":")
            walk.sources.definition(module, path.partition(".")[0], asked=True)
        else:
            walk.value(root)
    return {name: _digest(sorted(texts)) for name, texts in sorted(walk.sources.parts.items())}


def data_digest(value: object) -> str:
    """Return a sha256 in hex of an object's data; functions and classes count by their names."""
    return _digest([_Walk(code=False).value(value)])


def changes(given: Mapping[str, str], stored: Mapping[str, str]) -> list[str]:
    """Name the parts that differ: changed, added or gone."""
    found = [name for name in sorted(given.keys() & stored.keys()) if given[name] != stored[name]]
    found += [f"{name} (not used before)" for name in sorted(given.keys() - stored.keys())]
    return found + [f"{name} (not used now)" for name in sorted(stored.keys() - given.keys())]


def _digest(texts: list[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()


class _Sources:
    """Modules of the user's as far as they are reached, and the parts found there."""

    def __init__(self) -> None:
        self.parts: dict[str, set[str]] = {}
        self._read: dict[str, Definitions | bytes | None] = {}
        self._reached: set[tuple[str, str | None]] = set()

    def add(self, part: str, text: str) -> None:
        self.parts.setdefault(part, set()).add(text)

    def module(self, name: str) -> Definitions | None:
        """A module's definitions; None where it is not the user's, or has no source."""
        if name not in self._read:
            found = self._read[name] = read(name)
            if found is not None and "." in name:
                self.module(name.rpartition(".")[0])
            if isinstance(found, bytes):
                self.add(f"module {name}", hashlib.sha256(found).hexdigest())
            elif found is not None:
                for statement in found.effects:
                    self._statement(found, statement, f"{name} (statements)")
        known = self._read[name]
        return known if isinstance(known, Definitions) else None

    def definition(self, module: str, name: str, *, asked: bool = False) -> None:
        """Reach a name in a module. One that is ``asked`` for and not bound there is made by the
        module in another way: all of it counts."""
        found = self.module(module)
        if found is None or self._seen(module, name):
            return
        if name not in found.by_name:
            if is_own(f"{module}.{name}"):
                self.whole(f"{module}.{name}")
            elif asked:
                self.whole(module)
            return
        for statement in found.by_name[name]:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                for one in found.imports(statement):
                    if one.bound == name:
                        self.add(f"{module}.{name}", one.text)
                        self._reach(one)
            else:
                self._statement(found, statement, f"{module}.{name}")

    def whole(self, module: str) -> None:
        """Reach all of a module."""
        found = self.module(module)
        if found is None or self._seen(module, None):
            return
        for number, statement in enumerate(found.body):
            self.add(f"module {module}", f"{number} {ast.unparse(statement)}")
            for one in found.imports(statement):
                self._reach(one)

    def _seen(self, module: str, name: str | None) -> bool:
        before = (module, name) in self._reached
        self._reached.add((module, name))
        return before

    def _statement(self, found: Definitions, statement: ast.stmt, part: str) -> None:
        self.add(part, ast.unparse(statement))
        for one in found.imports(statement):
            self._reach(one)
        for name in found.references(statement):
            self.definition(found.module, name)

    def _reach(self, one: Import) -> None:
        if one.name is None or one.name == "*":
            self.whole(one.module)
        elif self.module(one.module) is not None:
            self.definition(one.module, one.name, asked=True)
        else:  # of a folder without __init__.py, perhaps
            self.whole(f"{one.module}.{one.name}")


class _Walk:
    """Goes through live objects; makes a text of each, the same in every process.

    Parameters
    ----------
    code : bool
        Go into functions and classes, and collect their parts; data counts inside of them alone.
        Else all data counts, and code by its name.
    """

    def __init__(self, *, code: bool = True) -> None:
        self.sources = _Sources()
        self._code = code
        self._inside = 0  #: functions that the walk is in
        self._open: list[int] = []  #: objects that it is in, by address
        self._done: dict[tuple[int, bool], tuple[object, str]] = {}

    def value(self, value: Any) -> str:
        """Return the text of an object."""
        data = bool(self._inside) or not self._code
        if isinstance(value, _PLAIN):
            return f"{type(value).__name__} {value!r}" if data else ""
        key = id(value)
        if key in self._open:
            return f"loop {len(self._open) - self._open.index(key)}"
        if (key, data) not in self._done:
            self._open.append(key)
            try:
                text = self._text(value, data)
            except RecursionError:
                text = f"deep {type(value).__qualname__}"
            finally:
                self._open.pop()
            self._done[key, data] = (value, text)  # kept alive, so that its address stays its own
        return self._done[key, data][1]

    def _text(self, value: Any, data: bool) -> str:
        if isinstance(value, types.ModuleType):
            if self._code:
                self.sources.whole(value.__name__)
            return f"module {value.__name__}"
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            return self._all("method", (value.__func__, value.__self__))
        if isinstance(value, staticmethod | classmethod):
            return self._all(type(value).__name__, (value.__func__,))
        if isinstance(value, property):
            return self._all("property", (value.fget, value.fset, value.fdel))
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            raw = np.ascontiguousarray(value).tobytes() if data else b""
            return f"array {value.dtype.str} {value.shape} {hashlib.sha256(raw).hexdigest()}"
        if (torch := sys.modules.get("torch")) and isinstance(value, torch.Tensor):
            return self._tensor(value) if data else "tensor"
        return self._object(value)

    def _tensor(self, value: Any) -> str:
        (entry,) = tensor_entries({"": value})
        raw = hashlib.sha256(np.asarray(entry.data).tobytes()).hexdigest()
        return f"tensor {entry.dtype} {entry.shape} {raw}"

    def _object(self, value: Any) -> str:
        kind = type(value)
        if kind in (list, tuple):
            return self._all(kind.__name__, value)
        if kind in (set, frozenset):
            return f"{kind.__name__} {sorted(map(self.value, value))}"
        if kind is dict:
            return (
                f"dict {sorted((self.value(key), self.value(item)) for key, item in value.items())}"
            )
        try:
            how = copyreg.dispatch_table.get(kind)
            made: Any = how(value) if how is not None else value.__reduce_ex__(4)
        except Exception:  # it cannot be pickled: a lock, or whatever its class refuses
            return self._all(f"{kind.__module__}.{kind.__qualname__}", (kind, _state(value)))
        if isinstance(made, str):
            return f"global {getattr(value, '__module__', None)}.{made}"
        parts = [list(one) if hasattr(one, "__next__") else one for one in made]
        return self._all("made", parts)

    def _all(self, word: str, values: Any) -> str:
        return f"{word} ({', '.join(map(self.value, values))})"

    def _class(self, value: type) -> str:
        name = f"{value.__module__}.{value.__qualname__}"
        if not self._code:
            return f"class {name}"
        if _by_name(value):
            self.sources.definition(value.__module__, value.__qualname__.partition(".")[0])
            return f"class {name}"
        if _is_library(value.__module__):
            return f"class {name}"
        self._inside += 1
        members = sorted((n, self.value(m)) for n, m in vars(value).items() if n not in _PYTHONS)
        text = f"{self._all('bases', value.__bases__)} {members}"
        self._inside -= 1
        self.sources.add(name, text)
        return f"class {name} {_digest([text])}"

    def _function(self, value: types.FunctionType) -> str:
        name = f"{value.__module__}.{value.__qualname__}"
        if not self._code:
            return f"function {name}"
        if _by_name(value):
            self.sources.definition(value.__module__, value.__qualname__.partition(".")[0])
            return f"function {name}"
        library = _is_library(value.__module__)
        self._inside += 1
        text = " ".join((
            self._all("defaults", (value.__defaults__, value.__kwdefaults__)),
            self._all("closure", map(_content, value.__closure__ or ())),
            self._all("attributes", sorted(vars(value).items())),
            *(() if library else self._body(value)),
        ))  # fmt: skip
        self._inside -= 1
        if not library:
            self.sources.add(name, text)
        return f"function {name} {_digest([text])}"

    def _body(self, value: types.FunctionType) -> Iterator[str]:
        yield _source(value.__code__) or _bytecode(value.__code__)
        for name in sorted(_names(value.__code__)):
            yield f"{name} = {self._global(value, name)}"

    def _global(self, function: types.FunctionType, name: str) -> str:
        """Return the text of a global of a function that is shipped with its globals' values."""
        if name not in function.__globals__:
            return ""
        value = function.__globals__[name]
        found = self.sources.module(function.__module__)
        if found is None:
            return self.value(value)
        self.sources.definition(function.__module__, name)
        return self.value(value) if isinstance(value, _PLAIN) else ""


def _state(value: Any) -> Any:
    return getattr(value, "__dict__", None)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return None


def _by_name(value: Any) -> bool:
    """True for what a worker imports; a module that was made in memory cannot be imported."""
    return is_importable(value) and find(value.__module__) is not None


def _is_library(module: str) -> bool:
    return module not in MAIN and find(module) is not None and not is_own(module)


def _names(code: types.CodeType) -> set[str]:
    """The names that code looks up outside of itself: globals, and attributes among them."""
    inner = [one for one in code.co_consts if isinstance(one, types.CodeType)]
    return {*code.co_names, *(name for one in inner for name in _names(one))}


@functools.lru_cache(maxsize=64)
def _tree(source: str) -> ast.Module:
    tree: ast.Module = bare(ast.parse(source))
    return tree


def _source(code: types.CodeType) -> str:
    """The source of a function, without comments and docstrings; empty where it is not known."""
    try:
        lines, _ = inspect.findsource(code)
        tree = _tree("".join(lines))
    except (OSError, SyntaxError, IndexError):
        return ""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            here = first == code.co_firstlineno and node.name == code.co_name
        else:
            here = isinstance(node, ast.Lambda) and code.co_name == "<lambda>"
            here = here and node.lineno == code.co_firstlineno  # type: ignore[attr-defined]
        if here:
            found.append(ast.unparse(node))
    return "\n".join(found)


def _bytecode(code: types.CodeType) -> str:
    constants = [
        _bytecode(one) if isinstance(one, types.CodeType)
        else f"frozenset {sorted(map(repr, one))}" if isinstance(one, frozenset)
        else repr(one)
        for one in code.co_consts
    ]  # fmt: skip
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return f"{code.co_code.hex()} {names} {constants} {code.co_flags} {code.co_argcount}"
