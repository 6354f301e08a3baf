"""Reading a YAML file that must hold one flat mapping: ``cluster.yaml``, ``job.yaml``."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from approxifer.errors import ConfigError
from approxifer.text import one_line


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
        raise ConfigError(f"{path}: not valid YAML: {one_line(error)}") from error
    if not isinstance(content, dict):
        found = "nothing" if content is None else type(content).__name__
        raise ConfigError(f"{path}: holds {found}; it must hold one mapping such as {example!r}")
    return {str(key).replace("-", "_"): value for key, value in content.items()}


def check_keys(
    given: Mapping[str, Any],
    allowed: Collection[str],
    *,
    where: str,
    of: str = "",
    aliases: Mapping[str, str] | None = None,
) -> None:
    """Refuse keys that are not among those allowed.

    Raises
    ------
    ConfigError
        It names the key, what it is a key ``of``, and the nearest legal one; ``aliases`` are
        others' names for ours.
    """
    for key in given:
        if key not in allowed:
            raise ConfigError(
                f"{where}: unknown key {key!r}{of}{nearest(key, allowed, aliases)}; allowed: "
                f"{', '.join(allowed)}"
            )


def nearest(word: str, allowed: Collection[str], aliases: Mapping[str, str] | None = None) -> str:
    """``", did you mean ...?"``, where something allowed is near, by its own or another name."""
    aliases = aliases or {}
    found = difflib.get_close_matches(word, [*allowed, *aliases], n=1)
    name = aliases.get(found[0], found[0]) if found else ""
    return f", did you mean {name!r}?" if name in allowed else ""
