"""What is there when a run begins is kept out of garbage collections, and only for as long."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from approxifer.pipeline.garbage import set_aside


class Cycle:
    def __init__(self) -> None:
        self.me = self


def lost_cycle() -> weakref.ref[Cycle]:
    return weakref.ref(Cycle())


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    """The collector as Python starts it, and no collection but those that the test makes."""
    assert gc.get_freeze_count() == 0
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


def test_what_was_there_is_collected_afterwards_and_what_is_new_meanwhile() -> None:
    old = lost_cycle()
    with set_aside():
        new = lost_cycle()
        gc.collect()
        assert old() is not None
        assert new() is None
    assert old() is None


def test_the_last_of_several_runs_ends_it() -> None:
    old = lost_cycle()
    with set_aside():
        with set_aside():
            pass
        assert gc.get_freeze_count() > 0
        assert old() is not None
    assert gc.get_freeze_count() == 0
    assert old() is None


def test_what_others_have_frozen_stays_so() -> None:
    gc.freeze()
    with set_aside():
        pass
    assert gc.get_freeze_count() > 0
