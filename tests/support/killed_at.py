"""A client with Byzantine workers that kills itself, as by SIGKILL, before its n-th step.

A step is whatever another process can see of a run: an fsync, a rename, a message to the scheduler,
a share or its key sent.

python killed_at.py SCHEDULER IN OUT N      (0: not at all; it prints how many steps there were)
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import toy_models
from distributed import Client

from approxifer.pipeline.api import score
from approxifer.pipeline.client import transport
from approxifer.pipeline.client.connection import Connection

#: Two windows, both open at once; one row of each share is checked, so that a Byzantine worker gets
#: that far.
OPTIONS: dict[str, Any] = {
    "model": toy_models.slow_linear,
    "scheme": "uncoded",
    "k": 4,
    "byzantine": 1,
    "check": 1,
    "block": 5,
    "window": 200,
    "progress": False,
}


class Steps:
    """Counts the steps of this process, and ends it before the ``last`` one."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.taken = 0

    def watch(self, owner: Any, name: str) -> None:
        """Count the calls of a function."""
        call: Callable[..., Any] = getattr(owner, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            self.taken += 1
            if self.taken == self.last:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **named)

        setattr(owner, name, counted)


def main() -> None:
    scheduler, store, out, last = sys.argv[1:]
    steps = Steps(int(last))
    for owner, names in {
        os: ("fsync", "rename", "replace", "ftruncate", "unlink"),
        Connection: ("call",),
        transport: ("push", "submit"),
    }.items():
        for name in names:
            steps.watch(owner, name)
    with Client(scheduler, set_as_default=False) as client:
        report = score(store, out=out, client=client, **OPTIONS)
    print(steps.taken, len(report.convicted))


if __name__ == "__main__":
    main()
