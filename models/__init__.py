"""Models: what a user gives becomes a picklable handle that every worker can load and run.

====================== =====================================================================
`open_model`           a path, ``"package.module:factory"`` or object -> `ModelHandle`
`ModelHandle`          self-contained and picklable; ``load(threads)`` -> `Runner`
`Runner`               rows (M, *feature) -> outputs (M, *out), NumPy in and out
`ensure`, `get`        the once-per-process cache of runners that workers use
`run_rows`             any number of rows through micro-batches of exactly M
`probe`                proves on sample rows that rows do not depend on their batch; measures speed
`resolve_callable`     ``"module:function"`` or a function -> the function
====================== =====================================================================

Importing this package, and running a NumPy callable with it, never imports torch: a worker that
does not need torch starts in a fraction of the time.
"""

from approxifer.models.cache import ensure, forget, get
from approxifer.models.handle import ModelHandle, open_model
from approxifer.models.names import resolve_callable
from approxifer.models.probe import Probe, probe
from approxifer.models.rows import Stopped, run_rows
from approxifer.models.runner import Runner
from approxifer.models.runtime import raise_malloc_thresholds

__all__ = [
    "ModelHandle",
    "Probe",
    "Runner",
    "Stopped",
    "ensure",
    "forget",
    "get",
    "open_model",
    "probe",
    "raise_malloc_thresholds",
    "resolve_callable",
    "run_rows",
]
