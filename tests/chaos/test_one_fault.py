"""One fault at a time, in the middle of a run, and how it must end."""

from __future__ import annotations

import pytest

from chaos import schedule as s
from chaos.conftest import Play

BYZANTINE = s.Job(k=2, byzantine=1, rows=160)


@pytest.mark.parametrize(
    "fault",
    [
        s.Slow(2, 2.0),
        s.Slow(2, 10.0),
        s.Hang(1),
        s.Stop(0.3, 1, 0.5),
        s.Restart(0.3, 4),
        s.Leave(0.3),
        s.Vanish(0.3),
        s.Partition(0.2, 0.5),
        s.Partition(0.2),
        s.OutOfMemory(100),
        s.ClockJump(0.2, 3600.0),
    ],
    ids=repr,
)
@pytest.mark.slow
def test_the_output_is_whole(one: Play, fault: s.Fault) -> None:
    assert one(fault).ends == ["whole"]


@pytest.mark.parametrize(
    ("fault", "ends"),
    [
        (s.KillClient(0.4), "killed"),
        (s.Interrupt(0.4), "KeyboardInterrupt"),
        (s.DiskFull(0.3, "data"), "OutputError"),
        (s.DiskFull(0.3, "journal"), "OutputError"),
        (s.CorruptInput(0.05), "InputError"),
    ],
    ids=repr,
)
@pytest.mark.slow
def test_it_ends_with_a_clear_error_and_the_same_command_goes_on(
    one: Play, fault: s.Fault, ends: str
) -> None:
    """Four windows are to come when the fault strikes at the latest."""
    job = s.Job(rows=480)
    assert one(fault, job=job).ends == [ends, "whole"]


@pytest.mark.slow
def test_a_clock_set_back_ends_with_a_clear_error(one: Play) -> None:
    """It stops Dask's own streams, and once stopped the look for that as well."""
    job = s.Job(hang_after=1.0, stall_after=4.0)
    assert one(s.ClockJump(0.2, -3600.0), job=job).ends in (["whole"], ["ClusterError", "whole"])


@pytest.mark.parametrize("rows", [(40,), (40, 41, 99)])
@pytest.mark.slow
def test_poisoned_rows_among_byzantine_workers(one: Play, rows: tuple[int, ...]) -> None:
    """Each share of a group goes to another worker: nobody was left to raise a third time, and the
    group waited for ever."""
    assert one(s.Poison(rows), s.Corruption(3), job=BYZANTINE).ends == ["whole"]
