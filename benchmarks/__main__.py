"""List the benchmarks, or run one: ``python -m approxifer.benchmarks [NAME [ARGUMENTS ...]]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from approxifer.benchmarks import BENCHMARKS

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code.

    What follows the benchmark's name is its own, ``--help`` too.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("-h", "--help"):
        width = max(map(len, BENCHMARKS))
        for name, measures in BENCHMARKS.items():
            print(f"python -m approxifer.benchmarks {name:{width}}  {measures}")
        return 0
    name, *rest = given
    if name not in BENCHMARKS:
        print(f"error: {name!r} is none of {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    module = import_module(f"approxifer.benchmarks.{name}")
    if hasattr(module, "__path__"):
        module = import_module(f"{module.__name__}.__main__")
    try:
        code: int = module.main(rest)
    except KeyboardInterrupt:
        print(f"{name} was interrupted", file=sys.stderr)
        return INTERRUPTED
    return code


if __name__ == "__main__":
    sys.exit(main())
