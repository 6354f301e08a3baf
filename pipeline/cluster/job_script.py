"""Paths and names in a job script, quoted: dask-jobqueue writes them into it as they are.

A space in one would end the word, and ``$(...)`` would be run on every node. Two things stay as the
user wrote them, as they are meant to be shell or directives: ``job-script-prologue`` and
``job-extra-directives``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from approxifer.errors import ConfigError

#: A path may begin with a variable of the node, as in ``$TMPDIR/dask``; all else is literal.
_VARIABLE = re.compile(r"\$(?:\w+|\{\w+\})(?=/|$)")
#: Keys whose values are the user's own lines of the script.
LINES = ("env_extra", "job_script_prologue")
_LISTS = (
    *LINES, "extra", "header_skip", "job_directives_skip", "job_extra", "job_extra_directives",
    "worker_extra_args",
)  # fmt: skip
_TEXTS = (
    "account", "config_name", "interface", "job_name", "local_directory", "log_directory", "name",
    "project", "protocol", "python", "queue", "shebang", "worker_command",
)  # fmt: skip
#: Options of ``#SBATCH`` whose values are names and paths.
_SBATCH = re.compile(r"#SBATCH (-[JeopA]) (.*)")
#: What no directive of any batch system takes for anything else than itself.
_PLAIN = re.compile(r"[\w./:@%+=,~^-]*")
#: Keys whose values go into directives of the batch system.
_DIRECTIVES = ("account", "job_name", "log_directory", "name", "project", "queue")


def word(value: object) -> str:
    """One word of a shell's command, whatever is in it.

    >>> word("a b"), word("$TMPDIR/a b"), word("$(id)")
    ("'a b'", '"$TMPDIR"\\'/a b\\'', "'$(id)'")
    """
    text = str(value)
    found = _VARIABLE.match(text)
    if found is None:
        return shlex.quote(text)
    rest = text[found.end() :]
    return f'"{found[0]}"{shlex.quote(rest) if rest else ""}'


def option(value: object) -> str:
    """One entry of ``worker-extra-args``: a word, or an option and its value in one text."""
    name, space, rest = str(value).partition(" ")
    return f"{word(name)} {word(rest)}" if space and name.startswith("--") else word(value)


def check_values(kind: str, options: Mapping[str, Any], origin: str) -> None:
    """Refuse values of other types, and those that cannot be quoted: a line break would end a
    directive.

    Raises
    ------
    ConfigError
    """
    for key, value in options.items():
        entries = value if isinstance(value, list) else [None]
        if key in _LISTS and not all(isinstance(one, str | int | float) for one in entries):
            if value is not None:
                raise ConfigError(f"{origin}: {key}: {value!r} does not do: give a list of texts")
        elif key in _TEXTS and not isinstance(value, str | None):
            raise ConfigError(f"{origin}: {key}: {value!r} does not do: give a text")
        elif key == "scheduler_options" and not isinstance(value, Mapping | None):
            raise ConfigError(f"{origin}: {key}: {value!r} does not do: give a mapping")
        texts = value if isinstance(value, list) else [value]
        for text in texts:
            if key in LINES or not isinstance(text, str):
                continue
            if any(ord(char) < 32 or ord(char) == 127 for char in text):
                raise ConfigError(
                    f"{origin}: {key}: {text!r} does not do: it goes into a job script, and may "
                    "hold no line breaks or other control characters"
                )
            if key in _DIRECTIVES and kind != "slurm" and not _PLAIN.fullmatch(text):
                raise ConfigError(
                    f"{origin}: {key}: {text!r} does not do: it goes into a directive of {kind}, "
                    "which has no sure way of quoting. Give one of letters, digits and ./:@%+=,-"
                )


def quoted(keywords: Mapping[str, Any], python: str) -> dict[str, Any]:
    """The keywords of one job, with every value quoted that becomes a word of its command.

    Parameters
    ----------
    keywords
        Of dask-jobqueue's class of one job.
    python
        The interpreter where none is given. One that is given may be a command of several words.
    """
    made = dict(keywords)
    extra = [option(value) for value in made.get("worker_extra_args") or ()]
    security = made.pop("security", None)
    if security:
        files = security.get_tls_config_for_role("worker")
        for key, value in files.items():
            if key != "ciphers":  # which the command line does not take
                extra += [f"--tls-{key.replace('_', '-')}", word(value)]
    made["worker_extra_args"] = extra
    for key in ("name", "local_directory", "interface", "protocol", "death_timeout"):
        if made.get(key) is not None:
            made[key] = word(made[key])
    if made.get("python") is None:
        made["python"] = shlex.quote(python)
    return made


def quoted_header(header: str) -> str:
    """The directives of Slurm with names and paths in quotes, where they need any."""
    return "\n".join(
        _SBATCH.sub(lambda f: f"#SBATCH {f[1]} {_directive(f[2])}", line)
        for line in header.split("\n")
    )


def _directive(value: str) -> str:
    """A value as sbatch reads it: in double quotes, in which a backslash makes the next literal."""
    if _PLAIN.fullmatch(value):
        return value
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'
