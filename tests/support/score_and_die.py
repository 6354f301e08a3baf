"""A client that kills itself, as by SIGKILL, once so many windows are written.

python score_and_die.py SCHEDULER IN OUT WINDOWS [OPTIONS, as JSON]
"""

import json
import os
import signal
import sys
from typing import Any

import toy_models
from distributed import Client

from approxifer.pipeline.api import submit


def main() -> None:
    scheduler, store, out, windows, *further = sys.argv[1:]
    options: dict[str, Any] = {"model": toy_models.counted, "append": True}
    options |= json.loads(further[0]) if further else {}
    with Client(scheduler, set_as_default=False) as client:
        job = submit(store, out=out, client=client, k=4, block=5, window=40, **options)
        while job.progress().windows_done < int(windows):
            if job.done():
                job.result()
                raise SystemExit("it ended too soon")
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
