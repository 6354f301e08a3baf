"""Settings of the whole process: the first of several threads makes them, the last ends them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from approxifer.together import SharedContext


@pytest.fixture
def log() -> list[str]:
    """What was done, in order."""
    return []


@pytest.fixture
def setting(log: list[str]) -> SharedContext:
    """One that tells when it is made and ended."""

    @contextmanager
    def make() -> Iterator[None]:
        log.append("made")
        yield
        log.append("ended")

    return SharedContext(make)


def test_the_first_to_go_leaves_it_to_the_other(setting: SharedContext, log: list[str]) -> None:
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with setting:
            inside.set()
            assert leave.wait(30)

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(30)
    with setting:
        leave.set()
        thread.join()
        assert log == ["made"]
    assert log == ["made", "ended"]


def test_it_is_made_anew_once_all_have_left(setting: SharedContext, log: list[str]) -> None:
    for _ in range(2):
        with setting:
            pass
    assert log == ["made", "ended"] * 2


def test_an_error_ends_it(setting: SharedContext, log: list[str]) -> None:
    with pytest.raises(ZeroDivisionError), setting:
        _ = 1 / 0
    assert log == ["made", "ended"]


def test_one_that_cannot_be_made_is_tried_again(log: list[str]) -> None:
    @contextmanager
    def make() -> Iterator[None]:
        log.append("tried")
        if len(log) == 1:
            raise OSError("not now")
        yield

    setting = SharedContext(make)
    with pytest.raises(OSError, match="not now"), setting:
        pass
    with setting:
        assert log == ["tried", "tried"]
