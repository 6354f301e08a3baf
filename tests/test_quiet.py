"""Other libraries' remarks: held back in any number of threads at once, and not for good."""

from __future__ import annotations

import threading
import warnings

import pytest

from approxifer.quiet import quiet


def test_one_thread_leaves_another_its_quiet() -> None:
    inside, left = threading.Event(), threading.Event()

    def first() -> None:
        with quiet():
            inside.set()
            assert left.wait(30)

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(30)
    with quiet():
        left.set()
        thread.join()
        warnings.warn("a remark", UserWarning, stacklevel=1)
    with pytest.raises(UserWarning, match="a remark"):  # as all warnings are errors here
        warnings.warn("a remark", UserWarning, stacklevel=1)
