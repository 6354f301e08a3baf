"""Injected faults, for the demo, the tests and the benchmarks; production code imports none.

::

    faults.install(client, {"worker-1": faults.Slow(10), "worker-2": faults.SwapTopTwo()})
    ...
    faults.remove(client)
"""

from approxifer.pipeline.faults.corruption import (
    BitFlips,
    Collude,
    Corruption,
    Corruptor,
    Noise,
    NotANumber,
    Replay,
    Roll,
    ShuffleRows,
    SignFlip,
    SwapTopTwo,
    WrongShape,
    Zeros,
)
from approxifer.pipeline.faults.execution import Hang, Raise, RunFault, Slow, StuckWeight
from approxifer.pipeline.faults.injection import PLUGIN, Fault, install, remove

__all__ = [
    "PLUGIN",
    "BitFlips",
    "Collude",
    "Corruption",
    "Corruptor",
    "Fault",
    "Hang",
    "Noise",
    "NotANumber",
    "Raise",
    "Replay",
    "Roll",
    "RunFault",
    "ShuffleRows",
    "SignFlip",
    "Slow",
    "StuckWeight",
    "SwapTopTwo",
    "WrongShape",
    "Zeros",
    "install",
    "remove",
]  # fmt: skip
