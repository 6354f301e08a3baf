"""A client that kills itself, as by SIGKILL, once so many windows are written.

python score_and_die.py SCHEDULER IN OUT WINDOWS
"""

import os
import signal
import sys

import toy_models
from distributed import Client

from approxifer.pipeline.api import submit


def main() -> None:
    scheduler, store, out, windows = sys.argv[1:]
    with Client(scheduler, set_as_default=False) as client:
        job = submit(
            store, model=toy_models.counted, out=out, client=client, k=4, block=5, window=40,
            append=True,
        )  # fmt: skip
        while job.progress().windows_done < int(windows):
            if job.done():
                job.result()
                raise SystemExit("it ended too soon")
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
