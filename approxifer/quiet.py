"""Other libraries' remarks that are no news to our user, held back."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_lock = threading.Lock()
_held = ExitStack()
_inside = 0


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back zarr's remarks on what its v3 lacks, and torch's on its own deprecations.

    For short calls, and for any number of threads at once: the filters are the process's own, and
    ``warnings.catch_warnings`` in two threads has one take the other's away, or leave them for
    good. Here the first to come sets them and the last to go takes them back.
    """
    global _inside
    with _lock:
        if not _inside:
            _held.enter_context(warnings.catch_warnings())
            for remark in (UserWarning, FutureWarning, DeprecationWarning):
                warnings.simplefilter("ignore", remark)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _held.close()
