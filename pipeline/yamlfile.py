"""Reading a YAML file that must hold one flat mapping: ``cluster.yaml``, ``job.yaml``."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from approxifer.errors import ConfigError


def read_mapping(path: str | Path, *, what: str, example: str) -> dict[str, Any]:
    """The mapping in a file, its keys with underscores (``-`` and ``_`` are alike).

    Parameters
    ----------
    what, example
        For messages: ``"cluster file"``, ``"kind: local"``.

    Raises
    ------
    ConfigError
        The file cannot be read, is not YAML, or holds something else.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such {what}; give the path of a YAML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a {what} ({error})") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        found = "nothing" if content is None else type(content).__name__
        raise ConfigError(f"{path}: holds {found}; it must hold one mapping such as {example!r}")
    return {str(key).replace("-", "_"): value for key, value in content.items()}


def check_keys(
    given: Mapping[str, Any],
    allowed: Collection[str],
    *,
    where: str,
    aliases: Mapping[str, str] | None = None,
) -> None:
    """Refuse keys that are not among those allowed.

    Raises
    ------
    ConfigError
        It names the key and the nearest legal one; ``aliases`` are others' names for ours.
    """
    aliases = aliases or {}
    for key in given:
        if key not in allowed:
            near = difflib.get_close_matches(key, [*allowed, *aliases], n=1)
            name = aliases.get(near[0], near[0]) if near else ""
            hint = f", did you mean {name!r}?" if name in allowed else ""
            raise ConfigError(
                f"{where}: unknown key {key!r}{hint}; allowed: {', '.join(sorted(allowed))}"
            )
