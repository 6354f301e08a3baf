"""What is there when a run begins is kept out of garbage collections, and only for as long."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from approxifer.pipeline.garbage import collect_leftovers, frozen_gc


class Cycle:
    def __init__(self) -> None:
        self.me = self


def lost_cycle() -> weakref.ref[Cycle]:
    return weakref.ref(Cycle())


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    """The collector as Python starts it, and no collection but those that the test makes."""
    assert gc.get_freeze_count() == 0
    collect_leftovers()  # of other tests
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


def test_what_was_there_is_collected_before_the_next_run_and_what_is_new_meanwhile() -> None:
    old = lost_cycle()
    with frozen_gc():
        new = lost_cycle()
        gc.collect()
        assert old() is not None
        assert new() is None
    assert old() is not None
    with frozen_gc():
        assert old() is None


def test_leftovers_are_collected_once_and_not_while_a_run_lasts() -> None:
    with frozen_gc():
        pass
    old = lost_cycle()
    with frozen_gc():
        assert old() is None
        other = lost_cycle()
        collect_leftovers()
        assert other() is not None
    collect_leftovers()
    assert other() is None
    third = lost_cycle()
    collect_leftovers()
    assert third() is not None


def test_the_last_of_several_runs_ends_it() -> None:
    with frozen_gc():
        with frozen_gc():
            pass
        assert gc.get_freeze_count() > 0
    assert gc.get_freeze_count() == 0


def test_what_others_have_frozen_stays_so() -> None:
    gc.freeze()
    with frozen_gc():
        pass
    assert gc.get_freeze_count() > 0
