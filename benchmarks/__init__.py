"""Benchmarks: each prints a table and, with ``--out``, writes its figures and the machine as JSON.

``approxifer bench NAME ...`` is ``python -m approxifer.benchmarks.NAME ...``; `BENCHMARKS` has the
names. Those with ``--data`` read ``cifar10.npz`` and ``mnist.npz`` from the folder that it names;
those with ``--quick`` can give a first, rough look.
"""

from collections.abc import Callable, Sequence
from importlib import import_module

#: A benchmark's name, also that of its module, and what it measures.
BENCHMARKS = {
    "accuracy": "what decoding keeps when shares are lost",
    "selective_repair": "what repairing only doubtful rows costs and keeps",
    "byzantine": "workers that lie: how soon they are found, and what they leave behind",
    "stragglers": "slow and hung workers: how long groups and runs take, ours and rivals",
    "commit_latency": "how much later windows are written with spot checks",
    "memory": "the client's peak memory as the input grows",
    "overhead": "fault-free speed against plain Dask",
}


def find(name: str) -> Callable[[Sequence[str]], int]:
    """Return a benchmark's command, which takes its arguments and returns an exit code.

    Raises
    ------
    ConfigError
        If there is no such benchmark; the message names the nearest.
    """
    from approxifer.coding.checks import one_of  # imports NumPy: not for a list of names

    module = import_module(f"approxifer.benchmarks.{one_of('benchmark', name, tuple(BENCHMARKS))}")
    if hasattr(module, "__path__"):
        module = import_module(f"{module.__name__}.__main__")
    command: Callable[[Sequence[str]], int] = module.main
    return command
