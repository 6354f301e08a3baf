"""A client that kills itself, as by SIGKILL, between a conviction and making it good.

python convict_and_die.py SCHEDULER IN OUT
"""

import os
import signal
import sys
from typing import Any

import toy_models
from distributed import Client

from approxifer.pipeline.api import score
from approxifer.pipeline.client import windows


def die(*args: Any, **kwargs: Any) -> None:
    """Called instead of taking rows back; the conviction is in the journal, on the disk."""
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    scheduler, store, out = sys.argv[1:]
    windows.sweep = die
    with Client(scheduler, set_as_default=False) as client:
        report = score(
            store, model=toy_models.slow_linear, out=out, client=client, k=4, stragglers=0,
            byzantine=1, block=5, window=40, scheme="uncoded", check=1, progress=False,
        )  # fmt: skip
    raise SystemExit(f"nobody was convicted:\n{report}")


if __name__ == "__main__":
    main()
