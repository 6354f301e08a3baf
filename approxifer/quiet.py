"""Other libraries' remarks that are no news to our user, held back."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from approxifer.together import SharedContext


@contextmanager
def _ignoring() -> Iterator[None]:
    with warnings.catch_warnings():
        for remark in (UserWarning, FutureWarning, DeprecationWarning, RuntimeWarning):
            warnings.simplefilter("ignore", remark)
        yield


_quiet = SharedContext(_ignoring)


def quiet() -> SharedContext:
    """Hold back zarr's remarks on what its v3 lacks, xarray's on strange times, and torch's on its
    own deprecations.

    For short calls: the filters are the process's own.
    """
    return _quiet
