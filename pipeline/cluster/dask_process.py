"""Settings that the clusters of one Python process have in common, several at a time perhaps."""

from __future__ import annotations

import logging
import threading

import dask
from distributed.utils import silence_logging_cmgr

from approxifer.together import SharedContext

#: For as long as any cluster of ours lives. Dask looks once, so long after each loss of a worker,
#: and closes its nanny, or cancels its job, if it happens to be away again at that moment: never.
#: Nannies and batch jobs bring workers back.
keep_lost_workers = SharedContext(
    lambda: dask.config.set({"distributed.deploy.lost-worker-timeout": "52w"})
)

#: Dask's messages below errors, while any cluster lives that does not ask for them. Dask's own
#: switch, of each cluster, has the first that closes switch them on for the rest.
silent = SharedContext(lambda: silence_logging_cmgr(logging.ERROR))

#: To be held by a thread that starts a scheduler. Each scheduler tries to import Dask's dashboard,
#: and where bokeh is missing, the second of two that try at once may be handed a module that is not
#: whole (Python 3.11), and fail.
starting = threading.Lock()
