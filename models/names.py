"""Importable names: what can be told to another process by ``"package.module:name"``.

A worker is another process, often on another machine: it can import a module, but it cannot see a
lambda, a function inside a function, or what a script or notebook defined in ``__main__``.
"""

import difflib
import importlib
import re
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType
from typing import Any

from approxifer.errors import ModelError, ModelNotFoundError
from approxifer.models.runtime import torch_lock
from approxifer.models.user_code.exits import NoExit

SPEC = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")

REMEDY = (
    "Workers are other processes and can only import it: put it at the top level of a module that"
    " they can import (a .py file of an installed package, or one on PYTHONPATH) and give it as"
    " 'package.module:name'"
)


def first_line(error: BaseException) -> str:
    """Return the error's type and the first line of its message, for use inside another message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def is_spec(text: str) -> bool:
    """Tell whether `text` has the form ``package.module:name``."""
    return SPEC.fullmatch(text) is not None


def import_name(spec: str, what: str = "model") -> Any:
    """Import what ``"package.module:name"`` names. **This runs the module's code.**

    Raises
    ------
    ModelNotFoundError
        No such module, or no such name in it.
    ModelError
        The text has another form, or the module raised while it was imported.
    """
    if not is_spec(spec):
        raise ModelError(
            f"{what}={spec!r} is not an import name. Give 'package.module:name', for example"
            " 'approxifer.models.zoo:lenet5'."
        )
    module_name, _, path = spec.partition(":")
    if module_name == "__main__":
        raise ModelError(f"{what}={spec!r} lies in __main__. {REMEDY}.")
    with torch_lock, NoExit(f"{what}={spec!r}: importing {module_name}"):
        return _import(module_name, path, f"{what}={spec!r}")


def _import(module_name: str, path: str, what: str) -> Any:
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ModelNotFoundError(
            f"{what}: there is no module {error.name!r} here. Install the package that"
            " has it (on the workers too), or add its folder to PYTHONPATH."
        ) from error
    except Exception as error:
        raise ModelError(f"{what}: importing {module_name} raised {first_line(error)}.") from error
    for part in path.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, [n for n in dir(found) if n[0] != "_"], n=3)
            hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise ModelNotFoundError(
                f"{what}: {module_name} was imported but has no {path!r}.{hint}"
            )
        found = getattr(found, part)
    return found


def qualified_name(obj: Any, what: str = "model") -> str:
    """Return the ``"package.module:name"`` under which a worker can import `obj`.

    Parameters
    ----------
    obj : function or class

    Raises
    ------
    ModelError
        It is a lambda, local to a function, defined in ``__main__``, or its own name leads to
        something else.
    """
    module = getattr(obj, "__module__", None)
    name = getattr(obj, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        raise ModelError(f"{what}={obj!r} has no import name. {REMEDY}.")
    if "<lambda>" in name:
        raise ModelError(f"{what} is a lambda ({module}). {REMEDY}.")
    if "<locals>" in name:
        raise ModelError(f"{what}={name} is defined inside a function of {module}. {REMEDY}.")
    if module == "__main__":
        raise ModelError(f"{what}={name} is defined in __main__ (script or notebook). {REMEDY}.")
    spec = f"{module}:{name}"
    if import_name(spec, what) is not obj:
        raise ModelError(
            f"{what}={spec!r} is not the object of that name in {module}: it was replaced or"
            f" decorated. {REMEDY}."
        )
    return spec


def resolve_callable(
    spec: str | Callable[..., Any], what: str = "preprocess"
) -> Callable[..., Any]:
    """Return the function that `spec` names, sure to be importable on a worker.

    Parameters
    ----------
    spec : str or callable
        ``"package.module:function"`` (importing it runs that module's code), or the function.
    what : str
        The argument's name, for messages.

    Raises
    ------
    ModelError
        It cannot be imported by name elsewhere, or is not callable.
    ModelNotFoundError
        No such module or name.
    """
    found = import_name(spec, what) if isinstance(spec, str) else spec
    if not callable(found):
        raise ModelError(
            f"{what}={spec!r} is a {type(found).__name__}, which cannot be called. Give a function."
        )
    if not isinstance(found, (FunctionType, BuiltinFunctionType, type)):
        # An instance has no name of its own: the spec by which it was found must be that name.
        if isinstance(spec, str):
            return found
        raise ModelError(f"{what}={found!r} is not a plain function. {REMEDY}.")
    if not isinstance(spec, str):
        qualified_name(found, what)
    return found
