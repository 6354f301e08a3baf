"""Names of code: what another process can import by ``"package.module:name"``."""

import difflib
import importlib
import re
import sys
from collections.abc import Callable
from typing import Any

from approxifer.checks import told
from approxifer.errors import ModelError, ModelNotFoundError
from approxifer.models.runtime import torch_lock
from approxifer.models.user_code.exits import NoExit

SPEC = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")

#: The modules that are another one in each process: scripts and notebooks, and what a worker that
#: has imported its parent's script calls it.
MAIN = ("__main__", "__mp_main__")


def first_line(error: BaseException) -> str:
    """Return the error's type and the first line of its message, for use inside another message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def is_spec(text: str) -> bool:
    """True if `text` has the form ``package.module:name``."""
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
    if module_name in MAIN:
        raise ModelError(
            f"{what}={spec!r} lies in {module_name}, which is another module in each process. Give"
            " the object itself, in Python, or put it into a module of its own."
        )
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


def is_importable(obj: Any) -> bool:
    """True for a function or class that another process can find under its own name.

    Not a lambda, nor what is defined within a function, in a script or in a notebook, nor what was
    replaced under its name since, by a decorator for instance.
    """
    found = sys.modules.get(obj.__module__ or "")
    if found is None or obj.__module__ in MAIN:
        return False
    for part in obj.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is obj


def full_name(obj: Any) -> str:
    """Return the ``"package.module:name"`` of a function or class; of others that of their type."""
    named = obj if hasattr(obj, "__qualname__") else type(obj)
    return f"{named.__module__}:{named.__qualname__}"


def resolve_callable(
    spec: str | Callable[..., Any], what: str = "preprocess"
) -> Callable[..., Any]:
    """Return the function that `spec` names, for use in this process.

    Parameters
    ----------
    spec : str or callable
        ``"package.module:function"`` (importing it runs that module's code), or any function.
    what : str
        The argument's name, for messages.

    Raises
    ------
    ModelError
        It cannot be imported, or is not callable.
    ModelNotFoundError
        No such module or name.
    """
    found = import_name(spec, what) if isinstance(spec, str) else spec
    if not callable(found):
        raise ModelError(
            f"{what}={told(spec)} is a {type(found).__name__}, which cannot be called. Give a"
            " function."
        )
    return found
