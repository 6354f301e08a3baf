"""Reading a YAML file that must hold one flat mapping: ``cluster.yaml``, ``job.yaml``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml
import yaml.composer

from approxifer.errors import ConfigError
from approxifer.jsonable import jsonable
from approxifer.text import did_you_mean, one_line

#: Bytes of the largest file that is read.
MOST_BYTES = 1 << 18


def read_mapping(path: str | Path, *, what: str, example: str) -> dict[str, Any]:
    """The mapping in a file, its keys with underscores (``-`` and ``_`` are alike).

    Parameters
    ----------
    what, example
        For messages: ``"cluster file"``, ``"kind: local"``.

    Raises
    ------
    ConfigError
        The file cannot be read, is not YAML, is large, or holds something else: aliases, tags,
        or values that have no form in JSON.
    """
    try:
        with Path(path).open("rb") as file:
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise ConfigError(f"{path}: is larger than {MOST_BYTES:,} bytes: no {what}")
        content = yaml.load(text.decode(), Loader=_Loader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such {what}; give the path of a YAML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a {what} ({error})") from error
    except ConfigError:
        raise
    except Exception as error:  # of a value's constructor, and of depth, whatever it likes
        raise ConfigError(f"{path}: not valid YAML: {one_line(error)}") from error
    if not isinstance(content, dict):
        found = "nothing" if content is None else type(content).__name__
        raise ConfigError(f"{path}: holds {found}; it must hold one mapping such as {example!r}")
    try:
        return {str(key).replace("-", "_"): jsonable(value) for key, value in content.items()}
    except ValueError as error:
        raise ConfigError(f"{path}: {one_line(error)}") from error


class _Loader(yaml.SafeLoader):
    """Without aliases: a few lines of them stand for more than memory holds, or for ever."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            where = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not taken", where)
        return super().compose_node(parent, index)


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
                f"{where}: unknown key {key!r}{of}{did_you_mean(key, allowed, aliases)}; allowed: "
                f"{', '.join(allowed)}"
            )
